"""Measure which tensors autograd saves in a forward pass, without weights and without computing it.

The tensors are torch's fake tensors, with a shape, a dtype and a device, but no data. Kernels are chosen as for real
tensors, and `saved_tensors_hooks` receives the saved ones. Every architecture that transformers builds
is measured in the same way. On a CPU the bytes are those of real tensors, within 0.5 %, for decoders, T5, LongT5, BART,
LED and BigBird, in fp32 and under bf16 autocast (tested). For a GPU, the fake tensors are a CPU's and `_gpu_rules`
imitates the GPU; the results were compared with measured peaks of one GPU.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from summkit.errors import SummkitError
from summkit.models import loading

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

BLOCKS = 3  # blocks run in each stack: the first, which may save less; a middle one, for all others; the last
# Functions that autocast computes in fp32 on a GPU, but not on a CPU.
FP32_ON_GPU = {"layer_norm", "pow", "__pow__", "softmax", "rsqrt", "exp", "log", "sum", "cumsum", "norm", "softplus"}


class Measured:
    """What a forward pass saves for backward: the bytes of distinct storages, by block.

    Args:
        model: The model; its weights are not counted.
        blocks: {block: how many blocks it stands for}.

    Attributes:
        kept: {block, or None outside of blocks: bytes}.
        inputs: {block: bytes of its input}.
        widest: Numbers in the largest tensor that a block computes.
        copies: Tensors of this size at the same time.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, blocks: dict[torch.nn.Module, int]) -> None:
        weights = (*model.parameters(), *model.buffers())
        self._storages = {tensor.untyped_storage()._cdata: tensor for tensor in weights}
        self._blocks = blocks
        self._block: torch.nn.Module | None = None
        self.kept: Counter[torch.nn.Module | None] = Counter()
        self.inputs: dict[torch.nn.Module, int] = {}
        self.widest = 0
        self.copies = 2
        for block in blocks:
            block.register_forward_pre_hook(self._enter, with_kwargs=True)
            block.register_forward_hook(self._leave)

    def total(self, gradient_checkpointing: bool) -> int:
        """Return the bytes saved for backward; with checkpointing, each block's input and the largest block."""
        kept = {block: self.kept[block] for block in self._blocks}
        if not gradient_checkpointing:
            return self.kept[None] + sum(kept[block] * count for block, count in self._blocks.items())
        inputs = sum(self.inputs[block] * count for block, count in self._blocks.items() if kept[block])
        return self.kept[None] + inputs + max(kept.values())

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count a tensor that autograd saves, unless it is a weight or counted already."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            self._storages[storage._cdata] = tensor  # kept alive, so that no other storage gets its address
            self.kept[self._block] += storage.nbytes()
        return tensor

    def computed(self, tensor: torch.Tensor) -> None:
        """Update the largest size with a tensor that a block computed."""
        if self._block is not None and tensor.numel() > self.widest:
            self.widest = tensor.numel()
            self.copies = 3 if tensor.dim() > 3 else 2  # attention scores, the added bias, and their sum

    def _enter(self, block: torch.nn.Module, given: tuple, named: dict) -> None:
        self._block = block
        self.inputs[block] = (given[0] if given else named["hidden_states"]).nbytes

    def _leave(self, *_: object) -> None:
        self._block = None


def measure_forward(
    model: PreTrainedModel | PeftModel,
    weight_dtype: str,
    compute_dtype: str,
    device: str,
    *,
    batch: int,
    length: int,
    answer: int,
) -> Measured:
    """Run the forward pass of a training step on fake tensors.

    Args:
        model: A model on the meta device, prepared by its method. It is changed, and cannot be used afterwards.
        weight_dtype: The dtype of the model's weights; adapters are fp32.
        compute_dtype: Half precision means autocast.
        device: "cpu" or "cuda".
        batch: Rows; with several rows, some are padded.
        length: Tokens per row that a decoder, or the encoder of an encoder-decoder, reads.
        answer: Tokens per row that an encoder-decoder's decoder writes.

    Raises:
        SummkitError: The model cannot run on tensors without values.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    compute = getattr(torch, compute_dtype)
    blocks = _shorten(model)
    _set_dtypes(model.train(), getattr(torch, weight_dtype))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        model.to_empty(device="cpu")  # fake tensors in place of those on the meta device
    measured = Measured(model, blocks)
    ops = _ops(measured)
    rules = _gpu_rules() if device == "cuda" else contextlib.nullcontext()
    autocast = torch.autocast("cpu", compute, enabled=compute != torch.float32)
    hooks = torch.autograd.graph.saved_tensors_hooks(measured.pack, lambda tensor: tensor)
    try:
        with mode, ops, rules, autocast, hooks:
            model(**_inputs(model, batch, length, answer), use_cache=False)
    except Exception as error:  # a model's own code may fail in any way without values
        kind = model.config.model_type
        raise SummkitError(f"a model of type {kind!r} cannot be measured without weights: {error}") from error
    return measured


def _shorten(model: PreTrainedModel | PeftModel) -> dict[torch.nn.Module, int]:
    """Leave BLOCKS blocks in a decoder, or in an encoder and its decoder, and return how many each stands for."""
    import torch

    counts: dict[torch.nn.Module, int] = {}
    for part in [model.get_encoder(), model.get_decoder()] if loading.is_encoder_decoder(model) else [model]:
        blocks = next((module for module in part.modules() if isinstance(module, torch.nn.ModuleList)), None)
        if blocks is None:
            raise SummkitError(f"a model of type {model.config.model_type!r} has no list of blocks to measure")
        left_out = max(0, len(blocks) - BLOCKS)
        if left_out:
            del blocks[len(blocks) // 2 + 1 : -1]
            del blocks[1:-2]
        counts |= dict.fromkeys(blocks, 1)
        counts[blocks[len(blocks) // 2]] += left_out
    return counts


def _set_dtypes(model: torch.nn.Module, dtype: torch.dtype) -> None:
    import torch

    adapted = hasattr(model, "peft_config")
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float32 if adapted and parameter.requires_grad else dtype)


def _inputs(model: PreTrainedModel | PeftModel, batch: int, length: int, answer: int) -> dict[str, torch.Tensor]:
    import torch

    special = loading.padding(model)
    tokens = torch.zeros(batch, max(length, special.get("shortest", 0)), dtype=torch.long)
    inputs = {"input_ids": tokens}
    if loading.is_encoder_decoder(model):
        inputs["decoder_input_ids"] = torch.zeros(batch, answer, dtype=torch.long)
    if batch > 1 or loading.is_encoder_decoder(model):
        inputs["attention_mask"] = torch.ones_like(tokens)
    if special.get("global_first"):
        inputs["global_attention_mask"] = torch.zeros_like(tokens)
    return inputs


def _ops(measured: Measured) -> Any:
    """Return a mode that passes computed tensors to `measured`, and supplies the few values that models need."""
    import torch
    from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensor
    from torch.utils._python_dispatch import TorchDispatchMode

    ones = {dtype: torch.ones((), dtype=dtype) for dtype in (torch.bool, torch.int32, torch.int64)}

    class Ops(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            try:
                result = func(*args, **(kwargs or {}))
            except DynamicOutputShapeException:  # LED needs the positions of global tokens: the first of each row
                return args[0].new_zeros((args[0].shape[0], args[0].dim()), dtype=torch.long)
            if isinstance(result, FakeTensor):
                if result.dim() == 0 and result.dtype in ones and result.constant is None:
                    result.constant = ones[result.dtype]  # LED needs the number of global tokens
                if not func.is_view:
                    measured.computed(result)
            return result

    return Ops()


def _gpu_rules() -> Any:
    """Return a mode in which a CPU saves tensors as a GPU does.

    Dropout saves a mask of one byte per number. Attention is always fused, even with dropout or a trained bias.
    Autocast computes some functions in fp32.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    def dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        return torch.native_dropout(x, p, training)[0]

    class Rules(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            kwargs = kwargs or {}
            if func is torch.nn.functional.dropout:
                return dropout(*args, **kwargs)
            if func is torch.nn.functional.scaled_dot_product_attention:
                mask = kwargs.get("attn_mask")
                return func(*args, **kwargs | {"attn_mask": mask if mask is None else mask.detach(), "dropout_p": 0.0})
            if getattr(func, "__name__", "") in FP32_ON_GPU and torch.is_autocast_enabled("cpu"):
                half = (torch.float16, torch.bfloat16)
                args = tuple(x.float() if isinstance(x, torch.Tensor) and x.dtype in half else x for x in args)
            return func(*args, **kwargs)

    return Rules()
