"""Rows that may not fit into memory: read one by one from JSON lines, and written to disk in Arrow's format.

This is own code around the writer of `datasets`: its JSON loader does not name the broken line of a file, and
`Dataset.from_generator` took 1.1 GB for 3,000 long rows (about 50 MB here), and a second for any small file.
"""

from __future__ import annotations

import atexit
import gzip
import json
import tempfile
import uuid
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from summkit.errors import SummkitError

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS = 2000  # held in memory before they are written
_CHARACTERS = 2_000_000  # of documents, likewise


class JsonLines:
    """The rows of a file, read again in each iteration.

    Args:
        path: A .jsonl or .jsonl.gz file. It is read once here, so that a broken file is reported before it is used.

    Attributes:
        column_names: All keys of all rows, in the order in which they appear.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        names: dict[str, None] = {}
        for row in json_rows(path):
            self._count += 1
            names |= dict.fromkeys(row)
        self.column_names = list(names)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict]:
        return json_rows(self.path)


def json_rows(path: Path) -> Iterator[dict]:
    """Yield the rows of a .jsonl or .jsonl.gz file in UTF-8; blank lines are skipped.

    Raises:
        SummkitError: A line is not a JSON object, or the file cannot be read; the message names file and line.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _json_object(line, f"{path.name}, line {number}")
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise SummkitError(
            f"{path.name}, after line {number}: cannot be read as JSON lines in UTF-8 ({error})"
        ) from None


def _json_object(line: str, location: str) -> dict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SummkitError(f"{location}: cannot be read as JSON ({error})") from None
    if not isinstance(row, dict):
        raise SummkitError(f"{location}: a JSON object is needed, with keys such as document and summary")
    return row


def read_jsonl(path: Path) -> list[dict]:
    """Return all rows of a file that fits in memory. Raises SummkitError as `json_rows` does."""
    return list(json_rows(path))


@cache
def rows_folder() -> str:
    """Return this process's folder for rows, in TMPDIR if it is set; the folder is removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="summkit-rows-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return folder.name


def write_rows(rows: Iterable[dict]) -> Dataset:
    """Write rows to disk and open them memory-mapped; results of `map` go to the same folder.

    Args:
        rows: Dictionaries with a document; all rows have the columns and types of the first one.

    Raises:
        SummkitError: The rows cannot be written to the folder.
    """
    import datasets
    from datasets.arrow_writer import ArrowWriter, SchemaInferenceError

    path = Path(rows_folder(), f"{uuid.uuid4().hex}.arrow")
    characters = 0
    try:
        with ArrowWriter(path=str(path), writer_batch_size=_ROWS) as writer:
            for row in rows:
                writer.write(row)
                characters += len(row["document"])
                if characters > _CHARACTERS:
                    writer.write_examples_on_file()
                    characters = 0
            writer.finalize()
        return datasets.Dataset.from_file(str(path))
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, SchemaInferenceError):  # no rows
            return datasets.Dataset.from_dict({})
        if isinstance(error, OSError):
            reason = f"{rows_folder()} ({error.strerror or error})"
            raise SummkitError(f"rows cannot be written to {reason}; set TMPDIR to another folder") from None
        raise


def column_values(rows: Dataset, *columns: str) -> Iterator[tuple]:
    """Yield the values of some columns row by row, with a thousand rows in memory."""
    for batch in rows.select_columns(list(columns)).iter(1000):
        yield from zip(*(batch[column] for column in columns), strict=True)
