"""DeepSpeed's ZeRO on two CPU processes: the losses, the adapter and the resumed run are those without it.

DeepSpeed is an extra: where it is absent these tests are skipped, and `make test-deepspeed` installs it and runs them.
Its first run compiles for some minutes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from summkit.reporting import records
from tests.unit.test_fsdp import SMALL

deepspeed = pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: make test-deepspeed")
ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "summkit"]


def train(folder, name, *more, **settings):
    config = folder / f"{name}.json"
    config.write_text(json.dumps(SMALL | {"out": str(folder / name)} | settings))
    env = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "DS_ACCELERATOR": "cpu"}
    env |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # ninja lies there
    env |= {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    done = subprocess.run([*TORCHRUN, "train", config, *more], env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return records.read_record(folder / name / "run.json")


def weights(folder):
    from safetensors.torch import load_file

    return load_file(next((folder / "adapter").glob("*.safetensors")))


@pytest.fixture(scope="module", params=["lora", "full"])
def without(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, request.param, train(folder, "ddp", method=request.param)


@pytest.mark.parametrize("stage", [2, 3])
def test_zero_gives_the_losses_and_the_weights_of_ddp(without, stage):
    folder, method, ddp = without
    name = f"zero{stage}"
    zero = train(folder, name, method=method, deepspeed=str(ROOT / "jobs" / "deepspeed" / f"{name}.json"))
    for key in ("train_loss", "eval_loss"):
        assert zero["training"][key] == pytest.approx(ddp["training"][key], rel=1e-5)
    for key in ("steps", "tokens", "best_step"):
        assert zero["training"][key] == ddp["training"][key]
    assert zero["model"] == ddp["model"], "what is counted, is counted before the weights are spread"
    assert zero["scores"]["fine_tuned"]["rouge1"] == ddp["scores"]["fine_tuned"]["rouge1"]
    assert len(zero["details"]["watched"]) == len(ddp["details"]["watched"])
    one, two = weights(folder / "ddp"), weights(folder / name)
    assert set(one) == set(two)
    assert all(two[key].shape == one[key].shape and (two[key] - one[key]).abs().max() < 1e-4 for key in one)


def test_zero_goes_on_from_a_checkpoint(tmp_path):
    settings = {"method": "lora", "deepspeed": str(ROOT / "jobs" / "deepspeed" / "zero3.json")}
    whole = train(tmp_path, "mine", **settings)["training"]
    last = max((tmp_path / "mine").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    (last / "complete.json").unlink()  # as if killed while it was saved
    (tmp_path / "mine" / "run.json").unlink()
    again = train(tmp_path, "mine", "--resume", **settings)["training"]
    assert again["resumed_from"] and again["steps"] == whole["steps"]
    assert again["eval_loss"] == pytest.approx(whole["eval_loss"], rel=1e-5)
