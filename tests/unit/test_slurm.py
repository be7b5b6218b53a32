"""The Slurm script, walked through two nodes on loopback: `srun` and `scontrol` are stand-ins, torchrun is real."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from summkit.reporting import records
from tests import warm

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "jobs" / "slurm" / "train.sbatch"
SMALL = {
    "profile": "smoke",
    "train_rows": 16,
    "validation_rows": 4,
    "test_rows": 2,
    "dropout": 0.0,
    "batch_size": 2,
    "epochs": 2,
    "patience": 1000,
}
# As Slurm does it: the command once on every node, each with its number and name; TERM is passed on to all of them.
SRUN = """#!/usr/bin/env bash
echo "srun $1" >> "$TOLD"
shift
for number in 0 1; do
  SLURM_NODEID=$number SLURMD_NODENAME=127.0.0.1 "$@" & nodes+=($!)
done
trap 'kill -TERM "${nodes[@]}"' TERM
code=0
for node in "${nodes[@]}"; do
  wait "$node" || { code=$?; wait "$node" || true; }
done
exit $code
"""
SCONTROL = """#!/usr/bin/env bash
[ "$*" = "show hostnames n[1-2]" ] && printf '127.0.0.1\\n127.0.0.1\\n' && exit
[ "$1" = requeue ] && echo "scontrol $*" >> "$TOLD"  # codecarbon asks for the job's CPUs, and gets no answer
"""


@pytest.fixture
def slurm(tmp_path):
    """A function that starts the script as sbatch would, in a folder with a configuration."""
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "told").touch()
    (tmp_path / "c.json").write_text(json.dumps(SMALL | {"out": "mine"}))

    def start(*arguments, restarts=0):
        env = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
        env |= {"PATH": f"{tmp_path / 'bin'}:{env['PATH']}", "PYTHON": warm.python(), "PYTHONPATH": str(ROOT)}
        env |= {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
        env |= {"SLURM_SUBMIT_DIR": str(tmp_path), "TOLD": str(tmp_path / "told"), "TQDM_DISABLE": "1"}
        env |= {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([SCRIPT, *arguments], env=env, start_new_session=True, **pipes)

    return start


def finish(process):
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    return output


def test_two_nodes_train_as_one_and_a_job_that_is_warned_is_queued_again_and_goes_on(slurm, tmp_path):
    many, srun = ("-p", "epochs=12", "-p", "train_rows=8"), "srun --kill-on-bad-exit=1"
    process = slurm("c.json", *many)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "mine").glob("checkpoint-*/complete.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)  # as --signal=B:USR1@120 does: to the script alone
    output = finish(process)
    assert "queued again" in output and not (tmp_path / "mine" / "run.json").exists()
    assert (tmp_path / "told").read_text().splitlines() == [srun, f"scontrol requeue {os.getpid()}"]
    output = finish(slurm("c.json", *many, restarts=1))
    assert (tmp_path / "told").read_text().splitlines()[2:] == [srun], "this one ended by itself"
    assert output.count("adapter and record") == 1, "one process of all writes"
    record = records.read_record(tmp_path / "mine" / "run.json")
    assert record["data"]["train"] == 8 and record["training"]["resumed_from"].startswith("checkpoint-")
    assert record["training"]["steps"] == 24, "eight rows, two a process and two processes: two steps an epoch"


def test_a_training_that_fails_fails_the_job_and_is_not_queued_again(slurm, tmp_path):
    process = slurm("gone.json")
    assert "gone.json: No such file" in process.communicate(timeout=120)[0]
    assert process.returncode not in (0, None) and "requeue" not in (tmp_path / "told").read_text()


def test_without_a_configuration_it_says_how_it_is_called(slurm, tmp_path):
    process = slurm()
    assert "sbatch jobs/slurm/train.sbatch CONFIG" in process.communicate(timeout=60)[0] and process.returncode != 0
    assert (tmp_path / "told").read_text() == ""
