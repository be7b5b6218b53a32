"""Floor 2. Any summarisation set → columns `id`, `document`, `summary`, checked row by row, in three splits.

Three sources: embedded rows (from the package index or made for the tests), the Hub, a local folder of JSON lines that
stands in for either. Rows that cannot be used are dropped and counted by reason, with their numbers.
Rows go from the file to disk one by one (`streams.write`): what grows in memory is a digest and a number of each.
"""

import hashlib
import os
import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from summkit.config import Profile
from summkit.data import dialogues, streaming
from summkit.data.checks import is_encodable, reason_unusable
from summkit.errors import SummkitError
from summkit.offline import assets, hub

SPLITS = ("train", "validation", "test")
DOCUMENT_COLUMNS = ("document", "article", "text", "dialogue", "abstract")
SUMMARY_COLUMNS = ("summary", "highlights", "abstract", "tldr", "title")
CONFIGS = {  # of the Hub's sets
    "abisee/cnn_dailymail": "3.0.0", "google-research-datasets/go_emotions": "simplified",
    "ccdv/arxiv-summarization": "document",
}  # fmt: skip
READERS = {"mts-dialog": dialogues.mts_dialog, "aci-bench": dialogues.aci_bench}  # of what is embedded otherwise


@dataclass
class Splits:
    """Three `datasets.Dataset` of id, document, summary; `dropped` maps a reason to the rows it took ("file:row")."""

    train: object
    validation: object
    test: object
    source: str
    dropped: dict[str, list[str]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Rows by split, and rows dropped by reason: what the record keeps."""
        used = {name: len(getattr(self, name)) for name in SPLITS}
        return used | {"dropped": {reason: len(rows) for reason, rows in self.dropped.items()}}


def load_summaries(profile: Profile, seed: int = 0, data_dir: str | Path | None = None) -> Splits:
    """The profile's data set, cut to its word limits and row counts, with no document in two splits.

    `data_dir`, or the environment variable SUMMKIT_DATA_DIR, lets a folder stand in for the profile's own set: with
    files train/validation/test.jsonl (or .jsonl.gz), or one file that is split here.
    Raises SummkitError where a column is missing or too few rows are left.
    """
    data_dir = data_dir or os.environ.get("SUMMKIT_DATA_DIR")
    raw, source = (read_folder(Path(data_dir)), "local") if data_dir else _read_known(profile.dataset)
    dropped: dict[str, list[str]] = {}
    made = partial(_pair, profile=profile)
    checked = {name: clean(rows, name, _columns, made, dropped) for name, rows in raw.items()}
    drop_duplicates(checked, dropped)
    return Splits(**deal(checked, profile, seed), source=source, dropped=dropped)


def read_jsonl(path: Path) -> list[dict]:
    """The rows of a file that memory holds. Raises SummkitError as `streams.json_rows` does."""
    return list(streaming.json_rows(path))


def _read_known(name: str) -> tuple[dict[str, list[dict]], str]:
    if name == "examples":
        return {"all": streaming.JsonLines(Path(__file__).parent / "sets" / "examples.jsonl")}, "code"
    if name in assets.ASSETS:
        return {"all": READERS.get(name, streaming.JsonLines)(assets.fetch(name))}, "embedded"
    return read_hub(name), "hub"


def read_hub(name: str, splits: dict[str, str] | None = None) -> dict[str, list[dict]]:
    """The rows of a set of the Hub; `splits` maps our names of splits to the set's own.

    Without `splits` they are called alike, and all but train may be missing.
    Raises SummkitError where the Hub, the set or one of the splits is not there.
    """
    import datasets

    hub.require_hub(f"data set {name}")
    try:
        loaded = datasets.load_dataset(name, CONFIGS.get(name))
    except (OSError, ValueError, RuntimeError) as error:
        raise SummkitError(f"data set {name} could not be read from the Hub: {error}") from None
    splits = splits or {split: split for split in SPLITS if split in loaded or split == "train"}
    missing = [split for split in splits.values() if split not in loaded]
    if missing:
        raise SummkitError(f"data set {name} has no split {missing[0]!r}; it has: {', '.join(loaded)}")
    return {split: loaded[theirs] for split, theirs in splits.items()}


def read_folder(folder: Path) -> dict[str, streaming.JsonLines]:
    """Rows of a folder's train/validation/test.jsonl (or .jsonl.gz) by split, or of its one file, as {"all": rows}."""
    if not folder.is_dir():
        raise SummkitError(f"data folder {folder}: no such folder")
    paths = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    files = {path.name.split(".")[0]: path for path in paths}
    if set(SPLITS) <= set(files):
        return {split: streaming.JsonLines(files[split]) for split in SPLITS}
    if len(paths) == 1:
        return {"all": streaming.JsonLines(paths[0])}
    found = ", ".join(path.name for path in paths) or "none"
    raise SummkitError(
        f"data folder {folder}: train.jsonl, validation.jsonl and test.jsonl are needed, or one file to be split; "
        f"JSON lines files found: {found}"
    )


def _columns(names, split: str) -> tuple[str, str]:
    document = next((name for name in DOCUMENT_COLUMNS if name in names), None)
    summary = next((name for name in SUMMARY_COLUMNS if name in names and name != document), None)
    for kind, found, known in (("document", document, DOCUMENT_COLUMNS), ("summary", summary, SUMMARY_COLUMNS)):
        if found is None:
            there = ", ".join(names) or "none"
            raise SummkitError(f"{split}: no column for the {kind}; there are: {there}; known: {', '.join(known)}")
    return document, summary


def clean(rows, split: str, find: Callable, make: Callable, dropped: dict):
    """The good rows of a split as a `datasets.Dataset` on disk, with columns where ("train:7") and key beside theirs.

    `find(names, split)` says which columns count, `make(row, columns, where)` gives a row of ours, or the reason in
    words why it is dropped. Raises SummkitError where there are no rows, or none is left.
    """
    if not len(rows):
        raise SummkitError(f"{split}: no rows")
    columns = find(getattr(rows, "column_names", None) or dict.fromkeys(name for row in rows for name in row), split)

    def good():
        for number, row in enumerate(rows, 1):
            where = f"{split}:{number}"
            made = make(row, columns, where)
            if isinstance(made, str):
                dropped.setdefault(made, []).append(where)
            else:
                yield made | {"where": where, "key": text_key(made)}

    kept = streaming.write_rows(good())
    if not len(kept):
        reasons = ", ".join(f"{reason} ({len(taken)})" for reason, taken in dropped.items())
        raise SummkitError(f"{split}: nothing is left of {len(rows)} rows; dropped: {reasons}")
    return kept


def _pair(row: dict, columns: tuple[str, str], where: str, profile: Profile) -> dict | str:
    document, summary = (row.get(column) for column in columns)
    if reason := reason_unusable(document) or reason_unusable(summary) or _length_reason(document, profile):
        return reason
    # An abstract is one paragraph; arXiv's are broken into lines of 80 letters.
    text = " ".join(document.split()) if columns[0] == "abstract" else document.strip()
    return {"id": row_id(row.get("id"), where), "document": text, "summary": " ".join(summary.split())}


def row_id(given, where: str) -> str:
    """A row's own id as text, or where it stands, if it has none that can be written."""
    return where if given is None or not is_encodable(str(given)) else str(given)


def _length_reason(document: str, profile: Profile) -> str | None:
    words = len(document.split())
    if words < profile.min_words:
        return f"under {profile.min_words} words"
    return f"over {profile.max_words} words" if profile.max_words and words > profile.max_words else None


def text_key(row: dict) -> bytes:
    """The same for texts that differ in case and space alone. The Hub's XSum is half a gigabyte of text: a digest."""
    words = " ".join(f"{row['document']}\n{row.get('second', '')}".lower().split())
    return hashlib.blake2b(words.encode(), digest_size=16).digest()


def drop_duplicates(checked: dict, dropped: dict) -> None:
    """A document counts once, and where it is in two splits, test keeps it, then validation."""
    seen: set[bytes] = set()

    def first(key: bytes) -> bool:
        known = len(seen)
        seen.add(key)
        return len(seen) > known

    for split in reversed(list(checked)):
        checked[split] = keep(checked[split], "key", first, "duplicate document", dropped)


def keep(rows, column: str, wanted: Callable, reason: str, dropped: dict):
    """Those of the `clean` rows whose `column` is `wanted`; where the others stand goes to `dropped`."""
    kept = array("Q")
    for number, (value, where) in enumerate(streaming.column_values(rows, column, "where")):
        if wanted(value):
            kept.append(number)
        else:
            dropped.setdefault(reason, []).append(where)
    return rows if len(kept) == len(rows) else rows.select(kept)


def deal(checked: dict, profile: Profile, seed: int) -> dict:
    """Rows by split, as many as the profile says, drawn with `seed`; a split that the set lacks is taken from train.

    One pool is dealt test first, so that asking for more rows to train on moves no test row.
    """
    wanted = {"test": profile.test_rows, "validation": profile.validation_rows, "train": profile.train_rows}
    pools = {name: array("Q", random.Random(seed).sample(range(len(r)), len(r))) for name, r in checked.items()}
    dealt = {}
    for split, number in wanted.items():
        name = "all" if "all" in pools else split if split in pools else "train"
        taken, pools[name] = pools[name][:number], pools[name][number:] if number else array("Q")
        if not taken or (split != "train" and len(taken) < number):
            raise SummkitError(
                f"{split}: {number or 1} rows wanted, {len(taken)} left after the checks; "
                f"ask for fewer ({split}_rows), or widen min_words and max_words"
            )
        dealt[split] = checked[name].select(taken).remove_columns(["where", "key"])
    return dealt
