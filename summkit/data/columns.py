"""Find the columns of a data set: a document may be called "article", "text" or "dialogue"."""

from __future__ import annotations

from collections.abc import Iterable

from summkit.errors import SummkitError

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
