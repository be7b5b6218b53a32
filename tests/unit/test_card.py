"""What an adapter says of itself: its base by a name that others can load, and its card."""

import json
from types import SimpleNamespace

import pytest
import yaml

from summkit.config import choose_profile
from summkit.models import loading, methods
from summkit.run import Run
from summkit.training import checkpoints

SCORE = {"mean": 21.0, "low": 15.0, "high": 27.0}
SCORES = {"fine_tuned": dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), SCORE) | {"n": 8}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The adapter of a model that says that it was loaded from a cache in the home folder."""
    monkeypatch.setenv("HOME", "/home/reader")
    profile = choose_profile("smoke", precision="fp32", model="smollm2-135m-instruct")
    model = loading.load_model("tiny-llama")
    model.config._name_or_path = model.name_or_path = "/home/reader/.cache/summkit/smollm2-135m-instruct"
    return checkpoints.save_adapter(methods.apply_method(model, profile), tmp_path / "adapter", profile), profile


def test_the_base_has_its_id_on_the_hub_and_no_path(folder):
    config = json.loads((folder[0] / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert not any("/home/" in path.read_text(errors="replace") for path in folder[0].iterdir())
    assert sorted(path.name for path in folder[0].iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "summkit.json",
    ]  # fmt: skip
    assert loading.public_name("tiny-llama") == "tiny-llama" and loading.public_name("org/name") == "org/name"
    assert loading.public_name("flan-t5-small") == "flan-t5-small", "tuned further: not the model of the Hub"


def test_a_finished_run_writes_the_card(folder, tmp_path, monkeypatch):
    adapter, profile = folder
    run = Run("train", profile, 3, tmp_path)
    trained = {"method": "lora", "steps": 12, "eval_loss": 2.5}
    training = SimpleNamespace(adapter=str(adapter), record=lambda: trained)
    run.finish(model={}, data={"id": "xsum-sample", "train": 20, "validation": 4}, training=training, scores=SCORES)
    card = (adapter / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "peft",
        "tags": ["summkit", "summarisation", "lora"],
    }
    assert card.startswith("---\n") and "its weights passed through 4 bits once" in body
    assert "xsum-sample, 20 rows, and 4 to choose the best step" in body and "seed 3: 12 steps" in body
    assert "2.50 nats a token" in body and "21.0 [15.0, 27.0]" in body and "n = 8" in body
    assert "/home/" not in card and "None" not in card


def test_a_card_without_scores_of_a_folder_and_of_own_weights(tmp_path):
    (tmp_path / "my model").mkdir()
    profile = choose_profile("smoke", model=str(tmp_path / "my model"), precision="fp32", method="head")
    (tmp_path / "adapter").mkdir()
    run = Run("train", profile, 0, tmp_path)
    run.finish(model={}, training=SimpleNamespace(adapter=str(tmp_path / "adapter"), record=dict))
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "base_model:" not in card and "weights trained in my model" in card and str(tmp_path) not in card
    assert "Scores" not in card and "None" not in card
