"""Labels from a teacher: asked once, kept through a kill, never mixed, and handed on as data for a student."""

import copy
import inspect
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import datasets
import pytest

from summkit.cli import main
from summkit.data import templates
from summkit.distillation import labelling, teachers
from summkit.errors import SummkitError
from tests import warm
from tests.conftest import hear_ctrl_c
from tests.endpoint import LocalEndpoint, failure

PACKAGE = Path(__file__).parents[2]
ROWS = [
    {"id": f"a{number}", "document": f"Abstract {number} of bridges" + " and rivers" * number} for number in range(40)
]
WORDING = templates.get_wording("topics")


def answer(document: str, temperature: float) -> str:
    """Every fifth abstract needs a second attempt, every ninth never gets an answer that is one."""
    number = int(document.split()[1])
    if number % 9 == 8 or (number % 5 == 4 and not temperature):
        return "none" * (number % 2)
    return f"* Bridges; river {number}; at {temperature}."


def check(document: str, text: str):
    return (None, "empty") if not text else (None, "refusal") if text.startswith("none") else (text.strip("* ."), None)


class Teacher:
    """Answers without a server, and remembers what it was asked, how warmly and with which seed."""

    def __init__(self, max_new_tokens=24, **about):
        self.max_new_tokens = max_new_tokens
        self.about = {"model": "teacher", "revision": None, "prompt": "0123", "base_url": "http://here/v1"} | about
        self.asked: list[tuple] = []

    def ask(self, documents, temperature=0.0, seed=0):
        self.asked += [(document, temperature, seed) for document in documents]
        return [answer(document, temperature) for document in documents]


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def label(teacher, path, rows=ROWS, **changes):
    return labelling.label_rows(rows, teacher, path, check=check, **({"batch_size": 8} | changes))


def test_every_row_gets_its_line(tmp_path):
    teacher = Teacher()
    labels = label(teacher, tmp_path / "deep" / "labels.jsonl", seed=3)
    lines = {line["id"]: line for line in lines_of(tmp_path / "deep" / "labels.jsonl")}
    assert set(lines) == {row["id"] for row in ROWS} == labels.labels.keys() | labels.set_aside.keys()
    about = {"model": "teacher", "revision": None, "prompt": "0123"}
    about |= {"max_new_tokens": 24, "temperature": 0.0, "seed": 3}
    assert all(line.items() >= about.items() and len(line["text"]) == 12 for line in lines.values())
    assert lines["a1"] | about == lines["a1"] and "base_url" not in lines["a1"]
    found = {key: lines["a1"][key] for key in ("label", "status", "reason", "raw", "attempts", "last_temperature")}
    assert found == {
        "label": "Bridges; river 1; at 0.0", "status": "ok", "reason": None, "raw": "* Bridges; river 1; at 0.0.",
        "attempts": 1, "last_temperature": 0.0,
    }  # fmt: skip
    assert (labels.asked, labels.reused, labels.labels["a1"]) == (40, 0, "Bridges; river 1; at 0.0")
    lengths = [len(document) for document, temperature, _ in teacher.asked if not temperature]
    assert lengths == sorted(lengths, reverse=True), "what is too long for the memory fails first"


def test_what_is_no_answer_is_asked_again_warmer_and_then_set_aside(tmp_path):
    teacher = Teacher()
    labels = label(teacher, tmp_path / "l.jsonl", seed=3)
    lines = {line["id"]: line for line in lines_of(tmp_path / "l.jsonl")}
    assert [asked[1:] for asked in teacher.asked if asked[0] == ROWS[4]["document"]] == [(0.0, 3), (0.3, 4)]
    assert (lines["a4"]["attempts"], lines["a4"]["last_temperature"], lines["a4"]["status"]) == (2, 0.3, "ok")
    assert labels.labels["a4"] == "Bridges; river 4; at 0.3" and lines["a4"]["temperature"] == 0.0
    assert [asked[1:] for asked in teacher.asked if asked[0] == ROWS[8]["document"]] == [(0.0, 3), (0.3, 4), (0.3, 5)]
    assert (lines["a8"]["attempts"], lines["a8"]["label"], lines["a8"]["reason"]) == (3, None, "empty")
    assert labels.set_aside == {"a8": "empty", "a17": "refusal", "a26": "empty", "a35": "refusal"}
    assert labels.counts() == {"labelled": 36, "empty": 2, "refusal": 2}
    once = Teacher()
    assert "a4" in label(once, tmp_path / "m.jsonl", retries=0).set_aside and len(once.asked) == 40


def test_a_second_call_asks_nothing_again(tmp_path):
    first = label(Teacher(), tmp_path / "l.jsonl", rows=ROWS[:30])
    before = (tmp_path / "l.jsonl").read_bytes()
    teacher = Teacher()
    again = label(teacher, tmp_path / "l.jsonl", rows=ROWS[:30])
    assert (teacher.asked, again.asked, again.reused) == ([], 0, 30)
    assert (again.labels, again.set_aside) == (first.labels, first.set_aside)
    assert (tmp_path / "l.jsonl").read_bytes() == before
    more = label(teacher, tmp_path / "l.jsonl")
    assert {document for document, *_ in teacher.asked} == {row["document"] for row in ROWS[30:]}
    assert (more.asked, more.reused) == (10, 30) and (tmp_path / "l.jsonl").read_bytes().startswith(before)
    few = label(teacher, tmp_path / "l.jsonl", rows=ROWS[:2])
    assert few.labels.keys() == {"a0", "a1"}, "rows that were not asked for are not handed out"


def test_a_torn_line_is_asked_again(tmp_path):
    path, whole = tmp_path / "l.jsonl", tmp_path / "whole.jsonl"
    label(Teacher(), whole)
    path.write_bytes(whole.read_bytes()[:-30])
    torn = lines_of(whole)[-1]["id"]
    teacher = Teacher()
    labels = label(teacher, path)
    assert (labels.asked, labels.reused) == (1, 39)
    assert {document for document, *_ in teacher.asked} == {row["document"] for row in ROWS if row["id"] == torn}
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("key", "teacher", "changes"),
    [
        ("prompt '0123', now '4567' is asked for", Teacher(prompt="4567"), {}),
        ("model 'teacher', now 'other' is asked for", Teacher(model="other"), {}),
        ("revision None, now 'abc' is asked for", Teacher(revision="abc"), {}),
        ("max_new_tokens 24, now 48 is asked for", Teacher(max_new_tokens=48), {}),
        ("temperature 0.0, now 0.7 is asked for", Teacher(), {"temperature": 0.7}),
        ("seed 0, now 1 is asked for", Teacher(), {"seed": 1}),
    ],
)
def test_answers_of_another_kind_are_not_mixed_in(tmp_path, key, teacher, changes):
    label(Teacher(), tmp_path / "l.jsonl", rows=ROWS[:3])
    before = (tmp_path / "l.jsonl").read_bytes()
    with pytest.raises(SummkitError, match=f"line 1: labelled with {key}; choose another file, or delete this one"):
        label(teacher, tmp_path / "l.jsonl", **changes)
    assert (tmp_path / "l.jsonl").read_bytes() == before and teacher.asked == []


def test_a_file_that_does_not_say_how_long_answers_may_be_goes_on(tmp_path):
    path = tmp_path / "l.jsonl"
    label(Teacher(), path, rows=ROWS[:3])
    older = [{key: value for key, value in line.items() if key != "max_new_tokens"} for line in lines_of(path)]
    path.write_text("".join(json.dumps(line) + "\n" for line in older))
    labels = label(Teacher(max_new_tokens=48), path, rows=ROWS[:4])
    assert (labels.asked, labels.reused) == (1, 3) and lines_of(path)[-1]["max_new_tokens"] == 48


def test_a_row_whose_text_has_changed_is_named(tmp_path):
    label(Teacher(), tmp_path / "l.jsonl", rows=ROWS[:3])
    changed = [{"id": "a1", "document": "Abstract 1 of something else"}]
    with pytest.raises(SummkitError, match="the row 'a1' had another text"):
        label(Teacher(), tmp_path / "l.jsonl", rows=changed)


@pytest.mark.parametrize("change", [{"label": None}, {"status": "set aside"}, {"status": None}, {"label": 3}])
def test_a_line_without_label_and_reason_is_named(tmp_path, change):
    path = tmp_path / "l.jsonl"
    label(Teacher(), path, rows=ROWS[:3])
    lines = lines_of(path)
    lines[1] |= change
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SummkitError, match="l.jsonl, line 2: neither a label nor a reason; delete the line"):
        label(Teacher(), path, rows=ROWS[:3])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([ROWS[0], ROWS[1], ROWS[0]], "row 3: the id 'a0' is not unique"),
        ([{"id": 1, "document": "A text."}, {"id": "1", "document": "B text."}], "row 2: the id '1' is not unique"),
        ([ROWS[0], {"id": "b", "document": " "}], r"row 2: the document cannot be used \(empty\)"),
        ([ROWS[0], {"id": "b"}], r"row 2: .* \(not text\)"),
        ([], "no rows to label"),
    ],
)
def test_rows_that_cannot_be_asked_are_named_before_any_is(tmp_path, rows, words):
    teacher = Teacher()
    with pytest.raises(SummkitError, match=words):
        label(teacher, tmp_path / "l.jsonl", rows=rows)
    assert teacher.asked == [] and not (tmp_path / "l.jsonl").exists()


def test_an_answer_with_half_a_character_does_not_break_the_file(tmp_path):
    teacher = Teacher()
    teacher.ask = lambda documents, temperature, seed: ["topic \ud800; L\u00f6we\u2028x", "a\0b"][: len(documents)]
    labels = labelling.label_rows(
        ROWS[:2], teacher, tmp_path / "l.jsonl", check=lambda _, text: (text, None), retries=0
    )
    assert labels.labels == {"a1": "topic ?; L\u00f6we\u2028x"}
    assert labels.set_aside == {"a0": "NUL or half a character"}
    again = labelling.label_rows(ROWS[:2], Teacher(), tmp_path / "l.jsonl", check=check)
    assert (again.labels, again.asked) == (labels.labels, 0)


def test_a_file_that_cannot_be_written_is_found_out_before_anything_is_asked(tmp_path):
    teacher = Teacher()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "l.jsonl", tmp_path):
        with pytest.raises(SummkitError, match="choose another file"):
            label(teacher, path)
    assert teacher.asked == []


CHILD = """
import json, sys
from summkit.data import templates
from summkit.distillation import labelling, teachers
url, path, rows = sys.argv[1:]
teacher = teachers.EndpointTeacher(url, "teacher", templates.get_wording("topics"), max_new_tokens=24)
labels = labelling.label_rows(json.loads(rows), teacher, path, check=check, batch_size=4)
print(labels.asked, labels.reused)
"""


def child(url, path, **pipes):
    given = os.environ | {"PYTHONPATH": str(PACKAGE), "TQDM_DISABLE": "1"}
    command = [warm.python(), "-c", inspect.getsource(check) + CHILD, url, str(path), json.dumps(ROWS)]
    return subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **pipes)


def wait_for(true, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    assert true()


def test_a_killed_job_goes_on_and_ends_as_an_undisturbed_one(tmp_path):
    path, quiet = tmp_path / "killed.jsonl", tmp_path / "quiet.jsonl"
    with LocalEndpoint(answer) as server:
        process = child(server.url, quiet)
        assert process.communicate(timeout=200)[0] == "40 0\n"
    with LocalEndpoint(answer, delay=0.1) as server:
        for finished in (9, 20):
            process = child(server.url, path)
            wait_for(lambda wanted=finished: path.exists() and path.read_bytes().count(b"\n") >= wanted)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            if finished == 9:
                time.sleep(0.3)  # what was on its way to the server when the job was killed
                done = {json.loads(line)["id"] for line in path.read_bytes().split(b"\n")[:-1]}
                before = len(server.asked)
        process = child(server.url, path)
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        asked_after = set(server.documents()[before:])
    assert 9 <= len(done) < 40 and out.startswith(f"{40 - int(out.split()[1])} ")
    assert not asked_after & {row["document"] for row in ROWS if row["id"] in done}, "no finished row is asked twice"
    assert asked_after >= {row["document"] for row in ROWS if row["id"] not in done}
    assert sorted(path.read_bytes().split(b"\n")) == sorted(quiet.read_bytes().split(b"\n"))


def test_what_a_failing_server_has_answered_is_kept(tmp_path):
    path = tmp_path / "l.jsonl"
    with LocalEndpoint(answer, broken={ROWS[20]["document"]: failure(401)}) as server:
        teacher = teachers.EndpointTeacher(server.url, "teacher", WORDING, max_new_tokens=24, workers=2)
        with pytest.raises(SummkitError, match="status 401: the key is missing"):
            label(teacher, path, batch_size=5)
        kept = {line["id"] for line in lines_of(path)}
        assert kept == {f"a{number}" for number in range(25, 40)}, "three batches, longest first"
        server.broken.clear()
        labels = label(teacher, path, batch_size=5)
    assert (labels.asked, labels.reused) == (25, 15)


def test_two_jobs_do_not_write_one_file(tmp_path):
    path = tmp_path / "l.jsonl"
    with LocalEndpoint(answer, delay=0.2) as server:
        process = child(server.url, path)
        try:
            wait_for(path.exists)
            with pytest.raises(SummkitError, match="another process holds .*l.jsonl.lock: wait until"):
                label(Teacher(), path)
        finally:
            process.kill()
            process.communicate(timeout=60)


@pytest.fixture
def abstracts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"id": row["id"], "abstract": row["document"]} for row in ROWS[:20]]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("shown.jsonl").write_text(json.dumps({"abstract": "We sail a ship.", "topics": "ships; sailing"}))
    return tmp_path


ASK = ["label", "rows.jsonl", "--out", "l.jsonl", "--profile", "smoke"]


def test_the_command_labels_a_file(abstracts, capsys):
    with LocalEndpoint(answer) as server:
        assert main([*ASK, "--url", server.url, "--model", "teacher", "--examples", "shown.jsonl"]) == 0
    assert capsys.readouterr().out.startswith("l.jsonl: labelled 19, empty 1; rows asked now: 20, before: 0")
    assert {line["label"] for line in lines_of("l.jsonl")} >= {"bridges; river 1; at 0.0", None}
    turns = [(turn["role"], turn["content"]) for turn in server.asked[0]["messages"]]
    shown = [("system", WORDING.instruction), ("user", "We sail a ship."), ("assistant", "ships; sailing")]
    assert turns[:3] == shown and server.asked[0]["max_tokens"] > 0


def test_the_command_labels_with_a_model_here(abstracts, capsys):
    assert main([*ASK, "--wording", "title"]) == 0
    lines = lines_of("l.jsonl")
    assert len(lines) == 20 and {line["model"] for line in lines} == {"tiny-llama"}
    assert f"l.jsonl: labelled {sum(line['status'] == 'ok' for line in lines)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["label", "none.jsonl", "--out", "l.jsonl", "--url", "http://x/v1", "--model", "m"], "none.jsonl"),
        (
            ["label", "rows.jsonl", "--out", "./rows.jsonl", "--url", "http://x/v1", "--model", "m"],
            "a file of their own",
        ),
        ([*ASK, "--url", "http://x/v1"], "a url together with a model"),
        ([*ASK, "--teacher", "tiny-llama", "--model", "m"], "a url together with a model"),
        ([*ASK, "--url", "x", "--model", "m"], "an address such as http://127.0.0.1:8000/v1"),
        (
            [*ASK, "--url", "http://x/v1", "--model", "m", "--wording", "poems"],
            "unknown wording 'poems'; known: dialogue, emotion, inference, news, ",
        ),
        (
            [*ASK, "--url", "http://x/v1", "--model", "m", "--examples", "rows.jsonl"],
            "rows.jsonl, row 1: no column for the answer; there are: id, abstract; known: topics, summary",
        ),
    ],
)
def test_a_wrong_call_of_the_command_is_refused(abstracts, capsys, arguments, words):
    before = Path("rows.jsonl").read_bytes()
    assert main(arguments) == 2
    assert words in capsys.readouterr().err
    assert not Path("l.jsonl").exists() and Path("rows.jsonl").read_bytes() == before


def test_ctrl_c_says_that_it_goes_on(abstracts):
    with LocalEndpoint(answer, delay=0.3) as server:
        command = [warm.python(), "-m", "summkit", *ASK, "--url", server.url, "--model", "teacher"]
        given = os.environ | {"PYTHONPATH": str(PACKAGE)}
        process = subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c)
        try:
            wait_for(lambda: len(server.asked) >= 4)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in err
    assert "summkit: interrupted: 0 of 20 rows are in l.jsonl; run the same command again to resume" in err


ERROR = (200, {"Content-Type": "application/json"}, b'{"error": "Unexpected endpoint or method."}')


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(labelling, "PAUSE", 0.0)


def test_a_server_that_only_fails_labels_nothing_and_is_asked_again(abstracts, capsys, no_pause):
    documents = [row["document"] for row in ROWS[:20]]
    with LocalEndpoint(answer, broken=dict.fromkeys(documents, ERROR)) as server:
        ask = [*ASK, "--url", server.url, "--model", "teacher"]
        assert main(ask) == 1
        said = capsys.readouterr()
        assert said.out.startswith("l.jsonl: labelled 0, server error 20; rows asked now: 20")
        assert len(server.asked) == 60 and "the same command asks again where the server failed" in said.err
        assert {(line["status"], line["label"]) for line in lines_of("l.jsonl")} == {("failed", None)}
        server.broken.clear()
        assert main(ask) == 0
        assert capsys.readouterr().out.startswith("l.jsonl: labelled 19, empty 1; rows asked now: 20, before: 0")
        assert main(ask) == 0
    assert capsys.readouterr().out.startswith("l.jsonl: labelled 19, empty 1; rows asked now: 0, before: 20")


def test_a_job_ends_where_the_server_fails_for_a_whole_batch(tmp_path, no_pause):
    failing = {row["document"]: ERROR for row in ROWS[16:32]}
    with LocalEndpoint(answer, broken=failing) as server:
        teacher = teachers.EndpointTeacher(server.url, "teacher", WORDING, max_new_tokens=24)
        labels = label(teacher, tmp_path / "l.jsonl", retries=1)
        assert labels.counts() == {"labelled": 7, "refusal": 1, "server error": 8, "not asked": 24}
        assert (labels.asked, labels.reused) == (16, 0)
        server.broken.clear()
        again = label(teacher, tmp_path / "l.jsonl")
    assert (again.asked, again.reused) == (32, 8) and again.counts()["labelled"] == 36


def test_one_failure_is_asked_again_after_a_pause(tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(labelling.time, "sleep", pauses.append)
    with LocalEndpoint(answer, script=[ERROR, ERROR]) as server:
        teacher = teachers.EndpointTeacher(server.url, "teacher", WORDING, max_new_tokens=24, workers=1)
        labels = label(teacher, tmp_path / "l.jsonl", rows=ROWS[1:2])
    assert pauses[:2] == [1.0, 2.0] and labels.counts() == {"labelled": 1}


@pytest.mark.parametrize(
    ("text", "label", "reason"),
    [
        ("<think>\n\n</think>\n\nrobots; ice", "robots; ice", None),
        ("<think>They want topics.</think>robots; ice", "robots; ice", None),
        ("<think>\nOkay, the user wants the", None, "thinking"),
    ],
)
@pytest.mark.parametrize("wording", ["topics", "title"])
def test_what_a_teacher_thinks_is_no_label(tmp_path, text, label, reason, wording):
    teacher = Teacher()
    teacher.ask = lambda documents, temperature, seed: [text] * len(documents)
    check = labelling.answer_checker(wording)
    labels = labelling.label_rows(ROWS[:1], teacher, tmp_path / "l.jsonl", check=check)
    assert labels.labels == ({"a0": label} if label else {}) and labels.set_aside == ({"a0": reason} if reason else {})
    assert lines_of(tmp_path / "l.jsonl")[0]["raw"] == text


def test_a_cut_answer_is_asked_again_and_then_set_aside(tmp_path):
    cut = Teacher()
    cut.ask = lambda documents, temperature, seed: [teachers.Answer("A title that", "cut") for _ in documents]
    labels = label(cut, tmp_path / "l.jsonl", rows=ROWS[:1])
    assert labels.set_aside == {"a0": "cut"} and lines_of(tmp_path / "l.jsonl")[0]["attempts"] == 3
    assert label(cut, tmp_path / "l.jsonl", rows=ROWS[:1]).asked == 0


def test_the_command_changes_the_fields_of_a_request(abstracts, capsys):
    changes = ["--without", "seed", "--rename", "max_tokens=max_completion_tokens", "--extra", "temperature=1"]
    changes += ["--extra", 'chat_template_kwargs={"enable_thinking": false}']
    with LocalEndpoint(answer) as server:
        ask = [*ASK, "--url", server.url, "--model", "teacher"]
        assert main([*ask, *changes]) == 0
        assert server.asked[0]["chat_template_kwargs"] == {"enable_thinking": False}
        assert "seed" not in server.asked[0] and server.asked[0]["max_completion_tokens"] > 0
        assert main(ask) == 2
    assert "labelled with request {'without': ['seed']" in capsys.readouterr().err
    assert main([*ASK, "--without", "seed"]) == 2
    assert "without: these change the requests to a url, and none was named" in capsys.readouterr().err


def test_a_plugin_adds_a_teacher(abstracts, monkeypatch):
    monkeypatch.setattr(labelling, "TEACHERS", copy.copy(teachers.TEACHERS))
    made = []

    def make(name, url, profile, wording):
        made.append((name, url, profile.name, wording.instruction))
        return Teacher()

    labelling.TEACHERS.add("oracle", make)
    labels = labelling.label_file("rows.jsonl", "l.jsonl", teacher="oracle", model="of Delphi", profile="smoke")
    assert made == [("of Delphi", None, "smoke", WORDING.instruction)]
    assert labels.labels["a1"] == "bridges; river 1; at 0.0"


def test_a_student_trains_on_the_folder_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SUMMKIT_DATA_DIR", raising=False)
    rows = [row | {"summary": "bridges; rivers"} for row in ROWS[:16]]
    Path("rows").mkdir()
    for name, part in {"train": rows[:8], "validation": rows[8:12], "test": rows[12:]}.items():
        datasets.Dataset.from_list(part).to_json(f"rows/{name}.jsonl")
    config = {"profile": "smoke", "task": "topics", "data": "rows", "out": "mine", "min_words": 0}
    config |= {"train_rows": 8, "validation_rows": 4, "test_rows": 4, "batch_size": 4}
    Path("c.json").write_text(json.dumps(config))
    assert main(["train", "c.json"]) == 0
    record = json.loads(Path("mine/run.json").read_text())
    assert (record["data"]["train"], record["data"]["source"]) == (8, "local")
    assert json.loads(Path("mine/adapter/summkit.json").read_text())["wording"] == "topics"
