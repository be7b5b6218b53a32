"""What trains and what does not: on the tiny model, and on phi-2 without its weights."""

import pytest

from summkit.config import choose_profile
from summkit.data import get_wording
from summkit.errors import SummkitError
from summkit.models import loading, methods
from summkit.models.tiny import tiny_llama, tiny_t5, tiny_tokenizer
from summkit.registry import Registry
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
    assert len(trained) == 2 * sum(loading.linear_layers(tiny_llama()).values())


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


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("attention", ["k_proj", "o_proj", "q_proj", "v_proj"]),
        ("all-linear", ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
        ("v_proj,q_proj", ["q_proj", "v_proj"]),
        ("q_proj, v_proj", ["q_proj", "v_proj"]),
    ],
)
def test_target_layers_are_found(targets, names):
    assert methods.target_layers(tiny_llama(), targets) == names


def test_attention_is_found_whatever_its_layers_are_called():
    found = {name: methods.target_layers(memory.on_meta(name), "attention") for name in ("microsoft/phi-2", "gpt2")}
    assert found == {"microsoft/phi-2": ["dense", "k_proj", "q_proj", "v_proj"], "gpt2": ["c_attn", "c_proj"]}


@pytest.mark.parametrize("targets", ["Wqkv", "q_proj,lm_head", "", "attn"])
def test_unknown_layers_list_the_known_ones(targets):
    with pytest.raises(SummkitError, match="its linear layers: down_proj, gate_proj, k_proj"):
        methods.target_layers(tiny_llama(), targets)


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


@pytest.mark.parametrize("method", sorted(name for name, row in methods.METHODS.items() if not row.encoder_decoder))
def test_every_method_trains_on_the_tiny_model(method):
    model = tiny(method=method, precision=methods.METHODS[method].precisions[-1])
    assert loading.parameter_report(model)["trainable"] > 0


@pytest.mark.parametrize(
    ("method", "precision", "message"),
    [
        ("head", "nf4", "needs precision='fp32'"),
        ("full", "fp16", "an adapter .'lora'. works with weights of any precision"),
        ("qlora", "fp32", "precision='nf4'"),
        ("prefix", "fp32", "unknown method 'prefix'; known: dora, frozen-embeddings, frozen-encoder, frozen"),
    ],
)
def test_a_method_that_does_not_fit_says_why(method, precision, message):
    with pytest.raises(SummkitError, match=message):
        tiny(method=method, precision=precision)


def test_a_method_for_encoder_decoders_is_refused_for_a_decoder():
    for name in ("frozen-encoder", "frozen-encoder-layers"):
        with pytest.raises(SummkitError, match=f"{name}' needs an encoder-decoder.*use 'frozen-embeddings'"):
            methods.check_fits(name, memory.on_meta("gpt2"))
        with pytest.raises(SummkitError, match="needs an encoder-decoder"):
            memory.plan_training("gpt2", method=name, precision="fp32")
        assert methods.check_fits(name, tiny_t5()).encoder_decoder
        with pytest.raises(SummkitError, match="needs precision='fp32', not 'nf4'"):
            methods.check_fits(name, tiny_t5(), "nf4")


def test_a_plugin_adds_a_method_with_one_row(monkeypatch):
    monkeypatch.setattr(methods, "METHODS", Registry("method", methods.METHODS))
    row = methods.Method("norms", methods.train_parts("+head"), own_weights=True, precisions=("fp32",))
    methods.METHODS.add("norms", row)
    assert loading.parameter_report(tiny(method="norms", precision="fp32"))["trainable"] == 264 * 64
    with pytest.raises(SummkitError, match="method 'norms' needs precision='fp32', not 'nf4'"):
        tiny(method="norms")
    with pytest.raises(SummkitError, match="'lora' already exists"):
        methods.METHODS.add("lora", row)


def test_a_prompt_starts_from_the_wordings_instruction():
    for wording in ("topics", "dialogue"):
        model = tiny(method="prompt", precision="fp32", virtual_tokens=20, wording=wording)
        tokens = tiny_tokenizer()(get_wording(wording).instruction)["input_ids"][:20]
        assert model.get_prompt(batch_size=1)[0].equal(model.get_input_embeddings().weight[tokens])


def test_a_prompt_begins_as_the_instructions_words():
    model = tiny(method="prompt", precision="fp32", virtual_tokens=20)
    tokens = tiny_tokenizer()("Summarize the followi")["input_ids"][:20]
    assert model.get_prompt(batch_size=1)[0].allclose(model.get_input_embeddings().weight[tokens])


def test_a_model_without_blocks_names_its_parts():
    import torch
    import transformers

    model = torch.nn.Linear(2, 2)
    model.config = transformers.PreTrainedConfig(num_hidden_layers=3)
    with pytest.raises(SummkitError, match="no list of 3 blocks in this model.*parts: Linear"):
        methods.blocks(model)


@pytest.mark.parametrize("method", ["lora", "prompt"])
def test_the_preparing_cell_twice_gives_what_it_gives_once(method):
    """Mistaken once: an adapter on an adapter, or 75 lines of NoMatchingPeftModuleError."""
    settings = {"precision": "fp32", "virtual_tokens": 12, "method": method}
    base = loading.load_model("tiny-llama")
    once = methods.apply_method(base, choose_profile("smoke", **settings))
    names = [name for name, weight in once.named_parameters() if weight.requires_grad]
    shape = loading.parameter_report(once)
    for model in (once, base):  # as `model = apply_method(model, …)`, and as `model = apply_method(base, …)`
        again = methods.apply_method(model, choose_profile("smoke", **settings, rank=4, targets="attention"))
        fresh = methods.apply_method(tiny_llama(), choose_profile("smoke", **settings, rank=4, targets="attention"))
        assert loading.parameter_report(again) == loading.parameter_report(fresh)
    again = methods.apply_method(again, choose_profile("smoke", **settings))
    assert loading.parameter_report(again) == shape
    assert [name for name, weight in again.named_parameters() if weight.requires_grad] == names


def test_experts_that_take_no_dropout_say_so():
    """Mistaken once: DeepSeek's fused experts with the default dropout were peft's traceback."""
    from transformers import DeepseekV3Config

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    experts = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16}
    config = DeepseekV3Config(**sizes, **experts, first_k_dense_replace=1, num_experts_per_tok=2, vocab_size=264)
    model = loading.auto_class(config).from_config(config)
    with pytest.raises(SummkitError, match="cannot get adapters on .*: .*dropout.* set dropout to 0"):
        methods.apply_method(model, choose_profile("smoke", precision="fp32", targets="all-linear", dropout=0.1))
