"""Options that make a training fast on a GPU and change its losses by no more than rounding.

A profile switches them on. An option that a model, a package or the hardware does not support is off, and the reason is
logged and kept in the record. All changes to the model end with the training.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

from summkit.config import Profile
from summkit.data.batching import Collator
from summkit.errors import SummkitError
from summkit.models import loading
from summkit.models.methods import METHODS, blocks
from summkit.training import environment
from summkit.training.losses import summary_loss

if TYPE_CHECKING:
    import torch

WITHIN_ROWS = "within rows"  # the name of `_attention_within_rows` in transformers
COMPILER = "inductor"
_log = logging.getLogger(__name__)


@contextmanager
def fast(model: torch.nn.Module, profile: Profile, steps: int) -> Iterator[dict[str, str]]:
    """Apply the profile's options for speed while the block runs.

    Args:
        model: The model that `apply_method` has prepared.
        profile: The settings.
        steps: Optimizer steps of the training.

    Yields:
        {option: "on", or the reason why it is off} of the options that the profile switches on. `check_packing` and
        `warm_up` change it.
    """
    report: dict[str, str] = {}
    for option, reason_off in _OPTIONS.items():
        if getattr(profile, option):
            spread = environment.is_spread(profile) or profile.deepspeed
            reason = "DeepSpeed or FSDP computes the model" if spread else reason_off(model, profile, steps)
            _say(report, option, reason)
    adapters = _adapters(model) if is_on(report, "pure_compute_dtype") else []
    try:
        for layer in adapters:
            layer.forward = MethodType(_adapted, layer)
        if is_on(report, "fused_kernels"):
            _apply_kernels(model)
        if is_on(report, "compile_from_steps"):
            for block in blocks(model):
                block.compile(dynamic=True, backend=COMPILER)
        yield report
    finally:
        for layer in adapters:
            vars(layer).pop("forward", None)
        if "compile_from_steps" in report:
            _never_compiled(model)


def is_on(report: dict[str, str], option: str) -> bool:
    """Whether an option of `fast` is in use."""
    return report.get(option) == "on"


def _say(report: dict[str, str], option: str, reason: str) -> None:
    report[option] = reason or "on"
    if reason:
        _log.warning("%s is off: %s", option, reason)


# Everything in the compute dtype


def _reason_autocast(model: torch.nn.Module, profile: Profile, steps: int) -> str:
    """Return why a model needs autocast; "" if it can be computed in the compute dtype alone."""
    if METHODS.find(profile.method).own_weights:
        return "the model's own weights train, and they are in fp32"
    frozen = [weight for weight in model.parameters() if weight.is_floating_point() and not weight.requires_grad]
    others = {str(weight.dtype).removeprefix("torch.") for weight in frozen} - {profile.compute_dtype}
    if others:
        return f"weights are in {' and '.join(sorted(others))}"
    if any(layer.lora_variant or "default" not in layer.lora_A for layer in _adapters(model)):
        return f"the adapters of {profile.method!r} compute more than LoRA's two products"
    return ""


def _adapters(model: torch.nn.Module) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _adapted(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Compute a linear layer and its LoRA in the dtype of `hidden`.

    peft casts `hidden` to the fp32 of the adapter's weights, and the result back. Here the small weights are cast, so
    that the optimizer still updates fp32 weights, and one product adds the adapter's output to the layer's.
    """
    import torch

    result = layer.base_layer(hidden)  # (rows, tokens, outputs)
    if layer.disable_adapters or layer.merged:
        return result
    down, up = (part["default"].weight.to(hidden.dtype) for part in (layer.lora_A, layer.lora_B))
    inner = layer.lora_dropout["default"](hidden) @ down.T * layer.scaling["default"]  # (rows, tokens, rank)
    return torch.addmm(result.flatten(0, -2), inner.flatten(0, -2), up.T).view_as(result)


# Fused kernels


def _reason_no_kernels(model: torch.nn.Module, profile: Profile, steps: int) -> str:
    if model.device.type != "cuda":
        return f"Liger's kernels need CUDA, and the model is on {model.device.type}"
    if importlib.util.find_spec("liger_kernel") is None:
        return "pip install 'summkit[gpu]'"
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    kind = loading.unwrapped(model).config.model_type
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return f"Liger has no kernels for {kind}"
    compiled = profile.compile_from_steps and not _reason_not_compiled(model, profile, steps)
    return "the blocks are compiled, which fuses the same operations" if compiled else ""


def _apply_kernels(model: torch.nn.Module) -> None:
    """Put Liger's kernels into the model, and into models of this type that are loaded later.

    Not those of the loss: `summary_loss` computes logits of the summary's tokens only.
    """
    from transformers.integrations.liger import apply_liger_kernel

    apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})


# Compiled blocks


def _reason_not_compiled(model: torch.nn.Module, profile: Profile, steps: int) -> str:
    if loading.is_encoder_decoder(model):
        return "only the blocks of decoders are compiled"
    try:
        blocks(model)
    except SummkitError as error:
        return str(error)
    wanted = profile.compile_from_steps or 0
    return f"compiling takes longer than {steps} steps save" if steps < wanted else ""


def warm_up(model: torch.nn.Module, rows: list[list[dict]], collate: Collator, report: dict[str, str]) -> float:
    """Compile by a forward and a backward pass of each batch of `rows`, and return the seconds.

    A compiler that fails leaves the blocks as they were. Random numbers and gradients are left as they were.
    """
    started = time.monotonic()
    try:
        for batch in rows:
            _gradients(model, collate(batch))
    except Exception as error:  # of many kinds: no compiler here, an operation that it does not know
        _never_compiled(model)
        _say(report, "compile_from_steps", _in_one_line(error))
    return time.monotonic() - started


@contextmanager
def uncompiled(model: torch.nn.Module) -> Iterator[None]:
    """Run blocks as they were before they were compiled: evaluation has other shapes and would compile them again."""
    compiled = {module: module._compiled_call_impl for module in model.modules() if module._compiled_call_impl}
    _never_compiled(model)
    try:
        yield
    finally:
        for module, call in compiled.items():
            module._compiled_call_impl = call


def _never_compiled(model: torch.nn.Module) -> None:
    for module in model.modules():
        module._compiled_call_impl = None  # torch has no function that takes `Module.compile` back


# Packed rows


def _reason_not_packed(model: torch.nn.Module, profile: Profile, steps: int) -> str:
    if loading.is_encoder_decoder(model):
        return "only decoders read rows laid end to end"
    return "virtual tokens precede each row" if METHODS.find(profile.method).prompt_tuning else ""


def check_packing(
    model: torch.nn.Module, rows: list[dict], collate: Collator, exact: bool, report: dict[str, str]
) -> None:
    """Compare loss and gradients of packed rows with those of padded rows, and pack no rows if they differ.

    So it does not depend on a list of models whether attention stays within a row.

    Args:
        model: The model, as it trains.
        rows: A long and a short row.
        collate: What packs the batches of the training. It pads from now on if rows cannot be packed.
        exact: Whether all is computed in fp32, so that nothing may differ but the last digits.
        report: The report of `fast`.
    """
    import torch

    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.training]
    try:
        with uncompiled(model):
            for module in dropouts:
                module.eval()
            packed = _gradients(model, collate(rows))
            collate.packed = False
            padded = _gradients(model, collate(rows))
        off = max(float((one - other).norm() / other.norm()) for one, other in zip(packed, padded, strict=True))
        reason = (
            "" if off < (1e-3 if exact else 0.1) else f"the gradients differ by {off:.1%} from those of padded rows"
        )
    except Exception as error:  # of many kinds: no such kernel, a model that takes no positions
        reason = _in_one_line(error)
    finally:
        for module in dropouts:
            module.train()
    collate.packed = not reason
    _say(report, "packing", reason)


def _gradients(model: torch.nn.Module, batch: dict[str, Any]) -> list[torch.Tensor]:
    """Return the loss and all gradients, as two vectors, and leave no trace in the model or the random numbers."""
    import torch
    from accelerate.utils import send_to_device

    trained = [weight for weight in model.parameters() if weight.requires_grad]
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), within_rows(model, batch):
        loss = summary_loss(model, send_to_device(batch, model.device))
        gradients = torch.autograd.grad(loss, trained, materialize_grads=True)
    return [loss.detach().float(), torch.cat([gradient.float().flatten() for gradient in gradients])]


@contextmanager
def within_rows(model: torch.nn.Module, batch: dict[str, Any]) -> Iterator[None]:
    """Compute attention by the borders of rows while the block runs, if `batch` has them.

    The block must have the backward pass too, in which checkpointing computes attention again. transformers makes no
    mask for an attention that it does not know.
    """
    from transformers import AttentionInterface

    config = loading.text_config(model)
    before = config._attn_implementation
    if "cu_seq_lens_q" in batch:
        AttentionInterface.register(WITHIN_ROWS, _attention_within_rows)
        config._attn_implementation = WITHIN_ROWS
    try:
        yield
    finally:
        config._attn_implementation = before


def _attention_within_rows(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: None, **options: Any
) -> tuple[torch.Tensor, None]:
    """Compute causal attention of rows laid end to end, each on itself alone.

    The arguments are those of every attention in transformers: `query`, `key` and `value` are (1, heads, tokens, size),
    the options have cu_seq_lens_q, where the rows begin and end, and the result is (1, tokens, heads, size).

    Raises:
        NotImplementedError: The model's attention has more than a causal mask, which these kernels lack.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    borders, longest = options["cu_seq_lens_q"], options["max_length_q"]
    dropout, scaling = options.get("dropout", 0.0), options.get("scaling")
    lacking = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    if lacking or (options.get("sliding_window") or longest) < longest:
        raise NotImplementedError(f"packed rows have no {lacking[0] if lacking else 'sliding window'}")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (state.repeat_interleave(groups, dim=1) for state in (key, value))
    states = [query, key, value]
    if query.device.type == "cpu":
        parts = []
        for start, end in itertools.pairwise(borders.tolist()):
            query, key, value = (state[:, :, start:end] for state in states)
            parts.append(
                scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scaling, is_causal=True)
            )
        return torch.cat(parts, dim=2).transpose(1, 2), None
    if torch.is_autocast_enabled("cuda"):  # which casts for torch's public attention only
        states = [state.to(torch.get_autocast_dtype("cuda")) for state in states]
    query, key, value = (state.transpose(1, 2) for state in states)  # (1, tokens, heads, size)
    shape = (borders, borders, longest, longest)
    # The kernels under torch's attention. The public way to them, torch.nn.attention.varlen, is new in torch 2.10.
    if query.dtype == torch.bfloat16:  # the GPUs that compute in it have FlashAttention
        kernel = torch.ops.aten._flash_attention_forward
        return kernel(query[0], key[0], value[0], *shape, dropout, True, False, scale=scaling)[0][None], None
    kernel = torch.ops.aten._efficient_attention_forward
    return kernel(query, key, value, None, *shape, dropout, 1, True, scale=scaling)[0], None  # 1: causal


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


# Option → the function that says why a training cannot use it.
_OPTIONS: dict[str, Callable[[torch.nn.Module, Profile, int], str]] = {
    "pure_compute_dtype": _reason_autocast,
    "fused_kernels": _reason_no_kernels,
    "packing": _reason_not_packed,
    "compile_from_steps": _reason_not_compiled,
}
