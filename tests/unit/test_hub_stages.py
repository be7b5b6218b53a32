"""The profile t4's own path through a Hub: data, tokenizer, NF4, adapter, training, summaries; and no Hub at all.

A local Hub holds a tiny Phi as microsoft/phi-2 and a few rows as EdinburghNLP/xsum. Overrides are for size, and for a
machine without a GPU, alone.
"""

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests import warm

PACKAGE = Path(__file__).parents[2]
SMALL = {
    "profile": "t4", "compute_dtype": "float32", "train_rows": 4, "validation_rows": 2, "test_rows": 2,
    "batch_size": 4, "gradient_accumulation": 1, "max_length": 256, "max_new_tokens": 32, "min_words": 0,
    "out": "mine", "rank": 16,
}  # fmt: skip


CHILD = """
import json, sys
from summkit.cli import main

for arguments in json.loads(sys.argv[1]):
    if code := main(arguments):
        sys.exit(code)
"""


def call(commands, environment, folder, **settings):
    """Run commands, each a list of arguments, one after another in one child, which imports the libraries once."""
    given = environment | {"PYTHONPATH": str(PACKAGE), "TQDM_DISABLE": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    command = [warm.python(hub=True), "-c", CHILD, json.dumps(commands)]
    done = subprocess.run(command, env=given, cwd=folder, capture_output=True, text=True, timeout=600, **settings)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def here(tmp_path):
    """An empty folder to call from: load_dataset looks for a local folder org/name first."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def test_t4_trains_and_summarises_through_a_hub(local_hub, tmp_path, here):
    local_hub.add_tiny_phi()
    local_hub.add_xsum()
    environment = local_hub.environment(tmp_path / "home")
    (here / "c.json").write_text(json.dumps(SMALL))
    text = "The bridge was closed. " * 3
    done = call([["train", "c.json"], ["summarize", "--adapter", "mine/adapter"]], environment, here, input=text)
    # Random weights may write nothing, which is exit code 1.
    assert done.returncode == 0 or "no summary, and an empty line" in done.stderr, done.stderr
    assert "profile t4 (asked for by name): microsoft/phi-2, NF4 weights" in done.stdout
    assert done.stdout.rpartition("--adapter mine/adapter\n")[2].count("\n") == 1, "the answer, in one line"

    record = json.loads((here / "mine" / "run.json").read_text())
    assert (record["training"]["steps"], record["training"]["eval_loss"] > 0) == (1, True)
    assert (record["model"]["id"], record["model"]["quantization"]) == ("microsoft/phi-2", "nf4")
    data = {key: record["data"][key] for key in ("id", "source", "train", "validation", "test")}
    assert data == {"id": "EdinburghNLP/xsum", "source": "hub", "train": 4, "validation": 2, "test": 2}
    assert record["model"]["footprint_bytes"] < 4 * record["model"]["parameters"] * 0.75, "not in four bits"
    adapter = json.loads((here / "mine" / "adapter" / "adapter_config.json").read_text())
    assert sorted(adapter["target_modules"]) == ["dense", "k_proj", "q_proj", "v_proj"] and adapter["r"] == 16
    layers, width, projections = 2, 64, 4
    assert record["model"]["trainable"] == layers * projections * 16 * 2 * width
    asked = " ".join(local_hub.requests)
    assert "/datasets/EdinburghNLP/xsum/resolve/" in asked and "/microsoft/phi-2/resolve/" in asked

    # The same training on a local folder in place of the Hub's data.
    rows = [
        {"article": f"Bridge {n} was closed on Monday. {text}", "highlights": f"Bridge {n} shut."} for n in range(9)
    ]
    (here / "rows").mkdir()
    (here / "rows" / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    before = len(local_hub.requests)
    done = call([["train", "c.json", "--overwrite"]], environment | {"SUMMKIT_DATA_DIR": "rows"}, here)
    assert done.returncode == 0, done.stderr
    record = json.loads((here / "mine" / "run.json").read_text())
    assert (record["data"]["id"], record["data"]["source"], record["data"]["train"]) == ("local", "local", 4)
    assert not [line for line in local_hub.requests[before:] if "EdinburghNLP" in line]


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_without_a_hub_the_way_out_is_said_at_once(kind, here, monkeypatch, capsys):
    from summkit.cli import main

    monkeypatch.chdir(here)
    for name in ("HF_HUB_OFFLINE", "SUMMKIT_DATA_DIR", "SUMMKIT_PROFILE", "SUMMKIT_ROOT"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if kind == "silent":
            listening.listen()  # the connection is made, and no answer comes
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        Path("c.json").write_text(json.dumps(SMALL))
        for command in (["run", "task3", "--profile", "t4"], ["train", "c.json"]):
            began = time.monotonic()
            assert main(command) == 2
            assert time.monotonic() - began < 14  # 10 for the Hub, the rest for a busy machine
            said = capsys.readouterr().err
            for word in ("model microsoft/phi-2 comes from the Hugging Face Hub", "does not answer", "profile 'cpu'",
                         "--data PATH"):  # fmt: skip
                assert word in said
    assert os.listdir() == ["c.json"]
