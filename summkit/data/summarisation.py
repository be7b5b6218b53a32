"""Load a summarisation data set as columns `id`, `document`, `summary`, checked row by row, in three splits."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from summkit.data.checks import DOCUMENT_COLUMNS, SUMMARY_COLUMNS, find_column, reason_unusable
from summkit.data.registry import find_dataset
from summkit.data.sources import own_data, read_rows
from summkit.data.splits import CheckedRows, Splits, row_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from summkit.config import Profile
    from summkit.data.registry import DataSet


def load_summaries(profile: Profile, seed: int = 0, data: str | Path | None = None) -> Splits:
    """Load the profile's data set, cut to its word limits and row counts, with no document in two splits.

    Rows that cannot be used are dropped and counted by reason.

    Args:
        profile: Sets the data set, the word limits of its documents, and the number of rows.
        seed: Seed for drawing the rows, and for splitting a data set without splits.
        data: A file or a folder that replaces the data set, with train.jsonl, validation.jsonl and test.jsonl (or
            .jsonl.gz), or with one file, which is split here. None: the one in SUMMKIT_DATA_DIR, if that is set.

    Returns:
        The three splits, each a `datasets.Dataset` on disk with columns id, document and summary.

    Raises:
        SummkitError: The rows cannot be read, a column is missing, or too few rows are left.

    Example:
        >>> from summkit.config import choose_profile
        >>> splits = load_summaries(choose_profile("smoke"))
        >>> splits.counts()
        {'train': 24, 'validation': 8, 'test': 8, 'dropped': {}}
    """
    folder = own_data(data)
    data_set = find_dataset(profile.dataset)
    if folder:
        data_set = dataclasses.replace(data_set, columns={})
    raw, source = read_rows(data_set, folder)
    rows = CheckedRows(raw, partial(_columns, data_set=data_set), partial(_row, profile=profile))
    rows.drop_duplicates()
    return Splits(**rows.deal(profile, seed), source=source, dropped=rows.dropped)


def _columns(names: Iterable[str], split: str, data_set: DataSet) -> tuple[str, str]:
    document = find_column(names, data_set.column_names("document", DOCUMENT_COLUMNS), "document", split)
    summaries = [name for name in data_set.column_names("summary", SUMMARY_COLUMNS) if name != document]
    return document, find_column(names, summaries, "summary", split)


def _row(row: dict, columns: tuple[str, str], location: str, profile: Profile) -> dict | str:
    document: Any = row.get(columns[0])
    summary: Any = row.get(columns[1])
    reason = reason_unusable(document) or reason_unusable(summary) or _reason_length(document, profile)
    if reason:
        return reason
    # An abstract is one paragraph; arXiv breaks it into lines of 80 characters.
    text = " ".join(document.split()) if columns[0] == "abstract" else document.strip()
    return {"id": row_id(row.get("id"), location), "document": text, "summary": " ".join(summary.split())}


def _reason_length(document: str, profile: Profile) -> str | None:
    words = len(document.split())
    if words < profile.min_words:
        return f"under {profile.min_words} words"
    return f"over {profile.max_words} words" if profile.max_words is not None and words > profile.max_words else None
