"""Floor 5. What memory training or answering will take, part by part, before anything is loaded: arithmetic over a
model's shape.

The model is built on the meta device, where a weight has a shape and no bytes. All parts are added up, though they do
not all peak at once (logits are freed before a layer is recomputed). Dense decoders only.
"""

import math
from dataclasses import dataclass

from summkit import methods, models
from summkit.errors import SummkitError, check_known
from summkit.shapes import Shape, on_meta, shape_of

COMPUTE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
OPTIMIZERS = {
    "adamw_torch": 32, "adamw_torch_fused": 32, "paged_adamw_32bit": 32, "adamw_bnb_8bit": 8, "adamw_8bit": 8,
    "paged_adamw_8bit": 8, "sgd": 0,
}  # fmt: skip
# Widths of the MLP that the activation keeps for backward: one (its input) where it is one kernel, and four where it is
# written in Python (gelu_new: x for the cube, tanh, 1 + tanh and x/2 for the last product).
ACTIVATIONS = {"gelu_new": 4, "gelu_fast": 4, "quick_gelu": 2}
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


def plan(
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
    (None: all). Half-precision compute means autocast over fp32 adapters, as the Trainer does it. Raises SummkitError
    for an unknown setting, and for training all of a quantised model.
    """
    precision, double = ("nf4", False) if precision == "nf4-single" else (precision, double_quantisation)
    _check(precision, compute_dtype, method, optimizer, device)
    meta = on_meta(model)
    shape, compute = shape_of(meta), COMPUTE_BYTES[compute_dtype]
    chosen = _chosen(meta, shape, targets) if method == "lora" else []
    tokens, head_tokens = (batch_size * length for length in (sequence_length, logits_tokens or sequence_length))
    layer = tokens * sum(_saved(shape, chosen, rank, dropout, compute, device, sequence_length, batch_size))
    states = tokens * shape.hidden * compute * shape.layers
    activations = (states + layer if gradient_checkpointing else layer * shape.layers) + tokens * shape.hidden * 4
    kept = "one state a layer and one layer whole" if gradient_checkpointing else "all that backward needs"
    logits = head_tokens * shape.vocabulary * (compute + 8)
    largest = max(i * o for _, i, o, _ in shape.linears) if precision in ("nf4", "int8") else 0
    working = compute * (largest + 2 * tokens * max(shape.intermediate, shape.hidden))
    return Plan((
        *_weights(shape, precision, double, compute),
        *_trained(shape, chosen, rank, compute, precision, optimizer),
        ("activations", round(activations), f"{batch_size} × {sequence_length} tokens, {kept}"),
        ("logits", logits, f"{head_tokens} × {shape.vocabulary:,}: themselves, log-probabilities, gradient"),
        ("working copy", working, "largest quantised layer unpacked, and the two widest tensors in flight"),
        ("allocator", round(HEAP[device] * (activations + logits + working)), "measured: what a CPU's heap wastes"),
        ("framework", FRAMEWORK[device], "not computed: libraries (CPU), context and workspaces (CUDA)"),
    ))  # fmt: skip


def inference(
    model,
    *,
    precision: str = "nf4",
    compute_dtype: str = "float32",
    batch_size: int = 1,
    sequence_length: int = 512,
    device: str = "cpu",
) -> Plan:
    """What generating takes, greedy and with a cache. `sequence_length`: tokens a row, prompt and answer together.

    `model`: see `on_meta`. Raises SummkitError for an unknown setting.
    """
    _check(precision, compute_dtype, "lora", "sgd", device)
    shape, compute = shape_of(on_meta(model)), WEIGHT_BYTES.get(precision, COMPUTE_BYTES[compute_dtype])
    tokens, sizes = batch_size * sequence_length, [i * o for _, i, o, _ in shape.linears]
    if precision in WEIGHT_BYTES:
        unpacked, how = 0, "the two widest tensors in flight"
    elif device == "cpu" and precision != "int8":
        unpacked, how = 4 * sum(sizes), "every 4-bit layer unpacked once (models.unpacked), and two tensors in flight"
    else:
        unpacked, how = compute * max(sizes), "largest quantised layer unpacked, and two tensors in flight"
    cache = 2 * shape.layers * shape.keys * tokens * compute
    logits = batch_size * shape.vocabulary * (compute + 4)
    working = unpacked + 2 * compute * tokens * max(shape.intermediate, shape.hidden)
    return Plan((
        *_weights(shape, "nf4" if precision == "nf4-single" else precision, precision == "nf4", compute),
        ("KV cache", cache, f"keys and values of {batch_size} × {sequence_length} tokens in {shape.layers} layers"),
        ("logits", logits, f"{batch_size} × {shape.vocabulary:,}, of the last token alone, and once more in fp32"),
        ("working copy", working, how),
        ("allocator", round(HEAP[device] * (cache + logits + working - unpacked)), "a CPU's heap, as in training"),
        ("framework", FRAMEWORK[device], "not computed: libraries (CPU), context and workspaces (CUDA)"),
    ))  # fmt: skip


def _trained(shape, chosen, rank: int, compute: int, precision: str, optimizer: str) -> list[tuple[str, int, str]]:
    # With adapters, A (rank × inputs) and B (outputs × rank) of every chosen layer train, in fp32; else everything.
    sizes = [size for _, i, o, _ in chosen for size in (rank * i, rank * o)] or list(shape.parameters)
    copies = 4 + (compute if compute < 4 else 0)
    return [
        ("adapters", sum(sizes) * copies if chosen else 0, "A and B in fp32, and half copies of them under autocast"),
        ("gradients", sum(sizes) * (4 if chosen else WEIGHT_BYTES[precision]), f"{sum(sizes):,} numbers train"),
        ("optimizer state", _optimizer_bytes(sizes, OPTIMIZERS[optimizer]), f"{optimizer}: two moments a number"),
    ]


def largest_batch(model, memory_bytes: int, **settings) -> int:
    """The most rows a batch may have for `plan(model, **settings)` to fit; 0 where not even one does."""
    settings.pop("batch_size", None)  # that of `for_profile`: it is what is asked for
    model = on_meta(model)
    low, high = 0, 1
    while high <= 4096 and plan(model, batch_size=high, **settings).fits(memory_bytes):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if plan(model, batch_size=middle, **settings).fits(memory_bytes) else (low, middle)
    return low


def for_profile(profile, **overrides) -> dict:
    """The settings of `plan` that a profile stands for; its head is applied to the summary's positions alone."""
    same = ("precision", "compute_dtype", "method", "targets", "rank", "dropout", "batch_size", "optimizer")
    settings = {key: getattr(profile, key) for key in (*same, "gradient_checkpointing")}
    settings |= {"sequence_length": profile.max_length, "logits_tokens": profile.max_new_tokens}
    return settings | {"device": "cpu" if profile.compute_dtype == "float32" else "cuda"} | overrides


def _saved(shape, chosen, rank, dropout, compute, device, length, batch) -> list[float]:
    """Bytes a token that autograd keeps of one block, frozen but for the adapters on `chosen`."""
    mask = 4 if device == "cpu" else 1  # the CPU keeps dropout's mask as fp32 numbers, CUDA as booleans
    adapted = sum(linear[1] for linear in chosen) / shape.layers
    widths = ACTIVATIONS.get(shape.activation, 1)
    # Half input of gelu_new under autocast: the cube and what follows run in fp32, only x/2 stays half.
    activation = shape.intermediate * (widths * compute if widths < 4 else 12 + compute)
    padded = batch > 1  # a mask of padding: K and V are repeated for every query head, and the mask is spread out
    terms = [
        shape.norms * (shape.hidden * 4 + 4),  # a norm's input, in fp32, and its root or mean
        compute * shape.queries,  # Q after the rotation
        compute * 2 * (shape.queries if padded else shape.keys),  # K after the rotation, and V
        compute * shape.queries + 4 * shape.heads,  # the attention's output, its log-sum-exp
        compute * length if padded else 0,  # this token's row of the mask, as numbers to be added
        activation,  # what the MLP's nonlinearity keeps
        compute * 2 * shape.intermediate if shape.gated else 0,  # a gated product keeps both its factors
        2 * mask * shape.hidden if shape.residual_dropout else 0,  # after attention and after the MLP
    ]
    if shape.attention_dropout and device == "cpu":
        # No fused kernel there: probabilities, mask, and their product, for every head and every key.
        terms.append(3 * compute * shape.heads * length)
    if chosen:
        # What goes from A to B; and every adapter's input: with dropout its own, and dropout's mask.
        terms += [compute * rank * len(chosen) / shape.layers]
        terms += [compute * adapted, mask * adapted] if dropout else [compute * _shared_inputs(shape, chosen)]
    else:
        # Everything trains: each linear layer's own input too (after the norms, and before the MLP's last layer).
        terms += [compute * shape.norms * shape.hidden, compute * shape.intermediate]
    return terms


def _shared_inputs(shape: Shape, chosen) -> float:
    """Numbers a token of the distinct inputs that one block's adapters have without dropout."""
    last = {parent: name for name, _, _, parent in shape.linears}
    first = {parent for name, _, _, parent in chosen if name != last[parent]}  # q, k, v share theirs; gate and up too
    # The last layer of the attention reads its output, which is counted already; that of the MLP what is new.
    final = [i for name, i, _, parent in chosen if name == last[parent] and "attn" not in parent]
    return (min(len(first), shape.norms * shape.layers) * shape.hidden + sum(final)) / shape.layers


def _weights(shape: Shape, precision: str, double: bool, compute: int) -> list[tuple[str, int, str]]:
    sizes = [] if precision in WEIGHT_BYTES else [i * o for _, i, o, _ in shape.linears]
    rest = sum(shape.parameters) - sum(sizes)
    packed, constants, how = 0, 0, "none"
    if precision == "int8":
        packed, how = sum(sizes), "one fp32 scale an output"
        constants = sum(4 * o for _, _, o, _ in shape.linears)
    elif precision == "nf4":
        packed, how = sum(math.ceil(n / 2) for n in sizes), f"an absmax for 64 weights, in {8 if double else 32} bits"
        constants = sum(_absmax_bytes(math.ceil(n / 64), double) for n in sizes)
    left = "everything" if not sizes else "embeddings, head, norms and biases"
    return [
        ("quantised weights", packed, f"{sum(sizes):,} weights of all linear layers but the head"),
        ("unquantised weights", rest * WEIGHT_BYTES.get(precision, compute), f"{rest:,} numbers: {left}"),
        ("quantisation constants", constants, how),
    ]


def _absmax_bytes(blocks: int, double: bool) -> int:
    # Each tensor has the 16 levels in fp32; the second quantisation has 256 levels and an fp32 absmax for 256 blocks.
    return 64 + (blocks + 1024 + 4 * math.ceil(blocks / 256) if double else 4 * blocks)


def _optimizer_bytes(trained: list[int], bits: int) -> int:
    if bits != 8:
        return 2 * sum(trained) * bits // 8
    # bitsandbytes keeps tensors below 4,096 numbers in fp32; others have an fp32 absmax for 256 numbers and moment.
    return sum(8 * n if n < 4096 else 2 * (n + 4 * math.ceil(n / 256)) for n in trained)


def _chosen(meta, shape: Shape, targets) -> list[tuple[str, int, int, str]]:
    names = methods.target_layers(meta, targets if isinstance(targets, str) else ",".join(targets))
    return [linear for linear in shape.linears if linear[0] in names]


def _check(precision: str, compute_dtype: str, method: str, optimizer: str, device: str) -> None:
    check_known("precision", precision, models.PRECISIONS)
    check_known("compute dtype", compute_dtype, COMPUTE_BYTES)
    check_known("method", method, ("lora", "full"))
    check_known("optimizer", optimizer, OPTIMIZERS)
    check_known("device", device, FRAMEWORK)
    if method == "full" and precision not in WEIGHT_BYTES:
        raise SummkitError(f"method 'full' cannot train {precision} weights; take lora, or precision fp32")
