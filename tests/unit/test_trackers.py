"""Trackers: only the one that was named, never with a question, and finished whatever happens.

The trackers themselves are not installed for tests: packages of their names stand in for them, and ask on the terminal
wherever the real ones would.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from summkit.config import choose_profile
from summkit.errors import SummkitError
from summkit.models.tiny import tiny_llama
from summkit.training import environment
from summkit.training.trainer import Job, fit, training_arguments
from tests import warm

ROOT = Path(__file__).parents[2]
TRACKERS = ("trackio", "wandb", "mlflow")
SMOKE = choose_profile("smoke")
WANDB = """
import json, os, pathlib
run = None
class Error(Exception):
    pass
class Config(dict):
    def update(self, values, allow_val_change=False):
        dict.update(self, values)
class Run:
    def __init__(self, **settings):
        self.settings, self.config, self.rows, self.summary = settings, Config(), [], {}
    def _label(self, **_):
        pass
    def finish(self):
        global run
        run = None
        text = json.dumps({"settings": self.settings, "rows": self.rows})
        pathlib.Path(os.environ["TOLD"]).write_text(text)
def init(**settings):
    global run, config, summary
    mode = settings.get("mode") or os.environ.get("WANDB_MODE", "online")
    if mode == "online" and not os.environ.get("WANDB_API_KEY"):
        input("your key, please: ")
    if os.environ.get("WANDB_API_KEY") == "wrong":
        raise Error("403, no such key\\nmore")
    run = Run(**settings)
    config, summary = run.config, run.summary
    return run
def define_metric(*_, **__):
    pass
def log(row):
    run.rows.append(row)
"""
TRACKIO = """
import json, os, pathlib, types
__version__ = "0.43.0"
rows, config, context_vars = [], {}, types.SimpleNamespace(current_space_id=types.SimpleNamespace(get=lambda: None))
class Config(dict):
    def update(self, values, allow_val_change=False):
        dict.update(self, values)
config = Config()
def init(**given):
    global settings
    settings = given
    if given.get("space_id"):
        input("your token, please: ")
def log(row):
    rows.append(row)
def finish():
    pathlib.Path(os.environ["TOLD"]).write_text(json.dumps({"settings": settings, "rows": rows}))
"""
MLFLOW = """
import json, os, pathlib
from types import SimpleNamespace
__version__ = "3.15.0"
rows, run = [], None
validation = SimpleNamespace(MAX_PARAM_VAL_LENGTH=6000, MAX_PARAMS_TAGS_PER_BATCH=100)
utils = SimpleNamespace(validation=validation)
def is_tracking_uri_set():
    return False
def set_tracking_uri(uri):
    global where
    where = uri
def active_run():
    return run
def start_run(**_):
    global run
    run = SimpleNamespace(info=SimpleNamespace(run_id="1"))
def log_params(values, synchronous=True):
    pass
def log_metrics(metrics, step, synchronous=True):
    rows.append(metrics | {"step": step})
def end_run():
    global run
    run = None
    pathlib.Path(os.environ["TOLD"]).write_text(json.dumps({"where": where, "rows": rows}))
"""


CHILD = """
import os, sys
from summkit.cli import main

for name in sys.argv[1:]:
    os.environ["TOLD"] = f"{name}.told"
    assert main(["train", f"{name}.json"]) == 0
"""


def write_packages(folder):
    """Packages called wandb, trackio and mlflow in `folder`."""
    for name, code in (("wandb", WANDB), ("trackio", TRACKIO), ("mlflow", MLFLOW)):
        (folder / name / "sdk" / "lib").mkdir(parents=True)
        (folder / name / "__init__.py").write_text(code)
    for part in ("sdk", "sdk/lib"):
        (folder / "wandb" / part / "__init__.py").write_text("")
    (folder / "wandb" / "sdk" / "lib" / "config_util.py").write_text("class ConfigError(Exception):\n    pass\n")
    return folder


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """A folder with packages called wandb, trackio and mlflow, first on the path."""
    folder = write_packages(tmp_path / "packages")
    for name in [name for name in os.environ if name.startswith(("WANDB_", "TRACKIO_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOLD", str(tmp_path / "told.json"))
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in TRACKERS]:
        del sys.modules[name]


def reports_to(profile, folder):
    rows = [None] * 8
    return training_arguments(Job(tiny_llama(), None, rows, rows, profile, 0, folder)).report_to


def told(tmp_path):
    return json.loads((tmp_path / "told.json").read_text())


def test_an_unknown_tracker_lists_the_known():
    with pytest.raises(
        SummkitError, match="option track='neptune': input should be '', 'trackio', 'wandb' or 'mlflow'"
    ):
        choose_profile("smoke", track="neptune")


@pytest.mark.parametrize("name", TRACKERS)
def test_one_that_is_not_installed_is_said_with_the_way_out(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()  # the runs of an earlier one: Python would import it as an empty package
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(SummkitError, match=f"track='{name}': {name} is not installed; pip install {name}"):
        fit(None, None, [], [], dataclasses.replace(SMOKE, track=name), seed=0, out_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_none_is_the_default_whatever_the_environment_says(stand_ins, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.setenv("WANDB_PROJECT", "p")
    assert choose_profile("smoke").track == ""
    assert reports_to(SMOKE, tmp_path) == []
    with environment.tracked("", tmp_path):
        assert "wandb" not in sys.modules


@pytest.mark.parametrize("name", TRACKERS)
def test_the_trainer_reports_to_the_one_that_is_named(stand_ins, tmp_path, name):
    assert reports_to(choose_profile("smoke", track=name), tmp_path) == [name]


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_MODE": "online"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_API_KEY": "k"}, None),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
    ],
)
def test_wandb_without_a_key_is_offline(stand_ins, tmp_path, monkeypatch, variables, mode):
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    with pytest.raises(ZeroDivisionError), environment.tracked("wandb", tmp_path / "run"):
        len(__import__("wandb").run.rows) / 0
    assert told(tmp_path)["settings"] == {"project": "summkit", "dir": str(tmp_path / "run"), "mode": mode}


def test_a_run_that_is_open_already_is_left_open(stand_ins, tmp_path):
    wandb = __import__("wandb")
    mine = wandb.init(mode="offline")
    with environment.tracked("wandb", tmp_path):
        assert wandb.run is mine
    assert wandb.run is mine and not (tmp_path / "told.json").exists()


def test_a_refused_key_is_a_message(stand_ins, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "wrong")
    message = "wandb: 403, no such key; without WANDB_API_KEY it runs offline"
    with pytest.raises(SummkitError, match=message), environment.tracked("wandb", tmp_path):
        pytest.fail("it trains")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What each tracker was told of a training: {name: …}. One child trains for all: it has no stdin to read from."""
    folder = tmp_path_factory.mktemp("trained")
    packages = write_packages(folder / "packages")
    config = {"profile": "smoke", "train_rows": 8, "validation_rows": 4, "test_rows": 2, "watch": 1}
    for name in TRACKERS:
        settings = config | {"track": name, "evaluations_per_epoch": 1, "out": f"{name}.run"}
        (folder / f"{name}.json").write_text(json.dumps(settings))
    given = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "TRACKIO_", "MLFLOW_"))}
    given |= {"PYTHONPATH": f"{packages}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": "somewhere"}
    done = subprocess.run(
        [warm.python(hub=True), "-c", CHILD, *TRACKERS],
        cwd=folder,
        env=given,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr  # a question would end in EOFError
    return {name: json.loads((folder / f"{name}.told").read_text()) for name in TRACKERS}


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_training_tells_the_tracker_and_reads_no_stdin(trained, name):
    rows, settings = trained[name]["rows"], trained[name]["settings"]
    assert [row["train/loss"] > 0 for row in rows if "train/loss" in row] == [True, True]
    assert [set(row) >= {"eval/loss", "eval/rouge1", "eval/bleu3"} for row in rows if "eval/loss" in row] == [True]
    assert settings["project"] == "summkit" and settings.get("space_id") is None


def test_mlflow_is_told_eval_loss_where_its_own_variable_says(trained):
    rows = trained["mlflow"]["rows"]  # jobs/azureml/sweep.yml chooses by this very name
    assert [row["step"] for row in rows if "eval_loss" in row] == [2] and trained["mlflow"]["where"] == "somewhere"
