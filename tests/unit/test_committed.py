"""What is committed: reports are what the library makes of the records beside them, and the learning result holds."""

import json
from pathlib import Path

import pytest

from summkit import records, reports

ROOT = Path(__file__).parents[2]
REPORTS = {stage: ROOT / stage / "REPORT" for stage in ("task1/xsum", "task2", "task3")}


@pytest.mark.parametrize("stage", REPORTS)
def test_a_report_is_made_from_the_record_beside_it(stage):
    record = records.read_record(REPORTS[stage] / "run.json")
    assert record["stage"] == stage and record["profile"] == "cpu" and record["seed"] == 0
    assert (REPORTS[stage] / "README.md").read_text(encoding="utf-8") == reports.markdown(record)
    for name in record["figures"]:
        assert (REPORTS[stage] / name).read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def result():
    return records.read_record(REPORTS["task3"] / "run.json")


@pytest.mark.parametrize("other", ["lead1", "zero_shot"])
@pytest.mark.parametrize("measure", ["rouge1", "rougeL"])
def test_fine_tuning_beats_the_baselines_on_the_test_rows(result, other, measure):
    found = result["details"]["differences"][f"fine_tuned_minus_{other}"][measure]
    assert found["low"] > 0, f"{measure}: {found}"
    means = [result["scores"][name][measure]["mean"] for name in ("fine_tuned", other)]
    assert means[0] - means[1] == pytest.approx(found["difference"], abs=1e-6)


def test_the_result_reaches_what_was_tried_by_hand_on_enough_rows(result):
    scores = result["scores"]["fine_tuned"]
    assert scores["n"] >= 64 and set(result["scores"]) >= {"lead1", "lead3", "zero_shot", "fine_tuned"}
    by_hand = {"rouge1": 25.7, "rouge2": 6.2, "rougeL": 20.1}  # fp32 LoRA, 176 rows, 32 test rows
    assert {key: scores[key]["mean"] >= value for key, value in by_hand.items()} == dict.fromkeys(by_hand, True)
    assert scores["ended_by_eos"] > 0.95 > result["scores"]["zero_shot"]["ended_by_eos"] + 0.2


def test_the_run_was_the_one_that_is_described(result):
    assert result["model"]["quantization"] == "nf4" and result["training"]["resumed_from"] is None
    assert result["training"]["padding_fraction"] < 0.1
    assert result["resources"]["energy_is_estimate"] in (True, False)


def test_the_readme_shows_the_records_table(result):
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in reports.markdown(result).split("## Differences")[0].splitlines() if line.startswith("|")]
    assert len(rows) == 6 and all(row in shown for row in rows)


def test_the_three_stages_took_what_the_readme_says():
    seconds = sum(records.read_record(folder / "run.json")["wall_seconds"] for folder in REPORTS.values())
    assert seconds < 12 * 60
    assert f"together took {seconds / 60:.0f} minutes" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", REPORTS)
def test_the_committed_notebook_is_of_that_run(stage):
    (path,) = (ROOT / stage / "NOTEBOOK").glob("*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    shown = "".join(t for c in cells for o in c.get("outputs", []) for t in o.get("text", []))
    record = records.read_record(REPORTS[stage] / "run.json")
    assert f"profile {record['profile']} (" in shown
    if record["training"]["eval_loss"] is not None:
        assert f"best validation loss {record['training']['eval_loss']:.3f}" in shown
