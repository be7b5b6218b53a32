"""The local Hub serves the libraries' own loading code: what the profiles t4 and gpu do, tested without a network."""

import json
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest

from tests import tiny_models, warm
from tests.hub import LocalHub

_CHILD = """
import json
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

rows, lines = load_dataset("EdinburghNLP/xsum"), load_dataset("EdinburghNLP/xsum-lines")
tokenizer = AutoTokenizer.from_pretrained("microsoft/phi-2")
model = AutoModelForCausalLM.from_pretrained("microsoft/phi-2")
text = "Café £5\\n"
print(json.dumps({
    "rows": {name: len(split) for name, split in rows.items()},
    "columns": rows["train"].column_names,
    "first": rows["train"][0]["id"],
    "same rows": all(rows[split].to_list() == lines[split].to_list() for split in rows) and len(rows) == len(lines),
    "model": type(model).__name__,
    "eos": [tokenizer.eos_token_id, model.config.eos_token_id],
    "pad": tokenizer.pad_token_id,
    "same": tokenizer.decode(tokenizer(text)["input_ids"]) == text,
    "weight": model.get_output_embeddings().weight.flatten()[0].item(),
}))
"""


def _child(hub, home, code, **variables):
    # In an empty folder: load_dataset looks for a local folder org/name first.
    home.mkdir(exist_ok=True)
    env = hub.environment(home, **variables)
    command = [warm.python(hub=True), "-c", code]
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_fresh_home_loads_data_tokenizer_and_model_through_it(local_hub, tmp_path):
    local_hub.add_tiny_phi()
    local_hub.add_xsum()
    local_hub.add_xsum("EdinburghNLP/xsum-lines", form="jsonl")
    seen = _child(local_hub, tmp_path / "home", _CHILD)
    weight = seen.pop("weight")
    assert seen == {
        "rows": {"train": 24, "validation": 8, "test": 8}, "columns": ["id", "document", "summary"],
        "first": "example-001", "same rows": True, "model": "PhiForCausalLM", "eos": [0, 0], "pad": None, "same": True,
    }  # fmt: skip
    assert weight != 0
    asked = " ".join(local_hub.requests)
    assert "/microsoft/phi-2/resolve/" in asked and "model.safetensors" in asked


_LABELS = """
import json
from summkit.config import choose_profile
from summkit.data import classification

small, found = {"train_rows": 4, "validation_rows": 3, "test_rows": 2}, {}
for task in ("agnews", "goemotions", "mnli"):
    splits = classification.load_labels(choose_profile("t4", task=task, **small))
    found[task] = {"source": splits.source} | splits.counts()
    found[task] |= {name: getattr(splits, name).to_list() for name in ("train", "validation", "test")}
few = classification.load_labels(choose_profile("t4", task="mnli", train_rows=4, test_rows=500, validation_rows=20))
found["few"] = few.counts()
print(json.dumps(found))
"""


def _labelled_sets(hub):
    """Tiny copies of the three sets, their columns, splits and configs as on the Hub."""
    news = [{"text": f"News {n}.", "label": n % 4} for n in range(16)]
    hub.add_rows("fancyzhx/ag_news", {"default": {"train": news[:10], "test": [*news[10:], news[0]]}})
    emotions = [{"text": f"Comment {n}.", "labels": [n, n + 1][: 1 + n % 2], "id": f"e{n}"} for n in range(18)]
    three = {"train": emotions[:8], "validation": emotions[8:13], "test": emotions[13:]}
    raw = [{"text": "Raw.", "id": "raw", "author": "a", "joy": 1}]
    hub.add_rows("google-research-datasets/go_emotions", {"raw": {"train": raw}, "simplified": three})
    pairs = [
        {"promptID": n, "pairID": f"{n}e", "premise": f"Premise {n}.", "premise_parse": "(ROOT (",
         "hypothesis": f"Claim {n}.", "genre": "fiction", "label": n % 3} for n in range(24)
    ]  # fmt: skip
    pairs[3]["label"] = pairs[14]["label"] = -1
    splits = {"train": pairs[:12], "validation_matched": pairs[12:18], "validation_mismatched": pairs[18:]}
    hub.add_rows("nyu-mll/multi_nli", {"default": splits})


def test_the_label_tasks_read_their_sets_as_the_hub_has_them(local_hub, tmp_path):
    _labelled_sets(local_hub)
    found = _child(local_hub, tmp_path / "home", _LABELS)
    news, emotions, pairs = (found[task] for task in ("agnews", "goemotions", "mnli"))
    assert {entry["source"] for entry in (news, emotions, pairs)} == {"hub"}
    assert [[len(entry[name]) for name in ("train", "validation", "test")] for entry in (news, emotions, pairs)] == [
        [4, 3, 2]
    ] * 3
    assert news["dropped"] == {"duplicate document": 1} and pairs["dropped"] == {"no label": 2}
    assert all(row["labels"] == [int(row["document"][5:-1]) % 4] for row in news["train"] + news["test"])
    assert all(int(row["document"][5:-1]) < 10 for row in news["validation"]), "of train, where the set has none"
    assert all(8 <= int(row["id"][1:]) < 13 for row in emotions["validation"])
    assert {len(row["labels"]) for row in emotions["train"] + emotions["validation"]} == {1, 2}
    for row in pairs["train"] + pairs["validation"] + pairs["test"]:
        own = int(row["document"][8:-1])
        assert row["second"] == f"Claim {own}." and row["labels"] == [own % 3]
    assert all(12 <= int(row["document"][8:-1]) < 18 for row in pairs["test"]), "of validation_matched"
    assert found["few"] == {"train": 4, "validation": 5, "test": 5, "dropped": {"no label": 2}}


_ODD = """
import json
from summkit.config import choose_profile
from summkit.data import load_summaries
from summkit.errors import SummkitError

found = {}
for name in ("two", "two:german", "ragged", "mixed", "cut", "script"):
    try:
        profile = choose_profile("smoke", dataset=f"org/{name}", train_rows=4, validation_rows=1, test_rows=1)
        found[name] = load_summaries(profile).counts()
    except SummkitError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


def test_an_odd_set_is_one_sentence_and_a_configuration_can_be_named(local_hub, tmp_path):
    rows = [{"document": f"Bridge {n} was shut.", "summary": f"Bridge {n}."} for n in range(9)]
    local_hub.add_rows("org/two", {"english": {"train": rows}, "german": {"train": rows}})
    files = {"ragged/train": rows, "ragged/test": [row | {"url": "x"} for row in rows], "cut/train": rows}
    files["mixed/train"] = [row | {"score": 1 if n < 8 else "n/a"} for n, row in enumerate(rows)]
    for name, written in files.items():
        folder, split = name.split("/")
        path = local_hub.folder("datasets", f"org/{folder}") / f"{split}.jsonl"
        path.write_text("\n".join(map(json.dumps, written))[: -30 if folder == "cut" else None])
    (local_hub.folder("datasets", "org/script") / "script.py").write_text("raise SystemExit")
    found = _child(local_hub, tmp_path / "home", _ODD)
    assert found["two:german"] == {"train": 4, "validation": 1, "test": 1, "dropped": {}}
    assert "'english', 'german'" in found["two"] and "name one as org/two:CONFIGURATION" in found["two"]
    assert found["mixed"] == found["two:german"], "the column of mixed types is not one that is used"
    for name in ("ragged", "cut", "script"):
        assert found[name].startswith(f"data set org/{name} could not be read from the Hub: "), name


_SUMMARIES = """
import json
from summkit.config import choose_profile
from summkit.data import summarisation

small, found = {"train_rows": 3, "validation_rows": 2, "test_rows": 2, "min_words": 0}, {}
for task in ("methods", "topics"):
    profile = choose_profile("t4", task=task, **small)
    splits = summarisation.load_summaries(profile)
    found[task] = {"set": profile.dataset, "source": splits.source} | splits.counts()
    found[task] |= {name: getattr(splits, name).to_list() for name in ("train", "validation", "test")}
print(json.dumps(found))
"""


def test_the_summary_tasks_read_their_sets_as_the_hub_has_them(local_hub, tmp_path):
    """CNN/DailyMail has configurations and its own names of columns; the abstracts have one split."""

    def news(split):
        return [
            {"article": f"{split} {n}. Text.", "highlights": f"H {n} .\nB .", "id": f"{split}{n}"} for n in range(4)
        ]

    three = {split: news(split) for split in ("train", "validation", "test")}
    local_hub.add_rows("abisee/cnn_dailymail", {"1.0.0": {"train": [{"old": "x"}]}, "3.0.0": three})
    papers = [
        {"Unnamed: 0.1": n, "Unnamed: 0": float(n), "title": f"Title {n}", "abstract": f"  We ask {n}\nthings.\n"}
        for n in range(9)
    ]
    local_hub.add_rows("CShorten/ML-ArXiv-Papers", {"default": {"train": papers}})
    found = _child(local_hub, tmp_path / "home", _SUMMARIES)
    methods, topics = found["methods"], found["topics"]
    assert (methods["set"], topics["set"]) == ("abisee/cnn_dailymail", "CShorten/ML-ArXiv-Papers")
    for entry in (methods, topics):
        assert entry["source"] == "hub" and entry["dropped"] == {}
        assert [len(entry[split]) for split in ("train", "validation", "test")] == [3, 2, 2]
    for split in ("train", "validation", "test"):
        for row in methods[split]:
            number = row["id"].removeprefix(split)
            assert row["document"] == f"{split} {number}. Text." and row["summary"] == f"H {number} . B ."
        for row in topics[split]:
            number = row["summary"].removeprefix("Title ")
            assert row["document"] == f"We ask {number} things." and row["id"] == f"train:{int(number) + 1}"
    assert len({row["id"] for split in ("train", "validation", "test") for row in topics[split]}) == 7


def test_a_missing_repository_is_said_to_be_missing(local_hub, tmp_path):
    code = """
import json
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
said = []
for repo, file in (("microsoft/phi-3", "config.json"), ("microsoft/phi-2", "none.json")):
    try:
        hf_hub_download(repo, file)
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        said.append(type(error).__name__)
print(json.dumps(said))
"""
    (local_hub.folder("models", "microsoft/phi-2") / "config.json").write_text("{}")
    said = _child(local_hub, tmp_path / "home", code)
    assert said[0] == "RepositoryNotFoundError" and said[1] in ("EntryNotFoundError", "RemoteEntryNotFoundError")


def test_parts_of_a_file_and_the_tree(local_hub):
    folder = local_hub.folder("datasets", "a/b")
    (folder / "data").mkdir()
    (folder / "data" / "x.txt").write_bytes(b"0123456789")
    url = f"{local_hub.endpoint}/datasets/a/b/resolve/main/data/x.txt"
    asked = urllib.request.Request(url, headers={"Range": "bytes=2-4"})
    with urllib.request.urlopen(asked) as answer:
        assert (answer.status, answer.read(), answer.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    with urllib.request.urlopen(f"{local_hub.endpoint}/api/datasets/a/b/tree/main?recursive=True") as answer:
        assert [(e["type"], e["path"]) for e in json.load(answer)] == [("directory", "data"), ("file", "data/x.txt")]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{local_hub.endpoint}/a/b/resolve/main/../../../secret")
    assert refused.value.code == 404


_TRAINED = """
import contextlib, io, json
from pathlib import Path
from summkit.cli import main

config = {"profile": "smoke", "model": "microsoft/phi-2", "dataset": "EdinburghNLP/xsum", "out": "run"}
Path("c.json").write_text(json.dumps(config | {"train_rows": 4, "validation_rows": 1, "test_rows": 1}))
Path("article.txt").write_text("The bridge over the Marran opened on Monday.")
adapter = ["article.txt", "--adapter", "run/adapter"]
calls = (["train", "c.json", "--overwrite"], ["summarize", *adapter], ["export", *adapter[1:], "--out", "merged"])
codes = []
with contextlib.redirect_stderr(io.StringIO()) as said:
    for call in calls:
        codes.append(main(call))
print(json.dumps({"codes": codes, "said": said.getvalue()}))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A Hub, and a home with a training's model and rows in its cache, and the adapter in the folder run."""
    folder = tmp_path_factory.mktemp("trained")
    with LocalHub(folder / "hub") as hub:
        hub.add_tiny_phi()
        hub.add_xsum()
        found = _child(hub, folder / "home", _TRAINED)
        assert found["codes"][0] == found["codes"][2] == 0, found["said"]
        yield hub, folder / "home"


@pytest.fixture
def cached(trained, tmp_path):
    """The Hub, and a copy of that home."""
    hub, home = trained
    return hub, shutil.copytree(home, tmp_path / "home", symlinks=True)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_what_is_cached_serves_without_the_hub(cached, variable):
    hub, home = cached
    asked = len(hub.requests)
    (home / "merged").rename(home / "before")
    found = _child(hub, home, _TRAINED, **{variable: "1"})
    assert found["codes"][0] == found["codes"][2] == 0, found["said"]
    assert len(hub.requests) == asked, "the Hub was asked"
    merged, before = (home / name / "model.safetensors" for name in ("merged", "before"))
    assert merged.read_bytes() == before.read_bytes()


def test_what_is_not_cached_is_said_without_the_hub(cached):
    for old, new in (("microsoft/phi-2", "microsoft/phi-3"), ("EdinburghNLP/xsum", "org/other")):
        code = _TRAINED.replace(old, new)
        found = _child(*cached, code, HF_HUB_OFFLINE="1")
        assert found["codes"][0] == 2
        assert f" {new} could not be " in found["said"]
        assert "HF_HUB_OFFLINE is set, so only the cache is read: unset it once to fetch" in found["said"]


_BASE = """
import json
from summkit.inference import Summarizer
from summkit.models import loading
summarizer = Summarizer.load("run/adapter")
print(json.dumps([summarizer.model.get_input_embeddings().weight.flatten()[0].item(), len(summarizer.tokenizer)]))
"""


def test_a_folder_with_the_name_of_an_adapters_base_on_the_hub_is_not_taken_for_it(cached):
    before = _child(*cached, _BASE)
    home = cached[1]
    for part in tiny_models.published("phi", 1):
        part.save_pretrained(home / "microsoft" / "phi-2")
    assert _child(*cached, _BASE) == before
    assert _child(*cached, _BASE, HF_HUB_OFFLINE="1") == before
    settings = json.loads((home / "run" / "adapter" / "summkit.json").read_text())
    assert settings.pop("model_is_folder") is False
    (home / "run" / "adapter" / "summkit.json").write_text(json.dumps(settings))
    assert _child(*cached, _BASE) != before, "an older adapter says nothing: the folder is taken as before"
