"""Fast answers on a GPU: a plain copy of packed layers, and the ways in which transformers generates.

Four-bit weights are unpacked again for each token, and an adapter beside a layer adds three small products to it. Both
cost more than the product itself when a GPU answers. So layers are replaced by plain ones while a model answers.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from summkit.errors import SummkitError
from summkit.inference import sampling
from summkit.models import loading

if TYPE_CHECKING:
    import torch

# How a batch is generated: settings of transformers' GenerationConfig, with those of its CompileConfig. "batches"
# starts each kernel from Python, and needs nothing before its first token. "graphs" replays a recorded step, and
# "compiled" also fuses kernels: both pay with their first batch, and fill each batch up to one shape. "continuous" has
# no settings: it is `continuous` below. "batches" is the default as long as the others have not been measured:
# `python -m benchmarks gpu` measures them.
ENGINES: dict[str, dict[str, Any]] = {
    "batches": {},
    "graphs": {"cache_implementation": "static", "compile_config": {"backend": "cudagraphs", "mode": None}},
    "compiled": {"cache_implementation": "static", "compile_config": {"mode": "reduce-overhead"}},
    "continuous": {},
}
Writer = Callable[[list[dict]], Iterable[list[int]]]  # maps rows of `tokenisation.encode` to new token ids


@contextmanager
def merged(base: Any) -> Iterator[None]:
    """Replace layers by plain copies with their adapter merged, while the block runs: see `replaceable`.

    The copy of four-bit weights has their compute dtype, so on a GPU it takes two bytes a weight, beside the packed
    weights. Layers are copied one by one: nothing larger than one layer is in memory besides. Answers are the same,
    unless rounding decides between two tokens. An adapter that is off is left out. `base` is the model without peft's
    wrapper; its layers have the adapters.

    Example:
        >>> model = loading.load_model("tiny-llama", "nf4")
        >>> with merged(model):
        ...     plain = type(model.model.layers[0].self_attn.q_proj).__name__
        >>> plain, type(model.model.layers[0].self_attn.q_proj).__name__
        ('Linear', 'Linear4bit')
    """
    layers = replaceable(base)
    quantizer = getattr(base, "hf_quantizer", None)
    try:
        for path, layer in layers.items():
            base.set_submodule(path, _plain(layer))
        base.hf_quantizer = None  # transformers compiles no model that has one
        yield
    finally:
        base.hf_quantizer = quantizer
        for path, layer in layers.items():
            base.set_submodule(path, layer)


def replaceable(base: Any) -> dict[str, Any]:
    """Return {path: layer} of those with four-bit weights or a LoRA adapter.

    LLM.int8() is left out, since it also rounds its inputs to eight bits, and DoRA, which is more than a product.
    """
    from peft.tuners.lora import LoraLayer

    layers = {}
    for path, layer in base.named_modules():
        adapted = isinstance(layer, LoraLayer)
        inner = type(layer.get_base_layer() if adapted else layer).__name__
        product = not (adapted and (layer.lora_variant or any(layer.lora_bias.values())))
        kinds = ("Linear4bit", "Linear", "Conv1D") if adapted else ("Linear4bit",)
        if product and inner in kinds and not path.endswith(".base_layer"):
            layers[path] = layer
    return layers


def copied_bytes(base: Any) -> int:
    """Return at most how many bytes `merged` takes for the copies."""
    return base.dtype.itemsize * sum(loading.parameter_report(x)["parameters"] for x in replaceable(base).values())


def copy_fits(base: Any) -> bool:
    """Whether `merged` takes at most half of a GPU's free memory; the other half is for keys and values.

    Never on a CPU, where `models.unpacked` answers.
    """
    import torch

    if base.device.type != "cuda":
        return False
    free = torch.cuda.mem_get_info(base.device)[0]
    free += torch.cuda.memory_reserved(base.device) - torch.cuda.memory_allocated(base.device)
    return 2 * copied_bytes(base) <= free


@contextmanager
def continuous(base: Any, rows: list[dict], together: int, limits: dict[str, Any]) -> Iterator[Writer]:
    """Write by transformers' continuous batching: when an answer ends, the next prompt takes its place at once.

    Keys and values lie in pages, which take as much memory as a batch of `together` rows. A thread writes the answers;
    it has ended when the block ends, also by Ctrl-C.

    Args:
        base: A decoder, without peft's wrapper.
        rows: All rows of `tokenisation.encode` that will be answered.
        together: Answers that are written at once.
        limits: Settings of the GenerationConfig: max_new_tokens and what ends an answer.

    Yields:
        A function that maps rows to the new token ids of each, in order.

    Raises:
        SummkitError: transformers does not support the model; memory is too short; the model computes NaN or infinity.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig

    longest = max((row["length"] for row in rows), default=0) + limits["max_new_tokens"]
    blocks = together * (longest // ContinuousBatchingConfig.page_size + 2)
    room = {"num_blocks": blocks, "max_batch_tokens": max(together, 2048), "max_requests_per_batch": together}
    # FlashAttention reads half precision; where it is not installed, it would be fetched from the Hub.
    flash = base.dtype.itemsize == 2 and importlib.util.find_spec("flash_attn") is not None
    batching = ContinuousBatchingConfig(return_logprobs=True, auto_switch_to_flash=flash, **room)  # NaN's is NaN
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)  # what it logs is raised here
    try:
        manager = base.init_continuous_batching(GenerationConfig(do_sample=False, **limits), batching)
        manager.warmup()
    except Exception as error:  # of many kinds: layers that keep no keys and values, too little memory
        raise _failure(error) from None

    def write(rows: list[dict]) -> Iterator[list[int]]:
        found: dict[str, Any] = {}
        for name in manager.add_requests([row["input_ids"] for row in rows]):
            while name not in found:
                if result := manager.get_result(timeout=1):
                    found[result.request_id] = result
                elif not manager.is_running():
                    raise _failure("it ended too early")
            result = found.pop(name)
            if result.error:
                raise _failure(result.error)
            if not all(map(math.isfinite, result.logprobs)):
                raise SummkitError(sampling.NOT_FINITE)
            yield result.generated_tokens

    manager.start()
    try:
        yield write
    finally:
        manager.stop(hard_stop=True)


def _failure(reason: object) -> SummkitError:
    return SummkitError(f"engine 'continuous' cannot answer with this model ({reason}): use 'batches'")


def _plain(layer: Any) -> torch.nn.Module:
    """Return a layer's weight, unpacked and with its active adapters added, as a linear layer."""
    import bitsandbytes.functional
    import torch

    adapted = hasattr(layer, "get_base_layer")
    inner = layer.get_base_layer() if adapted else layer
    weight = inner.weight.data  # (outputs, inputs); in a Conv1D (inputs, outputs)
    if hasattr(inner.weight, "quant_state"):
        weight = bitsandbytes.functional.dequantize_4bit(weight, inner.weight.quant_state)
    dtype = weight.dtype
    if adapted and not layer.disable_adapters:
        for name in set(layer.active_adapters) & set(layer.lora_A):
            weight = weight.float() + layer.get_delta_weight(name).detach().float()
    weight = weight.T if type(inner).__name__ == "Conv1D" else weight
    plain = torch.nn.Linear(*reversed(weight.shape), bias=False, device="meta")
    plain.weight = torch.nn.Parameter(weight.to(dtype), requires_grad=False)
    plain.bias = inner.bias
    return plain
