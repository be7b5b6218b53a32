"""Read the rows of a file: JSON lines, JSON, CSV, TSV and Parquet.

Rows are read one by one, so that a large file need not fit into memory. This is own code because the loader of
`datasets` does not name the broken line of a JSON file, and takes a second for any small one.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import itertools
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from summkit.data.checks import chat_turns
from summkit.errors import SummkitError

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_DECODER = json.JSONDecoder()
# The first bytes of other kinds of files → what they are.
_NO_TEXT = {
    b"PK\3\4": "a spreadsheet or a zip archive: save it as CSV UTF-8, or unpack it",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with `git lfs pull`",
}


class FileRows:
    """The rows of one or more files of the same columns, read again in each iteration.

    Args:
        *paths: Files in one of FORMATS; all but Parquet may be compressed with gzip. They are read once here, so that a
            broken file is reported before it is used.

    Attributes:
        column_names: All keys of all rows, in the order in which they appear.
    """

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self._count = 0
        names: dict[str, None] = {}
        for row in self:
            self._count += 1
            names |= dict.fromkeys(row)
        if not self._count:
            raise SummkitError(f"{', '.join(path.name for path in paths)}: no rows, or only a line of headings")
        self.column_names = list(names)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict]:
        return itertools.chain.from_iterable(map(file_rows, self.paths))


def file_rows(path: Path) -> Iterator[dict]:
    """Yield the rows of a file: a table if its name says so (.csv, .tsv, .parquet), or else JSON lines or a JSON list.

    Raises:
        SummkitError: The file cannot be read; the message names file and line.
    """
    form = file_format(path)
    if form == ".parquet":
        return _parquet_rows(path)
    return _table_rows(path) if form in (".csv", ".tsv") else _json_rows(path)


def file_format(path: Path) -> str:
    """Return the ending of a file's name, such as ".csv" of "rows.csv.gz"."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file in UTF-8 or UTF-16, with or without a byte-order mark, gzipped or not.

    Raises:
        SummkitError: It is no such text; the message says what it is, or after which line it is broken.
    """
    number = 0
    if path.is_fifo():
        raise SummkitError(f"{path} is a pipe, which can be read only once: save its content to a file")
    try:
        with path.open("rb") as file:
            opener: Any = gzip.open if file.read(2) == b"\x1f\x8b" else open
        with opener(path, "rb") as file:
            encoding = _encoding(file.read(100), path.name)
        with opener(path, "rt", encoding=encoding, newline="") as lines:
            for line in lines:
                number += 1
                yield line
    except (UnicodeError, EOFError, OSError, zlib.error) as error:
        if reason := getattr(error, "strerror", None):
            raise SummkitError(f"{path}: {reason}") from None
        advice = "save it as UTF-8 (in a spreadsheet: as CSV UTF-8), or copy it again"
        reason = f"cannot be read as text in UTF-8 ({error}); {advice}"
        raise SummkitError(f"{path.name}, after line {number}: {reason}") from None


def _encoding(head: bytes, name: str) -> str:
    """Return the encoding of a text by its first bytes; in UTF-16, every second byte of most texts is zero."""
    for start, what in _NO_TEXT.items():
        if head.startswith(start):
            raise SummkitError(f"{name} is {what}")
    zeros = [head[start::2].count(0) > max(3, len(head) / 8) for start in (0, 1)]
    if all(zeros):
        raise SummkitError(f"{name} is not text: most of its bytes are zero; copy or download it again")
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    return "utf-16-be" if zeros[0] else "utf-16-le" if zeros[1] else "utf-8-sig"


def _json_rows(path: Path) -> Iterator[dict]:
    """Yield the rows of JSON lines one by one. A list, or objects of several lines, are read as a whole."""
    first = next((line for line in text_lines(path) if line.strip()), "{}")
    is_lines = False
    with suppress(ValueError, RecursionError):
        is_lines = isinstance(json.loads(first), dict)
    pieces = enumerate(text_lines(path), 1) if is_lines else [(1, "".join(text_lines(path)))]
    values = (value for number, text in pieces for value in _json_values(text, path.name, number))
    head = [*itertools.islice(values, 2)]
    if file_format(path) == ".json" and len(head) == 1 and isinstance(head[0], dict):
        head = _rows_of(head[0], path.name)
    for number, value in enumerate(itertools.chain(head, values), 1):
        if not isinstance(value, dict):
            raise SummkitError(f"{path.name}, row {number}: a JSON object is needed, with keys such as document")
        yield value


def _rows_of(value: dict, name: str) -> list:
    """Return the rows of a file that is one object: of one list of rows, of columns, or a row itself."""
    lists = {key: one for key, one in value.items() if isinstance(one, list) and one and not chat_turns(one)}
    tables = [key for key, one in lists.items() if isinstance(one[0], dict)]
    if "data" in tables or (tables and len(value) == 1):
        return value["data" if "data" in tables else tables[0]]
    columns = [[*one.values()] if isinstance(one, dict) else one for one in value.values()]
    if len(columns) < 2 or any(not isinstance(column, list) or chat_turns(column) for column in columns):
        return [value]
    lengths = [len(column) for column in columns]
    if len(tables) == len(value) or len({*lengths}) > 1:
        found = ", ".join(f"{key} {length}" for key, length in zip(value, lengths, strict=True))
        raise SummkitError(f"{name} is one object of lists ({found}): columns have one length, splits a file each")
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def _json_values(text: str, name: str, line: int) -> Iterator[object]:
    """Yield the values in a text that begins at a line of a file; of a list, its items."""
    position = len(text) - len(text.lstrip())
    try:
        while position < len(text):
            value, end = _DECODER.raw_decode(text, position)
            yield from value if isinstance(value, list) else [value]
            position = re.compile(r"\s*").match(text, end).end()  # type: ignore[union-attr]
    except (ValueError, RecursionError) as error:
        line += getattr(error, "lineno", 1) - 1
        raise SummkitError(f"{name}, line {line}: cannot be read as JSON ({error})") from None


def _table_rows(path: Path) -> Iterator[dict]:
    """Yield the rows of a table with headings, in which `,` `;` `|` or a tab is between the columns."""
    lines = text_lines(path)
    headings = next(lines, "")
    before = int(headings.lower().startswith("sep="))  # a spreadsheet may write this line before the headings
    if before:
        headings = next(lines, "")
    separator = max(",;|\t", key=re.sub('"[^"]*"', "", headings).count)
    csv.field_size_limit(sys.maxsize)
    table = csv.DictReader(itertools.chain([headings], lines), delimiter=separator, strict=True)
    begin = before + 1  # the line in which the row begins
    try:
        names = [name for name in table.fieldnames or [] if name.strip()]
        if twice := next((name for name, count in Counter(names).items() if count > 1), None):
            raise csv.Error(f"two columns have the same name: {twice!r}")
        begin += table.line_num
        for row in table:
            if any(row.pop(None, [])):  # type: ignore[call-overload]
                raise csv.Error(f"more fields than headings: a text with {separator!r} in it needs quotes around it")
            yield row
            begin = before + table.line_num + 1
    except csv.Error as error:
        advice = "" if "column" in str(error) or "field" in str(error) else '; a " within a quoted text is doubled: ""'
        raise SummkitError(f"{path.name}, line {begin}: {error}{advice}") from None


def _parquet_rows(path: Path) -> Iterator[dict]:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches(1000):
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise SummkitError(f"{path.name}: cannot be read as Parquet ({error})") from None
