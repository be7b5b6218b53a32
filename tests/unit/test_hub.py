"""The local Hub serves the libraries' own loading code: what the profiles t4 and gpu do, tested without a network."""

import json
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

_CHILD = """
import json
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

rows = load_dataset("EdinburghNLP/xsum")
tokenizer = AutoTokenizer.from_pretrained("microsoft/phi-2")
model = AutoModelForCausalLM.from_pretrained("microsoft/phi-2")
text = "Café £5\\n"
print(json.dumps({
    "rows": {name: len(split) for name, split in rows.items()},
    "columns": rows["train"].column_names,
    "first": rows["train"][0]["id"],
    "model": type(model).__name__,
    "eos": [tokenizer.eos_token_id, model.config.eos_token_id],
    "pad": tokenizer.pad_token_id,
    "same": tokenizer.decode(tokenizer(text)["input_ids"]) == text,
    "weight": model.get_output_embeddings().weight.flatten()[0].item(),
}))
"""


def _child(hub, home, code):
    # In an empty folder: load_dataset looks for a local folder org/name first.
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", code], env=hub.environment(home), cwd=home, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_fresh_home_loads_data_tokenizer_and_model_through_it(local_hub, tmp_path, form):
    local_hub.add_tiny_phi()
    local_hub.add_xsum(form=form)
    seen = _child(local_hub, tmp_path / "home", _CHILD)
    weight = seen.pop("weight")
    assert seen == {
        "rows": {"train": 24, "validation": 8, "test": 8}, "columns": ["id", "document", "summary"],
        "first": "example-001", "model": "PhiForCausalLM", "eos": [0, 0], "pad": None, "same": True,
    }  # fmt: skip
    assert weight != 0
    asked = " ".join(local_hub.requests)
    assert "/microsoft/phi-2/resolve/" in asked and "model.safetensors" in asked


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
