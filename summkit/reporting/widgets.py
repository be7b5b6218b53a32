"""Show answers side by side as HTML, and a playground for your own texts."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from summkit import progress
from summkit.data import sentences
from summkit.errors import SummkitError
from summkit.evaluation import unsupported_spans
from summkit.evaluation.languages import USUAL, choose_tokenizer
from summkit.inference.generation import DECODINGS
from summkit.models import loading

if TYPE_CHECKING:
    from IPython.display import HTML

    from summkit.inference.generation import Summarizer

COLUMNS = {"document": "article", "reference": "reference", "base": "base", "fine_tuned": "fine-tuned"}
COLUMNS |= {"supported": "fine-tuned, best supported"}
EXAMPLE = (
    "The night ferry from Port Ennick to Sant Brenner will stop running on 3 March, its owner said on Monday.\n"
    "Sound & Isles said that 41 passengers a crossing, on average, did not pay for the fuel. The line was opened in "
    "1968 and carried 112,000 people in its best year. Councillor Delia Strake asked the company to wait until the new "
    "bridge over the Marran is open. Its 26 sailors will be offered work on the day boats."
)
WIDGET = "application/vnd.jupyter.widget-view+json"
# JupyterLab writes an error in place of controls whose kernel is gone. Text in the controls runs as its script does.
STYLE = (
    "<style>.jp-OutputArea-output.jupyter-widgets:not(:has(*)) { display: none }"
    ".summkit-playground textarea { unicode-bidi: plaintext; text-align: start }</style>"
)
MARK = '<mark style="background:#ffd54f;color:#1a1a1a" title="not in the article">'


def marked(summary: str, document: str) -> str:
    """Return a summary as escaped HTML, with <mark> around each name or number that `document` does not support.

    The rules for names are English: in other languages nothing is marked.
    """
    parts = []
    last = 0
    for start, end in unsupported_spans(summary, document) if _is_english(document) else []:
        parts += [html.escape(summary[last:start]), MARK, html.escape(summary[start:end]), "</mark>"]
        last = end
    return "".join([*parts, html.escape(summary[last:])])


def _is_english(document: str) -> bool:
    return choose_tokenizer([document]) == USUAL


def side_by_side(rows: Iterable[dict[str, Any]], notes: dict[str, str] | None = None) -> HTML:
    """Return summaries side by side, with marks on names and numbers that the article does not support.

    Where the page is narrow, as on a phone, the columns of a row stand below each other.

    Args:
        rows: Dicts with `document` and any of id, reference, base, fine_tuned and supported. A column that no row has
            is omitted. At most 25 words of an article are shown.
        notes: What is said beside the heading of a column, by key.
    """
    from IPython.display import HTML
    from jinja2 import Environment, PackageLoader

    rows = [{"id": None, **dict.fromkeys(COLUMNS), **row} for row in rows]
    columns = {key: name for key, name in COLUMNS.items() if any(row[key] is not None for row in rows)}
    template = Environment(loader=PackageLoader("summkit.reporting"), autoescape=True)
    page = template.get_template("side_by_side.html.j2")
    english = all(_is_english(row["document"]) for row in rows)
    shown = {"rows": rows, "columns": columns, "marked": marked, "mark": MARK, "english": english, "notes": notes or {}}
    return HTML(page.render(**shown, excerpt=sentences.excerpt))


def answer_html(summarizer: Summarizer, text: str, which: str = "both", decoding: str = "greedy") -> str:
    """Return the answers to a text as HTML; an error in the input is shown as a sentence.

    Args:
        summarizer: Answers with and without the adapter.
        text: The article. If it is too long for the model, the number of cut tokens is shown.
        which: "base", "adapter", or "both" side by side.
        decoding: See `DECODINGS`.
    """
    models = {"base": [True], "adapter": [False], "both": [True, False]}[which]
    row: dict[str, Any] = {"document": text}
    notes = {}
    cut = 0
    for base in models:
        began = time.perf_counter()
        try:
            [answer] = summarizer.summarize([text], decoding=decoding, base=base)
        except SummkitError as error:
            return _refusal(str(error))
        key = "base" if base else "fine_tuned"
        row[key] = answer.text
        notes[key] = f"{decoding}, {time.perf_counter() - began:.1f} s"
        cut = max(cut, answer.cut)
    note = f"<p>The text is too long: its last {cut:,} tokens were cut and not read.</p>" if cut else ""
    return note + side_by_side([row], notes).data


def _refusal(reason: str) -> str:
    return f"<p><b>No summary:</b> {html.escape(reason)}</p>"


def playground(summarizer: Summarizer, text: str = EXAMPLE) -> HTML | Playground:
    """Show controls: paste a text, choose base, adapter or both and the decoding, and see the answers side by side.

    Without a kernel, or in a headless run, show `text` with its answers as plain HTML.
    """
    from IPython import get_ipython
    from IPython.display import HTML

    if progress.headless() or get_ipython() is None:
        return HTML(answer_html(summarizer, text))
    return Playground(summarizer, text)


class Playground:
    """Controls of a live notebook, and below them the answers as HTML, which a saved page keeps.

    One text is answered at a time, in a thread: the page shows how many steps were made, and "Stop" ends it.
    """

    def __init__(self, summarizer: Summarizer, text: str) -> None:
        import ipywidgets

        self.summarizer = summarizer
        self._stopped = threading.Event()
        size = {"width": "98%", "height": "12em"}
        self.text = ipywidgets.Textarea(text, layout=size, placeholder="Paste a text here")
        self.model = ipywidgets.ToggleButtons(options=["base", "adapter", "both"], value="both")
        self.decoding = ipywidgets.Dropdown(options=list(DECODINGS))
        self.start = ipywidgets.Button(description="Summarise")
        self.stop = ipywidgets.Button(description="Stop", disabled=True)
        self.status = ipywidgets.Label()
        self.start.on_click(self._begin)
        self.stop.on_click(lambda _: self._stopped.set())
        buttons = ipywidgets.HBox([self.start, self.stop, self.status], layout={"flex_flow": "row wrap"})
        self.controls = ipywidgets.VBox([self.text, self.model, self.decoding, buttons])
        self.controls.add_class("summkit-playground")

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        view = {"version_major": 2, "version_minor": 0, "model_id": self.controls.model_id}
        display({WIDGET: view, "text/plain": "The controls of the playground need a running kernel."}, raw=True)
        answers = HTML(STYLE + answer_html(self.summarizer, self.text.value))
        self._output = display(answers, display_id=True)

    def _begin(self, _: Any) -> None:
        if self.start.disabled:  # a second click, sent before the page knew of the first
            return
        self.start.disabled = True
        self.stop.disabled = False
        self._stopped.clear()
        self._steps = 0
        self._began = time.perf_counter()
        chosen = (self.text.value, self.model.value, self.decoding.value)
        self.thread = threading.Thread(target=self._answer, args=chosen, daemon=True)
        self.thread.start()

    def _answer(self, text: str, model: str, decoding: str) -> None:
        """Show the answers below the controls, and what there is to say beside the buttons."""
        from IPython.display import HTML

        base = loading.unwrapped(self.summarizer.model)
        base = base.get_base_model() if hasattr(base, "get_base_model") else base
        hook = base.register_forward_pre_hook(lambda *_: self._step(decoding))
        page = ""
        said = ""
        try:
            page = answer_html(self.summarizer, text, model, decoding)
        except KeyboardInterrupt:
            said = "Stopped; below are the last answers."
        except Exception as error:  # a traceback in a widget's output does not help users
            page = _refusal(f"{type(error).__name__}: {error}")
        finally:
            hook.remove()
        if page:
            self._output.update(HTML(STYLE + page))
        self.status.value = said
        self.stop.disabled = True
        self.start.disabled = False

    def _step(self, decoding: str) -> None:
        """Count a step of the model, or end the answer."""
        if self._stopped.is_set():
            raise KeyboardInterrupt
        self._steps += 1
        self.status.value = f"{decoding}: {self._steps} steps, {time.perf_counter() - self._began:.0f} s"
