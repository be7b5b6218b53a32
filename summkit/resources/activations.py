"""Measure which tensors autograd saves in a forward pass, without weights and without computing it.

The tensors are torch's fake tensors, with a shape, a dtype and a device, but no data. Kernels are chosen as for real
tensors, and `saved_tensors_hooks` receives the saved ones. Every architecture that transformers builds
is measured in the same way. On a CPU the bytes are those of real tensors, within 0.5 %, for decoders, T5, LongT5, BART,
LED and BigBird, in fp32 and under bf16 autocast (tested). For a GPU, the fake tensors are a CPU's and `_gpu_rules`
imitates the GPU; the results were compared with measured peaks of one GPU.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from summkit.errors import SummkitError
from summkit.models import loading

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

BLOCKS = 3  # blocks run in each stack: the first, which may save less; a middle one, for all others; the last
# Functions that autocast computes in fp32 on a GPU, but not on a CPU.
FP32_ON_GPU = {"layer_norm", "pow", "__pow__", "softmax", "rsqrt", "exp", "log", "sum", "cumsum", "norm", "softplus"}


@dataclass(frozen=True)
class Stack:
    """An encoder or a decoder of `layers` blocks; `kept` and `cache` are bytes of each block that was run."""

    layers: int
    kept: tuple[int, ...]
    state: int  # bytes of a block's input
    cache: tuple[int, ...] = ()

    def total(self, sizes: tuple[int, ...]) -> int:
        """Return the sum of `sizes` over all layers; the middle block that was run represents the others."""
        return sum(sizes) + (self.layers - len(sizes)) * sizes[len(sizes) // 2]


@dataclass(frozen=True)
class Measured:
    """The bytes that one forward pass saves: its stacks of blocks, and `ends`, the bytes before and after them.

    `widest`: numbers in the largest tensor that a block computes; `copies`: tensors of this size at the same time.
    """

    stacks: tuple[Stack, ...]
    ends: int
    widest: int
    copies: int

    def kept(self, gradient_checkpointing: bool) -> int:
        """Return the bytes saved for backward; with checkpointing, each block's input and the largest block."""
        if not gradient_checkpointing:
            return self.ends + sum(stack.total(stack.kept) for stack in self.stacks)
        inputs = sum(stack.total(tuple(stack.state * (kept > 0) for kept in stack.kept)) for stack in self.stacks)
        return self.ends + inputs + max(max(stack.kept) for stack in self.stacks)

    def cache(self) -> int:
        """Return the bytes of the keys and values of all layers."""
        return sum(stack.total(stack.cache) for stack in self.stacks if stack.cache)


class Forward:
    """A model without weights, ready for any number of forward passes on fake tensors.

    Args:
        model: A model on the meta device, prepared by its method. It is changed, and cannot be used afterwards.
        weight_dtype: The dtype of the model's weights; adapters are fp32.
        compute_dtype: Half precision means autocast.
        device: "cpu" or "cuda".
    """

    def __init__(self, model: PreTrainedModel | PeftModel, weight_dtype: str, compute_dtype: str, device: str) -> None:
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode

        self.model = model
        self.compute_dtype = getattr(torch, compute_dtype)
        self.on_gpu = device == "cuda"
        self.stacks = _block_lists(model)
        self.layers = [len(blocks) for blocks in self.stacks]
        for blocks in self.stacks:
            if len(blocks) > BLOCKS:
                del blocks[len(blocks) // 2 + 1 : -1]
                del blocks[1:-2]
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self.mode:
            _make_fake(model, getattr(torch, weight_dtype))

    def training(self, batch: int, length: int, answer: int) -> Measured:
        """Measure the bytes that one forward pass saves for backward.

        Args:
            batch: Rows; with several rows, some are padded.
            length: Tokens per row that a decoder, or the encoder of an encoder-decoder, reads.
            answer: Tokens per row that an encoder-decoder's decoder writes.

        Raises:
            SummkitError: The model cannot run on tensors without values.
        """
        import torch

        watch = _Watch(self.model)
        self.model.train()
        with torch.autocast("cpu", self.compute_dtype, enabled=self.compute_dtype != torch.float32):
            hooks = torch.autograd.graph.saved_tensors_hooks(watch.pack, lambda tensor: tensor)
            self._run(watch, hooks, batch, length, answer, use_cache=False)
        stacks = []
        for number, blocks in enumerate(self.stacks):
            kept = tuple(watch.kept[number, block] for block in range(len(blocks)))
            stacks.append(Stack(self.layers[number], kept, watch.states[number]))
        return Measured(tuple(stacks), watch.kept[None], watch.widest, watch.copies)

    def answering(self, batch: int, length: int, answer: int) -> Measured:
        """Measure the cache of keys and values after one forward pass, and the largest tensor; see `training`."""
        import torch

        watch = _Watch(self.model)
        self.model.eval()
        caches = self._run(watch, torch.no_grad(), batch, length, answer, use_cache=True).past_key_values
        parts = [getattr(caches, name, None) for name in ("self_attention_cache", "cross_attention_cache")]
        layers = [part.layers for part in parts if part is not None] or [caches.layers]
        sizes = tuple(sum(map(_cache_bytes, same)) for same in zip(*layers, strict=True))
        run = tuple(size for size in sizes if size)  # a cache may have layers for blocks that were not run
        return Measured((Stack(self.layers[-1], (), 0, run),), 0, watch.widest, watch.copies)

    def _run(self, watch: _Watch, context: Any, batch: int, length: int, answer: int, use_cache: bool) -> Any:
        """Run one forward pass in `context`, and return its output."""
        ops = _ops(watch)
        with self.mode, ops, _gpu_rules() if self.on_gpu else contextlib.nullcontext(), watch.blocks(self.stacks):
            inputs = _inputs(self.model, batch, length, answer)
            try:
                with context:
                    return self.model(**inputs, use_cache=use_cache)
            except Exception as error:  # a model's own code may fail in any way without values
                kind = self.model.config.model_type
                raise SummkitError(f"a model of type {kind!r} cannot be measured without weights: {error}") from error


class _Watch:
    """Counts the bytes of distinct storages that autograd saves, by block, and finds the largest computed tensor.

    `kept`: {(stack, block), or None outside of blocks: bytes}; `states`: {stack: bytes of a block's input}.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        weights = (*model.parameters(), *model.buffers())
        self.storages = {tensor.untyped_storage()._cdata: tensor for tensor in weights}
        self.kept: Counter[tuple[int, int] | None] = Counter()
        self.states: Counter[int] = Counter()
        self.block: tuple[int, int] | None = None
        self.widest, self.copies = 0, 2

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count a tensor that autograd saves, unless it is a weight or counted already."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.storages:
            self.storages[storage._cdata] = tensor  # kept alive, so that no other storage gets its address
            self.kept[self.block] += storage.nbytes()
        return tensor

    def computed(self, tensor: torch.Tensor) -> None:
        """Update the largest size with a tensor that a block computed."""
        if self.block is not None and tensor.numel() > self.widest:
            self.widest = tensor.numel()
            self.copies = 3 if tensor.dim() > 3 else 2  # attention scores, the added bias, and their sum

    @contextlib.contextmanager
    def blocks(self, stacks: list[torch.nn.ModuleList]) -> Iterator[None]:
        """Track the running block in this context."""

        def enter(place: tuple[int, int], _: object, given: tuple, named: dict) -> None:
            self.block = place
            self.states[place[0]] = (given[0] if given else named["hidden_states"]).nbytes

        def leave(*_: object) -> None:
            self.block = None

        with contextlib.ExitStack() as handles:
            for stack, blocks in enumerate(stacks):
                for number, block in enumerate(blocks):
                    hook = functools.partial(enter, (stack, number))
                    handles.callback(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
                    handles.callback(block.register_forward_hook(leave).remove)
            yield


def _block_lists(model: PreTrainedModel | PeftModel) -> list[torch.nn.ModuleList]:
    """Return the blocks of a decoder, or the lists of an encoder's and its decoder's blocks."""
    import torch

    lists = []
    for part in [model.get_encoder(), model.get_decoder()] if loading.is_encoder_decoder(model) else [model]:
        blocks = next((module for module in part.modules() if isinstance(module, torch.nn.ModuleList)), None)
        if blocks is None:
            raise SummkitError(f"a model of type {model.config.model_type!r} has no list of blocks to measure")
        lists.append(blocks)
    return lists


def _make_fake(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Replace the tensors on the meta device by fake ones; shared tensors remain shared."""
    import torch

    adapted = hasattr(model, "peft_config")
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # keeps the old tensor alive, so that no other gets its id
    for module in model.modules():
        for name, old in [*module._parameters.items(), *module._buffers.items()]:
            if old is None:
                continue
            if id(old) not in made:
                new = torch.empty(old.shape, dtype=old.dtype)
                if isinstance(old, torch.nn.Parameter):
                    weight = new.to(torch.float32 if adapted and old.requires_grad else dtype)
                    new = torch.nn.Parameter(weight, old.requires_grad)
                made[id(old)] = (old, new)
            setattr(module, name, made[id(old)][1])


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


def _cache_bytes(layer: Any) -> int:
    keys = getattr(layer, "keys", None)  # None before the layer's first use
    return 0 if keys is None else keys.nbytes + layer.values.nbytes


def _ops(watch: _Watch) -> Any:
    """Return a mode that passes computed tensors to `watch`, and supplies the few values that models need."""
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
                    watch.computed(result)
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
