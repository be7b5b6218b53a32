"""FSDP2 as jobs/accelerate launches it, on two CPU processes: losses and adapter are those of DDP, and it resumes.

accelerate itself takes FSDP on GPUs alone. Here it is told one thing that is not so, that gloo is a GPU's backend;
the rest, torch's fully_shard included, is the real thing.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from summkit.reporting import records
from tests import warm

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "jobs" / "accelerate" / "fsdp2.yaml"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
AS_ON_GPUS = """
import sys
import accelerate.state
import transformers
accelerate.state.PartialState._prepare_backend = lambda *_: ("gloo", accelerate.state.DistributedType.MULTI_GPU)
made = transformers.TrainingArguments.__init__
def init(self, **settings):
    made(self, **settings | {"use_cpu": False})
transformers.TrainingArguments.__init__ = init
from summkit.cli import main
sys.exit(main(sys.argv[1:]))
"""
SMALL = {
    "profile": "smoke",
    "precision": "fp32",
    "optimizer": "adamw_torch",
    "train_rows": 16,
    "validation_rows": 4,
    "test_rows": 2,
    "dropout": 0.0,
    "epochs": 2,
    "batch_size": 2,
    "score": ["test"],
    "watch": 2,
}


def environment() -> dict[str, str]:
    """What `accelerate launch --config_file jobs/accelerate/fsdp2.yaml` puts into the environment of each process."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    asked = launch_command_parser().parse_args(["--config_file", str(CONFIG), "-m", "summkit", "train", "c.json"])
    asked, _, _ = _validate_launch_command(asked)
    return {key: value for key, value in prepare_multi_gpu_env(asked).items() if key.startswith(("ACCELER", "FSDP"))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp")
    (folder / "as_on_gpus.py").write_text(AS_ON_GPUS)
    fsdp = environment() | {"ACCELERATE_TORCH_DEVICE": "cpu"}

    def train(name, *more, spread=True, **settings):
        (folder / f"{name}.json").write_text(json.dumps(SMALL | {"out": str(folder / name)} | settings))
        env = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
        start = [folder / "as_on_gpus.py"] if spread else ["-m", "summkit"]
        command = [warm.python(), *TORCHRUN, *start, "train", folder / f"{name}.json", *more]
        done = subprocess.run(command, env=env | (fsdp if spread else {}), capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return folder / name, records.read_record(folder / name / "run.json")

    return train


def test_the_file_is_one_that_accelerate_takes_as_fsdp2(monkeypatch):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import FullyShardedDataParallelPlugin

    assert load_config_from_file(str(CONFIG)).distributed_type.value == "FSDP"  # raises for a key that it does not know
    found = environment()
    assert found["ACCELERATE_USE_FSDP"] == "true" and found["FSDP_VERSION"] == "2"
    for key, value in found.items():
        monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True and not plugin.cpu_ram_efficient_loading


def saved(folder):
    from safetensors.torch import load_file

    return load_file(next((folder / "adapter").glob("*.safetensors")))


def test_fsdp_gives_the_losses_and_the_adapter_of_ddp(run):
    ddp, fsdp = (run(f"spread-{spread}", spread=spread) for spread in (False, True))
    for key in ("train_loss", "eval_loss"):
        assert fsdp[1]["training"][key] == pytest.approx(ddp[1]["training"][key], rel=1e-5)
    assert fsdp[1]["training"]["best_step"] == ddp[1]["training"]["best_step"] and fsdp[1]["model"] == ddp[1]["model"]
    assert fsdp[1]["scores"]["fine_tuned"]["rouge1"] == ddp[1]["scores"]["fine_tuned"]["rouge1"]
    assert fsdp[1]["details"]["watched"][-1]["eval_rouge1"] == ddp[1]["details"]["watched"][-1]["eval_rouge1"]
    one, two = saved(ddp[0]), saved(fsdp[0])
    assert set(one) == set(two)
    assert all(one[key].shape == two[key].shape and (one[key] - two[key]).abs().max() < 1e-4 for key in one)


def test_fsdp_of_all_weights_goes_on_from_a_checkpoint(run):
    folder, whole = run("again", method="full")
    before = saved(folder)
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    (last / "complete.json").unlink()  # as if killed while it was saved
    _, again = run("again", "--resume", method="full")
    assert again["training"]["resumed_from"] and again["training"]["steps"] == whole["training"]["steps"]
    assert again["training"]["eval_loss"] == pytest.approx(whole["training"]["eval_loss"], rel=1e-5)
    after = saved(folder)
    assert sum(weight.numel() for weight in after.values()) == whole["model"]["trainable"], "whole, not a part"
    assert all((after[key] - before[key]).abs().max() < 1e-4 for key in before)
