"""Make three splits from raw rows: check each row, keep each text in one split, and count dropped rows by reason.

Rows are written to disk one by one, in Arrow's format; memory holds only a digest and a number for each. This is own
code around the writer of `datasets`, since `Dataset.from_generator` took 1.1 GB for 3,000 long rows (about 50 MB here).
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import random
import tempfile
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from summkit.data.checks import is_encodable, rows_text
from summkit.data.registry import SPLITS
from summkit.errors import SummkitError

if TYPE_CHECKING:
    from datasets import Dataset

    from summkit.config import Profile
    from summkit.data.sources import Rows

_ROWS = 100  # held in memory before they are written
_log = logging.getLogger(__name__)


@dataclass
class Splits:
    """Checked rows in three splits.

    Attributes:
        train: Rows to train on, with columns id, document and summary (or second and labels).
        validation: Rows for choosing settings.
        test: Rows for the final scores.
        source: "code", "embedded", "hub" or "local".
        dropped: Reason → the rows that were dropped for it, as "split:number".
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    source: str
    dropped: dict[str, list[str]] = field(default_factory=dict)

    def counts(self) -> dict:
        """Count the rows by split, and the dropped rows by reason, for the run record."""
        rows = {name: len(getattr(self, name)) for name in SPLITS}
        return rows | {"dropped": {reason: len(rows) for reason, rows in self.dropped.items()}}


class CheckedRows:
    """The usable rows of a data set by split, on disk, and the locations of the dropped rows by reason.

    Args:
        raw: Rows by split, or {"all": rows}.
        columns: The columns of each split, as `checks.columns_of` finds them.
        make: Maps a row, the columns and the row's location ("train:7") to a row with our columns, among
            them document, or to the reason for dropping it.

    Raises:
        SummkitError: A split has no rows, or no usable rows.
    """

    def __init__(self, raw: Mapping[str, Rows], columns: Mapping[str, Mapping], make: Callable) -> None:
        self.dropped: dict[str, list[str]] = {}
        checked = {split: self._check(rows, split, columns.get(split), make) for split, rows in raw.items()}
        self.splits = {split: rows for split, rows in checked.items() if len(rows)}

    def _check(self, rows: Rows, split: str, columns: Mapping | None, make: Callable) -> Dataset:
        if not len(rows):
            raise SummkitError(f"{split}: no rows")

        def usable() -> Iterator[dict]:
            for number, row in enumerate(rows, 1):
                location = f"{split}:{number}"
                made = make(row, columns, location)
                if isinstance(made, str):
                    self.dropped.setdefault(made, []).append(location)
                else:
                    yield made | {"location": location, "key": text_key(made)}

        checked = write_rows(usable())
        if not len(checked):
            if split == "test" and len(self.dropped.get("no label", [])) >= len(rows):
                _log.warning("test: its rows have no labels; rows for the test are taken from the training rows")
                return checked
            raise SummkitError(f"{split}: nothing is left of {rows_text(len(rows))}{self._reasons()}")
        return checked

    def _reasons(self) -> str:
        """Return why rows were dropped, for an error that says that too few are left."""
        reasons = ", ".join(f"{reason} ({len(taken)})" for reason, taken in self.dropped.items())
        advice = "; widen min_words and max_words (null: no limit)" if " words (" in reasons else ""
        return f"; dropped: {reasons}{advice}" if reasons else ""

    def keep(self, column: str, wanted: Callable, reason: str) -> None:
        """Keep the rows whose value in `column` is `wanted`; test rows come first, training rows last."""
        for split in reversed(list(self.splits)):
            rows = self.splits[split]
            numbers = array("Q")
            for number, (value, location) in enumerate(column_values(rows, column, "location")):
                if wanted(value):
                    numbers.append(number)
                else:
                    self.dropped.setdefault(reason, []).append(location)
            if len(numbers) < len(rows):
                self.splits[split] = rows.select(numbers)

    def drop_duplicates(self) -> None:
        """Keep each text once: in test if it is there, or else in validation."""
        seen: set[bytes] = set()

        def is_new(key: bytes) -> bool:
            new = key not in seen
            seen.add(key)
            return new

        self.keep("key", is_new, "duplicate document")

    def deal(self, profile: Profile, seed: int) -> dict[str, Dataset]:
        """Draw as many rows as the profile sets; a missing split is taken from the training rows.

        From a single pool, test rows are drawn first, so more training rows do not change the test rows. Where there
        are too few rows, validation and test together take at most half of those that they share with training.

        Raises:
            SummkitError: A split would have no row.
        """
        wanted = {"test": profile.test_rows, "validation": profile.validation_rows, "train": profile.train_rows}
        there = {name: len(rows) for name, rows in self.splits.items()}
        pools = {split: "all" if "all" in there else split if split in there else "train" for split in wanted}
        held = {split: wanted[split] or 0 for split in ("test", "validation") if pools[split] == pools["train"]}
        rows = there[pools["train"]]
        if sum(held.values()) + (profile.train_rows or 1) > rows and sum(held.values()) > rows // 2:
            held = {split: max(1, number * (rows // 2) // sum(held.values())) for split, number in held.items()}
        sizes = wanted | held
        orders = {name: array("Q", random.Random(seed).sample(range(n), n)) for name, n in there.items()}
        dealt = {}
        for split, name in pools.items():
            taken = orders[name][: sizes[split]]
            orders[name] = orders[name][len(taken) :]
            if not taken:
                total = sum(there.values())
                left = f"{rows_text(total)} {'is' if total == 1 else 'are'} left after the checks"
                reason = f"no row is left for it; {left}, and each split needs one"
                raise SummkitError(f"{split}: {reason}{self._reasons()}; add rows")
            dealt[split] = self.splits[name].select(taken).remove_columns(["location", "key"])
        if any(len(dealt[split]) < (wanted[split] or 0) for split in ("test", "validation")):
            counts = ", ".join(f"{split} {len(rows)} of {wanted[split] or 'all'}" for split, rows in dealt.items())
            _log.warning("too few rows for the profile (%s): scores of so few rows are uncertain", counts)
        return dealt


def row_id(given: object, location: str) -> str:
    """Return a row's own id as text, or its location if it has no id that can be written."""
    return location if given is None or not is_encodable(str(given)) else str(given)


def text_key(row: dict) -> bytes:
    """Return the digest of a row's text; texts that differ only in case and white space have the same digest."""
    words = " ".join(f"{row['document']}\n{row.get('second', '')}".lower().split())
    return hashlib.blake2b(words.encode(), digest_size=16).digest()


@cache
def rows_folder() -> str:
    """Return this process's folder for rows, in TMPDIR if it is set; the folder is removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="summkit-rows-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return folder.name


@contextmanager
def writing_rows() -> Iterator[None]:
    """Report a full disk, or another failure to write rows, in one sentence."""
    try:
        yield
    except OSError as error:
        reason = f"{rows_folder()} ({error.strerror or error})"
        raise SummkitError(f"rows cannot be written to {reason}; set TMPDIR to another folder") from None


def write_rows(rows: Iterable[dict]) -> Dataset:
    """Write rows to disk and open them memory-mapped; results of `map` go to the same folder.

    Args:
        rows: Dictionaries; all rows have the columns and types of the first one.

    Raises:
        SummkitError: The rows cannot be written to the folder.
    """
    import datasets
    from datasets.arrow_writer import ArrowWriter, SchemaInferenceError

    path = Path(rows_folder(), f"{uuid.uuid4().hex}.arrow")
    try:
        with writing_rows(), ArrowWriter(path=str(path), writer_batch_size=_ROWS) as writer:
            for row in rows:
                writer.write(row)
            writer.finalize()
        return datasets.Dataset.from_file(str(path))
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, SchemaInferenceError):  # no rows
            return datasets.Dataset.from_dict({})
        raise


def column_values(rows: Dataset, *columns: str) -> Iterator[tuple]:
    """Yield the values of some columns row by row, with a thousand rows in memory."""
    for batch in rows.select_columns(list(columns)).iter(1000):
        yield from zip(*(batch[column] for column in columns), strict=True)
