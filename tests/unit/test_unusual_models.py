"""Adapters and models that are broken or odd: one sentence and exit code 2, nothing half-written, no code of theirs."""

import json
import re
import shutil

import pytest
import torch
import transformers

from summkit.cli import main
from summkit.config import choose_profile
from summkit.models import loading, methods
from summkit.models.tiny import tiny_llama, tiny_tokenizer
from summkit.training.checkpoints import save_adapter

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a model ("base") and an adapter of it ("adapter")."""
    folder = tmp_path_factory.mktemp("made")
    tiny_llama().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    profile = choose_profile("smoke", model=str(folder / "base"), precision="fp32", max_new_tokens=4)
    save_adapter(methods.apply_method(loading.load_model(profile.model), profile), folder / "adapter", profile)
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of both in the working folder; the adapter finds its base beside it."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "adapter"):
        shutil.copytree(made / name, tmp_path / name)
    change(tmp_path / "adapter" / "summkit.json", model=str(tmp_path / "base"))
    (tmp_path / "a.txt").write_text("The bridge opened on Monday.")
    rows = [{"document": f"Bridge {n} opened on Monday.", "summary": f"Bridge {n} opened."} for n in range(9)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"profile": "smoke", "model": "base", "precision": "fp32", "data": "rows.jsonl", "out": "run"}
    (tmp_path / "c.json").write_text(json.dumps(config | {"optimizer": "adamw_torch", "train_rows": 4}))
    return tmp_path


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def remove(path, *names):
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in names}))


def said(capsys, *arguments):
    """What a command says that ends with exit code 2 and leaves nothing."""
    assert main(list(arguments)) == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text and "not foreseen" not in text
    return text


@pytest.mark.parametrize(
    ("values", "about"),
    [
        (
            {"max_length": "abc"},
            r"summkit.json is missing or broken \(option max_length='abc': input should be a valid integer\)",
        ),
        ({"max_new_tokens": 0}, "option max_new_tokens=0: input should be greater than or equal to 1"),
        ({"model": ""}, "option model='': string should have at least 1 character"),
        ({"precision": "fp99"}, "option precision='fp99': input should be 'fp32'"),
        ({"template": "odd"}, "unknown template 'odd'; known: chat, instruction, prefix"),
        ({"instruction": 5}, "option instruction=5: input should be a valid string"),
    ],
)
def test_settings_of_an_adapter_that_are_impossible(here, capsys, values, about):
    change(here / "adapter" / "summkit.json", **values)
    for command in (["summarize", "a.txt"], ["export", "--out", "merged"]):
        assert re.search(about, said(capsys, *command, "--adapter", "adapter"))


@pytest.mark.parametrize(
    "values",
    [{"peft_type": "FUTURE"}, {"r": "x"}, {"r": 3}, {"r": -1}, {"target_modules": ["nothing"]}, {"target_modules": 3}],
)
def test_a_configuration_of_an_adapter_that_does_not_fit(here, capsys, values):
    change(here / "adapter" / "adapter_config.json", **values)
    assert "does not fit" in said(capsys, "export", "--adapter", "adapter", "--out", "merged")
    assert not (here / "merged").exists() and not list(here.glob("*.part"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"peft_type": '])
def test_a_configuration_of_an_adapter_that_is_none(here, capsys, text):
    (here / "adapter" / "adapter_config.json").write_text(text)
    assert "does not fit" in said(capsys, "summarize", "a.txt", "--adapter", "adapter")


def pickled(base):
    torch.save(tiny_llama().state_dict(), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()


def of_code(base):
    """Files that name code of their own for a type that transformers does not know."""
    (base / "evil.py").write_text("open('RAN', 'w').close()\nfrom transformers import LlamaConfig as Config\n")
    change(base / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Config"})


BASES = {
    "pickled": (pickled, "no file named model.safetensors"),
    "code": (of_code, "contains custom code"),
    "configuration cut": (lambda base: (base / "config.json").write_text("{"), "not a valid JSON file"),
    "configuration a list": (lambda base: (base / "config.json").write_text("[]"), "could not be loaded"),
    "no heads": (lambda base: change(base / "config.json", num_attention_heads=0), "loaded: ZeroDivisionError"),
    "text for a size": (lambda base: change(base / "config.json", hidden_size="x"), "'hidden_size' expected int"),
    "unknown dtype": (lambda base: change(base / "config.json", dtype="odd"), "has no attribute 'odd'"),
    "unknown RoPE": (
        lambda base: change(base / "config.json", rope_parameters={"rope_type": "odd", "rope_theta": 1.0}),
        "could not be loaded: KeyError: 'odd'",
    ),
    "tokenizer cut": (lambda base: (base / "tokenizer.json").write_text("{"), "could not be loaded"),
    "tokenizer odd": (lambda base: (base / "tokenizer.json").write_text('{"model": 3}'), "could not be loaded: Key"),
    "no end": (lambda base: remove(base / "tokenizer_config.json", "eos_token"), "has no token that ends a text"),
    "no end, no padding": (
        lambda base: remove(base / "tokenizer_config.json", "eos_token", "pad_token"),
        "has no token that ends a text: set eos_token",
    ),
}


@pytest.mark.parametrize("kind", BASES)
def test_a_model_that_cannot_be_loaded(here, capsys, kind):
    spoil, about = BASES[kind]
    spoil(here / "base")
    assert about in said(capsys, "summarize", "a.txt", "--adapter", "adapter")
    assert about in said(capsys, "train", "c.json")
    assert about in said(capsys, "label", "rows.jsonl", "--out", "l.jsonl", "--teacher", "base", "--profile", "smoke")
    assert not (here / "RAN").exists() and not (here / "run" / "adapter").exists() and not (here / "l.jsonl").exists()


def test_code_beside_a_model_that_needs_none_does_not_run(here):
    (here / "base" / "evil.py").write_text("open('RAN', 'w').close()\n")
    change(here / "base" / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    assert main(["summarize", "a.txt", "--adapter", "adapter"]) in (0, 1) and not (here / "RAN").exists()


@pytest.mark.parametrize("arguments", [("train", "c.json"), ("summarize", "a.txt", "--adapter", "adapter")])
def test_a_vocabulary_smaller_than_the_tokenizers_is_named(here, capsys, arguments):
    config = tiny_llama().config
    config.vocab_size = 100
    config.eos_token_id = config.pad_token_id = None
    transformers.LlamaForCausalLM(config).save_pretrained(here / "base")
    remove(here / "adapter" / "summkit.json", "model_from_here")
    assert main(list(arguments)) == 1
    assert "the tokenizer has tokens that the model lacks; use the one that came with it" in capsys.readouterr().err


def test_names_in_any_script(here, capsys):
    shutil.copytree(here / "adapter", here / "Übung 1 桥 🙂")
    change(here / "Übung 1 桥 🙂" / "summkit.json", model=str(here / "base"))
    ask = ["export", "--adapter", "Übung 1 桥 🙂", "--out"]
    assert main([*ask, "Ausgabe 桥"]) == 0 and (here / "Ausgabe 桥" / "model.safetensors").is_file()
    assert "already exists" in said(capsys, *ask, "Ausgabe 桥")
    assert "a.txt/x could not be written: " in said(capsys, *ask, "a.txt/x").replace("\\", "/")
