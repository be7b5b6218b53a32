"""The plan of memory for encoder-decoders, against what autograd, peft and an optimizer really keep on a CPU."""

import pytest

from summkit.config import choose_profile
from summkit.data import batching
from summkit.errors import SummkitError
from summkit.models import loading, methods
from summkit.resources import memory
from tests.saved import kept_for_backward

pytestmark = pytest.mark.usefixtures("one_thread")

GB = 10**9
ROWS, LENGTH, ANSWER = 2, 192, 48
SIZES = {"vocab_size": 512, "d_model": 128, "eos_token_id": 0, "pad_token_id": 1, "decoder_start_token_id": 1}
T5 = SIZES | {"d_kv": 32, "d_ff": 320, "num_layers": 6, "num_heads": 3, "feed_forward_proj": "gated-gelu"}
BART = SIZES | {
    "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 512, "decoder_ffn_dim": 384, "bos_token_id": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4,
}  # fmt: skip
GLOBAL = {"encoder_attention_type": "transient-global", "local_radius": 31, "global_block_size": 16}
# Six blocks: enough that the first, which keeps less, does not decide.
CONFIGS = {
    "t5": ("T5Config", T5),
    "t5-relu": ("T5Config", T5 | {"feed_forward_proj": "relu", "d_ff": 512, "num_decoder_layers": 3}),
    "longt5": ("LongT5Config", T5 | {"encoder_attention_type": "local", "local_radius": 31}),
    "longt5-global": ("LongT5Config", T5 | GLOBAL),
    "bart": ("BartConfig", BART | {"max_position_embeddings": 512}),
    "led": ("LEDConfig", BART | {"attention_window": 32, "max_encoder_position_embeddings": 512}),
    "bigbird": ("BigBirdPegasusConfig", BART | {
        "max_position_embeddings": 512, "attention_type": "block_sparse", "block_size": 8, "num_random_blocks": 2,
    }),
}  # fmt: skip


def config(kind, **changes):
    import transformers

    name, values = CONFIGS[kind]
    return getattr(transformers, name)(**values | changes)


def profile(**changes):
    return choose_profile("smoke", model="tiny-t5", precision="fp32", **changes)


def prepared(kind, changes, **settings):
    """A model of random weights, ready to train by a method of `methods`."""
    model = loading.auto_class(config(kind)).from_config(config(kind, **changes))
    return methods.apply_method(model, profile(**settings)).train()


def forward(model, length=LENGTH):
    """The forward pass over rows of which one is padded, as `batching.Collator` makes them; its logits."""
    import torch

    collate = batching.Collator(loading.tiny_tokenizer(ends_inputs=True), **loading.padding(model))
    rows = [{"input_ids": [9] * size, "labels": [9] * ANSWER} for size in (length, length - 10)]
    batch = collate(rows)
    labels = batch.pop("labels")
    return model(**batch, decoder_input_ids=torch.full_like(labels, 9), use_cache=False).logits


CASES = [
    ("t5", {}, {"targets": "attention"}),
    ("t5", {}, {"targets": "all-linear", "dropout": 0.0}),
    ("t5", {"dropout_rate": 0.0}, {"targets": "attention", "dropout": 0.0}),
    ("t5", {}, {"method": "full"}),
    ("t5", {}, {"method": "frozen-encoder"}),
    ("t5-relu", {}, {"targets": "attention"}),
    ("longt5", {}, {"targets": "attention"}),
    ("longt5", {}, {"method": "full"}),
    ("longt5-global", {}, {"targets": "all-linear", "dropout": 0.0}),
    ("bart", {}, {"targets": "all-linear", "dropout": 0.0}),
    ("bart", {"attention_dropout": 0.1}, {"method": "frozen-embeddings"}),
    ("led", {}, {"targets": "attention"}),
    ("led", {"attention_dropout": 0.1}, {"method": "full"}),
    ("bigbird", {}, {"targets": "attention"}),
    ("bigbird", {}, {"method": "full"}),
]


def planned(kind, changes, settings, **more):
    """The plan of what `prepared` makes."""
    asked = {"dropout": 0.05, "targets": "all-linear", "rank": 16, "precision": "fp32", **settings}
    sizes = {"batch_size": ROWS, "sequence_length": LENGTH, "logits_tokens": ANSWER}
    return memory.plan_training(config(kind, **changes), **asked, **sizes | more)


@pytest.mark.parametrize(("kind", "changes", "settings"), CASES)
def test_activations_are_what_autograd_keeps(kind, changes, settings):
    model = prepared(kind, changes, **settings)
    measured = kept_for_backward(model, lambda: forward(model))
    assert planned(kind, changes, settings)["activations"] == pytest.approx(measured, rel=0.005)


@pytest.mark.parametrize("kind", ["t5", "led"])
def test_activations_under_autocast_are_what_autograd_keeps(kind):
    import torch

    model = prepared(kind, {}, targets="attention")
    with torch.autocast("cpu", torch.bfloat16):
        measured = kept_for_backward(model, lambda: forward(model))
    plan = planned(kind, {}, {"targets": "attention"}, compute_dtype="bfloat16")
    assert plan["activations"] == pytest.approx(measured, rel=0.005)


def test_a_row_that_is_too_short_for_bigbird_is_planned_as_it_is_padded():
    settings = {"targets": "attention"}
    model = prepared("bigbird", {}, **settings)
    measured = kept_for_backward(model, lambda: forward(model, length=30))
    plan = planned("bigbird", {}, settings, sequence_length=30)
    assert plan["activations"] == pytest.approx(measured, rel=0.005)
    assert plan["activations"] == planned("bigbird", {}, settings, sequence_length=73)["activations"]


METHODS = [
    {"targets": "attention"}, {"targets": "all-linear"}, {"method": "full"}, {"method": "frozen-embeddings"},
    {"method": "frozen-encoder"},
]  # fmt: skip


@pytest.mark.parametrize("settings", METHODS, ids=lambda settings: " ".join(settings.values()))
@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_gradients_and_optimizer_state_are_counted_exactly(kind, settings):
    """Against the model itself on the meta device, prepared by peft or frozen by the method."""
    meta = memory.on_meta(config(kind))
    weights = sum(p.nbytes for p in meta.parameters())
    trained = [p for p in methods.apply_method(meta, profile(**settings)).parameters() if p.requires_grad]
    size = sum(p.nbytes for p in trained)
    plan = planned(kind, {}, settings, optimizer="adamw_torch")
    assert plan["unquantised weights"] == weights
    assert plan["adapters"] == (0 if "method" in settings else size)
    assert plan["gradients"] == size and plan["optimizer state"] == 2 * size


@pytest.mark.parametrize("kind", ["t5", "longt5", "bart", "led", "bigbird"])
def test_weights_are_what_bitsandbytes_holds(kind, tmp_path):
    """T5's last layer of the MLP is left as it is; LongT5's is not."""
    loading.auto_class(config(kind)).from_config(config(kind)).save_pretrained(tmp_path)
    measured = loading.footprint(loading.load_model(str(tmp_path), "nf4"))
    plan = memory.plan_training(config(kind), precision="nf4")
    assert plan["quantised weights"] == measured["quantised weights"] > 0
    assert plan["unquantised weights"] == measured["unquantised weights"]
    assert plan["quantisation constants"] == pytest.approx(measured["quantisation constants"], rel=0.02)


@pytest.mark.parametrize("kind", ["t5", "longt5"])
def test_a_t5_with_a_head_of_its_own_has_one_on_the_meta_device_too(kind, tmp_path):
    """From the configuration of the file, and from the model that was loaded; nothing else is doubled."""
    import torch

    made = loading.auto_class(config(kind)).from_config(config(kind))
    tied = sum(p.numel() for p in made.parameters())
    made.lm_head.weight = torch.nn.Parameter(torch.randn_like(made.lm_head.weight))
    made.config.tie_word_embeddings = False
    made.save_pretrained(tmp_path)
    loaded = loading.load_model(str(tmp_path))
    expected = tied + 512 * 128
    assert sum(p.numel() for p in loaded.parameters()) == expected
    for model in (loaded, loaded.config, memory.on_meta(loaded), config(kind, tie_word_embeddings=False)):
        assert memory.on_meta(model).num_parameters() == expected
    assert memory.on_meta(config(kind)).num_parameters() == tied


def test_memory_grows_with_the_text_where_attention_is_sparse_and_with_its_square_where_it_is_dense():
    def growth(name, length):
        sizes = {"precision": "fp32", "logits_tokens": 128}
        short, long = (
            memory.plan_training(name, sequence_length=n, **sizes)["activations"] for n in (length, 2 * length)
        )
        return long / short

    for name in ("flan-t5-small-local", "allenai/led-base-16384", "google/bigbird-pegasus-large-arxiv"):
        assert growth(name, 8192) == pytest.approx(2, rel=0.02)
    assert 2 < growth("google/long-t5-tglobal-base", 8192) < 3  # one summary of every 16 tokens is seen by all
    assert growth("flan-t5-small", 8192) > 3.7


def test_a_local_window_keeps_less_than_full_attention_from_some_length_on():
    def kept(name, length):
        return memory.plan_training(name, precision="fp32", sequence_length=length, logits_tokens=128)["activations"]

    assert kept("flan-t5-small", 128) < kept("flan-t5-small-local", 128)
    assert kept("flan-t5-small", 4096) > 3 * kept("flan-t5-small-local", 4096)


def test_checkpointing_keeps_an_input_of_every_block_and_one_block():
    settings = {"precision": "fp32", "sequence_length": 1024, "logits_tokens": 128}
    plan = memory.plan_training("flan-t5-small", **settings)
    lighter = memory.plan_training("flan-t5-small", gradient_checkpointing=True, **settings)
    assert plan["activations"] / 9 < lighter["activations"] < plan["activations"] / 6
    assert "1 × 1024 tokens and 128 of the answer" in {part: how for part, _, how in plan.rows()}["activations"]


@pytest.mark.parametrize("name", ["smoke", "cpu", "t4", "gpu"])
def test_long_documents_can_be_planned_in_every_profile(name):
    chosen = choose_profile(name, task="long")
    settings = memory.plan_settings(chosen)
    assert settings["sequence_length"] == chosen.max_length and settings["logits_tokens"] == chosen.max_new_tokens
    gigabytes = {"smoke": 1, "cpu": 8, "t4": 14.5, "gpu": 40}[name] * GB
    rows = memory.largest_batch(chosen.model, int(gigabytes), **settings)
    assert rows >= chosen.batch_size
    assert memory.plan_training(chosen.model, **settings | {"batch_size": rows}).fits(int(gigabytes))
    assert not memory.plan_training(chosen.model, **settings | {"batch_size": rows + 1}).fits(int(gigabytes))


def test_half_precision_on_a_gpu_keeps_no_more_than_fp32_on_a_cpu():
    sizes = {"sequence_length": 1024, "logits_tokens": 128}
    for name in ("flan-t5-small", "flan-t5-small-local", "allenai/led-base-16384"):
        half = memory.plan_training(name, compute_dtype="bfloat16", device="cuda", **sizes)["activations"]
        assert half < memory.plan_training(name, **sizes)["activations"]


@pytest.mark.parametrize("method", ["frozen-encoder", "frozen-encoder-layers"])
def test_a_decoder_has_no_encoder_to_freeze(method):
    """Only "frozen-encoder" was checked once: the other ended in an AttributeError."""
    with pytest.raises(SummkitError, match="needs an encoder-decoder.*use 'frozen-embeddings'"):
        memory.plan_training("gpt2", method=method, precision="fp32")


def test_quantised_weights_cannot_train():
    with pytest.raises(SummkitError, match="method 'frozen-embeddings' cannot train nf4 weights"):
        memory.plan_training("flan-t5-small", method="frozen-embeddings")


def test_a_decoder_whose_embeddings_are_frozen_trains_the_rest():
    plan = memory.plan_training("gpt2", method="frozen-embeddings", precision="fp32")
    assert plan["gradients"] == 4 * (124_439_808 - 50_257 * 768)
