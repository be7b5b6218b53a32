"""Draw several answers to each document that share one reading of its prompt.

`generate` copies a prompt's keys and values for each answer, and every step reads and moves all copies. Here the
answers to a document are one row: a step reads one new token of each of them, and a mask lets it attend to the prompt
and to the earlier tokens of its own answer alone (tree attention, with a branch for each answer). The probabilities
are the same. Answers that have ended are no longer computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from summkit.errors import SummkitError
from summkit.models import loading

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# The settings of a GenerationConfig that are known here. With others, `generate` has to write the answers.
KNOWN = {"do_sample", "temperature", "top_k", "top_p", "num_return_sequences"}

NOT_FINITE = (
    "the model computes NaN or infinity, so it has no answer: its numbers overflow (use the precision 'fp32', or the "
    "compute_dtype 'bfloat16' or 'float32'), or its training diverged (use a lower learning_rate)"
)


def check_finite(logits: torch.Tensor) -> None:
    """Raise SummkitError for logits of NaN or infinity, from which any text could come; −inf is a token left out."""
    if not (logits < float("inf")).all():
        raise SummkitError(NOT_FINITE)


def suits(model: PreTrainedModel, settings: dict[str, Any]) -> bool:
    """Whether `draw` knows the settings, and the model places tokens by `position_ids` and a mask of four dimensions.

    ALiBi places them by their order in the cache, where the answers to a document alternate.
    """
    plain = model.get_base_model() if hasattr(model, "get_base_model") else loading.unwrapped(model)
    if getattr(plain.config, "alibi", False) or plain.config._attn_implementation not in ("sdpa", "eager"):
        return False
    return "position_ids" in inspect.signature(type(plain).forward).parameters and settings.keys() <= KNOWN


def draw(
    model: PreTrainedModel,
    prompts: dict[str, Any],
    settings: dict[str, Any],
    max_new_tokens: int,
    ends: Sequence[int],
    show_token: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Sample several answers to each prompt.

    Args:
        model: A decoder whose cache keeps the keys and values of all tokens.
        prompts: `input_ids` and `attention_mask`, (rows, tokens), padded on the left, and `past_key_values` of all
            tokens but the last. The cache grows.
        settings: The settings in KNOWN.
        max_new_tokens: The largest number of tokens in an answer.
        ends: The ids that end an answer.
        show_token: Called for each new token of the batch.

    Returns:
        New token ids, (rows, answers, tokens); what follows an end has no meaning.
    """
    import torch

    rows, count = len(prompts["input_ids"]), settings["num_return_sequences"]
    numbers = torch.arange(count, device=prompts["input_ids"].device)
    last = torch.tensor(ends, device=numbers.device)
    mask = prompts["attention_mask"].bool()  # (rows, positions)
    position = mask.sum(dim=1, keepdim=True) - 1  # (rows, 1): that of the token that is read
    visible = mask[:, None].expand(-1, count, -1)  # (rows, answers, positions): what each answer attends to
    ended = mask.new_zeros(rows, count)
    written: list[torch.Tensor] = []
    with torch.inference_mode():
        logits = _read(model, prompts, prompts["input_ids"][:, -1:], mask[:, None], position)
        logits = logits.expand(-1, count, -1)  # the first token of all answers comes from the prompt's last one
        asked = numbers.expand(rows, -1)  # (rows, asked): the answers that get a token
        while True:
            tokens = written[-1].clone() if written else asked.clone()
            written.append(tokens.scatter(1, asked, sample(logits, settings)))  # (rows, answers)
            show_token()
            ended |= torch.isin(written[-1], last)
            width = int((~ended).sum(dim=1).max())
            if not width or len(written) == max_new_tokens:
                return torch.stack(written, dim=2)
            asked = ended.int().argsort(dim=1, stable=True)[:, :width]  # unfinished ones first; ended ones fill the row
            own = asked[:, None, :] == numbers[None, :, None]  # (rows, answers, asked): the new positions
            visible = torch.cat([visible, own], dim=2)
            seen = visible.gather(1, asked[:, :, None].expand(-1, -1, visible.shape[2]))
            position = position + 1
            logits = _read(model, prompts, written[-1].gather(1, asked), seen, position)


def _read(
    model: PreTrainedModel, prompts: dict[str, Any], tokens: torch.Tensor, visible: torch.Tensor, position: torch.Tensor
) -> torch.Tensor:
    """Return the logits after tokens, (rows, tokens, vocabulary); the cache grows by their keys and values."""
    import torch

    hidden = torch.zeros(visible.shape, dtype=model.dtype, device=visible.device)
    hidden = hidden.masked_fill(~visible, torch.finfo(model.dtype).min)
    return model(
        input_ids=tokens,
        attention_mask=hidden[:, None],  # (rows, heads, tokens, positions)
        position_ids=position.expand_as(tokens),
        past_key_values=prompts["past_key_values"],
        use_cache=True,
    ).logits


def sample(logits: torch.Tensor, settings: dict[str, Any]) -> torch.Tensor:
    """Draw a token from logits, (…, vocabulary), by temperature, top_k and top_p, with the probabilities of `generate`.

    `generate` sorts the vocabulary for `top_p`, which takes longer than a small model's step. The few tokens that make
    up the probability `top_p` are found without that.
    """
    import torch
    from transformers import GenerationConfig

    check_finite(logits)
    config = GenerationConfig(**settings)
    chances = (logits.float() / (config.temperature or 1.0)).softmax(dim=-1)
    size = chances.shape[-1]
    top_p = config.top_p or 1.0
    likely = min(config.top_k or (size if top_p >= 1 else 64), size)
    best, ids = chances.topk(likely)
    if config.top_k:
        best = best / best.sum(dim=-1, keepdim=True)
    while likely < size and not config.top_k and (best.sum(dim=-1) < top_p).any():
        likely = min(8 * likely, size)
        best, ids = chances.topk(likely)
    best = best.where(best.cumsum(dim=-1) - best < top_p, 0)
    drawn = torch.multinomial(best.flatten(0, -2), 1).view(*best.shape[:-1], 1)
    return ids.gather(-1, drawn)[..., 0]
