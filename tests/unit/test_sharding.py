"""What cannot be spread over processes is refused before anything is loaded, with the way out."""

import dataclasses
import json
from pathlib import Path

import pytest

from summkit.config import choose_profile
from summkit.errors import SummkitError
from summkit.models import loading
from summkit.recipes import finetune
from summkit.training import checkpoints, environment

ZERO3 = str(Path(__file__).parents[2] / "jobs" / "deepspeed" / "zero3.json")
PLAIN = choose_profile("smoke", precision="fp32", optimizer="adamw_torch")


@pytest.fixture
def alone(monkeypatch):
    """No launcher's variables, and DeepSpeed installed, or so it looks."""
    for name in ("LOCAL_RANK", "ACCELERATE_USE_FSDP"):
        monkeypatch.delenv(name, raising=False)
    found = type("Spec", (), {"origin": "there"})
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: found)
    return monkeypatch


def refused(**changes):
    with pytest.raises(SummkitError) as raised:
        environment.check_environment(dataclasses.replace(PLAIN, **changes))
    return str(raised.value)


def test_a_plain_training_is_not_looked_at(alone):
    alone.setattr(environment.importlib.util, "find_spec", lambda name: pytest.fail("looked for DeepSpeed"))
    environment.check_environment(choose_profile("smoke"))
    assert not environment.is_spread(PLAIN) and environment.zero_stage(PLAIN) == 0


def test_what_deepspeed_needs(alone):
    assert "needs torchrun" in refused(deepspeed=ZERO3)
    alone.setenv("LOCAL_RANK", "0")
    environment.check_environment(dataclasses.replace(PLAIN, deepspeed=ZERO3))
    assert "use 'adamw_torch'" in refused(deepspeed=ZERO3, optimizer="paged_adamw_8bit")
    assert "'nf4': quantised weights cannot be spread" in refused(deepspeed=ZERO3, precision="nf4")
    assert "use torchrun alone" in refused(deepspeed=ZERO3, method="prompt")
    zero2 = ZERO3.replace("zero3", "zero2")
    environment.check_environment(
        dataclasses.replace(PLAIN, deepspeed=zero2, precision="nf4")
    )  # the optimizer alone is spread
    alone.setattr(environment.importlib.util, "find_spec", lambda name: type("Folder", (), {"origin": None}))
    assert "pip install" in refused(deepspeed=ZERO3)


def test_what_fsdp_needs(alone):
    alone.setenv("ACCELERATE_USE_FSDP", "true")
    alone.setenv("LOCAL_RANK", "0")
    assert environment.is_spread(PLAIN)
    environment.check_environment(PLAIN)
    assert "use 'adamw_torch'" in refused(optimizer="paged_adamw_8bit")
    assert "'int8': quantised" in refused(precision="int8") and "use one of them" in refused(deepspeed=ZERO3)


def test_a_broken_file_is_named(alone, tmp_path):
    path = tmp_path / "zero.json"
    assert f"deepspeed {path}: No such file" in refused(deepspeed=str(path))
    for text, message in (("no", " is not JSON"), ("[]", ": a JSON object is needed"), ("{}", ": zero_opt")):
        path.write_text(text)
        assert f"deepspeed {path}{message}" in refused(deepspeed=str(path))
    path.write_text('{"zero_optimization": 3}')
    assert "stage=None; it must be 0, 1, 2 or 3" in refused(deepspeed=str(path))
    path.write_text(json.dumps({"zero_optimization": {"stage": 4}}))
    assert "stage=4" in refused(deepspeed=str(path))


def test_train_refuses_before_it_loads_a_model(alone, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"profile": "smoke", "out": str(tmp_path / "mine"), "deepspeed": ZERO3}))
    alone.setattr(loading, "load_tokenizer", lambda name: pytest.fail("went on"))
    with pytest.raises(SummkitError, match="needs torchrun"):
        finetune.train(path)


def test_a_run_is_not_resumed_in_another_way(alone):
    ways = []
    for fsdp, deepspeed in (("", ""), ("true", ""), ("", ZERO3)):
        alone.setenv("ACCELERATE_USE_FSDP", fsdp)
        made = checkpoints.fingerprint(dataclasses.replace(PLAIN, deepspeed=deepspeed), 0, [], [])
        ways.append((made["fsdp"], made["deepspeed"]))
    assert ways == [(False, ""), (True, ""), (False, ZERO3)]


def test_what_trains_is_taken_whole():
    model = loading.load_model("tiny-llama")
    model.requires_grad_(False)
    norm = model.model.norm.weight.requires_grad_(True)
    found = environment.trained_weights(model)
    assert list(found) == ["model.norm.weight"] and (found["model.norm.weight"] == norm).all()
    assert not found["model.norm.weight"].requires_grad
