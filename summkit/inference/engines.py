"""Fast answers on a GPU: a plain copy of packed layers, and the ways in which transformers generates.

Four-bit weights are unpacked again for each token, and an adapter beside a layer adds three small products to it. Both
cost more than the product itself when a GPU answers. So layers are replaced by plain ones while a model answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from summkit.models import loading

if TYPE_CHECKING:
    import torch

# How a batch is generated: settings of transformers' GenerationConfig, with those of its CompileConfig. "batches"
# starts each kernel from Python, and needs nothing before its first token. "graphs" replays a recorded step, and
# "compiled" also fuses kernels: both pay with their first batch, and fill each batch up to one shape. "batches" is the
# default as long as the others have not been measured: `python -m benchmarks gpu` measures them.
ENGINES: dict[str, dict[str, Any]] = {
    "batches": {},
    "graphs": {"cache_implementation": "static", "compile_config": {"backend": "cudagraphs", "mode": None}},
    "compiled": {"cache_implementation": "static", "compile_config": {"mode": "reduce-overhead"}},
}


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
