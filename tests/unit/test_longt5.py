"""The weights of a T5 in LongT5: none is lost, and what is shorter than the window is read alike."""

import json

import pytest
import torch
from transformers import LongT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration

from summkit.offline import assets, longt5

RADIUS = 7


def tiny_t5(folder, own_head=True):
    """A T5 of random weights; its head and its embedding are two matrices, as Flan-T5's."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=64,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        tie_word_embeddings=not own_head,
    )
    model = T5ForConditionalGeneration(config).eval()
    if own_head:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(64, 32))
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"tie_word_embeddings": not own_head}))
    return model


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    full = tiny_t5(folder / "t5")
    longt5.from_t5(folder / "t5", folder / "local", local_radius=RADIUS)
    sparse, keys = LongT5ForConditionalGeneration.from_pretrained(folder / "local", output_loading_info=True)
    return full, sparse.eval(), keys, folder / "local"


def states(model, ids):
    with torch.inference_mode():
        made = model(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=ids[:, :4])
    return made.encoder_last_hidden_state, made.logits


def test_no_weight_is_missing_or_left_over_and_the_tokenizer_comes_along(both):
    full, sparse, keys, folder = both
    assert not keys["missing_keys"] and not keys["unexpected_keys"] and not keys["mismatched_keys"]
    assert sparse.config.local_radius == RADIUS and sparse.config.encoder_attention_type == "local"
    assert torch.equal(sparse.shared.weight, full.shared.weight)
    assert (folder / "tokenizer.json").is_file()


def test_shorter_than_the_window_it_is_the_same_model(both):
    ids = torch.randint(2, 64, (2, RADIUS), generator=torch.Generator().manual_seed(1))
    (encoded, logits), (sparse_encoded, sparse_logits) = (states(model, ids) for model in both[:2])
    assert torch.allclose(encoded, sparse_encoded, atol=1e-5) and torch.allclose(logits, sparse_logits, atol=1e-4)


def test_beyond_the_window_a_token_sees_its_neighbours_alone(both):
    full, sparse = both[:2]
    ids = torch.randint(2, 64, (1, 40), generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(states(full, ids)[0], states(sparse, ids)[0], atol=1e-2)
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] - 1) % 62 + 2
    before, after = states(sparse, ids)[0][0], states(sparse, changed)[0][0]
    reach = 2 * RADIUS + 1  # two layers, a window each
    assert torch.allclose(before[:-reach], after[:-reach], atol=1e-6) and not torch.allclose(before[-2], after[-2])
    assert not torch.allclose(states(full, ids)[0][0, 0], states(full, changed)[0][0, 0], atol=1e-6)


def test_saved_again_it_stays_the_same(both, tmp_path):
    sparse = both[1]
    ids = torch.arange(3, 23)[None]
    sparse.save_pretrained(tmp_path)
    again = LongT5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(states(sparse, ids)[1], states(again, ids)[1])


def test_a_t5_whose_head_is_its_embedding_stays_the_same_too(tmp_path):
    dense = tiny_t5(tmp_path / "t5", own_head=False)
    longt5.from_t5(tmp_path / "t5", tmp_path / "out", local_radius=RADIUS)
    sparse = LongT5ForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(3, 3 + RADIUS)[None]
    for a, b in zip(states(dense, ids), states(sparse, ids), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.skipif(
    not all(assets.ASSETS[name].model_folder.is_dir() for name in ("flan-t5-small", "flan-t5-small-local")),
    reason="the cache does not hold flan-t5-small-local",
)
def test_the_cached_one_translates_as_flan_t5_does():
    from transformers import AutoTokenizer

    folder = assets.embedded_model("flan-t5-small-local")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LongT5ForConditionalGeneration.from_pretrained(folder)
    asked = tokenizer("translate English to German: The house is wonderful.", return_tensors="pt")
    answer = model.generate(**asked, max_new_tokens=12)[0]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "Das Haus ist wunderbar."
