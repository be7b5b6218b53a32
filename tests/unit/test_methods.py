"""What trains and what does not: on the tiny model, and on phi-2 without its weights."""

import pytest

from summkit.config import choose_profile
from summkit.errors import SummkitError
from summkit.models import loading, methods
from summkit.resources import memory


def tiny(**overrides):
    profile = choose_profile("smoke", **overrides)
    return methods.apply_method(loading.load_model("tiny-llama", profile.precision), profile)


def test_phi2_with_the_courses_adapters():
    model = methods.apply_method(memory.on_meta("microsoft/phi-2"), choose_profile("t4"))
    assert model.get_nb_trainable_parameters() == (10_485_760, 2_790_169_600)
    assert loading.parameter_report(model) == {"parameters": 2_790_169_600, "trainable": 10_485_760}
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.target_modules) == (16, 32, {"q_proj", "k_proj", "v_proj", "dense"})


def test_gpt2_with_adapters_on_c_attn_and_c_proj():
    profile = choose_profile("smoke", rank=8, targets="c_attn,c_proj")
    model = methods.apply_method(memory.on_meta("gpt2"), profile)
    assert model.get_nb_trainable_parameters()[0] == 811_008


@pytest.mark.parametrize("precision", ["fp32", "int8", "nf4"])
def test_only_the_adapters_train(precision):
    model = tiny(precision=precision)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert len(trained) == 2 * sum(loading.linear_layers(loading.tiny_llama()).values())


def test_adapters_are_fp32_over_a_half_base():
    import torch

    model = tiny(precision="fp16")
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_an_untrained_adapter_changes_nothing():
    import torch

    base = loading.load_model("tiny-llama").eval()
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        before = base(input_ids=ids).logits
        after = methods.apply_method(base, choose_profile("smoke"))(input_ids=ids).logits
    assert torch.equal(before, after)


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_checkpointing_gives_the_same_gradients_to_every_adapter(precision):
    """A frozen embedding cuts the graph that checkpointing recomputes; without a remedy nothing would learn."""
    import torch

    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = tiny(precision=precision, gradient_checkpointing=checkpointing, dropout=0.0).train()
        if checkpointing:
            # The older kind, the one that a frozen embedding breaks.
            model.gradient_checkpointing_enable({"use_reentrant": True})
        ids = torch.arange(5, 25)[None]
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(grad is not None for grads in found for grad in grads)
    assert sum(float(grad.abs().sum()) for grad in found[1]) > 0
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(("targets", "names"), [
    ("attention", ["k_proj", "o_proj", "q_proj", "v_proj"]),
    ("all-linear", ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
    ("v_proj,q_proj", ["q_proj", "v_proj"]),
])  # fmt: skip
def test_target_layers_are_found(targets, names):
    assert methods.target_layers(loading.tiny_llama(), targets) == names


def test_attention_is_found_whatever_its_layers_are_called():
    found = {name: methods.target_layers(memory.on_meta(name), "attention") for name in ("microsoft/phi-2", "gpt2")}
    assert found == {"microsoft/phi-2": ["dense", "k_proj", "q_proj", "v_proj"], "gpt2": ["c_attn", "c_proj"]}


@pytest.mark.parametrize("targets", ["Wqkv", "q_proj,lm_head", "", "attn"])
def test_unknown_layers_list_the_known_ones(targets):
    with pytest.raises(SummkitError, match="linear layers there are: down_proj, gate_proj, k_proj"):
        methods.target_layers(loading.tiny_llama(), targets)


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(SummkitError, match="unknown method 'bitfit'; known: .*lora"):
        tiny(method="bitfit")


GPT2_COUNTS = {
    "prompt": 53_760,
    "prompt-random": 53_760,
    "lora": 811_008,
    "rslora": 811_008,
    "head": 38_597_376,
    "last-block": 38_597_376 + 7_087_872,
    "full": 124_439_808,
    "frozen-embeddings": 124_439_808 - 38_597_376,
}


@pytest.mark.parametrize("method", GPT2_COUNTS)
def test_what_trains_in_gpt2(method):
    """The counts of the seed's table, on the meta device; its "traditional" method is the head alone."""
    profile = choose_profile("smoke", method=method, precision="fp32", rank=8, targets="c_attn,c_proj")
    model = methods.apply_method(memory.on_meta("gpt2"), profile)
    assert loading.parameter_report(model)["trainable"] == GPT2_COUNTS[method]


def test_gpt2s_head_is_its_input_embedding():
    model = methods.apply_method(memory.on_meta("gpt2"), choose_profile("smoke", method="head", precision="fp32"))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("method", sorted({*methods.METHODS} - {"frozen-encoder", "frozen-encoder-layers"}))
def test_every_method_trains_on_the_tiny_model(method):
    own = methods.METHODS[method].own_weights
    model = tiny(method=method, precision="fp32" if own else "nf4")
    assert loading.parameter_report(model)["trainable"] > 0


@pytest.mark.parametrize(("method", "precision", "message"), [
    ("head", "nf4", "needs precision='fp32'"),
    ("full", "fp16", "an adapter .'lora'. trains beside weights of any precision"),
    ("qlora", "fp32", "precision='nf4'"),
    ("prefix", "fp32", "unknown method 'prefix'; known: dora, frozen-embeddings, frozen-encoder, frozen"),
])  # fmt: skip
def test_a_method_that_does_not_fit_says_why(method, precision, message):
    with pytest.raises(SummkitError, match=message):
        tiny(method=method, precision=precision)


def test_a_prompt_begins_as_the_instructions_words():
    model = tiny(method="prompt", precision="fp32", virtual_tokens=20)
    tokens = loading.tiny_tokenizer()("Summarize the followi")["input_ids"][:20]
    assert model.get_prompt(batch_size=1)[0].allclose(model.get_input_embeddings().weight[tokens])


def test_a_model_without_blocks_names_its_parts():
    import torch

    model = torch.nn.Linear(2, 2)
    model.config = type("Config", (), {"num_hidden_layers": 3})
    with pytest.raises(SummkitError, match="no list of 3 blocks in this model.*parts: Linear"):
        methods.blocks(model)
