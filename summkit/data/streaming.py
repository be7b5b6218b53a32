"""Floor 0. Rows by the million: one by one out of JSON lines, and onto disk in Arrow's format, never all in memory."""

import atexit
import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path

from summkit.errors import SummkitError

_ROWS, _CHARACTERS = 2000, 2_000_000  # of what is held in memory before it is written


class JsonLines:
    """The rows of a file (see `json_rows`), read from it anew each time; `column_names` has all of their keys."""

    def __init__(self, path: Path):
        self.path, self._count = path, 0
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
    """Rows of a .jsonl or .jsonl.gz file. Raises SummkitError with the file and line of what is not a JSON object."""
    opener, count = gzip.open if path.suffix == ".gz" else open, 0
    try:
        with opener(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row, count = json.loads(line), count + 1
                    if not isinstance(row, dict):
                        raise SummkitError(f"{path.name}, line {number}: a JSON object is needed, document and summary")
                    yield row
    except (ValueError, RecursionError, EOFError, OSError, zlib.error) as error:
        raise SummkitError(
            f"{path.name}, after {count} rows: cannot be read as JSON lines in UTF-8 ({error})"
        ) from None


@cache
def rows_folder() -> str:
    """This process's folder for rows, in TMPDIR where that is set; removed when the process ends."""
    made = tempfile.TemporaryDirectory(prefix="summkit-rows-", ignore_cleanup_errors=True)
    atexit.register(made.cleanup)
    return made.name


def write_rows(rows: Iterable[dict]):
    """A memory-mapped `datasets.Dataset` of `rows`, which all have the columns and types of the first.

    What `map` makes of it lies in the same folder: that is the way of `datasets`.
    Raises SummkitError where the folder cannot take the rows.
    """
    import datasets
    import pyarrow

    batches = (pyarrow.RecordBatch.from_pylist(batch) for batch in _batches(rows))
    first = next(batches, None)
    if first is None:
        return datasets.Dataset.from_dict({})
    try:
        return datasets.Dataset.from_file(_written(chain([first], batches), first.schema))
    except OSError as error:
        about = error.strerror or error
        raise SummkitError(
            f"rows cannot be written to {rows_folder()} ({about}); TMPDIR may name another folder"
        ) from None


def _written(batches: Iterable, schema) -> str:
    """The path of a new file; where it cannot be finished, none is left."""
    import pyarrow

    handle, path = tempfile.mkstemp(suffix=".arrow", dir=rows_folder())
    try:
        with os.fdopen(handle, "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    except BaseException:
        os.remove(path)
        raise
    return path


def _batches(rows: Iterable[dict]) -> Iterator[list[dict]]:
    """Few large ones: each costs some kilobytes of memory wherever the file is open."""
    batch, size = [], 0
    for row in rows:
        batch.append(row)
        size += len(row["document"])
        if len(batch) == _ROWS or size > _CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def column_values(rows, *columns: str) -> Iterator[tuple]:
    """The values of a data set's columns, row by row, a thousand rows in memory."""
    for batch in rows.select_columns(list(columns)).iter(1000):
        yield from zip(*(batch[column] for column in columns), strict=True)
