"""Floor 4. What autograd keeps of a forward pass for the way back, in bytes: arithmetic over a model's shape.

Compared on a CPU with the bytes that torch's saved_tensors_hooks see, fp32, for LoRA and for full training: decoders
(Llama, Phi, GPT-2) are within 15 %; the shape of Flan-T5-small at 256 to 2,048 tokens, and the same as LongT5, local
and with global tokens, at 512 to 4,096, within 5 %; a small BART within 5 %, LED and BigBird-Pegasus within 15 %.
What a GPU keeps is read from the same code and was not measured.
"""

import math
from dataclasses import dataclass

# Widths of the MLP that the activation keeps for backward: one (its input) where it is one kernel, and four where it is
# written in Python (gelu_new: x for the cube, tanh, 1 + tanh and x/2 for the last product).
ACTIVATIONS = {"gelu_new": 4, "gelu_fast": 4, "quick_gelu": 2}
LAST = {"o", "out_proj", "output"}  # of an encoder-decoder's attention: the layers that read what it gives


@dataclass(frozen=True)
class Step:
    """The settings of a training step that decide what is kept of it.

    `chosen`: the shape's `linears` that have adapters; none where the model's own weights train, all (`trains`
    "full"), or without the encoder ("frozen-encoder"); other methods are counted as "full", an upper bound.
    `compute`: bytes a number. `length`: tokens a row that a decoder reads or an encoder; `answer`: tokens a row of an
    encoder-decoder's decoder.
    """

    chosen: tuple
    rank: int
    dropout: float
    compute: int
    device: str
    batch: int
    length: int
    answer: int
    trains: str = "full"

    @property
    def mask(self) -> int:
        """Bytes a number of a dropout's mask: the CPU keeps it as fp32 numbers, CUDA as booleans."""
        return 4 if self.device == "cpu" else 1


@dataclass(frozen=True)
class Kept:
    """Of one stack of blocks, in bytes: of one block, of a block's input alone, and before and behind the blocks."""

    layers: int
    block: float
    state: float
    ends: float


def total(shape, step: Step, gradient_checkpointing: bool) -> float:
    """Bytes of all that backward needs; with checkpointing, of each block's input and of the largest block."""
    stacks = [_decoder(shape, step)] if shape.encoder is None else _encoder_decoder(shape, step)
    if gradient_checkpointing:
        blocks = sum(kept.state * kept.layers for kept in stacks) + max(kept.block for kept in stacks)
    else:
        blocks = sum(kept.block * kept.layers for kept in stacks)
    return blocks + sum(kept.ends for kept in stacks)


def widest(shape, batch: int, length: int, answer: int) -> tuple[int, int]:
    """Numbers of the widest tensor in flight, and how many of its like there are at once."""
    if shape.encoder is None:
        return batch * length * max(shape.intermediate, shape.hidden), 2
    encoder, read, copies = shape.encoder, padded(shape.encoder, length), 2
    sizes = [read * max(encoder.intermediate, encoder.hidden), answer * max(shape.intermediate, shape.hidden)]
    for stack, queries, keys in ((encoder, read, seen(encoder, read)), (shape, answer, answer), (shape, answer, read)):
        if stack.attention.bias or not stack.attention.fused:
            sizes.append(stack.heads * queries * keys)
            copies = 3 if stack.attention.bias else copies  # the scores, what is added to them, and their sum
    return batch * max(sizes), copies


def padded(stack, length: int) -> int:
    """Tokens of a row as the stack computes them."""
    attention = stack.attention
    return _rounded(attention, max(length, attention.shortest)) if attention.whole else length


def seen(stack, length: int) -> int:
    """How many keys a token of the stack sees."""
    attention = stack.attention
    if attention.window is None:
        return length
    return attention.window + (length // attention.stride if attention.stride else 0)


def _rounded(attention, length: int) -> int:
    return attention.block * math.ceil(length / attention.block)


def _decoder(shape, step: Step) -> Kept:
    tokens = step.batch * step.length
    state = tokens * shape.hidden * step.compute
    return Kept(shape.layers, tokens * sum(_saved(shape, step)), state, tokens * shape.hidden * 4)


def _saved(shape, step: Step) -> list[float]:
    """Bytes a token that autograd keeps of one block of a decoder, frozen but for the adapters."""
    chosen, compute, mask, masked = step.chosen, step.compute, step.mask, step.batch > 1
    adapted = sum(linear[1] for linear in chosen) / shape.layers
    terms = [
        shape.norms * (shape.hidden * 4 + 4),  # a norm's input, in fp32, and its root or mean
        compute * shape.queries,  # Q after the rotation
        # With a mask of padding, K and V are repeated for every query head, and the mask is spread out.
        compute * 2 * (shape.queries if masked else shape.keys),  # K after the rotation, and V
        compute * shape.queries + 4 * shape.heads,  # the attention's output, its log-sum-exp
        compute * step.length if masked else 0,  # this token's row of the mask, as numbers to be added
        _activation(shape, compute),
        2 * mask * shape.hidden if shape.residual_dropout else 0,  # after attention and after the MLP
    ]
    if shape.attention_dropout and step.device == "cpu":
        # No fused kernel there: probabilities, mask, and their product, for every head and every key.
        terms.append(3 * compute * shape.heads * step.length)
    if chosen:
        # What goes from A to B; and every adapter's input: with dropout its own, and dropout's mask.
        terms += [compute * step.rank * len(chosen) / shape.layers]
        own = [compute * adapted, mask * adapted]
        terms += own if step.dropout else [compute * _shared_inputs(shape, chosen)]
    else:
        # Everything trains: each linear layer's own input too (after the norms, and before the MLP's last layer).
        terms += [compute * shape.norms * shape.hidden, compute * shape.intermediate]
    return terms


def _activation(shape, compute: int) -> int:
    """Bytes a token of what the MLP's nonlinearity keeps; a gated product keeps both its factors."""
    widths = ACTIVATIONS.get(shape.activation, 1)
    # Half input of gelu_new under autocast: the cube and what follows run in fp32, only x/2 stays half.
    kept = shape.intermediate * (widths * compute if widths < 4 else 12 + compute)
    return kept + (compute * 2 * shape.intermediate if shape.gated else 0)


def _shared_inputs(shape, chosen) -> float:
    """Numbers a token of the distinct inputs that one block's adapters have without dropout."""
    last = {parent: name for name, _, _, parent in shape.linears}
    first = {parent for name, _, _, parent in chosen if name != last[parent]}  # q, k, v share theirs; gate and up too
    # The last layer of the attention reads its output, which is counted already; that of the MLP what is new.
    final = [i for name, i, _, parent in chosen if name == last[parent] and "attn" not in parent]
    return (min(len(first), shape.norms * shape.layers) * shape.hidden + sum(final)) / shape.layers


def _encoder_decoder(shape, step: Step) -> list[Kept]:
    tokens = step.batch * padded(shape.encoder, step.length), step.batch * step.answer
    encoder, decoder = _stack(shape.encoder, "encoder", step, *tokens), _stack(shape, "decoder", step, *tokens)
    if step.trains == "frozen-encoder":
        encoder = Kept(0, 0, 0, encoder.ends)
    return [encoder, decoder]


def _stack(stack, part: str, step: Step, read: int, written: int) -> Kept:
    """Of an encoder's or a decoder's blocks, for all `read` tokens of the encoder and `written` ones of the decoder."""
    tokens, compute = read if part == "encoder" else written, step.compute
    attend = _self_attention(stack, step) + (_cross_attention(stack, step, read) if part == "decoder" else 0)
    block = attend + tokens * _around(stack, step) + _adapters(stack, part, step, read, written)
    # The last norm's input, a dropout's mask, and what it gives: of the encoder, one for all the decoder's blocks.
    ends = tokens * stack.hidden * (4 + step.mask * stack.residual_dropout + compute)
    return Kept(stack.layers, block, tokens * stack.hidden * compute, ends)


def _self_attention(stack, step: Step) -> float:
    own, length = stack.attention, step.answer if stack.encoder else padded(stack, step.length)
    keys, states = seen(stack, length), own.states
    if own.stride:  # every block of queries has its copy of the strides' keys and values
        states += 2 * (length // own.stride) / own.block
    tokens = step.batch * _rounded(own, length)
    return tokens * (states * step.compute * stack.queries + _probabilities(stack, step, keys))


def _cross_attention(stack, step: Step, read: int) -> float:
    """Queries and outputs of what is written, keys and values of all that was read."""
    written = step.batch * step.answer
    states = 2 * step.compute * stack.queries * (written + read)
    return states + written * _probabilities(stack, step, read // step.batch)


def _probabilities(stack, step: Step, keys: int) -> float:
    """Bytes a query of what is kept for every head and key it sees, or of what is added to the scores for them."""
    own, compute, drops = stack.attention, step.compute, stack.attention_dropout
    if own.fused and not (drops and step.device == "cpu"):
        return compute * keys * (stack.heads if own.bias else step.batch > 1)
    # The softmax in fp32, dropout's mask, and what is multiplied with the values where that is another tensor.
    product = own.spread or (keys if drops or compute < 4 else 0)
    return stack.heads * (keys * (4 + step.mask * drops) + product * compute)


def _around(stack, step: Step) -> float:
    """Bytes a token of what a block keeps besides its attention and its adapters."""
    size = stack.norms * (stack.hidden * 4 + 4) + _activation(stack, step.compute)
    size += step.mask * (stack.norms * stack.hidden * stack.residual_dropout)
    size += step.mask * stack.intermediate * stack.activation_dropout
    if not step.chosen:
        size += step.compute * (stack.norms * stack.hidden + stack.intermediate)  # every linear layer's input
        size += 4 * stack.norms * stack.hidden * stack.attention.bias  # T5's norm is in Python: its scaled input too
    return size


def _adapters(stack, part: str, step: Step, read: int, written: int) -> float:
    """Bytes of what one block's adapters keep: what goes from A to B, and their inputs; with dropout each its own."""
    size, shared = 0, {}
    for name, inputs, _, parent in step.chosen:
        if part not in parent.split(".") or name == "query_global":  # LED's: of one token a row
            continue
        crosses = part == "decoder" and "enc" in parent.rpartition(".")[2].lower() and name[0] in "kv"
        tokens = read if crosses or part == "encoder" else written
        size += tokens * step.compute * step.rank
        if step.dropout:
            size += tokens * inputs * (step.compute + step.mask)
        elif name not in LAST and not crosses:
            shared[parent, inputs] = tokens * inputs * step.compute
    return (size + sum(shared.values())) / stack.layers
