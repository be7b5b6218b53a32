"""Many trainings from one plan: each combination once, and a stopped sweep goes on."""

import json

import pytest

from summkit.cli import main
from summkit.errors import SummkitError
from summkit.recipes import finetune, sweep
from summkit.reporting import comparison, records
from summkit.training import checkpoints

BASE = {"profile": "smoke", "train_rows": 8, "validation_rows": 2, "test_rows": 2, "max_new_tokens": 4}


def test_every_combination_has_a_name_that_says_what_varies():
    plan = {"base": BASE, "vary": {"method": ["lora", "prompt"], "seed": [0, 1]}, "only": [{"method": "dora"}]}
    found = sweep.Plan(**plan).combinations()
    assert list(found) == ["method-lora,seed-0", "method-lora,seed-1", "method-prompt,seed-0", "method-prompt,seed-1",
                           "method-dora"]  # fmt: skip
    assert found["method-prompt,seed-1"] == BASE | {"method": "prompt", "seed": 1}


def test_a_name_of_a_training_is_a_name_of_a_folder_everywhere():
    plan = {"base": BASE, "vary": {"dataset": ["org/name:part@main"]}}
    assert list(sweep.Plan(**plan).combinations()) == ["dataset-org_name_part@main"]


@pytest.mark.parametrize(("plan", "message"), [
    ({"base": BASE}, "plan is empty"),
    ({"vary": {"seed": 3}}, "plan's vary.seed=3: input should be a valid list"),
    ({"vary": {"seed": []}}, "vary.seed=.*at least 1 item"),
    ({"varies": {"seed": [0]}}, "unknown key in the plan's 'varies'; known: base, keep, only, out, subprocess, vary"),
    ({"only": [{"name": "a"}, {"name": "a", "seed": 1}]}, "two combinations called 'a'"),
    ({"only": [{"name": ".."}]}, "the plan's name '..' is not the name of a folder: choose another"),
    ({"only": [{}]}, "the plan's name '' is not the name of a folder"),
    ({"base": {"profile": "smoke"}, "vary": {"rank": [8, -1]}}, "the plan's rank--1: option rank=-1: input should be"),
    ({"base": {"profile": "smoke", "sed": 1}, "vary": {"seed": [0]}}, "the plan's seed-0: unknown option 'sed'; known"),
    ({"only": [{"seed": 1}], "keep": "nothing"}, "keep='nothing': input should be 'all' or 'records'"),
])  # fmt: skip
def test_a_wrong_plan_says_what_is_wrong(tmp_path, plan, message):
    with pytest.raises(SummkitError, match=message):
        sweep.run_sweep(plan, tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing is written before all is checked"


def test_a_number_may_be_the_name_of_a_training():
    assert list(sweep.Plan(only=[{"name": 5, "seed": 1}]).combinations()) == ["5"]


def test_a_run_with_its_record_is_left_alone(tmp_path, monkeypatch, capsys):
    trained = []

    def fake(config, resume, overwrite):
        trained.append((json.loads(config.read_text())["method"], resume))
        (config.parent / "run.json").write_text("{}")

    monkeypatch.setattr(finetune, "train", fake)
    plan = {"base": BASE, "vary": {"method": ["lora", "prompt"]}}
    assert sweep.run_sweep(plan, tmp_path) == [tmp_path / "method-lora", tmp_path / "method-prompt"]
    (tmp_path / "method-prompt" / "run.json").unlink()
    sweep.run_sweep(plan, tmp_path)
    assert trained == [("lora", False), ("prompt", False), ("prompt", False)]
    assert "[1/2] method-lora: has its record, left as it is" in capsys.readouterr().out


def test_a_run_that_was_interrupted_is_not_done(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(finetune, "train", lambda config, **_: trained.append(config.parent.name))
    for name, interrupted in (("seed-0", True), ("seed-1", False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"training": {"interrupted": interrupted}}))
    sweep.run_sweep({"base": BASE, "vary": {"seed": [0, 1]}}, tmp_path)
    assert trained == ["seed-0"]


def test_weights_are_removed_run_by_run_where_only_records_are_wanted(tmp_path, monkeypatch):
    """Mistaken once: they were removed after the last run, and nineteen trainings of all weights filled the disk."""
    seen = []

    def fake(config, resume, overwrite):
        seen.append([str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("weights"))])
        for folder in ("checkpoint-4", "adapter"):
            (config.parent / folder).mkdir()
            (config.parent / folder / "weights").touch()
        stopped = "seed-1" in str(config)
        (config.parent / "run.json").write_text(json.dumps({"training": {"interrupted": stopped}}))

    monkeypatch.setattr(finetune, "train", fake)
    sweep.run_sweep({"base": BASE, "vary": {"seed": [0, 1, 2]}, "keep": "records"}, tmp_path)
    left = ["seed-1/adapter/weights", "seed-1/checkpoint-4/weights"]  # of the one that was stopped
    assert seen == [[], [], left]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("weights")) == left


def test_a_folder_of_another_plan_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "train", lambda *_, **__: None)
    sweep.run_sweep({"base": BASE, "vary": {"seed": [0]}}, tmp_path)
    with pytest.raises(SummkitError, match="other settings than this plan"):
        sweep.run_sweep({"base": BASE | {"rank": 4}, "vary": {"seed": [0]}}, tmp_path)


def test_seeds_can_share_their_rows(tmp_path):
    base = BASE | {"split_seed": 0, "precision": "fp32", "method": "head"}
    runs = sweep.run_sweep({"base": base, "vary": {"seed": [0, 1]}}, tmp_path)
    made_with = [checkpoints.read_manifest(checkpoints.last_whole_checkpoint(run))["made_with"] for run in runs]
    assert [made["seed"] for made in made_with] == [0, 1]
    assert made_with[0]["training rows"] == made_with[1]["training rows"]


def test_the_command_trains_scores_and_compares(tmp_path, capsys):
    plan = tmp_path / "plan.json"
    base = BASE | {"precision": "fp32", "score": ["test", "validation"]}
    plan.write_text(json.dumps({"base": base, "vary": {"method": ["head", "prompt"]}}))
    assert main(["sweep", str(plan), "--out", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    assert "ROUGE-1" in shown and "head" in shown and "prompt" in shown
    record = records.read_record(tmp_path / "runs" / "method-head" / "run.json")
    assert set(record["scores"]) == {"fine_tuned", "fine_tuned_validation"}
    assert len(record["details"]["rows"]["test"]["rougeL"]) == record["scores"]["fine_tuned"]["n"] == 2
    assert record["details"]["saved_bytes"] > 50_000 and record["training"]["method"] == "head"


def test_apart_each_has_its_own_process_and_one_that_fails_leaves_the_reason(tmp_path, capsys):
    only = [{"name": "lost", "data": "gone"}, {"name": "head", "method": "head", "seed": 3}]
    base = BASE | {"precision": "fp32"}
    runs = sweep.run_sweep({"base": base, "only": only, "subprocess": True}, tmp_path)
    assert [run.name for run in runs] == ["lost", "head"]
    failed, trained = (records.read_record(run / "run.json") for run in runs)
    assert failed["details"]["failed"].startswith("data gone: no such file or folder")
    assert (failed["profile"], failed["training"]["steps"]) == ("smoke", None)
    assert trained["seed"] == 3 and trained["training"]["steps"] > 0 and trained["details"]["training_kwh"] > 0
    assert "adapter and record" in (tmp_path / "head" / "log.txt").read_text()
    table = comparison.comparison_table(runs)
    assert "data gone" in table and "useful tokens/s" in table
    capsys.readouterr()
    sweep.run_sweep({"base": base, "only": only, "subprocess": True}, tmp_path)
    assert "[1/2] lost\n  failed: data gone" in (shown := capsys.readouterr().out)
    assert "[2/2] head: has its record, left as it is" in shown


@pytest.mark.parametrize(("log", "code", "reason"), [
    ("loading\nsummkit: no such layer\n", 2, "no such layer"),
    ("Traceback\n  File x\ntorch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB\n", 1,
     "torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB"),
    ("step 3\n", -9, "killed by the system, most often because memory was short"),
    ("step 3\n", 7, "exit code 7"),
])  # fmt: skip
def test_the_reason_of_a_failure_is_one_line(log, code, reason):
    assert sweep._reason_failed(log, code) == reason
