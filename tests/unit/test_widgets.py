"""The playground and its tables, with a summariser that only repeats: what is escaped, marked and said."""

import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from IPython.display import HTML

from summkit import progress
from summkit.errors import SummkitError
from summkit.inference.generation import Summary
from summkit.reporting import widgets

ARTICLE = "Ann Reed opened the bridge over the Marran on 3 March."


class FakeModel:
    """Calls what is hooked to it before each step, as a torch module does."""

    def __init__(self):
        self.hooks = []

    def register_forward_pre_hook(self, hook):
        self.hooks.append(hook)
        return SimpleNamespace(remove=lambda: self.hooks.remove(hook))

    def step(self):
        for hook in self.hooks:
            hook(self, ())


class Fake:
    """Answers with fixed sentences; remembers how it was asked."""

    def __init__(self, base="Ann Reed opened a bridge.", adapted="Bob Stone opened 12 bridges.", cut=0):
        self.answers, self.cut, self.asked = {True: base, False: adapted}, cut, []
        self.model = FakeModel()

    def summarize(self, documents, decoding="greedy", base=False, seed=0):
        if not documents[0].strip():
            raise SummkitError("document 1: empty; there is no text to summarise")
        self.asked.append((decoding, base))
        return [Summary(self.answers[base], True, 9, self.cut)]


class Reader(HTMLParser):
    """What a browser would make of it: tags in order, balanced, and the text inside <mark>."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.marked = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "br":
            return
        self.open.append(tag)
        if tag == "mark":
            self.marked.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "mark" in self.open:
            self.marked[-1] += text


def test_text_is_escaped_before_the_marks_are_added():
    shown = widgets.marked("<script>alert(1)</script> Zed & <b>Ann</b>", ARTICLE)
    assert "<script" not in shown and "<b>" not in shown
    assert "&lt;script&gt;" in shown and " &amp; " in shown
    assert Reader(shown).marked == ["1", "Zed"]


def test_nothing_is_marked_in_other_languages_and_an_empty_answer_is_seen():
    row = {
        "document": "Die Brücke über die Müggel öffnet für Fußgänger.",
        "base": "Das Rathaus öffnet.",
        "fine_tuned": "",
    }
    page = widgets.side_by_side([row]).data
    assert Reader(page).marked == ["Marked"] and "; only in English texts." in page and "<i>(empty)</i>" in page
    assert "only in English" not in widgets.side_by_side([{"document": ARTICLE, "base": "Zed."}]).data


@pytest.mark.parametrize("key", ["id", "document", "reference", "base", "fine_tuned"])
def test_no_cell_of_the_table_lets_markup_through(key):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    row = {"id": "1", "document": ARTICLE, "reference": "r", "base": "b", "fine_tuned": "f"} | {key: evil}
    found = Reader(widgets.side_by_side([row]).data).tags
    assert set(found) <= {"div", "b", "br", "p", "mark"}


def test_only_what_the_article_lacks_is_marked():
    shown = widgets.side_by_side([{"document": ARTICLE, "base": "Ann Reed, 3 March.", "fine_tuned": "Bob Stone, 12."}])
    assert isinstance(shown, HTML)
    assert Reader(shown.data).marked == ["Bob", "Stone", "12", "Marked"]


def test_the_table_quotes_and_does_not_copy():
    text = " ".join(f"w{n}" for n in range(100))
    shown = widgets.side_by_side([{"id": "7", "document": text, "base": "x"}]).data
    assert "w24" in shown and "w25" not in shown and "article 7</b>" in shown
    assert "reference" not in shown


def test_no_script_and_no_style_sheet():
    shown = widgets.playground(Fake()).data
    assert "<script" not in shown and "<style" not in shown and "class=" not in shown


@pytest.mark.parametrize(("which", "bases"), [("both", [True, False]), ("base", [True]), ("adapter", [False])])
def test_the_chosen_answers_and_no_other(which, bases):
    fake = Fake(base="one answer", adapted="another answer")
    shown = widgets.answer_html(fake, ARTICLE, which, "beam")
    assert fake.asked == [("beam", base) for base in bases]
    assert ("one answer" in shown, "another answer" in shown) == (True in bases, False in bases)


def test_errors_are_shown_in_words():
    shown = widgets.answer_html(Fake(), "  ")
    assert "No summary" in shown and "no text to summarise" in shown
    assert "its last 1,234 tokens were cut" in widgets.answer_html(Fake(cut=1234), ARTICLE)
    assert "cut" not in widgets.answer_html(Fake(), ARTICLE)


@pytest.mark.parametrize("text", ["word & <b>Name</b> 7 " * 50_000, "A" * 1_000_000, "Aa." * 333_000])
def test_a_text_of_a_megabyte_is_shown_in_a_moment(text):
    began = time.process_time()
    shown = widgets.answer_html(Fake(), text)
    assert time.process_time() - began < 10
    assert len(shown) < 5_000


def test_without_a_kernel_or_headless_it_is_plain_html(monkeypatch):
    assert isinstance(widgets.playground(Fake()), HTML)  # no kernel in a test
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setenv("SUMMKIT_HEADLESS", "1")
    assert isinstance(widgets.playground(Fake()), HTML)


def test_each_answer_says_how_and_in_how_many_seconds_it_was_written(monkeypatch):
    now = iter([10.0, 12.5, 20.0, 20.04])
    monkeypatch.setattr("summkit.reporting.widgets.time", SimpleNamespace(perf_counter=lambda: next(now)))
    shown = widgets.answer_html(Fake(), ARTICLE, decoding="beam")
    assert "<b>base (beam, 2.5 s)</b>" in shown and "<b>fine-tuned (beam, 0.0 s)</b>" in shown
    assert shown.count('dir="auto"') == 3


@pytest.fixture
def live(monkeypatch):
    """The playground as in a live notebook, shown; `press` waits for its answers."""
    monkeypatch.delenv("SUMMKIT_HEADLESS", raising=False)
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    displayed = []
    handle = SimpleNamespace(update=displayed.append)
    monkeypatch.setattr("IPython.display.display", lambda data, **_: displayed.append(data) or handle)

    def show(summarizer):
        playground = widgets.playground(summarizer)
        playground._ipython_display_()
        playground.displayed = displayed

        def press():
            playground.start.click()
            playground.thread.join(30)
            return displayed[-1].data

        return playground, press

    return show


def test_a_page_keeps_the_example_and_says_what_the_controls_need(live):
    playground, _ = live(Fake())
    controls, example = playground.displayed
    assert controls["text/plain"] == "The controls of the playground need a running kernel."
    assert "Port Ennick" in example.data and "fine-tuned (greedy" in example.data


def test_the_button_answers_with_what_was_chosen(live):
    fake = Fake()
    playground, press = live(fake)
    assert fake.asked == [("greedy", True), ("greedy", False)]
    playground.text.value, playground.model.value, playground.decoding.value = ARTICLE, "adapter", "nucleus"
    assert "Bob" in press()
    assert fake.asked[2:] == [("nucleus", False)] and fake.model.hooks == []
    assert (playground.start.disabled, playground.stop.disabled, playground.status.value) == (False, True, "")


def test_the_button_says_what_went_wrong(live):
    playground, press = live(Fake())
    playground.text.value = ""
    assert "no text to summarise" in press()
    playground.summarizer.summarize = lambda *_, **__: 1 / 0
    assert "ZeroDivisionError" in press() and not playground.start.disabled


def test_one_text_is_answered_at_a_time_and_can_be_stopped(live):
    fake = Fake()
    playground, _ = live(fake)
    began = threading.Event()
    asked = []

    def summarize(*_, **__):
        asked.append(1)
        while True:
            fake.model.step()
            began.set()
            time.sleep(0.01)

    fake.summarize = summarize
    playground.start.click()
    playground.start.click()
    assert began.wait(30) and playground.start.disabled and not playground.stop.disabled
    while not playground.status.value.startswith("greedy: "):
        time.sleep(0.05)
    playground.stop.click()
    playground.thread.join(30)
    assert asked == [1] and fake.model.hooks == [] and not playground.start.disabled
    assert playground.status.value.startswith("Stopped")
    assert "Port Ennick" in playground.displayed[-1].data, "the example stays"


def test_a_bar_in_a_notebook_is_one_line_of_text_that_goes_when_it_is_cleared(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=lambda data, raw: shown.append(data))
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data) or handle)
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.delenv("SUMMKIT_HEADLESS", raising=False)
    for leave, last in ((False, ""), (True, "rows: 100%")):
        with progress.bar(total=2, desc="rows", leave=leave, disable=False, mininterval=0) as bar:
            bar.update(2)
        assert shown[0]["text/plain"].startswith("rows:   0%")
        assert shown[-1]["text/plain"].startswith(last) and all(
            set(data) <= {"text/plain", "text/html"} for data in shown
        )
        assert ("text/html" in shown[-1]) == (not leave)
        shown.clear()


def test_a_bar_of_another_thread_is_not_shown(monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.delenv("SUMMKIT_HEADLESS", raising=False)
    found = []
    thread = threading.Thread(target=lambda: found.append(progress.bar(total=1, disable=False).disable))
    thread.start()
    thread.join()
    assert found == [True]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's way to quote")
def test_the_command_for_a_terminal_names_the_interpreter_and_quotes_paths(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.chdir(tmp_path)
    for python, shown in ((tmp_path / ".venv/bin/python", ".venv/bin/python"), (Path("/opt/py"), "/opt/py")):
        monkeypatch.setattr("sys.executable", str(python))
        said = progress.command("summarize", "article.txt", "--adapter", Path("my runs/a"))
        assert said == f"{shown} -m summkit summarize article.txt --adapter 'my runs/a'"


def test_on_windows_a_command_is_quoted_as_there(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: str(Path(sys.executable).with_name("summkit")))
    monkeypatch.setattr("summkit.progress.os", SimpleNamespace(name="nt"))
    assert progress.command("--adapter", "my runs") == 'summkit --adapter "my runs"'
