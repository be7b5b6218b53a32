"""Labels by likelihood: all words in one pass give what one pass a word gives, whatever the batch and the model."""

import dataclasses

import numpy as np
import pytest
import torch

from summkit.config import choose_profile
from summkit.data import templates, tokenisation
from summkit.errors import Interrupted, SummkitError
from summkit.inference import label_scores
from summkit.models import loading, methods
from summkit.models.tiny import tiny_llama
from tests.hub import LocalHub

ROWS = [
    {"document": "Rain fell.", "second": "It was wet."},
    {"document": "The bridge over the Marran opened on Monday after a year of work. " * 2, "second": "It is open."},
    {"document": "Fog.", "second": "The sun was out all day, and nobody stayed at home."},
    {"document": "Two tugs met.", "second": ""},
    {"document": "A crack was found in a cable.", "second": "x" * 90},
    {"document": "Ashby.", "second": None},
]
WORDS = {"one token": ("a", "b", "c"), "several": ("yes", "maybe", "no"), "mixed": ("bcd", "a", "ef", "eg")}
LIMITS = {"max_length": 190, "max_new_tokens": 8}
PAIR = templates.Wording("Does it follow?", "Premise", "Hypothesis", "Answer")
ONE = templates.Wording("Name it.", "Text", answer="Name")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer():
    return loading.tiny_tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """A saved tiny model whose weights are larger than usual, so that its answers depend on the prompt."""
    model, path = tiny_llama(), tmp_path_factory.mktemp("model")
    for parameter in model.parameters():
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def with_adapter(model):
    adapted = methods.apply_method(model, choose_profile("smoke"))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return adapted


@pytest.fixture(scope="module", params=["fp32", "nf4", "fp32 + adapter", "nf4 + adapter"])
def model(request, folder):
    precision, _, adapter = request.param.partition(" + ")
    made = loading.load_model(folder, precision)
    return (with_adapter(made) if adapter else made).eval()


@pytest.fixture(scope="module")
def plain(folder):
    return loading.load_model(folder).eval()


def one_by_one(model, tokenizer, template, rows, words):
    """The same by steps written out here: a row and a word at a time, no padding, no mask, no cache."""
    answers = [tokenizer(template.answer(word), add_special_tokens=False)["input_ids"] for word in words]
    room, found = max(LIMITS["max_new_tokens"], *map(len, answers)), np.zeros((len(rows), len(words)))
    for number, row in enumerate(rows):
        ask = (template, tokenizer, row["document"], None, LIMITS["max_length"], room, row["second"] or "")
        prompt = tokenisation.encode(*ask)["input_ids"]
        for place, answer in enumerate(answers):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + answer]), use_cache=False).logits[0].double().log_softmax(-1)
            found[number, place] = sum(logits[len(prompt) + i - 1, token].item() for i, token in enumerate(answer))
    return found


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_all_words_at_once_score_as_one_by_one(model, tokenizer, words):
    template = templates.build_template("chat", tokenizer, ONE)  # without a gap before the answer: "a" is one token
    expected = one_by_one(model, tokenizer, template, ROWS, words)
    assert np.ptp(expected, axis=0).min() > 0.01, "a model that says the same to all would hide a wrong order"
    for batch_size in (1, 5):
        found = label_scores.label_log_likelihoods(
            model, tokenizer, template, ROWS, words, batch_size=batch_size, **LIMITS
        )
        assert found.dtype == np.float64 and found.shape == (len(ROWS), len(words))
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["instruction", "chat"])
def test_pairs_score_as_one_by_one(plain, tokenizer, name):
    template = templates.build_template(name, tokenizer, PAIR)
    expected = one_by_one(plain, tokenizer, template, ROWS, WORDS["several"])
    found = label_scores.label_log_likelihoods(
        plain, tokenizer, template, ROWS, WORDS["several"], batch_size=5, **LIMITS
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
    without = [row | {"second": ""} for row in ROWS]
    other = label_scores.label_log_likelihoods(plain, tokenizer, template, without, WORDS["several"], **LIMITS)
    assert abs(found - other)[:3].min() > 1e-4, "the second text counts"


def test_the_architecture_of_the_gpu_profiles_scores_as_one_by_one(tmp_path):
    """phi-2's: another attention, no pad token, a head with a bias."""
    path = str(LocalHub(tmp_path).add_tiny_phi())
    model, tokenizer = loading.load_model(path, "nf4").eval(), loading.load_tokenizer(path)
    template = templates.build_template("instruction", tokenizer, ONE)
    expected = one_by_one(model, tokenizer, template, ROWS, WORDS["mixed"])
    found = label_scores.label_log_likelihoods(model, tokenizer, template, ROWS, WORDS["mixed"], batch_size=4, **LIMITS)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_eager_attention_scores_the_same(plain, folder, tokenizer):
    from transformers import AutoModelForCausalLM

    eager = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    assert (plain.config._attn_implementation, eager.config._attn_implementation) == ("sdpa", "eager")
    ask = (tokenizer, templates.build_template("instruction", tokenizer, ONE), ROWS, WORDS["mixed"])
    found, expected = (label_scores.label_log_likelihoods(one, *ask, batch_size=5, **LIMITS) for one in (eager, plain))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_rows_keep_their_order(plain, tokenizer):
    ask = (plain, tokenizer, templates.build_template("instruction", tokenizer, ONE))
    found, turned = (
        label_scores.label_log_likelihoods(*ask, rows, ("a", "b"), batch_size=2, **LIMITS)
        for rows in (ROWS, ROWS[::-1])
    )
    np.testing.assert_allclose(found, turned[::-1], atol=1e-5)
    assert len(np.unique(found.round(4), axis=0)) == len(ROWS)
    assert label_scores.label_log_likelihoods(*ask, [], ("a", "b"), **LIMITS).shape == (0, 2)


def test_evaluation_mode_while_scoring_and_as_before_after(folder, tokenizer, monkeypatch):
    """In training mode dropout is on: the adapter's is half of its values here."""
    profile = dataclasses.replace(choose_profile("smoke"), dropout=0.5)
    model, seen = methods.apply_method(loading.load_model(folder), profile), []
    ask = (model, tokenizer, templates.build_template("instruction", tokenizer, ONE), ROWS[:2], ("a", "b"))
    model.register_forward_pre_hook(lambda module, _: seen.append((module.training, torch.is_inference_mode_enabled())))
    for mode in (True, False):
        model.train(mode)
        label_scores.label_log_likelihoods(*ask, **LIMITS)
        assert model.training is mode
    assert set(seen) == {(False, True)}
    monkeypatch.setattr(label_scores, "_score", lambda *_: 1 / 0)
    model.train()
    with pytest.raises(ZeroDivisionError):
        label_scores.label_log_likelihoods(*ask, **LIMITS)
    assert model.training, "the state comes back after an error too"


@pytest.mark.parametrize("words", [("not", "yes", "no"), ("no", "note"), ("yes", "yes")])
def test_a_word_that_begins_another_is_refused(plain, tokenizer, words):
    template = templates.build_template("instruction", tokenizer, ONE)
    with pytest.raises(SummkitError, match=r"label words '\w+' and '\w+': the first begins the second"):
        label_scores.label_log_likelihoods(plain, tokenizer, template, ROWS, words, **LIMITS)


def test_tokens_of_a_word_are_those_it_has_as_an_answer(tokenizer):
    for name, gap in (("instruction", " "), ("chat", "")):
        template = templates.build_template(name, tokenizer, ONE)
        found = label_scores.label_tokens(template, tokenizer, ("yes", "<|end|>"))
        assert [tokenizer.decode(ids) for ids in found] == [f"{gap}yes", f"{gap}<|end|>"]
        assert tokenizer.eos_token_id not in found[1]


def test_probabilities_add_up_to_one_even_of_scores_far_below_zero():
    scores = np.array([[-1.0, -1.0, -1.0], [-2000.0, -2001.0, -9000.0], [0.0, -5000.0, -1.0]])
    found = label_scores.label_probabilities(scores)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found[0], 1 / 3)
    assert found[1] == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.e), 0])
    assert (found.argmax(axis=1) == scores.argmax(axis=1)).all()


def test_a_model_that_computes_no_numbers_scores_no_label(tokenizer):
    model = tiny_llama()
    model.model.layers[1].mlp.down_proj.weight.data.fill_(float("nan"))
    template = templates.build_template("instruction", tokenizer, ONE)
    with pytest.raises(SummkitError, match="computes NaN or infinity"):
        label_scores.label_log_likelihoods(model, tokenizer, template, ROWS, ["a", "b"], **LIMITS)


def test_a_stop_leaves_the_model_as_it_was_and_a_short_message(folder, tokenizer, monkeypatch):
    model = loading.load_model(folder, "nf4").train()
    template = templates.build_template("instruction", tokenizer, ONE)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(label_scores, "_score", stopped)
    with pytest.raises(Interrupted, match="the model is as it was") as stop:
        label_scores.label_log_likelihoods(model, tokenizer, template, ROWS, ["a", "b"], **LIMITS)
    assert stop.value.__suppress_context__ and model.training
    assert not any("forward" in vars(module) for module in model.modules())
