"""Put encoded rows together: batches of similar length, padded or packed, as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

from summkit.data.tokenisation import IGNORE

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass
class Collator:
    """Makes tensors of the rows of a batch: padded to the longest one, or packed one after another.

    Labels are padded with IGNORE. A packed batch is one long row without padding between its rows: position_ids start
    again in each, and attention must stay between the borders of cu_seq_lens_q. It has no attention_mask.

    Args:
        tokenizer: The model's tokenizer. Without a pad token, EOS is the padding.
        side: "right" in training; "left" in generation from a decoder, which continues after the last token, so that
            this token must not be a pad token.
        global_first: Whether to add global_attention_mask, 1 on each row's first token (see `models.padding`).
        shortest: The smallest length of an input in tokens, for sparse attention.
        pad_to_multiple_of: Round the length of a batch up to a multiple of this, so that there are few lengths.
        longest: The largest length that is rounded up to; None: no limit.
        packed: Whether to pack the rows, which must have labels.

    Example:
        >>> from summkit.models import tiny_tokenizer
        >>> batch = Collator(tiny_tokenizer(), side="left")([{"input_ids": [5, 6, 7]}, {"input_ids": [8]}])
        >>> batch["attention_mask"].tolist()
        [[1, 1, 1], [0, 0, 1]]
    """

    tokenizer: Tokenizer
    side: str = "right"
    global_first: bool = False
    shortest: int = 0
    pad_to_multiple_of: int = 1
    longest: int | None = None
    packed: bool = False

    @cached_property
    def pad_id(self) -> int:
        """The token that fills a row up."""
        tokenizer = self.tokenizer
        return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def __call__(self, rows: list[dict]) -> dict[str, Any]:
        """Turn rows of `encode` into tensors input_ids, attention_mask and, where there are any, labels."""
        if self.packed:
            return self._pack(rows)
        inputs = [row["input_ids"] for row in rows]
        # From the lengths, never from `ids != pad`: the pad token may be EOS, which must be attended to.
        masks = [[1] * len(row) for row in inputs]
        batch = {
            "input_ids": self._pad(inputs, self.pad_id, self.shortest),  # (rows, longest input)
            "attention_mask": self._pad(masks, 0, self.shortest),  # (rows, longest input)
        }
        if self.global_first:
            batch["global_attention_mask"] = self._pad([[1] + [0] * (len(row) - 1) for row in inputs], 0, self.shortest)
        if "labels" in rows[0]:
            batch["labels"] = self._pad([row["labels"] for row in rows], IGNORE)  # (rows, longest labels)
        return batch

    def _pack(self, rows: list[dict]) -> dict[str, Any]:
        """Lay rows end to end; a last row of padding, perhaps empty, rounds their length up."""
        import torch

        lengths = [len(row["input_ids"]) for row in rows]
        filler = -sum(lengths) % self.pad_to_multiple_of
        ids = [row["input_ids"] for row in rows] + [[self.pad_id] * filler]
        # A row's first token has nothing before it that would predict it.
        labels = [[IGNORE, *row["labels"][1:]] for row in rows] + [[IGNORE] * filler]
        whole = list(chain(*labels))
        return {
            "input_ids": torch.tensor([list(chain(*ids))]),  # (1, tokens), as the next two
            "position_ids": torch.tensor([list(chain(*(range(len(row)) for row in ids)))]),
            "labels": torch.tensor([whole]),
            # Positions before a label. Found here, on the CPU: a GPU would have to wait to learn how many there are.
            "kept": torch.tensor([place for place, label in enumerate(whole[1:]) if label != IGNORE]),
            "cu_seq_lens_q": torch.tensor([0, *accumulate(map(len, ids))], dtype=torch.int32),  # (rows + 2)
            "max_length_q": self._rounded(max(*lengths, filler)),
        }

    def _rounded(self, length: int) -> int:
        rounded = length + -length % self.pad_to_multiple_of
        return rounded if self.longest is None else max(length, min(rounded, self.longest))

    def _pad(self, rows: list[list[int]], filler: int, shortest: int = 0) -> torch.Tensor:
        import torch

        longest = self._rounded(max(shortest, *map(len, rows)))
        paddings = [[filler] * (longest - len(row)) for row in rows]
        pairs = zip(rows, paddings, strict=True)
        return torch.tensor([row + pads if self.side == "right" else pads + row for row, pads in pairs])


def length_sorted_batches(lengths: list[int], batch_size: int) -> list[list[int]]:
    """Group row numbers into batches of similar length, longest first, so that a too large batch fails at once.

    Example:
        >>> length_sorted_batches([5, 90, 7], batch_size=2)
        [[1, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def padding_fraction(batches: list[list[int]], lengths: list[int], pad_to: int | None = None) -> float:
    """Return the share of computed positions that are padding, from 0 to 1.

    Args:
        batches: Row numbers by batch.
        lengths: Tokens of each row.
        pad_to: Tokens that all rows are padded to; None pads each batch to its longest row.
    """
    computed = sum(len(batch) * (pad_to or max(lengths[row] for row in batch)) for batch in batches)
    return 1 - sum(lengths[row] for batch in batches for row in batch) / computed
