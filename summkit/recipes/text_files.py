"""Read texts from files: plain text, JSON lines with one text per row, and PDF."""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
from pathlib import Path
from typing import Any

from summkit.data.checks import DOCUMENT_COLUMNS, MAX_BOOK, as_text, find_column, reason_unusable
from summkit.data.formats import FORMATS, file_format, file_rows, text_lines
from summkit.errors import SummkitError

_END_MARKS = (".", "!", "?", ":", ";", "…", '"', "”", "’", ")")


def read_texts(names: list[str], columns: tuple[str, ...] = DOCUMENT_COLUMNS) -> list[tuple[str, Any]]:
    """Read all texts of the given files, in order.

    A file of rows (see `formats.FORMATS`) has one text per row, of chat messages the user's last one; a .pdf file is
    one text, without its line breaks; every other file is one text in UTF-8.

    Args:
        names: Paths of files; if empty, standard input is read.
        columns: The possible names of the column with the texts, the preferred one first.

    Returns:
        A pair of location ("notes.txt", "rows.jsonl, row 3") and text for each.

    Raises:
        SummkitError: A file cannot be read or contains no text; the message names file and row.
    """
    texts = [pair for name in names for pair in _read(name, columns)] or [("standard input", _standard_input())]
    for location, text in texts:
        reason = reason_unusable(text, MAX_BOOK)
        if reason:
            raise SummkitError(f"{location}: {reason}; there is no text to summarise")
    return texts


def _read(name: str, columns: tuple[str, ...]) -> list[tuple[str, Any]]:
    path = Path(name)
    if name.lower().endswith(".pdf"):
        return [(name, _pdf(name))]
    if file_format(path) not in FORMATS:
        return [(name, "".join(text_lines(path)).replace("\r\n", "\n"))]
    rows = {f"{name}, row {number}": row for number, row in enumerate(file_rows(path), 1)}
    if not rows:
        raise SummkitError(f"{name}: no rows; there is no text to summarise")
    kind = "text (see --document-column)"
    return [(at, as_text(row[find_column(row, columns, kind, at)], "user")) for at, row in rows.items()]


def _standard_input() -> str:
    try:
        return (sys.stdin.buffer.read() if sys.stdin else b"").decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise SummkitError("standard input: not a text in UTF-8") from None


def _pdf(name: str) -> str:
    if importlib.util.find_spec("pypdf") is None:
        raise SummkitError(f"{name}: reading a PDF needs pypdf, which is not installed: pip install pypdf")
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # users need not see its warnings about repaired files
    try:
        pages = [page.extract_text() for page in pypdf.PdfReader(name).pages]
    except Exception as error:  # pypdf raises exceptions of many types for a broken file
        raise SummkitError(f"{name}: cannot be read as a PDF ({error or type(error).__name__})") from None
    text = joined_lines("\n".join(pages)).replace("\0", " ").encode("utf-8", "ignore").decode()
    if not text.strip():
        raise SummkitError(f"{name}: no text in its {len(pages)} pages; scanned pages need OCR first")
    return text


def joined_lines(text: str) -> str:
    r"""Join lines into paragraphs, and rejoin words that are hyphenated at a line's end.

    A line is joined to the next one, unless it ends in an end mark or is short, like a heading or a last line.

    Example:
        >>> joined_lines("Heading\nThis is the first line of a para-\ngraph and this is its second line, as long")
        'Heading\nThis is the first line of a paragraph and this is its second line, as long'
    """
    lines = [line.strip() for line in text.splitlines()]
    lengths = sorted(len(line) for line in lines if line)
    usual = lengths[len(lengths) * 3 // 4] if lengths else 0  # length of a full line
    parts = []
    for line, following in zip(lines, [*lines, ""][1:], strict=True):
        if re.search(r"[^\W\d_]-$", line) and following[:1].islower():
            parts.append(line[:-1])
        else:
            ends = line.endswith(_END_MARKS) or len(line) < 0.7 * usual or not following
            parts.append(line + ("\n" if ends else " "))
    return "".join(parts).strip()
