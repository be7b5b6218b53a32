"""One of each from outside: what a plugin adds is used like what the library brings, and nothing else is edited."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from summkit.errors import SummkitError
from summkit.registry import Registry, load_plugins
from tests import warm

ROOT = Path(__file__).parents[2]
CODE = """
import json, sys
import summkit as sk
from summkit.cli import main

config, folder = sys.argv[1:]
assert main(["train", config]) == 0
record = json.load(open(folder + "/run.json"))
summarizer = sk.inference.Summarizer.load(folder + "/adapter")
answers = sk.inference.summarize_long(summarizer, ["word " * 300], "end", decoding="two-beams")
from summkit import distillation
labels = distillation.label_file(folder + "/rows.jsonl", folder + "/labels.jsonl", teacher="echo", profile="smoke")
from summkit.models.families import FAMILIES
print(json.dumps({
    "data": record["data"]["id"], "method": record["training"]["method"], "trainable": record["model"]["trainable"],
    "capitals": record["scores"]["fine_tuned"]["capitals"], "how": answers[0].how,
    "table": list(sk.evaluation.score_table(record["scores"]).columns), "labels": list(labels.labels.values()),
    "family": FAMILIES.find("tiny_family").overflows_in_fp16,
    "prompt": summarizer.template.prompt("A talk."),
}))
"""


def test_a_plugin_adds_one_of_each(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(json.dumps({"id": "1", "document": "Graphs and nets and more."}) + "\n")
    config = {"profile": "smoke", "out": str(folder), "dataset": "minutes", "wording": "minutes", "template": "arrow",
              "method": "last-norm", "precision": "fp32", "train_rows": 8, "validation_rows": 2, "test_rows": 2,
              "max_new_tokens": 4, "score": ["test"]}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "plugin")])
    environment = os.environ | {"PYTHONPATH": path, "SUMMKIT_PLUGINS": "summkit_minutes", "TQDM_DISABLE": "1"}
    command = [warm.python(), "-c", CODE, str(tmp_path / "config.json"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["data"], found["method"], found["trainable"]) == ("minutes", "last-norm", 64)
    assert set(found["capitals"]) == {"mean", "low", "high"} and "capitals, %" in found["table"]
    assert found["how"].startswith("its end was read") and found["family"] is True
    assert found["labels"] == ["graphs; and; nets"]
    assert found["prompt"] == "Write one line for the minutes.\nA talk.\n→"


def test_a_plugin_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("SUMMKIT_PLUGINS", "no_such_plugin")
    with pytest.raises(SummkitError, match="SUMMKIT_PLUGINS names 'no_such_plugin', which cannot be imported"):
        load_plugins()


def test_no_entry_is_replaced_in_silence():
    table = Registry("method", {"lora": 1})
    with pytest.raises(SummkitError, match="method 'lora' already exists"):
        table.add("lora", 2)
    with pytest.raises(SummkitError, match="unknown method 'lor'; known: lora"):
        table.find("lor")
