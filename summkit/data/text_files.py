"""Floor 3. Texts to be read, out of files: plain text, JSON lines with a text a row, PDF."""

import importlib.util
import re
import sys
from pathlib import Path

from summkit.data import summarisation
from summkit.data.checks import MAX_BOOK, reason_unusable
from summkit.errors import SummkitError

_END_MARKS = (".", "!", "?", ":", ";", "…", '"', "”", "’", ")")


def read_texts(names: list[str]) -> list[tuple[str, str]]:
    """(where it stands, text) of every text in the files `names`, in order; of standard input where there are none.

    A .jsonl (or .jsonl.gz) file has a text a row, under document, article, text, dialogue or abstract; a .pdf file is
    one text, without its line breaks; every other file is one text in UTF-8.
    Raises SummkitError, with the file and row, for what cannot be read or holds no text.
    """
    found = [pair for name in names for pair in _read(name)]
    if not names:
        found = [("standard input", _decoded(sys.stdin.buffer.read(), "standard input"))]
    for where, text in found:
        if reason := reason_unusable(text, MAX_BOOK):
            raise SummkitError(f"{where}: {reason}; there is no text to summarise")
    return found


def _read(name: str) -> list[tuple[str, str]]:
    try:
        content = Path(name).read_bytes()
    except OSError as error:
        raise SummkitError(f"{name}: {error.strerror}") from None
    if name.lower().endswith((".jsonl", ".jsonl.gz")):
        rows = {f"{name}, row {number}": row for number, row in enumerate(summarisation.read_jsonl(Path(name)), 1)}
        if not rows:
            raise SummkitError(f"{name}: no rows; there is no text to summarise")
        return [(where, _column(row, where)) for where, row in rows.items()]
    return [(name, _pdf(name) if name.lower().endswith(".pdf") else _decoded(content, name))]


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SummkitError(f"{name}: not a text in UTF-8") from None


def _column(row: dict, where: str):
    for name in summarisation.DOCUMENT_COLUMNS:
        if name in row:
            return row[name]
    known = ", ".join(summarisation.DOCUMENT_COLUMNS)
    raise SummkitError(f"{where}: no column for the text; there are: {', '.join(row) or 'none'}; known: {known}")


def _pdf(name: str) -> str:
    if importlib.util.find_spec("pypdf") is None:
        raise SummkitError(f"{name}: a PDF is read with pypdf, which is not installed; pip install pypdf")
    import logging

    import pypdf

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # what it mends in a file is not the reader's business
    try:
        pages = [page.extract_text() for page in pypdf.PdfReader(name).pages]
    except Exception as error:  # of any kind: a broken file goes wrong wherever it is broken
        raise SummkitError(f"{name}: cannot be read as a PDF ({error or type(error).__name__})") from None
    text = joined_lines("\n".join(pages)).replace("\0", " ").encode("utf-8", "ignore").decode()
    if not text.strip():
        raise SummkitError(f"{name}: no text in its {len(pages)} pages; scanned pages need OCR first")
    return text


def joined_lines(text: str) -> str:
    """`text` with its lines joined into paragraphs: a line goes on in the next one, unless it ends in an end mark or
    is short, as headings are and the last lines of paragraphs. A word cut at a line's end is whole again.
    """
    lines = [line.strip() for line in text.splitlines()]
    lengths = sorted(len(line) for line in lines if line)
    usual = lengths[len(lengths) * 3 // 4] if lengths else 0  # of lines that a paragraph fills
    parts = []
    for line, after in zip(lines, [*lines, ""][1:], strict=True):
        if re.search(r"[^\W\d_]-$", line) and after[:1].islower():
            parts.append(line[:-1])
        else:
            ends = line.endswith(_END_MARKS) or len(line) < 0.7 * usual or not after
            parts.append(line + ("\n" if ends else " "))
    return "".join(parts).strip()
