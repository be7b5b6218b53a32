"""Options for speed on a GPU, on a CPU: the same losses, gradients, counts and files as without them."""

import dataclasses
import sys
import types
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from summkit.config import choose_profile
from summkit.data import batching
from summkit.inference import merge_adapter
from summkit.models import loading, methods
from summkit.training import fit, speed, summary_loss
from tests.unit import test_trainer
from tests.unit.test_trainer import TOKENIZER, adapted, rows, run

ROOT = Path(__file__).parents[2]
SMOKE = dataclasses.replace(choose_profile("smoke"), evaluations_per_epoch=3, dropout=0.0)
EXACT = dataclasses.replace(SMOKE, precision="fp32", optimizer="adamw_torch")
FAST = dataclasses.replace(SMOKE, pure_compute_dtype=True, packing=True, pad_to_multiple_of=16)
SHAPE = {
    "vocab_size": len(TOKENIZER), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: off

pytestmark = pytest.mark.usefixtures("one_thread")


def shaped(kind, dtype=torch.float32, **options):
    """A tiny random decoder of a family."""
    transformers.set_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SHAPE | options)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).train()


def gradients(model, batch):
    model.zero_grad()
    with speed.within_rows(model, batch):
        loss = summary_loss(model, batch)
        loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def differ(some, others):
    return max(float((some[name] - others[name]).abs().max()) for name in some | others)


class Operations(TorchDispatchMode):
    """Counts operations by name, casts of floating-point tensors by their numbers, and what makes a GPU's host wait."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, kinds, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.counts[name] += 1
        if name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1]):
            self.counts["places of a mask"] += 1
        if name == "_to_copy" and args[0].is_floating_point() and args[0].dtype != result.dtype:
            self.counts["cast numbers"] += args[0].numel()
        return result

    def waits(self):
        """Numbers read from the device, and searches in a mask, whose result has as many numbers as are found."""
        return sum(self.counts[name] for name in ("_local_scalar_dense", "nonzero", "places of a mask"))


# Packed rows


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("phi", {"resid_pdrop": 0.0, "embd_pdrop": 0.0}),
        ("gemma", {"head_dim": 16}),
        ("gemma3_text", {"head_dim": 16, "sliding_window": 512}),
        ("qwen3", {"head_dim": 16}),
    ],
)
def test_packed_rows_have_the_loss_and_gradients_of_padded_rows(kind, options):
    model, some = shaped(kind, **options), list(rows(5))
    padded, grads = gradients(model, batching.Collator(TOKENIZER)(some))
    for multiple in (1, 16):
        packed = batching.Collator(TOKENIZER, packed=True, pad_to_multiple_of=multiple)(some)
        loss, again = gradients(model, packed)
        assert loss == pytest.approx(padded, abs=1e-5) and differ(grads, again) < 1e-5
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(AssertionError):  # without the borders, rows see the ones before them
        assert summary_loss(
            model, {**packed, "position_ids": torch.arange(packed["input_ids"].numel())[None]}
        ).item() == (pytest.approx(padded, abs=1e-5))


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("gemma3_text", {"head_dim": 16, "sliding_window": 16}, "no sliding window"),
        ("mamba", {}, "differ by"),
        ("gemma2", {"head_dim": 16, "sliding_window": 512}, "no softcap"),
    ],
)
def test_models_that_mix_packed_rows_are_found_and_padded(kind, options, reason, caplog):
    model, report = shaped(kind, **options), {"packing": "on"}
    collate = batching.Collator(TOKENIZER, packed=True)
    before = torch.get_rng_state()
    speed.check_packing(model, list(rows(2)), collate, True, report)
    assert reason in report["packing"] and not collate.packed and f"packing is off: {report['packing']}" in caplog.text
    assert all(p.grad is None for p in model.parameters()) and torch.equal(before, torch.get_rng_state())


def test_checkpointing_computes_packed_attention_again():
    model, some = shaped("llama"), list(rows(4))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    padded, grads = gradients(model, batching.Collator(TOKENIZER)(some))
    loss, again = gradients(model, batching.Collator(TOKENIZER, packed=True)(some))
    assert loss == pytest.approx(padded, abs=1e-5) and differ(grads, again) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_kernels_of_a_gpu_take_what_they_are_given(dtype):
    """Their shapes only, on tensors without numbers: no GPU is at hand."""
    query, key = (torch.empty(1, heads, 64, 80, dtype=dtype, device="meta") for heads in (4, 2))
    options = {"cu_seq_lens_q": torch.empty(4, dtype=torch.int32, device="meta"), "max_length_q": 40, "scaling": 0.1}
    attended, _ = speed._attention_within_rows(None, query, key, key, None, **options)
    assert attended.shape == (1, 64, 4, 80) and attended.dtype == dtype


# The compute dtype


def with_adapters(kind="llama", dtype=torch.float32, **options):
    model = shaped(kind, dtype)
    profile = dataclasses.replace(
        SMOKE, compute_dtype=str(dtype).removeprefix("torch."), targets="attention", **options
    )
    model = methods.apply_method(model, dataclasses.replace(profile, precision="bf16"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # at zero it would hide all that its product does
            torch.nn.init.normal_(weight, std=0.1)
    return model, dataclasses.replace(profile, pure_compute_dtype=True)


@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_adapters_have_the_same_loss_and_gradients_in_fp32(kind):
    model, profile = with_adapters(kind)
    batch = batching.Collator(TOKENIZER)(list(rows(4)))
    peft, grads = gradients(model.eval(), batch)
    with speed.fast(model, profile, 1) as report:
        loss, again = gradients(model, batch)
        assert report == {"pure_compute_dtype": "on"}
        with model.disable_adapter():
            base = summary_loss(model, batch).item()
    assert loss == pytest.approx(peft, abs=1e-5) and differ(grads, again) < 1e-5
    assert base != pytest.approx(peft, abs=1e-3)
    assert not any("forward" in vars(module) for module in model.modules()), "peft's own again"
    with model.disable_adapter():
        assert base == pytest.approx(summary_loss(model, batch).item(), abs=1e-6)


@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_no_activation_is_cast_for_an_adapter(kind):
    """With autocast or in peft's own way, each adapter casts activations to fp32 and back."""
    model, profile = with_adapters(kind, torch.bfloat16)
    batch = batching.Collator(TOKENIZER)(list(rows(8)))
    with Operations() as autocast, torch.autocast("cpu", torch.bfloat16):
        gradients(model, batch)
    with Operations() as peft:
        gradients(model, batch)
    with speed.fast(model, profile, 1), Operations() as ours:
        _, grads = gradients(model, batch)
    assert ours.counts["cast numbers"] < min(autocast.counts["cast numbers"], peft.counts["cast numbers"]) / 2
    assert all(grad.dtype == torch.float32 for grad in grads.values()), "the optimizer updates fp32 weights"


def test_bf16_without_autocast_learns_as_with_it(tmp_path):
    profile = dataclasses.replace(SMOKE, compute_dtype="bfloat16", learning_rate=5e-3, epochs=2, packing=True)
    found = []
    for pure in (False, True):
        transformers.set_seed(0)
        chosen = dataclasses.replace(profile, pure_compute_dtype=pure)
        model = methods.apply_method(loading.load_model("tiny-llama", "nf4", "bfloat16"), chosen)
        splits = (rows(24), rows(6, seed=1))
        found.append(fit(model, TOKENIZER, *splits, chosen, seed=0, out_dir=tmp_path / str(pure)))
    curves = [[entry["loss"] for entry in result.history if "loss" in entry] for result in found]
    assert found[1].speed["pure_compute_dtype"] == "on" and curves[0] != curves[1]
    assert curves[0][-1] < curves[0][0] - 0.2, "else it learns nothing"
    assert curves[1] == pytest.approx(curves[0], abs=0.03)
    weights = load_file(Path(found[1].adapter) / "adapter_model.safetensors").values()
    assert {weight.dtype for weight in weights} == {torch.float32}


def test_16_bit_adapters_would_stop_learning_where_fp32_weights_go_on():
    """Why weights stay in fp32: in bf16, steps below 1/256 of a weight are rounded away."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.nn.Parameter(torch.ones(8, dtype=dtype))
        optimizer = torch.optim.AdamW([weight], lr=1e-3, weight_decay=0.0)
        for _ in range(20):
            (weight.to(torch.bfloat16) * 1.0).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        found[dtype] = 1 - float(weight.detach()[0])
    assert found[torch.float32] == pytest.approx(0.02, rel=0.05) and found[torch.bfloat16] == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "head", "precision": "fp32"}, "the model's own weights train"),
        ({"method": "dora", "precision": "fp32"}, "compute more than LoRA's two products"),
        ({"compute_dtype": "bfloat16", "precision": "fp32"}, "weights are in float32"),
    ],
)
def test_what_needs_autocast_keeps_it_and_says_why(change, reason, caplog):
    profile = dataclasses.replace(FAST, packing=False, **change)
    with speed.fast(adapted(profile), profile, 1) as report:
        assert reason in report["pure_compute_dtype"]
    assert "pure_compute_dtype is off: " in caplog.text


# Whole trainings


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("plain"), SMOKE)


def same_training(result, plain):
    assert len(result.history) == len(plain.history)
    for one, other in zip(result.history, plain.history, strict=True):
        for key in ("loss", "eval_loss"):
            assert one.get(key) == pytest.approx(other.get(key), abs=1e-4)
    assert (result.tokens, result.steps) == (plain.tokens, plain.steps)
    some, others = (load_file(Path(one.adapter) / "adapter_model.safetensors") for one in (result, plain))
    assert {name: (w.shape, w.dtype) for name, w in some.items()} == {n: (w.shape, w.dtype) for n, w in others.items()}


def test_a_training_with_all_options_has_the_same_losses_counts_and_files(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "COMPILER", "aot_eager")  # without C++, which takes a minute
    profile = dataclasses.replace(FAST, compile_from_steps=1, gradient_checkpointing=True)
    result, _ = run(tmp_path, profile)
    same_training(result, plain[0])
    assert result.speed == dict.fromkeys(("pure_compute_dtype", "packing", "compile_from_steps"), "on")
    assert result.compile_seconds > 0 and result.padding_fraction < plain[0].padding_fraction
    assert plain[0].speed == {} and plain[0].compile_seconds is None
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("exact"), EXACT)[0]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pure_compute_dtype", True), ("packing", True), ("pad_to_multiple_of", 16), ("compile_from_steps", 1),
        ("logging_steps", 2), ("optimizer", "adamw_torch_fused"), ("gradient_checkpointing", True),
    ],
)  # fmt: skip
def test_each_option_alone_leaves_the_losses_to_the_fifth_digit_and_the_counts(
    exact, tmp_path, monkeypatch, option, value
):
    monkeypatch.setattr(speed, "COMPILER", "eager")
    profile = dataclasses.replace(EXACT, **{option: value})
    result, _ = run(tmp_path, profile)
    assert result.speed == ({option: "on"} if option in speed._OPTIONS else {})
    assert (result.tokens, result.steps) == (exact.tokens, exact.steps)
    found, expected = ({e["step"]: e["eval_loss"] for e in r.history if "eval_loss" in e} for r in (result, exact))
    assert len(found) == 3 and found == pytest.approx(expected, abs=1e-5)
    assert result.train_loss == pytest.approx(exact.train_loss, abs=1e-5)
    counts = [loading.parameter_report(adapted(one)) for one in (profile, EXACT)]
    assert counts[0] == counts[1]
    torch._dynamo.reset()


def test_the_adapter_of_a_fast_training_is_exported_as_any_other(plain, tmp_path):
    result, _ = run(tmp_path / "fast", FAST)
    folders = [merge_adapter(one.adapter, tmp_path / name) for one, name in ((result, "one"), (plain[0], "other"))]
    some, others = (load_file(folder / "model.safetensors") for folder in folders)
    assert some.keys() == others.keys() and differ(some, others) < 1e-3
    assert {name: w.dtype for name, w in some.items()} == {name: w.dtype for name, w in others.items()}


def test_a_fast_training_that_was_killed_goes_on_as_if_not(tmp_path):
    whole, adapter = run(tmp_path / "whole", FAST)
    with pytest.raises(MemoryError):
        run(tmp_path / "broken", FAST, on_log=test_trainer.stopped_at(5))
    result, again = run(tmp_path / "broken", FAST, resume=True)
    assert result.resumed_from == "checkpoint-4" and again == adapter and result.tokens == whole.tokens
    assert test_trainer.losses(result) == test_trainer.losses(whole)


def test_a_failing_compiler_leaves_the_blocks_as_they_were(plain, tmp_path, monkeypatch, caplog):
    def broken(graph, inputs):
        raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr(speed, "COMPILER", broken)
    result, adapter = run(tmp_path, dataclasses.replace(SMOKE, compile_from_steps=1))
    assert adapter == plain[1] and "no compiler" in result.speed["compile_from_steps"]
    assert "compile_from_steps is off: " in caplog.text
    torch._dynamo.reset()


def test_too_few_steps_are_not_compiled(plain, tmp_path):
    result, adapter = run(tmp_path, dataclasses.replace(SMOKE, compile_from_steps=7))
    assert adapter == plain[1] and result.compile_seconds is None
    assert result.speed == {"compile_from_steps": "compiling takes longer than 6 steps save"}


def test_a_step_of_packed_rows_waits_for_no_number(tmp_path, monkeypatch):
    """On a GPU, reading a number or finding the places of a mask waits for all that was started before."""
    found = {}
    step = transformers.Trainer.training_step

    def counted(self, *args):
        with Operations() as found[self.state.global_step]:
            return step(self, *args)

    # On a CPU, the borders of rows are read for attention; a GPU's kernels take them as they are.
    def attention(module, query, key, value, mask, **_):
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=True
        ).transpose(1, 2), None

    monkeypatch.setattr(transformers.Trainer, "training_step", counted)
    monkeypatch.setattr(speed, "_attention_within_rows", attention)
    monkeypatch.setattr(speed, "check_packing", lambda *_: None)
    profile = dataclasses.replace(FAST, precision="fp32", optimizer="adamw_torch", logging_steps=2)
    run(tmp_path / "packed", profile)
    assert len(found) == 6
    for counted_step in found.values():
        assert counted_step.counts["mm"] and not counted_step.waits(), counted_step.counts
    # A padded batch waits: is there padding in the mask (read twice); which positions have labels, for loss and head.
    run(tmp_path / "padded", dataclasses.replace(profile, packing=False))
    assert {counted_step.waits() for counted_step in found.values()} == {4}, found[0].counts


# Fused kernels


def stand_in(monkeypatch, kinds):
    """A package liger_kernel that only remembers what it was asked for."""
    asked = []
    patch = types.ModuleType("liger_kernel.transformers.monkey_patch")
    patch.MODEL_TYPE_TO_APPLY_LIGER_FN = kinds
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers.monkey_patch", patch)
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(
        "transformers.integrations.liger.apply_liger_kernel", lambda model, config: asked.append((model, config))
    )
    return asked


def on_cuda(model, monkeypatch):
    monkeypatch.setattr(type(model), "device", types.SimpleNamespace(type="cuda"), raising=False)
    return model


def test_kernels_are_those_of_the_model_type_and_leave_the_loss(monkeypatch):
    asked, model = stand_in(monkeypatch, {"llama": None}), on_cuda(adapted(SMOKE), monkeypatch)
    profile = dataclasses.replace(SMOKE, fused_kernels=True)
    with speed.fast(model, profile, 9) as report:
        assert report == {"fused_kernels": "on"}
    assert asked == [(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})]
    with speed.fast(model, dataclasses.replace(profile, compile_from_steps=9), 8) as report:
        assert report["fused_kernels"] == "on" and "compiling takes longer" in report["compile_from_steps"]
    stand_in(monkeypatch, {"gemma": None})
    with speed.fast(model, profile, 9) as report:
        assert report == {"fused_kernels": "Liger has no kernels for llama"}
    assert len(asked) == 2


def test_an_absent_package_is_one_line_with_the_command(monkeypatch, caplog):
    model = on_cuda(adapted(SMOKE), monkeypatch)
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: None)
    with speed.fast(model, dataclasses.replace(SMOKE, fused_kernels=True), 9):
        pass
    assert [record.getMessage() for record in caplog.records if record.name == speed.__name__] == [
        "fused_kernels is off: pip install 'summkit[gpu]'"
    ]


def test_on_a_cpu_kernels_are_off():
    model = adapted(SMOKE)
    with speed.fast(model, dataclasses.replace(SMOKE, fused_kernels=True), 9) as report:
        assert "need CUDA" in report["fused_kernels"]
