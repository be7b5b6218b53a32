"""Plan the memory of a training step, part by part, before any weight is loaded.

Weights, gradients and the optimizer's state are counted on the model without weights; activations are measured on it
(see `activations`). A plan adds up all parts, although they do not all peak at the same time, so it is usually too high
on a CPU. The overhead of a GPU's allocator is unknown: compared with measured peaks on one H100, plans of phi-2 were
too high for few rows and too low for many.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from summkit.config import Profile, choose_profile
from summkit.errors import SummkitError, check_known
from summkit.models import loading, methods
from summkit.resources.activations import measure_forward

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_TABLE = yaml.safe_load(Path(__file__).with_name("known_models.yaml").read_text(encoding="utf-8"))
KNOWN_CONFIGS: dict[str, dict[str, Any]] = {name: row for name, row in _TABLE.items() if not name.startswith("_")}
COMPUTE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
WEIGHT_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# Bits per number in each of two moments; half of the bits for an optimizer with one moment.
OPTIMIZERS = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "paged_adamw_32bit"), 32),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit", "rmsprop"), 16),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"), 8),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit"), 4),
    **dict.fromkeys(("sgd", "adafactor"), 0),  # adafactor's moments are sums of rows and columns
}
# Overhead of malloc, as a share of a step's tensors: 0.25 was measured with 8 layers, 0.7 with 30. The overhead of
# CUDA's caching allocator was not measured, and none is added.
HEAP = {"cpu": 0.5, "cuda": 0.0}
# Constants: resident bytes after importing torch, transformers, peft and bitsandbytes (CPU, measured), and a typical
# size of CUDA's context with cuBLAS' workspaces (not measured here).
FRAMEWORK = {"cpu": 500 * 2**20, "cuda": 600 * 2**20}


@dataclass(frozen=True)
class Plan:
    """The parts of the memory of a training step: (part, bytes, how it was computed)."""

    parts: tuple[tuple[str, int, str], ...]

    @property
    def total(self) -> int:
        """The bytes of all parts together."""
        return sum(size for _, size, _ in self.parts)

    def __getitem__(self, part: str) -> int:
        """Return the bytes of one part."""
        sizes = {name: size for name, size, _ in self.parts}
        check_known("part of the plan", part, sizes)
        return sizes[part]

    def fits(self, memory_bytes: int) -> bool:
        """Whether all parts together fit into `memory_bytes`."""
        return self.total <= memory_bytes

    def rows(self) -> list[tuple[str, int, str]]:
        """Return the parts and their total, for a table."""
        return [*self.parts, ("total", self.total, "the sum of the parts")]


def plan_training(
    model: str | PretrainedConfig | PreTrainedModel,
    *,
    precision: str = "nf4",
    compute_dtype: str = "float32",
    method: str = "lora",
    targets: str | Sequence[str] = "attention",
    rank: int = 16,
    dropout: float = 0.05,
    sequence_length: int = 512,
    batch_size: int = 1,
    optimizer: str = "paged_adamw_8bit",
    gradient_checkpointing: bool = False,
    logits_tokens: int | None = None,
    device: str = "cpu",
) -> Plan:
    """Plan the memory of one training step.

    Args:
        model: A known name, a configuration, or a model of which the configuration is taken.
        precision: What the weights are held in, one of `models.PRECISIONS`.
        compute_dtype: "float32", or half precision by autocast over fp32 adapters, as in the Trainer.
        method: A name in `models.METHODS`.
        targets: Layers with adapters, as in a profile, or a list of their names.
        rank: LoRA's rank.
        dropout: Share of an adapter's inputs that is dropped.
        sequence_length: Tokens per row; for an encoder-decoder, tokens that the encoder reads.
        batch_size: Rows.
        optimizer: A name in OPTIMIZERS.
        gradient_checkpointing: Save only the inputs of the blocks, and compute the blocks again.
        logits_tokens: Tokens per row that the head is applied to, and that an encoder-decoder writes; None:
            `sequence_length`.
        device: "cpu" or "cuda".

    Returns:
        The plan.

    Raises:
        SummkitError: A setting is unknown, the method does not fit the model, or it would train quantised weights.

    Example:
        >>> plan_training("tiny-llama", precision="fp32", batch_size=4)["gradients"]
        57344
    """
    check_known("precision", precision, loading.PRECISIONS)
    check_known("compute dtype", compute_dtype, COMPUTE_BYTES)
    check_known("device", device, FRAMEWORK)
    check_known("optimizer", optimizer, OPTIMIZERS)
    meta = on_meta(model)
    answer = logits_tokens or sequence_length
    compute = COMPUTE_BYTES[compute_dtype]
    weights, packed = _weights(meta, precision, compute)
    vocabulary = meta.get_output_embeddings().weight.shape[0]
    read = f"{batch_size} × {sequence_length} tokens"
    if loading.is_encoder_decoder(meta):
        read += f" and {answer} of the answer"
    prepared = _prepare(meta, method, precision, targets, rank, dropout)
    trained = [parameter.numel() for parameter in prepared.parameters() if parameter.requires_grad]
    dtypes = (WEIGHT_DTYPES.get(precision, compute_dtype), compute_dtype)
    measured = measure_forward(prepared, *dtypes, device, batch=batch_size, length=sequence_length, answer=answer)
    saved = measured.total(gradient_checkpointing)
    kept = "one state a layer and one layer whole" if gradient_checkpointing else "all that backward needs"
    logits = batch_size * answer * vocabulary * (compute + 8)
    numbers = f"{batch_size * answer} × {vocabulary:,}: themselves, log-probabilities, gradient"
    working = compute * (max(packed, default=0) + measured.copies * measured.widest)
    parts = [
        *weights,
        *_trained(trained, methods.METHODS[method].own_weights, compute, precision, optimizer),
        ("activations", saved, f"{read}, {kept}"),
        ("logits", logits, numbers),
        ("working copy", working, "largest quantised layer unpacked, and the widest tensors in flight"),
        ("allocator", round(HEAP[device] * (saved + logits + working)), "measured: what a CPU's heap wastes"),
        ("framework", FRAMEWORK[device], "not computed: libraries (CPU), context and workspaces (CUDA)"),
    ]
    return Plan(tuple(parts))


def largest_batch(model: str | PretrainedConfig | PreTrainedModel, memory_bytes: int, **settings: Any) -> int:
    """Return the largest batch size with which `plan_training(model, **settings)` fits; 0 if one row does not fit.

    From two rows on, each row adds the same number of bytes to a plan.
    """
    settings.pop("batch_size", None)  # from `plan_settings`; it is the result here
    one, two, three = (plan_training(model, batch_size=rows, **settings).total for rows in (1, 2, 3))
    if memory_bytes < two:
        return int(memory_bytes >= one)
    return min(4096, 2 + (memory_bytes - two) // (three - two))


def plan_settings(profile: Profile, **overrides: Any) -> dict[str, Any]:
    """Return the settings of `plan_training` for a profile, with the head on the summary's positions only."""
    same = ("precision", "compute_dtype", "method", "targets", "rank", "dropout", "batch_size", "optimizer")
    settings = {key: getattr(profile, key) for key in (*same, "gradient_checkpointing")}
    settings |= {"sequence_length": profile.max_length, "logits_tokens": profile.max_new_tokens}
    return settings | {"device": "cpu" if profile.compute_dtype == "float32" else "cuda"} | overrides


def known_config(name: str) -> PretrainedConfig:
    """Return a model's configuration: from known_models.yaml without the Hub, or else as `load_config` finds it.

    Raises:
        SummkitError: There is no such model, or the Hub does not answer.
    """
    import transformers

    if name not in KNOWN_CONFIGS:
        return loading.TINY[name]().config if name in loading.TINY else loading.load_config(name)
    values = dict(KNOWN_CONFIGS[name])
    return getattr(transformers, values.pop("class"))(**values)


def on_meta(model: str | PretrainedConfig | PreTrainedModel) -> PreTrainedModel:
    """Build a model without weights, on the meta device.

    Args:
        model: A name, a configuration, or a model whose configuration is used.

    Returns:
        The model, whose tensors have shapes but no data.

    Raises:
        SummkitError: There is no model of this name, or the Hub does not answer.
    """
    import torch

    config = known_config(model) if isinstance(model, str) else getattr(model, "config", model)
    own_head = _has_own_head(model, config)
    if own_head:
        config = copy.deepcopy(config)
        config.tie_word_embeddings = True  # otherwise encoder and decoder would get separate embeddings too
    with torch.device("meta"):
        meta = loading.auto_class(config).from_config(config)
        if own_head:
            head = meta.get_output_embeddings()
            head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    return meta


def _has_own_head(model: Any, config: PretrainedConfig) -> bool:
    """Whether the model is a T5 with a head separate from its embeddings (T5 1.1, Flan-T5).

    Its configuration says that they are tied. Only the missing scaling of outputs shows that they are not.
    """
    if not hasattr(config, "scale_decoder_outputs"):
        return False
    if hasattr(model, "get_output_embeddings"):
        return model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    return not (config.scale_decoder_outputs and config.tie_word_embeddings)


def size_text(size: float) -> str:
    """Return a number of bytes as text, such as "19.6 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _prepare(
    meta: PreTrainedModel, method: str, precision: str, targets: str | Sequence[str], rank: int, dropout: float
) -> PreTrainedModel:
    """Return the model prepared by the method, without `apply_method`, which trains only fp32 weights."""
    row = methods.check_fits(method, meta)
    if row.own_weights and precision not in WEIGHT_BYTES:
        raise SummkitError(f"method {method!r} cannot train {precision} weights; use lora, or precision fp32")
    targets = targets if isinstance(targets, str) else ",".join(targets)
    options = {"model": meta.config.model_type, "targets": targets, "rank": rank, "dropout": dropout}
    return row.prepare(meta, choose_profile("smoke", method=method, precision="fp32", **options))


def _trained(
    sizes: list[int], own_weights: bool, compute: int, precision: str, optimizer: str
) -> list[tuple[str, int, str]]:
    copies = 4 + (compute if compute < 4 else 0)
    adapters = 0 if own_weights else sum(sizes) * copies
    gradients = sum(sizes) * (WEIGHT_BYTES[precision] if own_weights else 4)
    return [
        ("adapters", adapters, "A and B in fp32, and half copies of them under autocast"),
        ("gradients", gradients, f"{sum(sizes):,} numbers train"),
        ("optimizer state", _optimizer_bytes(sizes, OPTIMIZERS[optimizer]), f"{optimizer}: two moments a number"),
    ]


def _weights(meta: PreTrainedModel, precision: str, compute: int) -> tuple[list[tuple[str, int, str]], list[int]]:
    """Return the parts of the plan for weights, and the sizes of the packed layers.

    All linear layers are packed, except for the head and layers that stay in fp32.
    """
    head = meta.get_output_embeddings()
    left = set(getattr(meta, "_keep_in_fp32_modules", None) or ())
    layers = []
    for path, module in meta.named_modules():
        is_packed = precision not in WEIGHT_BYTES and module is not head and path.rpartition(".")[2] not in left
        if is_packed and type(module).__name__ in ("Linear", "Conv1D"):
            layers.append(module)
    sizes = [layer.weight.numel() for layer in layers]
    rest = sum(parameter.numel() for parameter in meta.parameters()) - sum(sizes)
    packed = constants = 0
    how = "none"
    if precision == "int8":
        packed = sum(sizes)
        how = "one fp32 scale an output"
        # GPT-2's Conv1D stores the transposed weight.
        constants = sum(4 * layer.weight.shape[type(layer).__name__ == "Conv1D"] for layer in layers)
    elif precision in loading.FOUR_BITS:
        double = precision == "nf4"
        packed = sum(math.ceil(n / 2) for n in sizes)
        how = f"an absmax for 64 weights, in {8 if double else 32} bits"
        constants = sum(_absmax_bytes(math.ceil(n / 64), double) for n in sizes)
    kind = "embeddings, head, norms and biases" if sizes else "everything"
    parts = [
        ("quantised weights", packed, f"{sum(sizes):,} weights of all linear layers but the head"),
        ("unquantised weights", rest * WEIGHT_BYTES.get(precision, compute), f"{rest:,} numbers: {kind}"),
        ("quantisation constants", constants, how),
    ]
    return parts, sizes


def _absmax_bytes(blocks: int, double: bool) -> int:
    # Each tensor has the 16 levels in fp32; the second quantisation has 256 levels and an fp32 absmax for 256 blocks.
    return 64 + (blocks + 1024 + 4 * math.ceil(blocks / 256) if double else 4 * blocks)


def _optimizer_bytes(trained: list[int], bits: int) -> int:
    if bits != 8:
        return 2 * sum(trained) * bits // 8
    # bitsandbytes keeps tensors below 4,096 numbers in fp32; others have an fp32 absmax for 256 numbers and moment.
    return sum(8 * n if n < 4096 else 2 * (n + 4 * math.ceil(n / 256)) for n in trained)
