"""Profiles: presets from YAML, overrides, and values that are refused."""

from typing import get_args

import pytest
import yaml

from summkit.config import PRESETS, PROFILES, TASKS, Hardware, Optimizer, _from_hardware, choose_profile, options
from summkit.errors import SummkitError
from summkit.files import read_mapping


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", PROFILES)
def test_every_preset_has_every_profile(name, task):
    profile = choose_profile(name, task)
    assert (profile.name, profile.task) == (name, task)
    labels = task in ("agnews", "goemotions", "mnli")
    assert profile.kind == ("classification" if labels else "summarisation")


@pytest.mark.parametrize("task", TASKS)
def test_a_preset_holds_nothing_but_options(task):
    sections = yaml.safe_load((PRESETS / f"{task}.yaml").read_text(encoding="utf-8"))
    assert set(sections) - {"all"} == set(PROFILES)
    assert {key for section in sections.values() for key in section} <= {*options(), "kind"}


SPEED = ("pure_compute_dtype", "packing", "compile_from_steps", "fused_kernels")


@pytest.mark.parametrize("task", TASKS)
def test_options_for_speed_are_off_where_numbers_are_committed_and_on_where_they_fit(task):
    for name in PROFILES:
        profile = choose_profile(name, task)
        used = {option for option in SPEED if getattr(profile, option)}
        if name in ("smoke", "cpu"):
            assert not used and (profile.logging_steps, profile.pad_to_multiple_of) == (1, 1)
        if profile.precision == "fp32" or profile.model.startswith("allenai/led"):
            assert not used, "else each run would begin with lines that say why they are off"
        if profile.compute_dtype == "float16":
            assert "pure_compute_dtype" not in used


def test_none_is_a_value_like_any_other():
    assert choose_profile("cpu").max_words == 250
    assert choose_profile("cpu", max_words=None).max_words is None
    with pytest.raises(SummkitError, match="option rank=None: input should be a valid integer"):
        choose_profile("cpu", rank=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 1.5}, "option dropout=1.5: input should be less than 1"),
        ({"dropout": 1}, "input should be less than 1"),
        ({"gradient_accumulation": 0}, "gradient_accumulation=0: input should be greater than or equal to 1"),
        ({"compute_dtype": "bf16"}, "compute_dtype='bf16': input should be 'float32', 'float16' or 'bfloat16'"),
        ({"optimizer": "adam"}, "optimizer='adam': input should be 'adamw_torch'"),
        ({"epochs": float("nan")}, "epochs=nan: input should be"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: input should be greater than 0"),
        ({"learning_rate": "2e-4"}, "learning_rate='2e-4': input should be a valid number"),
        ({"batch_size": True}, "batch_size=True: input should be a valid integer"),
        ({"precision": "4bit"}, "precision='4bit': input should be 'fp32'"),
        ({"evaluations_per_epoch": 0}, "evaluations_per_epoch=0"),
        ({"generation_batch_size": 0}, "generation_batch_size=0"),
        ({"model": ""}, "model='': string should have at least 1 character"),
        ({"min_words": 50, "max_words": 10}, "max_words=10: must be at least min_words, which is 50"),
        ({"lr": 1}, "unknown option 'lr'; known: alpha"),
        ({"reason": "x"}, "unknown option 'reason'"),
    ],
)
def test_an_impossible_value_is_an_error_that_says_what_is_allowed(changes, message):
    with pytest.raises(SummkitError) as error:
        choose_profile("smoke", **changes)
    assert message in str(error.value)


def test_a_copy_is_checked_too():
    profile = choose_profile("smoke")
    assert profile.replace(rank=4).rank == 4 and profile.rank == 16
    with pytest.raises(SummkitError, match="option rank=0"):
        profile.replace(rank=0)
    with pytest.raises(AttributeError):
        profile.rank = 3


def test_optimizers_are_transformers_own():
    from transformers.training_args import OptimizerNames

    known = {name.value for name in OptimizerNames}
    names = get_args(Optimizer)
    assert set(names) <= known


@pytest.mark.parametrize(
    ("machine", "profile"),
    [
        (Hardware("cpu", "2 CPU cores", 8 * 2**30), "cpu"),
        (Hardware("cuda", "Tesla T4", 15 * 2**30, (7, 5)), "t4"),
        (Hardware("cuda", "NVIDIA A10", 24 * 2**30, (8, 6)), "gpu"),
    ],
)
def test_auto_chooses_by_hardware_and_says_why(machine, profile):
    name, reason = _from_hardware(machine)
    assert name == profile and machine.name in reason


def test_the_environment_may_choose(monkeypatch):
    monkeypatch.setenv("SUMMKIT_PROFILE", "smoke")
    assert choose_profile().name == "smoke" and "SUMMKIT_PROFILE" in choose_profile().reason
    monkeypatch.setenv("SUMMKIT_PROFILE", "huge")
    with pytest.raises(SummkitError, match="unknown SUMMKIT_PROFILE 'huge'; known: auto, cpu, gpu, smoke, t4"):
        choose_profile()


def test_one_column_is_not_both_text_and_summary():
    with pytest.raises(SummkitError, match="document_column=2024: input should be a valid string, so put it in quotes"):
        choose_profile("smoke", document_column=2024)
    with pytest.raises(SummkitError, match="document_column, summary_column and second_column: 'text' is named twice"):
        choose_profile("smoke", document_column="text", summary_column="Text")


def test_a_key_that_is_there_twice_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("profile: smoke\nrank: 8\nrank: 16\n")
    with pytest.raises(SummkitError, match="mine.yaml is not YAML: 'rank' is there twice"):
        read_mapping(tmp_path / "mine.yaml", "configuration")
