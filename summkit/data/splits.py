"""Three splits out of raw rows: every row is checked, no text is in two splits, what is dropped is counted by reason.

Rows go from their file to disk one by one (see `streaming`): what grows in memory is a digest and a number of each.
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
    """Checked rows, ready to be used.

    Attributes:
        train: Rows to learn from, with columns id, document and summary (or second and labels).
        validation: Rows to choose settings on.
        test: Rows for the final scores.
        source: "code", "embedded", "hub" or "local".
        dropped: A reason → the rows that it took, as "split:number".
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    source: str
    dropped: dict[str, list[str]] = field(default_factory=dict)

    def counts(self) -> dict:
        """Count the rows by split, and those dropped by reason: what the record keeps."""
        rows = {name: len(getattr(self, name)) for name in SPLITS}
        return rows | {"dropped": {reason: len(rows) for reason, rows in self.dropped.items()}}


class CheckedRows:
    """The usable rows of a data set by split, on disk, and where the others were, by reason.

    Args:
        raw: Rows by split, or {"all": rows}.
        find: Gets the column names and the split, and returns what `make` needs to know of the columns.
        make: Gets a row, what `find` returned and the row's location ("train:7"). Returns a row of ours, which has a
            document, or the reason why it is dropped.

    Raises:
        SummkitError: A split has no rows, or none is left.
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
        """Keep the rows whose value in `column` is `wanted`; test rows are asked about first, training rows last."""
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
        """Keep each text once: where it is in two splits, test keeps it, then validation."""
        seen: set[bytes] = set()

        def is_new(key: bytes) -> bool:
            new = key not in seen
            seen.add(key)
            return new

        self.keep("key", is_new, "duplicate document")

    def deal(self, profile: Profile, seed: int) -> dict[str, Dataset]:
        """Draw as many rows as the profile says; a split that the data set lacks is taken from its training rows.

        One pool is dealt test first, so that asking for more rows to train on moves no test row.

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
    """Return a row's own id as text, or its location if it has none that can be written."""
    return location if given is None or not is_encodable(str(given)) else str(given)


def text_key(row: dict) -> bytes:
    """Return the digest of a row's text; texts that differ only in case and white space have the same."""
    words = " ".join(f"{row['document']}\n{row.get('second', '')}".lower().split())
    return hashlib.blake2b(words.encode(), digest_size=16).digest()
