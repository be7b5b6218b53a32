"""Whole papers as the profiles t4 and gpu read them: LED, BigBird-Pegasus, LongT5 and arXiv through a Hub.

A local Hub holds tiny ones of these classes and a few rows under the real names. Overrides are for size, and for a
machine without a GPU, alone.
"""

import json
import subprocess
from pathlib import Path

import pytest

from summkit.config import choose_profile
from tests import warm
from tests.hub import LocalHub

PACKAGE = Path(__file__).parents[2]
SMALL = {
    "task": "long", "compute_dtype": "float32", "train_rows": 4, "validation_rows": 2, "test_rows": 2,
    "max_length": 200, "max_new_tokens": 16, "score": ["test"],
}  # fmt: skip
PAPER = "The bridge fell. It was closed for a year. " * 9
LED, LARGE = "allenai/led-base-16384", "allenai/led-large-16384-arxiv"
BIGBIRD, LONG_T5 = "google/bigbird-pegasus-large-arxiv", "google/long-t5-tglobal-base"
RANK, WIDTH, LAYERS = 16, 32, 2
DECODER = 2 * 4  # self-attention and attention to the encoder: query, key, value, output
ADAPTED = {LED: 7 + DECODER, LARGE: 7 + DECODER, BIGBIRD: 4 + DECODER, LONG_T5: 4 + DECODER}  # LED: three are global


@pytest.mark.parametrize(
    ("name", "computes", "optimizer"),
    [("t4", "float16", "paged_adamw_8bit"), ("gpu", "bfloat16", "adamw_torch_fused")],
)
def test_the_settings(name, computes, optimizer):
    for model in (None, LARGE):
        profile = choose_profile(name, task="long", **({"model": model} if model else {}))
        assert (profile.model, profile.dataset) == (model or LED, "ccdv/arxiv-summarization")
        assert (profile.max_length, profile.max_new_tokens) == (8192, 256)
        assert profile.batch_size * profile.gradient_accumulation == 16 and profile.gradient_checkpointing
        weights = (profile.precision, profile.compute_dtype, profile.method, profile.targets, profile.optimizer)
        assert weights == ("nf4", computes, "lora", "attention", optimizer)


RUNS = {
    "led": ("t4", LED, "chunks", "chunks of at most"), "large": ("gpu", LARGE, "lead-and-end", "its beginning"),
    "bigbird": ("t4", BIGBIRD, "lead-and-end", "and end ("), "longt5": ("gpu", LONG_T5, "first", "its first"),
}  # fmt: skip
CHILD = """
import sys
from summkit.cli import main

for name, strategy in zip(sys.argv[1::2], sys.argv[2::2]):
    for stream in (sys.stdout, sys.stderr):
        print("==", name, file=stream)
    assert main(["train", f"{name}.json"]) == 0
    # Random weights may write nothing, which is exit code 1.
    assert main(["summarize", "--adapter", f"{name}/adapter", "--strategy", strategy, "paper.txt"]) in (0, 1)
"""


def add_all(hub):
    """The models; and papers with abstracts, columns, splits and configurations as on the Hub."""

    def splits(word):
        rows = [{"article": f"{word} {n}.\n{PAPER}", "abstract": f" {word} {n} fell .\n It is ."} for n in range(9)]
        return {"train": rows[:5], "validation": rows[5:7], "test": rows[7:]}

    for model in (LED, LARGE):
        hub.add_tiny_led(model)
    hub.add_tiny_bigbird_pegasus()
    hub.add_tiny_long_t5()
    hub.add_rows("ccdv/arxiv-summarization", {"section": splits("Part"), "document": splits("Bridge")})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Every run of RUNS as the command line makes it: (folder, {name: stdout}, {name: stderr}, what the Hub was asked).

    One child process for all: it imports the libraries once.
    """
    folder = tmp_path_factory.mktemp("long")
    here = folder / "here"  # empty but for this: load_dataset looks for a local folder org/name first
    here.mkdir()
    for name, (profile, model, *_) in RUNS.items():
        named = {} if model == LED else {"model": model}
        (here / f"{name}.json").write_text(json.dumps(SMALL | named | {"profile": profile, "out": name}))
    (here / "paper.txt").write_text(PAPER)
    with LocalHub(folder / "hub") as hub:
        add_all(hub)
        environment = hub.environment(folder / "home", PYTHONPATH=str(PACKAGE), TQDM_DISABLE="1")
        asked = [word for name, (_, _, strategy, _) in RUNS.items() for word in (name, strategy)]
        command, captured = [warm.python(hub=True), "-c", CHILD, *asked], {"capture_output": True, "text": True}
        child = subprocess.run(command, env=environment, cwd=here, timeout=600, **captured)
        assert child.returncode == 0, child.stderr
        streams = [
            dict(part.split("\n", 1) for part in stream.split("== ")[1:]) for stream in (child.stdout, child.stderr)
        ]
        return here, *streams, " ".join(hub.requests)


@pytest.mark.parametrize("name", RUNS)
def test_a_model_learns_and_answers_through_a_hub(done, name):
    here, said, warned, requests = done
    profile, model, _, how = RUNS[name]
    assert f"profile {profile} (asked for by name): {model}, NF4 weights" in said[name]
    record = json.loads((here / name / "run.json").read_text())
    data = {key: record["data"][key] for key in ("id", "source", "train", "validation", "test", "dropped")}
    assert data == {
        "id": "ccdv/arxiv-summarization", "source": "hub", "train": 4, "validation": 2, "test": 2, "dropped": {},
    }  # fmt: skip
    assert (record["profile"], record["model"]["id"], record["model"]["quantization"]) == (profile, model, "nf4")
    assert record["model"]["trainable"] == LAYERS * ADAPTED[model] * RANK * 2 * WIDTH
    training = record["training"]
    assert training["steps"] == 1 and training["eval_loss"] > 0  # of 16 rows, and four are there
    assert 4 * 150 < training["tokens"] < 4 * 300 and record["scores"]["fine_tuned"]["n"] == 2
    assert f"/{model}/resolve/" in requests

    settings = json.loads((here / name / "adapter" / "summkit.json").read_text())
    assert (settings["model"], settings["template"], settings["wording"]) == (model, "prefix", "paper")
    assert (here / name / "adapter" / "adapter_model.safetensors").stat().st_size > 4 * record["model"]["trainable"]
    assert said[name].rpartition(f"--adapter {name}/adapter\n")[2].count("\n") == 1, "the answer, in one line"
    assert "paper.txt: too long for the model, " in warned[name] and how in warned[name]


def test_whole_papers_are_asked_for(done):
    assert "/datasets/ccdv/arxiv-summarization/resolve/" in done[3]
    assert "/document/train" in done[3] and "/section/" not in done[3]
