"""Reports are made from records alone: what they say, what they escape, what they refuse."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from summkit import progress
from summkit.errors import SummkitError
from summkit.evaluation import classification
from summkit.reporting import comparison, records, report, tables
from tools import publish

EVIL = "<script>x</script> *bold* [a](b) | `c`\nd"


def interval(mean, low, high):
    return {"mean": mean, "low": low, "high": high}


def entry(rouge1: float, n: int = 64, **more) -> dict:
    shares = {key: interval(0.5, 0.4, 0.6) for key in ("support", "novel_1grams", "novel_2grams")}
    rouge = {key: interval(rouge1, rouge1 - 2, rouge1 + 2) for key in records.ROUGE}
    return rouge | shares | {"words": interval(20.25, 19, 21), "ended_by_eos": 0.75, "n": n} | more


def make_run(folder: Path, stage: str, details=None, scores=None, figures=(), **sections) -> Path:
    record = records.new_record(stage, "cpu", 0)
    for section, values in sections.items():
        records.fill_record(record, section, **values)
    records.fill_record(record, "run", wall_seconds=500.0)
    records.fill_record(record, "scores", **(scores or {}))
    records.fill_record(record, "details", **(details or {}))
    for name in figures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"png")
    record["figures"] = list(figures)
    records.write_record(record, folder / "run.json")
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The run of a task3 with everything in its record, at out/task3 of the current folder."""
    monkeypatch.chdir(tmp_path)
    d = {"difference": 9.31, "low": 6.14, "high": 12.4}
    unknown = {"difference": None, "low": None, "high": None}
    differences = {
        "fine_tuned_minus_lead1": {
            "rouge1": d,
            "rouge2": {"difference": 0.4, "low": -0.83, "high": 1.7},
            "support": unknown,
        },
        "fine_tuned_minus_zero_shot": {
            "support": {"difference": -0.12, "low": -0.19, "high": -0.05},
            "words": {"difference": -3.1, "low": -4, "high": -2},
        },
    }
    details = {
        "differences": differences,
        "decodings": {"greedy": {"seconds": 3.0, **entry(25, 12)}},
        "merge_losses": {"nf4 + adapter": 2.31415, "merged": 2.3101},
        "reference_support": interval(0.4, 0.3, 0.5),
        "examples": [{"id": "1", "reference": EVIL, "zero_shot": "word " * 30, "fine_tuned": "A\x1b[31m short one."}],
        "failures": [{"id": 7, "why": EVIL}, {"id": 8, "cut": True}],
        "rows": 12345,
        "nested": {"a": {"b": {"c": 1.5}}},
        "names": ["a_b", "c"],
        "nothing": None,
        "empty": {},
    }
    scores = {"lead1": entry(16.8), "lead3": entry(15.0), "zero_shot": entry(19.1), "fine_tuned": entry(26.1)}
    return make_run(
        Path("out/task3"),
        "task3",
        details,
        scores,
        ["figures/scores.png"],
        model={"id": "a/model_x", "quantization": "nf4", "parameters": 1000, "trainable": 10, "footprint_bytes": 5e6},
        data={"id": "xsum-sample", "source": "embedded", "train": 215, "test": 64, "dropped": {"empty": 2}},
        training={"steps": 54, "seconds": 200.0, "tokens": 60000, "padding_fraction": 0.0123, "eval_loss": 2.7},
        resources={"peak_rss_bytes": 3.2e9, "energy_kwh": 0.0123, "energy_is_estimate": True},
    )


def test_a_page_says_what_got_better_and_what_got_worse(run):
    page = report.report_page(records.read_record(run / "run.json"))
    for said in (
        "# Task 3: report of a run",
        "rows: 215 train, 64 test. Rows dropped: empty 2.",
        "Model a/model\\_x (nf4).",
        "| fine-tuned | 26.1 [24.1, 28.1]",
        "n = 64 test rows; in brackets 95 % intervals",
        "- fine-tuned is **above** lead-1 by 9.3 [6.1, 12.4] ROUGE-1 points",
        "- fine-tuned and lead-1: no clear difference, +0.4 [-0.8, +1.7] ROUGE-2 points\n",
        "- fine-tuned is **below** zero-shot by 12.0 [5.0, 19.0] percentage points of names and numbers that the",
        "- fine-tuned is **shorter than** zero-shot by 3.1 [2.0, 4.0] words",
        "![scores](figures/scores.png)",
        "| greedy | 25.0 [23.0, 27.0]",
        "| nf4 + adapter | 2.314 |",
        "| reference support | 0.4 [0.3, 0.5] |",
        "| rows | 12,345 |",
        "## Failures",
        "| 2 | 8 | – | yes |",
        "| a | c 1.5 |",
        "| names | a\\_b, c |",
        "© BBC, quoted.",
        "| time | 8.3 min |",
        "| peak memory | 3.2 GB |",
        "| energy | 12 Wh (an estimate",
        "54 steps in 3.3 min, 60,000 tokens, best validation loss 2.700",
        "| trained | 10 of 1,000 parameters |",
    ):
        assert said in page, said
    assert "None" not in page and "nan" not in page and "<script>" not in page
    assert "&lt;script&gt;x&lt;/script&gt; \\*bold\\* \\[a\\](b) \\| \\`c\\` d" in page
    blocks = [block for block in page.split("\n\n") if block.strip()]
    pairs = zip(blocks, [*blocks[1:], "#"], strict=True)
    assert not [a for a, b in pairs if a.startswith("#") and b.startswith("#")], "a heading with nothing under it"


HOSTILE = "<script>x</script> *b* [a](b) `c` # {{ 7 * 7 }} {% raw %}"


def test_no_text_of_a_record_is_markup_or_template(run):
    """Whatever place of a record a text is in: a page shows it as it is."""
    record = records.read_record(run / "run.json")
    record["stage"] = record["profile"] = record["started"] = HOSTILE
    record["model"] |= {"id": HOSTILE, "quantization": HOSTILE}
    record["data"] |= {"id": f"xsum {HOSTILE}", "source": HOSTILE, "dropped": {HOSTILE: 3}}
    record["environment"]["device"] = HOSTILE
    record["scores"] = {HOSTILE: entry(20, 8), "b": entry(21, 8) | {HOSTILE: 1.5}}
    pair = {f"{HOSTILE}_minus_b": {HOSTILE: {"difference": 1.0, "low": 0.5, "high": 2.0}}}
    facts = {"scored_on": HOSTILE, "single": HOSTILE, HOSTILE: {HOSTILE: {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}}}
    record["details"] = {"differences": pair, "examples": [{HOSTILE: HOSTILE}], **facts}
    record["figures"] = [f"figures/{HOSTILE}) <b>.png"]
    page = report.report_page(record)
    assert "<" not in page and "*b*" not in page and "[a](b)" not in page and "49" not in page
    assert page.count("&lt;script&gt;x&lt;/script&gt; \\*b\\* \\[a\\](b)") >= 20
    for line in page.splitlines():
        assert not line.startswith("#") or line.startswith(("# ", "## ")), line


def test_a_record_of_few_sections_has_no_empty_headings(tmp_path):
    page = report.report_page(records.read_record(make_run(tmp_path, "task2") / "run.json"))
    assert [line for line in page.splitlines() if line.startswith("#")] == [
        "# Task 2: report of a run",
        "## What it took",
    ]
    scores = {"lead1": entry(12, 8)}
    made = make_run(tmp_path, "task1/xsum", {"scored_on": "validation", "lengths": {"words": 1.5}}, scores)
    page = report.report_page(records.read_record(made / "run.json"))
    assert "n = 8 validation rows" in page and "## Lengths" in page and "Differences" not in page
    assert "So few rows show only large differences." in page


@pytest.fixture
def labels_run(tmp_path, monkeypatch):
    """The run of a stage whose answer is a label, its scores made from predictions, at out/task1/agnews."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    actual = np.arange(3) == draw.integers(3, size=40)[:, None]
    said = {"majority": np.tile([True, False, False], (40, 1)), "fine_tuned": actual.copy()}
    said["fine_tuned"][:3] = np.roll(actual[:3], 1, axis=1)
    sure = np.where(said["fine_tuned"], 0.8, 0.1)
    scores = {"majority": classification.score_labels(said["majority"], actual)}
    scores["fine_tuned"] = classification.score_labels(said["fine_tuned"], actual, probabilities=sure)
    same = classification.compare_labels(said["majority"], said["majority"], actual)
    differences = {
        "fine_tuned_minus_majority": classification.compare_labels(said["fine_tuned"], said["majority"], actual),
        "majority_minus_lead1": same,
    }
    examples = [{"id": "b/1", "text": EVIL, "reference": "sports", "fine_tuned": "world"}]
    details = {"differences": differences, "examples": examples, "classes": {"sports": {"rows": 9, "F1": 0.5}}}
    data = {"id": "bbc-topics", "source": "embedded", "train": 80, "validation": 10, "test": 40}
    return make_run(Path("out/task1/agnews"), "task1/agnews", details, scores, data=data), scores, differences


@pytest.mark.parametrize(("name", "credit"), [("mts-dialog", "Ben Abacha et al., 2023, CC BY 4.0"), ("mine", "")])
def test_rows_that_are_quoted_are_credited(run, name, credit):
    record = records.read_record(run / "run.json")
    record["data"]["id"] = name
    page = report.report_page(record)
    assert "© BBC" not in page and credit in page and ("CC BY" in page) is bool(credit)


def test_a_page_of_label_scores_has_their_columns_and_no_others(labels_run):
    run, *_ = labels_run
    page = report.report_page(records.read_record(run / "run.json"))
    heads = ("system", "accuracy, %", "macro F1, %", "Matthews", "calibration error, points", "n")
    assert f"| {' | '.join(heads)} |" in page and "ROUGE" not in page and "words" not in page
    cells = [line for line in page.splitlines() if line.startswith(("| majority |", "| fine-tuned |"))]
    assert "| fine-tuned | 92.5 [" in cells[1] and cells[0].endswith("] | 0.00 | – | 40 |")
    assert "n = 40 test rows; in brackets 95 % intervals (bootstrap over rows).\n" in page
    assert "None" not in page and "nan" not in page and "<script>" not in page
    assert "## Rows side by side" in page and "© BBC, quoted." in page and "| sports | 9 | 0.5 |" in page


def test_differences_of_labels_are_said_in_words(labels_run):
    run, _, differences = labels_run
    page = report.report_page(records.read_record(run / "run.json"))
    for measure, factor, digits, unit in (
        ("accuracy", 100, 1, "points of accuracy"),
        ("macro_f1", 100, 1, "points of macro F1"),
        ("matthews", 1, 2, "in Matthews' correlation"),
    ):
        d = differences["fine_tuned_minus_majority"][measure]
        by, low, high = (f"{factor * d[key]:.{digits}f}" for key in ("difference", "low", "high"))
        assert f"- fine-tuned is **above** majority by {by} [{low}, {high}] {unit}\n" in page
    assert "- majority and lead-1: no clear difference, +0.0 [+0.0, +0.0] points of accuracy\n" in page
    assert "no clear difference, +0.00 [+0.00, +0.00]" in page


def test_several_labels_have_columns_of_their_own(tmp_path):
    actual = np.array([[1, 1, 0], [0, 0, 1]] * 9, dtype=bool)
    entry = classification.score_labels(
        classification.top_label(actual), actual, several=True, probabilities=actual / 2
    )
    made = make_run(tmp_path, "task1/goemotions", scores={"tfidf": entry})
    page = report.report_page(records.read_record(made / "run.json"))
    assert "| system | micro F1, % | macro F1, % | all labels right, % | calibration error, points | n |" in page


def test_labels_and_summaries_share_a_table_of_several_runs(run, labels_run):
    table = comparison.comparison_table([Path("out/task3"), Path("out/task1/agnews")]).partition("\n\n")[0].splitlines()
    assert table[0].startswith("| system | n | ROUGE-1 |") and "| accuracy, % |" in table[0] and len(table) == 8
    assert table[-1].startswith("| out/task1/agnews: task1/agnews, cpu, seed 0, fine-tuned | 40 | – |")
    text = report.closing_lines(Path("out").absolute(), ["task1/agnews"])
    assert "accuracy, %" in text and "ROUGE" not in text and "reference: sports\nfine-tuned: world" in text


def test_closing_shows_table_summaries_and_cost(run):
    make_run(Path("out/task2"), "task2", resources={"peak_rss_bytes": 4e9})
    text = report.closing_lines(Path("out").absolute(), ["task2", "task3"])
    for said in (
        "ROUGE-Lsum",
        "fine-tuned  26.1 [24.1, 28.1]",
        "n = 64 test rows",
        "Time 16.7 min, peak memory 4.0 GB",
        "energy 12 Wh (an estimate",
        "run folder: out\n",
        "report: out/README.md",
    ):
        assert said in text, said
    example = text[text.index("reference: ") : text.index("Time")].splitlines()
    assert [line.partition(": ")[0] for line in example] == ["reference", "zero-shot", "fine-tuned"]
    assert example[2] == "fine-tuned: A [31m short one."
    assert "![scores](task3/figures/scores.png)" in Path("out/README.md").read_text()


def test_the_result_of_a_run_is_a_table_and_three_examples(tmp_path):
    examples = [{"id": n, "reference": f"Text {n}.", "fine_tuned": f"Answer {n}."} for n in range(5)]
    examples[1] |= {"reference": None, "fine_tuned": ""}
    scores = {"lead1": entry(16.8), "fine_tuned": entry(26.1)}
    made = make_run(tmp_path / "some", "train", {"examples": examples}, scores)
    text = report.result_lines(records.read_record(made / "run.json"))
    assert "lead-1      16.8 [14.8, 18.8]" in text and "fine-tuned  26.1 [24.1, 28.1]" in text
    assert "Answer 2." in text and "Answer 3." not in text, "three are enough"
    assert "reference: –\nfine-tuned: (empty)" in text
    assert "reference: Text 0.\nfine-tuned: Answer 0." in text and "zero-shot" not in text, "no row has one"
    made = make_run(tmp_path / "none", "train", {}, {})
    assert report.result_lines(records.read_record(made / "run.json")) == "", "nothing was scored"
    made = make_run(tmp_path / "alone", "train", {}, scores)
    assert report.result_lines(records.read_record(made / "run.json")).endswith("ROUGE goes from 0 to 100.")


def test_a_training_without_a_notebook_has_a_page_to_read(tmp_path):
    details = {
        "rows": {"test": {"rouge1": [12.345] * 64}},
        "learning_rate": 2e-4,
        "saved_bytes": 19_553_000,
        "training_kwh": 0.00421,
        "training_added_bytes": 1_340_000_000,
        "country": None,
        "validation_loss": [{"step": 17, "eval_loss": 2.71}, {"step": 34, "eval_loss": 2.69}],
        "laps": {"training": 789.912, "summaries": 1.13e-05},
    }
    scores = {"lead1": entry(16.8), "fine_tuned": entry(26.1), "fine_tuned_validation": entry(25.1)}
    page = report.report_page(records.read_record(make_run(tmp_path, "train", details, scores) / "run.json"))
    for said in (
        "| fine-tuned, validation rows | 25.1",
        "| saved | 19.6 MB |",
        "| energy of the training | 4.2 Wh |",
        "| memory that the training added | 1.3 GB |",
        "|  | step | validation loss |",
        "| training | 789.9 |",
    ):
        assert said in page, said
    for unreadable in ("12.345", "12.35", "kwh", "bytes", "e-05", "summaries", "country"):
        assert unreadable not in page, unreadable


def test_write_report_and_publish(run, tmp_path):
    page = report.write_report(run, run / "REPORT")
    assert {path.name for path in page.parent.iterdir()} == {"README.md", "run.json", "figures"}
    repository = tmp_path / "repository"
    with pytest.raises(SummkitError, match="out/task3: a run of 'task3', but the repository has no such notebook"):
        publish.publish(run, repository)
    kept = repository / "task3" / "NOTEBOOK" / "task_3.ipynb"
    kept.parent.mkdir(parents=True)
    kept.write_text("old")
    (run / "task_3.ipynb").write_text("executed")
    other = "<!-- result of task1/agnews: -->\nkept\n<!-- end of result -->\n"
    mine = "<!-- result of task3: made by it -->\nold\n<!-- end of result -->\n"
    (repository / "README.md").write_text(f"a\n{other}{mine}b\n")
    publish.publish(run, repository)
    assert kept.read_text() == "executed"
    assert (repository / "task3/REPORT/figures/scores.png").is_file()
    readme = (repository / "README.md").read_text()
    assert readme.startswith(f"a\n{other}<!-- result of task3") and readme.endswith("<!-- end of result -->\nb\n")
    assert "| fine-tuned | 26.1" in readme and "Time 8.3 min" in readme and "old" not in readme


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(run, monkeypatch):
    before = report.write_report(run, run / "REPORT").read_text()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report.shutil, "copy", full)
    with pytest.raises(OSError, match="No space left"):
        report.write_report(run, run / "REPORT")
    assert (run / "REPORT" / "README.md").read_text() == before
    assert (run / "REPORT" / "figures" / "scores.png").is_file()
    assert not [path for path in run.iterdir() if "part" in path.name]


def test_several_runs_in_one_table(run):
    make_run(Path("other"), "task3", scores={"fine_tuned": entry(20, 32)})
    table, _, trained = comparison.comparison_table([run, Path("other")]).partition("\n\n")
    assert trained.startswith("|  | seconds | useful tokens/s |") and trained.count("\n") == 2
    table = table.splitlines()
    assert table[0].startswith("| system | n | ROUGE-1") and len(table) == 7
    assert table[-1].startswith("| other: task3, cpu, seed 0, fine-tuned | 32 | 20.0")
    assert comparison.comparison_table([make_run(Path("none"), "task2")]) == "none of these runs has scores to compare"


@pytest.mark.parametrize("broken", ["missing", "half", "wrong", "figure", "outside"])
def test_a_broken_record_is_named_and_nothing_is_lost(run, broken):
    (run / "REPORT").mkdir()
    (run / "REPORT" / "README.md").write_text("earlier")
    record = json.loads((run / "run.json").read_text())
    record["scores"]["lead1"] = "none" if broken == "wrong" else record["scores"]["lead1"]
    record["figures"] = {"figure": ["figures/no.png"], "outside": ["../../secret.png"]}.get(broken, record["figures"])
    Path("secret.png").write_text("")
    (run / "run.json").write_text(json.dumps(record)[: 99 if broken == "half" else None])
    if broken == "missing":
        (run / "run.json").unlink()
    with pytest.raises(SummkitError, match=r"out/task3/run\.json"):
        report.write_report(run, run / "REPORT")
    assert (run / "REPORT" / "README.md").read_text() == "earlier"


def test_numbers_have_the_digits_that_say_something():
    values = {3: "3", 12345.678: "12,346", 0.123456: "0.123", 1.23456: "1.235", 2e-5: "2e-05", -0.5: "-0.5"}
    assert {value: tables.number_text(value) for value in values} == values


class Screen:
    def __init__(self, live):
        self.live, self.text = live, ""

    def isatty(self):
        return self.live

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("live", [True, False])
def test_two_bars_share_one_line_and_messages_stay(live, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    screen = Screen(live)
    line = progress.Line("task3, cell", screen)
    line.cells.write("\r3/45   ")
    for text in (
        "\rtraining:  50%|",
        "#####     | 1/2 [00:01<00:01]",
        "\n\rwith a long name:   0%| | 0/9",
        "\n\rinner: 10%|# | 1/9 [00:01<00:09]\x1b[A",
    ):
        line.write(text)
    line.write("\r" + " " * 30 + "\r")
    line.write("a warn")
    line.write("ing\n\rdone: 100%|##| 2/2 [00:02<00:00]\n")
    line.close()
    shown = screen.text.split("\x1b[K")
    assert "a warning\n" in screen.text and screen.text.count("\n") == 2 and "done: 100%|##| 2/2" in screen.text
    assert ("\rtask3, cell 3/45 · training:  50%|#####" in shown) is live
    assert all(len(part.strip("\r")) < 40 for part in shown if "\n" not in part)


@pytest.mark.parametrize("live", [True, False])
def test_what_a_cell_prints_last_is_shown_where_it_has_no_bar(live, monkeypatch):
    """Cells whose trainings are processes print a line for each: between them, the count alone stood for minutes."""
    monkeypatch.setattr(progress.time, "monotonic", itertools.count(0, 61).__next__)
    screen = Screen(live)
    line = progress.Line("methods", screen)
    line.cells.write("\r23/47")
    line.printed.write("rates\n1/9 lora: loss 2.9\n")
    line.printed.write("\n")
    line.write("\rtraining:  50%|## | 1/2 [00:01<00:01]")
    line.write("\r" + " " * 30 + "\r")
    line.cells.write("\r24/47")
    seen = [part.strip("\r") for part in re.split("\x1b\\[K|\n", screen.text)]
    bar = "methods 23/47 · training:  50%|## | 1/2 [00:01<00:01]"
    said = "methods 23/47 · 1/9 lora: loss 2.9"
    assert seen == ["methods 23/47", said, said, bar, said, "methods 24/47", ""]
