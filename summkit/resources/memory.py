"""Floor 5. What memory training or answering will take, part by part, before anything is loaded: arithmetic over a
model's shape.

The model is built on the meta device, where a weight has a shape and no bytes. All parts are added up, though they do
not all peak at once (logits are freed before a layer is recomputed). Dense decoders, and the encoder-decoders that
`shapes` knows.
"""

import math
from dataclasses import dataclass

from summkit.errors import SummkitError, check_known
from summkit.models import loading, methods
from summkit.resources import activations
from summkit.resources.shapes import Shape, on_meta, shape_of

COMPUTE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
METHODS = ("lora", "full", "frozen-embeddings", "frozen-encoder", "frozen-encoder-layers")
OPTIMIZERS = {
    "adamw_torch": 32, "adamw_torch_fused": 32, "paged_adamw_32bit": 32, "adamw_bnb_8bit": 8, "adamw_8bit": 8,
    "paged_adamw_8bit": 8, "sgd": 0,
}  # fmt: skip
# What malloc keeps beside a step's tensors, as a share of them: 0.25 was seen with 8 layers, 0.7 with 30. CUDA's
# caching allocator was not measured: nothing is added there.
HEAP = {"cpu": 0.5, "cuda": 0.0}
# Not computed: resident bytes after importing torch, transformers, peft and bitsandbytes (CPU, measured), and a usual
# size of CUDA's context with cuBLAS' workspaces (not measured here).
FRAMEWORK = {"cpu": 500 * 2**20, "cuda": 600 * 2**20}


@dataclass(frozen=True)
class Plan:
    """The parts of the memory that a training step or an answer takes: (part, bytes, how it was computed, in words)."""

    parts: tuple[tuple[str, int, str], ...]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(size for _, size, _ in self.parts)

    def __getitem__(self, part: str) -> int:
        sizes = {name: size for name, size, _ in self.parts}
        check_known("part of the plan", part, sizes)
        return sizes[part]

    def fits(self, memory_bytes: int) -> bool:
        return self.total <= memory_bytes

    def rows(self) -> list[tuple[str, int, str]]:
        """The parts and their total, for a table."""
        return [*self.parts, ("total", self.total, "the sum of the parts, an upper bound")]


def plan_training(
    model,
    *,
    precision: str = "nf4",
    double_quantisation: bool = True,
    compute_dtype: str = "float32",
    method: str = "lora",
    targets="attention",
    rank: int = 16,
    dropout: float = 0.05,
    sequence_length: int = 512,
    batch_size: int = 1,
    optimizer: str = "paged_adamw_8bit",
    gradient_checkpointing: bool = False,
    logits_tokens: int | None = None,
    device: str = "cpu",
) -> Plan:
    """What one training step takes. `model`: see `on_meta`. `targets`: as in a profile, or a list of layer names.

    `sequence_length` and `logits_tokens` are tokens a row; `logits_tokens` is how many of them the head is applied to
    (None: all). Of an encoder-decoder, the encoder reads `sequence_length` and the decoder writes `logits_tokens`
    (None: as many). Half-precision compute means autocast over fp32 adapters, as the Trainer does it.
    Raises SummkitError for an unknown setting, and for training the own weights of a quantised model.
    """
    precision, double = ("nf4", False) if precision == "nf4-single" else (precision, double_quantisation)
    _check(precision, compute_dtype, method, optimizer, device)
    meta = on_meta(model)
    shape, compute, answer = shape_of(meta), COMPUTE_BYTES[compute_dtype], logits_tokens or sequence_length
    chosen, trained = _what_trains(meta, shape, method, targets, rank)
    step = activations.Step(chosen, rank, dropout, compute, device, batch_size, sequence_length, answer, method)
    saved = round(activations.total(shape, step, gradient_checkpointing))
    kept = "one state a layer and one layer whole" if gradient_checkpointing else "all that backward needs"
    read = f"{batch_size} × {sequence_length} tokens" + (f" and {answer} of the answer" if shape.encoder else "")
    logits = batch_size * answer * shape.vocabulary * (compute + 8)
    largest = max(_packed(shape)) if precision in ("nf4", "int8") else 0
    widest, copies = activations.widest(shape, batch_size, sequence_length, answer)
    working = compute * (largest + copies * widest)
    return Plan((
        *_weights(shape, precision, double, compute),
        *_trained(trained, bool(chosen), compute, precision, optimizer),
        ("activations", saved, f"{read}, {kept}"),
        ("logits", logits, f"{batch_size * answer} × {shape.vocabulary:,}: themselves, log-probabilities, gradient"),
        ("working copy", working, "largest quantised layer unpacked, and the widest tensors in flight"),
        ("allocator", round(HEAP[device] * (saved + logits + working)), "measured: what a CPU's heap wastes"),
        ("framework", FRAMEWORK[device], "not computed: libraries (CPU), context and workspaces (CUDA)"),
    ))  # fmt: skip


def plan_inference(
    model,
    *,
    precision: str = "nf4",
    compute_dtype: str = "float32",
    batch_size: int = 1,
    sequence_length: int = 512,
    answer_tokens: int = 128,
    device: str = "cpu",
) -> Plan:
    """What generating takes, greedy and with a cache. `sequence_length`: tokens a row, prompt and answer together.

    Of an encoder-decoder, `sequence_length` is what the encoder reads, and `answer_tokens` what the decoder writes.
    `model`: see `on_meta`. Raises SummkitError for an unknown setting.
    """
    _check(precision, compute_dtype, "lora", "sgd", device)
    shape, compute = shape_of(on_meta(model)), WEIGHT_BYTES.get(precision, COMPUTE_BYTES[compute_dtype])
    sizes, length = _packed(shape), sequence_length + (answer_tokens if shape.encoder else 0)
    if precision in WEIGHT_BYTES:
        unpacked, how = 0, "the widest tensors in flight"
    elif device == "cpu" and precision != "int8":
        unpacked, how = 4 * sum(sizes), "every 4-bit layer unpacked once (models.unpacked), and the widest in flight"
    else:
        unpacked, how = compute * max(sizes), "largest quantised layer unpacked, and the widest tensors in flight"
    cache = 2 * shape.layers * shape.keys * batch_size * length * compute
    logits = batch_size * shape.vocabulary * (compute + 4)
    widest, copies = activations.widest(shape, batch_size, sequence_length, answer=1)
    working = unpacked + copies * compute * widest
    return Plan((
        *_weights(shape, "nf4" if precision == "nf4-single" else precision, precision == "nf4", compute),
        ("KV cache", cache, f"keys and values of {batch_size} × {length} tokens in {shape.layers} layers"),
        ("logits", logits, f"{batch_size} × {shape.vocabulary:,}, of the last token alone, and once more in fp32"),
        ("working copy", working, how),
        ("allocator", round(HEAP[device] * (cache + logits + working - unpacked)), "a CPU's heap, as in training"),
        ("framework", FRAMEWORK[device], "not computed: libraries (CPU), context and workspaces (CUDA)"),
    ))  # fmt: skip


def _what_trains(meta, shape: Shape, method: str, targets, rank: int) -> tuple[tuple, list[int]]:
    """The linear layers that get adapters, and the sizes of the tensors that train, in numbers."""
    if method == "lora":
        names = methods.target_layers(meta, targets if isinstance(targets, str) else ",".join(targets))
        chosen = tuple(linear for linear in shape.linears if linear[0] in names)
        # A (rank × inputs) and B (outputs × rank) of every chosen layer.
        return chosen, [size for _, i, o, _ in chosen for size in (rank * i, rank * o)]
    if method == "frozen-encoder" and shape.encoder is None:
        raise SummkitError("method 'frozen-encoder' needs an encoder-decoder; a decoder has 'frozen-embeddings'")
    methods.METHODS[method].prepare(meta, None)
    return (), [parameter.numel() for parameter in meta.parameters() if parameter.requires_grad]


def _trained(sizes, adapters: bool, compute: int, precision: str, optimizer: str) -> list[tuple[str, int, str]]:
    copies = 4 + (compute if compute < 4 else 0)
    return [
        ("adapters", sum(sizes) * copies if adapters else 0, "A and B in fp32, and half copies of them under autocast"),
        ("gradients", sum(sizes) * (4 if adapters else WEIGHT_BYTES[precision]), f"{sum(sizes):,} numbers train"),
        ("optimizer state", _optimizer_bytes(sizes, OPTIMIZERS[optimizer]), f"{optimizer}: two moments a number"),
    ]


def largest_batch(model, memory_bytes: int, **settings) -> int:
    """The most rows a batch may have for `plan(model, **settings)` to fit; 0 where not even one does."""
    settings.pop("batch_size", None)  # that of `for_profile`: it is what is asked for
    model = on_meta(model)
    low, high = 0, 1
    while high <= 4096 and plan_training(model, batch_size=high, **settings).fits(memory_bytes):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high) if plan_training(model, batch_size=middle, **settings).fits(memory_bytes) else (low, middle)
        )
    return low


def plan_settings(profile, **overrides) -> dict:
    """The settings of `plan` that a profile stands for; its head is applied to the summary's positions alone."""
    same = ("precision", "compute_dtype", "method", "targets", "rank", "dropout", "batch_size", "optimizer")
    settings = {key: getattr(profile, key) for key in (*same, "gradient_checkpointing")}
    settings |= {"sequence_length": profile.max_length, "logits_tokens": profile.max_new_tokens}
    return settings | {"device": "cpu" if profile.compute_dtype == "float32" else "cuda"} | overrides


def _weights(shape: Shape, precision: str, double: bool, compute: int) -> list[tuple[str, int, str]]:
    sizes = [] if precision in WEIGHT_BYTES else _packed(shape)
    rest = sum(shape.parameters) - sum(sizes)
    packed, constants, how = 0, 0, "none"
    if precision == "int8":
        packed, how = sum(sizes), "one fp32 scale an output"
        constants = sum(4 * o for name, _, o, _ in shape.linears if name not in shape.unquantised)
    elif precision == "nf4":
        packed, how = sum(math.ceil(n / 2) for n in sizes), f"an absmax for 64 weights, in {8 if double else 32} bits"
        constants = sum(_absmax_bytes(math.ceil(n / 64), double) for n in sizes)
    left = "everything" if not sizes else "embeddings, head, norms and biases"
    return [
        ("quantised weights", packed, f"{sum(sizes):,} weights of all linear layers but the head"),
        ("unquantised weights", rest * WEIGHT_BYTES.get(precision, compute), f"{rest:,} numbers: {left}"),
        ("quantisation constants", constants, how),
    ]


def _packed(shape: Shape) -> list[int]:
    """Weights of every layer that can be quantised."""
    return [i * o for name, i, o, _ in shape.linears if name not in shape.unquantised]


def _absmax_bytes(blocks: int, double: bool) -> int:
    # Each tensor has the 16 levels in fp32; the second quantisation has 256 levels and an fp32 absmax for 256 blocks.
    return 64 + (blocks + 1024 + 4 * math.ceil(blocks / 256) if double else 4 * blocks)


def _optimizer_bytes(trained: list[int], bits: int) -> int:
    if bits != 8:
        return 2 * sum(trained) * bits // 8
    # bitsandbytes keeps tensors below 4,096 numbers in fp32; others have an fp32 absmax for 256 numbers and moment.
    return sum(8 * n if n < 4096 else 2 * (n + 4 * math.ceil(n / 256)) for n in trained)


def _check(precision: str, compute_dtype: str, method: str, optimizer: str, device: str) -> None:
    check_known("precision", precision, loading.PRECISIONS)
    check_known("compute dtype", compute_dtype, COMPUTE_BYTES)
    check_known("method", method, METHODS)
    check_known("optimizer", optimizer, OPTIMIZERS)
    check_known("device", device, FRAMEWORK)
    if method != "lora" and precision not in WEIGHT_BYTES:
        raise SummkitError(f"method {method!r} cannot train {precision} weights; take lora, or precision fp32")
