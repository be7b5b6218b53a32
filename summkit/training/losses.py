"""The completion-only loss: a mean over the summary's tokens, each with the same weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from summkit.data.batching import Collator, length_sorted_batches
from summkit.data.tokenisation import IGNORE
from summkit.errors import SummkitError
from summkit.models import loading

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def mean_loss(
    model: torch.nn.Module, encoded: Iterable[dict], tokenizer: PreTrainedTokenizerBase, batch_size: int = 8
) -> float:
    """Compute the mean loss over all summary tokens, each with the same weight in any batch.

    Args:
        model: The model, with or without an adapter. It is evaluated without dropout, and its mode is restored.
        encoded: Rows as `data.encode_rows` makes them: a `Dataset`, or a list of dicts.
        tokenizer: The tokenizer that made them.
        batch_size: Rows per batch; the result does not depend on it.

    Returns:
        The loss in nats per token.

    Raises:
        SummkitError: No row has a summary token.

    Example:
        >>> row = {"input_ids": [5, 6, 7, 0], "labels": [IGNORE, IGNORE, 7, 0], "length": 4}
        >>> model = loading.load_model("tiny-llama")
        >>> round(mean_loss(model, [row], loading.load_tokenizer("tiny-llama")), 1)  # about log(264)
        5.6
    """
    import torch

    rows = list(encoded)
    if all(label == IGNORE for row in rows for label in row.get("labels", ())):
        raise SummkitError(
            f"no summary token in {len(rows)} rows, so there is no loss: encode rows that have summaries "
            "(data.encode_rows)"
        )
    collate = Collator(tokenizer, **loading.padding(model))
    was_training = model.training
    model.eval()
    total = tokens = 0.0
    try:
        with torch.no_grad(), loading.unpacked(model):
            for batch in length_sorted_batches([row["length"] for row in rows], batch_size):
                inputs = {name: value.to(model.device) for name, value in collate([rows[n] for n in batch]).items()}
                total += float(summary_loss(model, inputs, num_items_in_batch=1))
                tokens += int((inputs["labels"] != IGNORE).sum())
    finally:
        model.train(was_training)
    return total / tokens


def summary_loss(
    model: torch.nn.Module, inputs: Mapping[str, Any], num_items_in_batch: int | torch.Tensor | None = None
) -> torch.Tensor:
    """Compute the completion-only loss: cross entropy on the summary's tokens, with the head applied only there.

    The value equals the loss over all positions with the prompt masked, but takes less memory and, with a large
    vocabulary, a fifth less work. The decoder of an encoder-decoder reads the summary shifted by one, and has no other
    positions.

    Args:
        model: The model, with or without an adapter.
        inputs: A batch as `data.Collator` makes it: input_ids, attention_mask and labels, each (rows, tokens); or a
            packed one, if the model's attention stays within rows.
        num_items_in_batch: The divisor of the sum; None: the number of summary tokens in this batch.

    Returns:
        The loss, a scalar in nats.

    Example:
        >>> tokenizer = loading.load_tokenizer("tiny-llama")
        >>> batch = Collator(tokenizer)([{"input_ids": [5, 6, 7, 0], "labels": [IGNORE, IGNORE, 7, 0]}])
        >>> round(float(summary_loss(loading.load_model("tiny-llama"), batch)), 1)
        5.6
    """
    from torch.nn.functional import cross_entropy, pad

    arguments = {key: value for key, value in inputs.items() if key not in ("labels", "kept")} | {"use_cache": False}
    targets = inputs["labels"]  # (rows, tokens)
    if loading.is_encoder_decoder(model):
        # The models' own loss is a mean over the batch, which would give the tokens of a short batch more weight.
        logits = model(**arguments, decoder_input_ids=_shifted_right(model, targets)).logits
    elif "kept" in inputs:  # packed rows
        targets = targets[0, inputs["kept"] + 1]  # (summary tokens)
        logits = model(**arguments, logits_to_keep=inputs["kept"]).logits  # (1, summary tokens, vocabulary)
    else:
        shifted = pad(targets, (0, 1), value=IGNORE)[:, 1:]  # (rows, tokens): the token to predict at each position
        targets = shifted[shifted != IGNORE]  # (summary tokens)
        # Prompt tuning puts its tokens before the input.
        keep = pad(shifted != IGNORE, (loading.virtual_tokens(model), 0))
        logits = model(**arguments, logits_to_keep=keep).logits  # (summary tokens, vocabulary)
    total = cross_entropy(logits.float().flatten(0, -2), targets.flatten(), ignore_index=IGNORE, reduction="sum")
    return total / ((targets != IGNORE).sum() if num_items_in_batch is None else num_items_in_batch)


def _shifted_right(model: torch.nn.Module, labels: torch.Tensor) -> torch.Tensor:
    """Return what the decoder of an encoder-decoder reads: its start token, then the labels but for the last."""
    import torch

    base = loading.unwrapped(model)
    if hasattr(base, "prepare_decoder_input_ids_from_labels"):
        return base.prepare_decoder_input_ids_from_labels(labels)
    start = labels.new_full((len(labels), 1), base.config.decoder_start_token_id)  # M2M100, Blenderbot
    shifted = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE, base.config.pad_token_id)
    return torch.cat([start, shifted], dim=1)
