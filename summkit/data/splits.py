"""Make three splits from raw rows: check each row, keep each text in one split, and count dropped rows by reason.

Rows are written to disk one by one (see `streaming`); memory holds only a digest and a number for each.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from summkit.data import streaming
from summkit.data.checks import is_encodable
from summkit.data.registry import SPLITS
from summkit.errors import SummkitError

if TYPE_CHECKING:
    from datasets import Dataset

    from summkit.config import Profile
    from summkit.data.sources import Rows


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
        find: Maps the column names and the split to the column information that `make` needs.
        make: Maps a row, the result of `find` and the row's location ("train:7") to a row with our columns, among
            them document, or to the reason for dropping it.

    Raises:
        SummkitError: A split has no rows, or no usable rows.
    """

    def __init__(self, raw: Mapping[str, Rows], find: Callable, make: Callable) -> None:
        self.dropped: dict[str, list[str]] = {}
        self.splits = {split: self._check(rows, split, find, make) for split, rows in raw.items()}

    def _check(self, rows: Rows, split: str, find: Callable, make: Callable) -> Dataset:
        if not len(rows):
            raise SummkitError(f"{split}: no rows")
        names = getattr(rows, "column_names", None) or dict.fromkeys(name for row in rows for name in row)
        columns = find(names, split)

        def usable() -> Iterator[dict]:
            for number, row in enumerate(rows, 1):
                location = f"{split}:{number}"
                made = make(row, columns, location)
                if isinstance(made, str):
                    self.dropped.setdefault(made, []).append(location)
                else:
                    yield made | {"location": location, "key": text_key(made)}

        checked = streaming.write_rows(usable())
        if not len(checked):
            reasons = ", ".join(f"{reason} ({len(taken)})" for reason, taken in self.dropped.items())
            raise SummkitError(f"{split}: nothing is left of {len(rows)} rows; dropped: {reasons}")
        return checked

    def keep(self, column: str, wanted: Callable, reason: str) -> None:
        """Keep the rows whose value in `column` is `wanted`; test rows come first, training rows last."""
        for split in reversed(list(self.splits)):
            rows = self.splits[split]
            numbers = array("Q")
            for number, (value, location) in enumerate(streaming.column_values(rows, column, "location")):
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

        From a single pool, test rows are drawn first, so more training rows do not change the test rows.

        Raises:
            SummkitError: Too few rows are left.
        """
        wanted = {"test": profile.test_rows, "validation": profile.validation_rows, "train": profile.train_rows}
        sizes = {name: len(rows) for name, rows in self.splits.items()}
        pools = {name: array("Q", random.Random(seed).sample(range(n), n)) for name, n in sizes.items()}
        dealt = {}
        for split, number in wanted.items():
            name = "all" if "all" in pools else split if split in pools else "train"
            taken = pools[name][:number]
            pools[name] = pools[name][len(taken) :]
            if len(taken) < (1 if split == "train" else number or 1):
                raise SummkitError(
                    f"{split}: {number or 1} rows wanted, {len(taken)} left after the checks; "
                    f"ask for fewer ({split}_rows), or widen min_words and max_words"
                )
            dealt[split] = self.splits[name].select(taken).remove_columns(["location", "key"])
        return dealt


def row_id(given: object, location: str) -> str:
    """Return a row's own id as text, or its location if it has no id that can be written."""
    return location if given is None or not is_encodable(str(given)) else str(given)


def text_key(row: dict) -> bytes:
    """Return the digest of a row's text; texts that differ only in case and white space have the same digest."""
    words = " ".join(f"{row['document']}\n{row.get('second', '')}".lower().split())
    return hashlib.blake2b(words.encode(), digest_size=16).digest()
