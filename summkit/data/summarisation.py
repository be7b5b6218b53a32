"""Load a summarisation data set as columns `id`, `document`, `summary`, checked row by row, in three splits."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from summkit.data import checks
from summkit.data.registry import find_dataset
from summkit.data.sources import own_data, read_rows
from summkit.data.splits import CheckedRows, Splits, row_id

if TYPE_CHECKING:
    from summkit.config import Profile

_log = logging.getLogger(__name__)


def load_summaries(profile: Profile, seed: int = 0, data: str | Path | None = None) -> Splits:
    """Load the profile's data set, cut to its word limits and row counts, with no document in two splits.

    Rows that cannot be used are dropped and counted by reason.

    Args:
        profile: Sets the data set, the word limits of its documents, and the number of rows.
        seed: Seed for drawing the rows, and for splitting a data set without splits.
        data: Your own rows in place of the data set: a file, or a folder with a file for each split; see
            `sources.read_own`. None: the one in SUMMKIT_DATA_DIR, if that is set.

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
    own = own_data(data)
    data_set = find_dataset(profile.dataset)
    raw, source = read_rows(data_set, own)
    usual = {"document": checks.DOCUMENT_COLUMNS, "summary": checks.SUMMARY_COLUMNS}
    columns = checks.columns_of(profile, {} if own else data_set.columns, raw, usual)
    unused: Counter[str] = Counter()
    rows = CheckedRows(raw, columns, partial(_row, profile=profile, unused=unused))
    if unused:
        _log.warning("chats: the last answer and its question are used; messages not used, by role: %s", dict(unused))
    rows.drop_duplicates()
    return Splits(**rows.deal(profile, seed), source=source, dropped=rows.dropped)


def _row(row: dict, columns: dict[str, str], location: str, profile: Profile, unused: Counter[str]) -> dict | str:
    document = checks.as_text(row.get(columns["document"]), "user")
    summary = checks.as_text(row.get(columns["summary"]), "assistant")
    reason = checks.reason_unusable(document) or checks.reason_unusable(summary) or _reason_length(document, profile)
    if reason:
        return reason
    if document.split() == summary.split():
        return "summary equals document"
    unused.update(role for role, text in checks.chat_turns(row[columns["document"]]) if text not in (document, summary))
    # An abstract is one paragraph; arXiv breaks it into lines of 80 characters.
    text = " ".join(document.split()) if columns["document"] == "abstract" else document.strip()
    return {"id": row_id(row.get("id"), location), "document": text, "summary": " ".join(summary.split())}


def _reason_length(document: str, profile: Profile) -> str | None:
    words = checks.count_words(document)
    if words < profile.min_words:
        return f"under {profile.min_words} words"
    return f"over {profile.max_words} words" if profile.max_words is not None and words > profile.max_words else None
