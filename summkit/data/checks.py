"""Find the columns of a data set, and check whether a text can be used: the same rules for every source of texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from summkit.errors import SummkitError

MAX_CHARACTERS = 1_000_000  # a longer "document" is a broken file, not an article
MAX_BOOK = 20_000_000  # characters of a text that is read in pieces, about four times the Bible
# Known names, the most specific first.
DOCUMENT_COLUMNS = ("document", "article", "text", "dialogue", "abstract")
SUMMARY_COLUMNS = ("summary", "highlights", "abstract", "tldr", "title")
TEXT_COLUMNS = ("text", "document", "comment", "sentence", "premise", "sentence1")
SECOND_COLUMNS = ("hypothesis", "sentence2")
LABEL_COLUMNS = ("label", "labels")


def find_column(names: Iterable[str], candidates: Iterable[str], kind: str, location: str) -> str:
    """Return the first of `candidates` that is among `names`.

    Args:
        names: The columns of a data set, or the keys of a row.
        candidates: The possible names of the column, the preferred one first.
        kind: The kind of column, for the error: "document", "label".
        location: The split, or the file and row, for the error.

    Raises:
        SummkitError: There is none of them; the message lists the existing columns and the known names.

    Example:
        >>> find_column(["id", "article", "highlights"], DOCUMENT_COLUMNS, "document", "train")
        'article'
    """
    names, candidates = list(names), list(candidates)
    for name in candidates:
        if name in names:
            return name
    present = ", ".join(names) or "none"
    raise SummkitError(f"{location}: no column for the {kind}; there are: {present}; known: {', '.join(candidates)}")


def reason_unusable(text: object, most: int = MAX_CHARACTERS) -> str | None:
    """Return the reason why a text cannot be used.

    Args:
        text: The value in the text column of a row, of any type.
        most: The largest number of characters allowed.

    Returns:
        The reason in a few words, or None for a text that can be used.

    Example:
        >>> reason_unusable(" "), reason_unusable("It rained.")
        ('empty', None)
    """
    if not isinstance(text, str):
        return "not text"
    if not text.strip():
        return "empty"
    if len(text) > most:
        return f"over {most:,} characters"
    return None if is_encodable(text) else "NUL or half a character"


def is_encodable(text: str) -> bool:
    """Whether the text can be saved and tokenised: no NUL, and no lone surrogate, which JSON may contain."""
    return not re.search("[\0\ud800-\udfff]", text)


def check_texts(**columns: Sequence[str]) -> int:
    """Check lists of texts that belong together, one row each.

    Args:
        **columns: The lists by name, for the errors.

    Returns:
        The number of rows.

    Raises:
        SummkitError: There are no rows, a row is not a text, or the lists differ in length.
    """
    for name, texts in columns.items():
        if isinstance(texts, str):
            raise SummkitError(f"{name} is one text: a list of texts is needed, even for one row")
        bad = [f"row {row} is {type(text).__name__}" for row, text in enumerate(texts, 1) if not isinstance(text, str)]
        if bad:
            raise SummkitError(f"{name}: texts are needed, but {', '.join(bad[:5])} ({len(bad)} of {len(texts)} rows)")
    lengths = {name: len(texts) for name, texts in columns.items()}
    if len(set(lengths.values())) > 1:
        raise SummkitError(f"one row each is needed, but there are {', '.join(f'{n} {k}' for k, n in lengths.items())}")
    if 0 in lengths.values():
        raise SummkitError(f"nothing to score: {' and '.join(lengths)} hold no row")
    return next(iter(lengths.values()))
