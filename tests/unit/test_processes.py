"""Several processes train as one: the same losses, one record, no hanging where one dies, and resuming."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from summkit.recipes.finetune import train as train_here
from summkit.reporting import records
from tests import tiny_models, warm

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "summkit"]
SMALL = {"profile": "smoke", "train_rows": 16, "validation_rows": 4, "test_rows": 2, "dropout": 0.0, "epochs": 2}


def configuration(tmp_path, name, **settings):
    config = tmp_path / f"{name}.json"
    config.write_text(json.dumps(SMALL | {"out": str(tmp_path / name)} | settings))
    return config


def start(tmp_path, name, resume=False, python=sys.executable, **settings):
    env = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
    config = configuration(tmp_path, name, **settings)
    arguments = [python, *TORCHRUN, "train", str(config), *(["--resume"] if resume else [])]
    return subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def train(*arguments, **settings):
    process = start(*arguments, python=warm.python(), **settings)
    output = process.communicate(timeout=400)[0]  # a minute on a quiet machine
    assert process.returncode == 0, output
    return output


def led(folder):
    """The settings that train a tiny LED as the profile t4 does; without dropout, which is drawn anew."""
    model, tokenizer = tiny_models.published("led")
    model.config.update(dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0))
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    return {"model": str(folder), "template": "prefix", "gradient_checkpointing": True, "targets": "attention"}


@pytest.mark.parametrize("kind", ["LED with LoRA", "decoder with a tuned prompt"])
def test_two_processes_give_the_losses_of_one(one_thread, tmp_path, kind):
    own = led(tmp_path / "led") if "LED" in kind else {"method": "prompt", "virtual_tokens": 8}
    train_here(configuration(tmp_path, "one", batch_size=4, **own))
    # The first of the two answers rows at each evaluation, and the other waits for it.
    output = train(tmp_path, "two", batch_size=2, watch=2, **own)
    watched = records.read_record(tmp_path / "two" / "run.json")["details"]["watched"]
    assert len(watched) > 1 and all(set(entry) == {"step", "eval_rouge1", "eval_bleu3"} for entry in watched)
    one, two = (records.read_record(tmp_path / name / "run.json")["training"] for name in ("one", "two"))
    for key in ("train_loss", "eval_loss"):
        assert two[key] == pytest.approx(one[key], rel=1e-4)
    assert [two[key] for key in ("steps", "tokens", "best_step")] == [
        one[key] for key in ("steps", "tokens", "best_step")
    ]
    assert output.count("adapter and record") == output.count("profile smoke") == 1


def test_what_two_processes_were_stopped_in_they_go_on_with(tmp_path):
    record = tmp_path / "mine" / "run.json"
    train(tmp_path, "mine", batch_size=2)
    whole = records.read_record(record)["training"]
    (tmp_path / "mine" / "checkpoint-8" / "complete.json").unlink()  # as if killed while the last one was saved
    record.unlink()
    train(tmp_path, "mine", resume=True, batch_size=2)
    broken = records.read_record(record)["training"]
    assert broken["resumed_from"] == "checkpoint-7", "in the middle of the second epoch"
    for key in ("train_loss", "eval_loss"):
        assert broken[key] == pytest.approx(whole[key], rel=1e-5)


def test_a_process_that_dies_ends_the_run_with_a_message(tmp_path):
    process = start(tmp_path, "dying", batch_size=2, epochs=5000)
    deadline = time.monotonic() + 120
    while not (tmp_path / "dying").is_dir() and time.monotonic() < deadline:
        time.sleep(0.2)
    workers = [child for child in psutil.Process(process.pid).children() if "train" in child.cmdline()]
    workers[-1].send_signal(signal.SIGKILL)
    output = process.communicate(timeout=200)[0]
    assert process.returncode != 0 and "SIGKILL" in output
    assert not (tmp_path / "dying" / "run.json").exists()
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
