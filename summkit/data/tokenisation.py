"""Turn text into tokens: cut the document but never the summary, append EOS, and mask the prompt.

Training and inference share `encode`, so the same document is cut at the same token in both.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from summkit.data.splits import writing_rows
from summkit.errors import SummkitError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from summkit.data.templates import Template

IGNORE = -100  # the label that torch's cross entropy ignores
_log = logging.getLogger(__name__)


class _NoRoomError(SummkitError):
    """Instruction and summary alone are as long as a row may be."""


def encode(
    template: Template,
    tokenizer: Tokenizer,
    document: str,
    summary: str | None,
    max_length: int,
    max_new_tokens: int,
    second: str = "",
    seq2seq: bool = False,
) -> dict:
    """Turn a document and its summary into tokens and labels.

    Training also reserves `max_new_tokens` for the summary, so that prompts have the same length as in inference. A
    longer summary leaves less room for the document.

    Args:
        template: The text around the document.
        tokenizer: The model's tokenizer.
        document: The text, which is cut if it is too long.
        summary: The text that the model has to write; None for the prompt alone.
        max_length: The largest number of tokens in prompt and summary, or in the prompt of an encoder-decoder.
        max_new_tokens: The largest number of tokens in an answer.
        second: The second text of a pair; it is cut only if it takes more than half of the room.
        seq2seq: Whether the model is an encoder-decoder: the prompt alone is the input, with the special tokens that
            the tokenizer puts around a text, and the labels are the summary alone, with the same tokens and EOS.

    Returns:
        "input_ids"; "labels", IGNORE for the prompt, then the summary's tokens and EOS (absent without a summary);
        "length", the total of input and labels; "cut", the number of the document's tokens that were cut.

    Raises:
        SummkitError: `max_length` leaves no room for the document.

    Example:
        >>> from summkit.data import build_template
        >>> from summkit.models import tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> template = build_template("instruction", tokenizer)
        >>> row = encode(template, tokenizer, "A bridge was closed. " * 50, "Bridge shut.", 200, 20)
        >>> row["length"], row["cut"]
        (194, 961)
        >>> tokenizer.decode([label for label in row["labels"] if label != IGNORE])
        ' Bridge shut.<|end|>'
    """
    return _Encoding(template, tokenizer, max_length, max_new_tokens, seq2seq).row(document, summary, second)


def encode_rows(
    rows: Dataset, template: Template, tokenizer: Tokenizer, max_length: int, max_new_tokens: int, seq2seq: bool = False
) -> Dataset:
    """Encode all rows of a data set, as `encode` does.

    Rows whose summary leaves no room for the document are dropped, and counted in a warning.

    Args:
        rows: A data set with columns document and summary, and second for pairs.
        template: See `encode`, as for the other arguments.
        tokenizer: The model's tokenizer.
        max_length: Tokens.
        max_new_tokens: Tokens.
        seq2seq: Whether the model is an encoder-decoder.

    Returns:
        Rows of input_ids, labels, length and cut; on disk if `rows` is on disk.

    Raises:
        SummkitError: No row has room for its document.
    """
    import datasets

    encoding = _Encoding(template, tokenizer, max_length, max_new_tokens, seq2seq)
    number = datasets.Value("int32")
    numbers = datasets.List(number)
    columns = datasets.Features(input_ids=numbers, labels=numbers, length=number, cut=number)
    options = {"batched": True, "batch_size": 500, "features": columns, "remove_columns": rows.column_names}
    with writing_rows():
        encoded = rows.map(_encode_batch, fn_kwargs={"encoding": encoding}, desc="tokenising", **options)
    if len(encoded) < len(rows):
        if not len(encoded):
            encoding.row(rows[0]["document"], rows[0]["summary"])  # raises the error that says why
        dropped = f"{len(rows) - len(encoded)} of {len(rows)} rows"
        _log.warning("%s dropped: their summaries leave no room for the document in %d tokens", dropped, max_length)
    return encoded


def _encode_batch(batch: dict, encoding: _Encoding) -> dict:
    seconds = batch.get("second") or [""] * len(batch["summary"])
    rows = []
    for texts in zip(batch["document"], batch["summary"], seconds, strict=True):
        with suppress(_NoRoomError):
            rows.append(encoding.row(*texts))
    return {key: [row[key] for row in rows] for key in ("input_ids", "labels", "length", "cut")}


def window(
    template: Template, tokenizer: Tokenizer, max_length: int, max_new_tokens: int, seq2seq: bool = False
) -> int:
    """Return the number of document tokens that fit; `encode` cuts a longer document."""
    encoding = _Encoding(template, tokenizer, max_length, max_new_tokens, seq2seq)
    # In an encoder's prompt, the space between head and document may be a separate token.
    return encoding.room(max_new_tokens) - len(encoding.space)


def room_for(template: Template, plain: Template, max_length: int, tokenizer: Tokenizer) -> int:
    """Return the max_length with which `template` has as much room for a document as `plain` has with `max_length`.

    So a teacher with examples in its prompt reads as much of each document as a student without them.
    """
    ours, theirs = (_Encoding(one, tokenizer, max_length, 0, False).room(0) for one in (template, plain))
    return max_length + theirs - ours


@dataclass
class _Encoding:
    """The settings that all rows share: the tokenised template and the limits."""

    template: Template
    tokenizer: Tokenizer
    max_length: int
    max_new_tokens: int
    seq2seq: bool

    @cached_property
    def space(self) -> str:
        """The space between head and document, which an encoder's prompt joins to the document's first word."""
        head = self.template.head
        return head[len(head.rstrip(" ")) :] if self.seq2seq else ""

    @cached_property
    def frame(self) -> tuple[list[int], list[int], list[int]]:
        """Tokens of head, middle and tail: the prompt without the texts."""
        middle = _ids(self.tokenizer, self.template.middle)
        tail = _ids(self.tokenizer, self.template.tail)
        if not self.seq2seq:
            return head_ids(self.template, self.tokenizer), middle, tail
        before, after = special_ids(self.tokenizer)
        return before + _ids(self.tokenizer, self.template.head.rstrip(" ")), middle, tail + after

    def room(self, answer: int) -> int:
        """Return the tokens left for the texts beside `answer` tokens; an encoder's input has no answer."""
        return self.max_length - sum(map(len, self.frame)) - (0 if self.seq2seq else answer)

    def row(self, document: str, summary: str | None, second: str = "") -> dict:
        """Encode one row."""
        head, middle, tail = self.frame
        answer = [] if summary is None else self.answer(summary)
        reserved = max(self.max_new_tokens, len(answer))
        room = self.room(reserved)
        if room < 1:
            raise _NoRoomError(
                f"max_length={self.max_length} is too small: the instruction takes {sum(map(len, self.frame))} tokens"
                f"{'' if self.seq2seq else f' and the summary up to {reserved}'}; at least "
                f"{self.max_length - room + 1} are needed for any of the document"
            )
        first_ids = _ids(self.tokenizer, self.space + document, plain=True)
        second_ids = _ids(self.tokenizer, second, plain=True)
        kept = second_ids[: max(room // 2, room - len(first_ids))]
        prompt = head + first_ids[: room - len(kept)] + middle + kept + tail
        row = {
            "input_ids": prompt if self.seq2seq else prompt + answer,
            "length": len(prompt) + len(answer),
            "cut": max(0, len(first_ids) + len(second_ids) - room),
        }
        if summary is not None:
            row["labels"] = answer if self.seq2seq else [IGNORE] * len(prompt) + answer
        return row

    def answer(self, summary: str) -> list[int]:
        """Return the tokens that the model writes: answer and EOS, with the special tokens of an encoder-decoder."""
        before, after = special_ids(self.tokenizer) if self.seq2seq else ([], [])
        ids = [*before, *answer_ids(self.template, self.tokenizer, summary), *after]
        return ids if ids[-1:] == [self.tokenizer.eos_token_id] else [*ids, self.tokenizer.eos_token_id]


def answer_ids(template: Template, tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of an answer, without the end-of-sequence token."""
    return _ids(tokenizer, template.answer(text), plain=True)


def head_ids(template: Template, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens that every prompt begins with: the head, after BOS if the tokenizer adds it."""
    bos = tokenizer.bos_token_id
    ids = _ids(tokenizer, template.head)
    wanted = bos is not None and tokenizer("a")["input_ids"][0] == bos
    return [bos, *ids] if wanted and ids[:1] != [bos] else ids


def special_ids(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after a text: none and EOS for T5, BOS and EOS for BART."""
    whole = tokenizer("a")["input_ids"]
    bare = _ids(tokenizer, "a")
    start = next(n for n in range(len(whole)) if whole[n : n + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def count_tokens(tokenizer: Tokenizer, text: str) -> int:
    """Count the tokens of a text, without the special tokens around it."""
    return len(_ids(tokenizer, text, plain=True))


def _ids(tokenizer: Tokenizer, text: str, plain: bool = False) -> list[int]:
    """Tokens. With `plain`, special-token strings in the input ("<|end|>") are tokenised as plain text."""
    # verbose=False: long documents are cut here, so the tokenizer's warning about their length would mislead.
    return tokenizer(text, add_special_tokens=False, split_special_tokens=plain, verbose=False)["input_ids"]
