"""Prompts read in groups: the same answers, next to no padding, and one reading where caches cannot be put together."""

import functools

import pytest
import torch

from summkit.data import batching, templates
from summkit.inference import generation, prefill
from summkit.models import loading
from summkit.models.tiny import tiny_llama

LIMITS = {"max_length": 300, "max_new_tokens": 6}
ENDS = ("fog", "12 tugs", "A", "", "snow")
TEXTS = ["The river rose in the night. " * n + end for n, end in zip((1, 2, 4, 6, 2), ENDS, strict=True)]

pytestmark = pytest.mark.usefixtures("one_thread")


def gpt2():
    """Positions that are learned, one for each number: a wrong one shows."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=264, n_positions=320, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5)
    return GPT2LMHeadModel(config)


def mistral():
    """Remembers the last 16 tokens only."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=264, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=16, initializer_range=0.5, bos_token_id=None, eos_token_id=0,
        pad_token_id=1,
    )  # fmt: skip
    return MistralForCausalLM(config)


MODELS = {"tiny-llama": tiny_llama, "gpt2": gpt2, "mistral": mistral}


def asked(kind):
    """Weights are larger than usual, and the document is the prompt's end, so that the answers depend on it."""
    model, tokenizer = MODELS[kind](), loading.tiny_tokenizer()
    for parameter in model.parameters():
        parameter.data.mul_(4 if kind == "tiny-llama" and parameter.dim() > 1 else 1)
    return model, tokenizer, templates.Template("bare", "Summarise: ", "")


def shapes_read(monkeypatch, model, run):
    """(rows, tokens) of every forward pass that read more than one token of each row."""
    seen, forward = [], model.forward
    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", lambda *a, **k: seen.append(tuple(k["input_ids"].shape)) or forward(*a, **k))
        run()
    return [shape for shape in seen if shape[1] > 1]


@pytest.mark.parametrize("decoding", generation.DECODINGS)
@pytest.mark.parametrize("kind", MODELS)
def test_documents_of_many_lengths_are_answered_as_alone(kind, decoding):
    ask = asked(kind)
    together = generation.summarize(*ask, TEXTS, decoding=decoding, batch_size=5, **LIMITS)
    if generation.DECODINGS.find(decoding).get("do_sample"):  # what is drawn depends on who shares the batch
        assert together == generation.summarize(*ask, TEXTS, decoding=decoding, batch_size=5, **LIMITS)
        return
    alone = [generation.summarize(*ask, [text], decoding=decoding, **LIMITS)[0] for text in TEXTS]
    assert together == alone and len({one.text for one in alone}) > 1


def test_a_prompt_is_read_once_for_all_of_its_candidates(monkeypatch):
    model, *prompt = asked("tiny-llama")
    found = {}
    for decoding in ("greedy", "supported"):
        ask = {"decoding": decoding, "batch_size": 40, **LIMITS}
        run = functools.partial(generation.summarize, model, *prompt, TEXTS, **ask)
        found[decoding] = shapes_read(monkeypatch, model, run)
    steps = found["supported"][len(found["greedy"]) :]
    assert found["greedy"] == found["supported"][: len(found["greedy"])]
    assert {rows for rows, _ in steps} == {len(TEXTS)} and max(tokens for _, tokens in steps) == 8, "one of each answer"


def test_prompts_are_read_without_padding_and_once(monkeypatch):
    ask = asked("tiny-llama")
    lengths = sorted((row["length"] for row in generation.Summarizer(*ask, **LIMITS).encode(TEXTS)), reverse=True)
    read = shapes_read(monkeypatch, ask[0], lambda: generation.summarize(*ask, TEXTS, batch_size=5, **LIMITS))
    assert read == [(1, lengths[0]), (1, lengths[1]), (2, lengths[2]), (1, lengths[4])]


def test_prompts_of_like_length_are_read_together(monkeypatch):
    ask = asked("tiny-llama")
    run = lambda: generation.summarize(*ask, TEXTS[:1] * 3, batch_size=3, **LIMITS)  # noqa: E731
    assert [rows for rows, _ in shapes_read(monkeypatch, ask[0], run)] == [3]


def test_a_model_that_forgets_reads_the_batch_as_one(monkeypatch):
    """Its first group was read to learn that; no later batch is read twice."""
    ask = asked("mistral")
    run = lambda: generation.summarize(*ask, TEXTS + TEXTS, batch_size=5, **LIMITS)  # noqa: E731
    assert [rows for rows, _ in shapes_read(monkeypatch, ask[0], run)] == [2, 5, 5]


def test_the_joined_cache_is_that_of_one_padded_batch():
    summarizer = generation.Summarizer(*asked("tiny-llama"), **LIMITS)
    model = summarizer.model.eval()
    rows = sorted(summarizer.encode(TEXTS), key=lambda row: -row["length"])
    found = prefill.Prefill(summarizer, {})(rows)["past_key_values"]
    batch = batching.Collator(summarizer.tokenizer, side="left")(rows)
    mask = batch["attention_mask"]
    with torch.no_grad():
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        whole = model(**batch, position_ids=positions, use_cache=True).past_key_values
    for ours, theirs in zip(found.layers, whole.layers, strict=True):
        seen = mask[:, None, :-1, None].bool()
        torch.testing.assert_close(ours.keys, theirs.keys[:, :, :-1] * seen, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.values, theirs.values[:, :, :-1] * seen, atol=1e-5, rtol=1e-4)


def test_lengths_that_are_alike():
    assert prefill.similar_lengths([100, 96, 95, 94, 90, 50]) == [slice(0, 3), slice(3, 5), slice(5, 6)]
    assert prefill.similar_lengths([7]) == [slice(0, 1)]
