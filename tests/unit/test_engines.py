"""A merged copy and each engine answer as the packed model and its adapter do, and leave the model as it was."""

import threading
import types

import pytest
import torch

from summkit import inference
from summkit.config import choose_profile
from summkit.data import templates
from summkit.errors import Interrupted, SummkitError
from summkit.inference import engines, generation, label_scores
from summkit.models import loading, methods
from tests.tiny_models import build, config, published
from tests.unit.test_speed import shaped

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = ["A short text.", "The bridge over the Marran opened on Monday after a year of work. " * 2, "Rain.", "x y z"]
LIMITS = {"max_length": 320, "max_new_tokens": 12}


def adapted(model, precision, **options):
    """The model with an adapter that changes its answers, and larger weights, so that they depend on the prompt."""
    options = {"rank": 8, "dropout": 0.0, "targets": "all-linear"} | options
    model = methods.apply_method(model, choose_profile("smoke", precision=precision, **options))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
            elif parameter.dim() > 1 and parameter.is_floating_point():
                parameter.data.mul_(4)
    return model


@pytest.fixture(scope="module")
def packed():
    """(model, tokenizer, template): four-bit weights with an adapter."""
    tokenizer = loading.load_tokenizer("tiny-llama")
    model = adapted(loading.load_model("tiny-llama", "nf4"), "nf4")
    return model, tokenizer, templates.build_template("instruction", tokenizer)


def described(model):
    """What a caller could see of a model: its modules and the numbers of its tensors."""
    modules = {path: id(module) for path, module in model.named_modules()}
    return modules, {name: tensor.double().sum().item() for name, tensor in model.state_dict().items()}


def answering():
    """Threads of transformers that write answers: others, such as the monitor of a progress bar, may come and go."""
    return [thread for thread in threading.enumerate() if "_run_generation_loop" in thread.name]


def logits(model, merge):
    ids = torch.arange(40, 72)[None]
    with torch.no_grad(), generation.ready_to_answer(model, merge):
        return model(input_ids=ids).logits


@pytest.mark.parametrize("base", [False, True])
def test_a_merged_copy_answers_as_the_packed_model_and_the_model_is_as_before(packed, base):
    before = described(packed[0])
    expected = generation.summarize(*packed, TEXTS, base=base, **LIMITS)
    assert generation.summarize(*packed, TEXTS, base=base, merge=True, **LIMITS) == expected
    assert generation.summarize(*packed, TEXTS, base=base, merge=True, batch_size=1, **LIMITS) == expected
    assert generation.summarize(*packed, TEXTS, base=not base, merge=True, **LIMITS) != expected
    assert described(packed[0]) == before and packed[0].get_base_model().hf_quantizer is not None


def test_label_likelihoods_of_a_merged_copy_are_the_same(packed, monkeypatch):
    rows, words = [{"document": text} for text in TEXTS], ["sport", "rain"]
    plain = label_scores.label_log_likelihoods(*packed, rows, words, **LIMITS)
    monkeypatch.setattr(engines, "copy_fits", lambda model: True)
    merged = label_scores.label_log_likelihoods(*packed, rows, words, **LIMITS)
    assert merged == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("kind", ["phi", "gpt2"])
@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_layers_with_biases_and_transposed_weights_are_merged(kind, method):
    model, _ = published(kind)
    model = adapted(model.eval(), "fp32", method=method)
    assert torch.allclose(logits(model, True), logits(model, False), atol=1e-3)
    with engines.merged(model.get_base_model()):
        assert not any("lora" in type(module).__module__ for module in model.get_base_model().modules())


def test_dora_int8_and_an_encoder_decoder_are_answered_rightly():
    dora = adapted(loading.load_model("tiny-llama"), "fp32", method="dora")
    assert engines.replaceable(dora.get_base_model()) == {}  # it is more than a product
    assert torch.equal(logits(dora, True), logits(dora, False))
    assert engines.replaceable(loading.load_model("tiny-llama", "int8")) == {}  # its inputs are rounded too
    tokenizer = loading.load_tokenizer("tiny-t5")
    model = adapted(build(config("t5")).eval(), "fp32")
    asked = (model, tokenizer, templates.build_template("prefix", tokenizer))
    assert generation.summarize(*asked, TEXTS, merge=True, **LIMITS) == generation.summarize(*asked, TEXTS, **LIMITS)


def test_a_copy_has_the_bytes_of_its_layers_and_half_precision_is_kept(packed):
    base = packed[0].get_base_model()
    assert 4 * 73_728 <= engines.copied_bytes(base) < 4 * 1.3 * 73_728  # in float32 here; the adapter counts too
    model = loading.load_model("tiny-llama", "nf4", "bfloat16", device="cpu")
    assert engines.copied_bytes(model) == 2 * 73_728
    with engines.merged(model):  # the head was never packed
        weights = [m.weight for m in model.modules() if type(m).__name__ == "Linear" and m is not model.lm_head]
        assert sum(weight.nbytes for weight in weights) == 2 * 73_728
        assert {weight.dtype for weight in weights} == {torch.bfloat16}


@pytest.mark.parametrize(("free", "merges"), [(10, True), (1, False)])
def test_a_gpu_answers_from_a_copy_where_it_takes_half_of_the_free_memory(packed, monkeypatch, free, merges):
    assert not engines.copy_fits(packed[0].get_base_model())  # a CPU unpacks in its own way
    base = types.SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(engines, "copied_bytes", lambda model: 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * 2**30, 2**40))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    assert engines.copy_fits(base) is merges


def test_the_model_comes_back_when_memory_is_short_in_the_middle(packed, monkeypatch):
    before, count, plain = described(packed[0]), iter(range(99)), engines._plain
    monkeypatch.setattr(engines, "_plain", lambda layer: plain(layer) if next(count) < 3 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generation.summarize(*packed, TEXTS, merge=True, **LIMITS)
    assert described(packed[0]) == before


@pytest.mark.parametrize("ended", [False, True])
def test_a_static_cache_in_a_compiled_model_gives_the_same_answers(packed, monkeypatch, ended):
    """With `ended`, a token that some answers have ends them: the rest of a row is then padding."""
    import transformers

    eager = {"compile_config": {"backend": "eager", "mode": None}}
    monkeypatch.setitem(engines.ENGINES, "compiled", engines.ENGINES["compiled"] | eager)
    monkeypatch.setattr(transformers.CompileConfig, "_compile_all_devices", True)
    asked = inference.Summarizer(*packed, **LIMITS, batch_size=3)  # the last batch is not full
    if ended:
        ids = packed[1](generation.summarize(*packed, TEXTS, **LIMITS)[0].text)["input_ids"]
        asked.end_tokens = [packed[1].eos_token_id, *ids]
    expected = asked.summarize(TEXTS)
    assert any(answer.ended for answer in expected) is ended
    assert asked.summarize(TEXTS, engine="compiled", merge=True) == expected


@pytest.mark.parametrize("size", [1, 3, 16])
@pytest.mark.parametrize("base", [False, True])
def test_continuous_batching_gives_the_same_answers_and_leaves_the_model_as_it_was(packed, size, base):
    before = described(packed[0])
    asked = inference.Summarizer(*packed, **LIMITS, batch_size=size)
    asked.end_tokens = [asked.end_tokens[0], *packed[1](asked.summarize(TEXTS)[0].text)["input_ids"]]
    expected = asked.summarize(TEXTS, base=base)
    for merge in (False, True):
        assert asked.summarize(TEXTS, base=base, engine="continuous", merge=merge) == expected
    assert base or any(answer.ended for answer in expected)
    assert asked.summarize([], engine="continuous") == []
    assert described(packed[0]) == before and not answering()
    assert packed[0].config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("phi", {}),
        ("gpt2", {"n_embd": 64, "n_head": 4, "n_layer": 2, "num_key_value_heads": 4}),
        ("qwen2", {}),
        ("mistral", {"sliding_window": 32}),
    ],
)
def test_continuous_batching_of_other_families(kind, options):
    """With partial rotation, biases, and a window that keeps the last tokens only."""
    tokenizer = loading.load_tokenizer("tiny-llama")
    model = shaped(kind, **options).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)
    template = templates.build_template("instruction", tokenizer)
    asked = inference.Summarizer(model, tokenizer, template, 256, 8)
    assert asked.summarize(TEXTS, engine="continuous") == asked.summarize(TEXTS)


def test_ctrl_c_ends_continuous_batching(packed, monkeypatch):
    before, read, answered = described(packed[0]), generation.read_answer, []

    def stopped(*given):
        assert answering()
        if answered:
            raise KeyboardInterrupt
        answered.append(read(*given))
        return answered[-1]

    monkeypatch.setattr(generation, "read_answer", stopped)
    with pytest.raises(Interrupted, match="interrupted: 1 of 4 texts were answered"):
        generation.summarize(*packed, TEXTS, engine="continuous", merge=True, batch_size=1, **LIMITS)
    assert described(packed[0]) == before and not answering()


@pytest.mark.parametrize("reason", ["computes NaN", "no room here.*: use 'batches'"])
def test_continuous_batching_finds_nan_and_says_what_fails(packed, monkeypatch, caplog, reason):
    def broken(hidden):
        if reason == "computes NaN":
            return torch.full((*hidden.shape[:-1], 264), float("nan"))
        raise MemoryError("no room here")

    monkeypatch.setattr(packed[0].get_base_model().lm_head, "forward", broken)
    with pytest.raises(SummkitError, match=reason):
        generation.summarize(*packed, TEXTS, engine="continuous", **LIMITS)
    assert not caplog.records


@pytest.mark.parametrize(("kind", "options"), [("mamba", {}), ("bloom", {"n_head": 4, "n_layer": 2})])
def test_continuous_batching_refuses_models_without_keys_or_positions(kind, options):
    model, tokenizer = shaped(kind, **options).eval(), loading.load_tokenizer("tiny-llama")
    asked = (model, tokenizer, templates.build_template("instruction", tokenizer))
    with pytest.raises(SummkitError, match="use 'batches'"):
        generation.summarize(*asked, TEXTS, engine="continuous", **LIMITS)


def test_an_engine_says_what_it_does_not_support(packed):
    for options, reason in (
        ({"engine": "fast"}, "fast"),
        ({"engine": "graphs", "decoding": "beam"}, "use 'batches'"),
        ({"engine": "compiled", "reuse_head": True}, "use 'batches'"),
        ({"engine": "compiled", "decoding": "supported"}, "use 'batches'"),
        ({"engine": "continuous", "decoding": "nucleus"}, "greedy answers"),
        ({"engine": "continuous", "decoding": "no-repeat"}, "greedy answers"),
        ({"engine": "continuous", "temperature": 0.5}, "greedy answers"),
    ):
        with pytest.raises(SummkitError, match=reason):
            generation.summarize(*packed, TEXTS, **options, **LIMITS)
