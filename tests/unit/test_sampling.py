"""Sampling several answers that share their prompt; test_model_matrix.py compares the logits of every family."""

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from summkit.errors import SummkitError
from summkit.inference import generation, sampling
from summkit.models.tiny import tiny_llama

pytestmark = pytest.mark.usefixtures("one_thread")
LOGITS = torch.randn(2, 3, 500, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize(
    "settings",
    [
        {"top_p": 0.9, "temperature": 0.5, "top_k": 0},
        {"top_p": 0.999, "temperature": 3.0, "top_k": 0},  # more than the 64 likeliest tokens
        {"top_p": 0.8, "top_k": 20},
        {"top_k": 5},
        {"temperature": 2.0, "top_k": 0},
    ],
)
def test_each_token_is_drawn_with_the_probability_of_transformers(settings, monkeypatch):
    seen = []

    def multinomial(chances, number):
        seen.append(chances / chances.sum(-1, keepdim=True))
        return chances.argmax(-1, keepdim=True)

    monkeypatch.setattr(torch, "multinomial", multinomial)
    tokens = sampling.sample(LOGITS, settings)
    assert torch.equal(tokens, LOGITS.argmax(-1))
    scores = LOGITS.flatten(0, 1)
    scores = TemperatureLogitsWarper(settings.get("temperature", 1.0))(None, scores)
    scores = TopKLogitsWarper(settings["top_k"])(None, scores) if settings["top_k"] else scores
    scores = TopPLogitsWarper(settings.get("top_p", 1.0))(None, scores)
    right = scores.softmax(-1).sort(descending=True).values
    width = seen[0].shape[-1]
    torch.testing.assert_close(seen[0], right[:, :width])
    assert not right[:, width:].any()


def test_frequencies_follow_the_probabilities():
    torch.manual_seed(0)
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(4000, 1, 4)
    drawn = sampling.sample(logits, {"top_p": 0.9, "top_k": 0})
    shares = torch.bincount(drawn.flatten(), minlength=4) / 4000
    assert shares[3] == 0, "the three likeliest make up 90 %"
    assert torch.allclose(shares[:3], torch.tensor([0.5, 0.3, 0.15]) / 0.95, atol=0.03)


def test_logits_that_are_not_numbers_are_refused():
    with pytest.raises(SummkitError, match="computes NaN or infinity"):
        sampling.sample(torch.full((1, 2, 5), float("nan")), {"top_k": 0})


@pytest.mark.parametrize(
    ("settings", "suits"),
    [
        ({}, True),
        ({"repetition_penalty": 1.2}, False),
        ({"num_beams": 4}, False),
    ],
)
def test_other_settings_are_left_to_generate(settings, suits):
    model = tiny_llama()
    known = generation.DECODINGS.find("supported")
    assert sampling.suits(model, known | settings) is suits
    model.config._attn_implementation = "flash_attention_2"
    assert not sampling.suits(model, known)
