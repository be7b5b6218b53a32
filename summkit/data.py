"""Floor 2. Any summarisation set → columns `id`, `document`, `summary`, checked row by row, in three splits.

Three sources: embedded rows (from the package index or made for the tests), the Hub, a local folder of JSON lines that
stands in for either. Rows that cannot be used are dropped and counted by reason, with their numbers.
"""

import gzip
import hashlib
import json
import os
import random
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from summkit import assets, dialogues, hub
from summkit.errors import SummkitError
from summkit.profiles import Profile

SPLITS = ("train", "validation", "test")
DOCUMENT_COLUMNS = ("document", "article", "text", "dialogue", "abstract")
SUMMARY_COLUMNS = ("summary", "highlights", "abstract", "tldr", "title")
CONFIGS = {  # of the Hub's sets
    "abisee/cnn_dailymail": "3.0.0", "google-research-datasets/go_emotions": "simplified",
    "ccdv/arxiv-summarization": "document",
}  # fmt: skip
READERS = {"mts-dialog": dialogues.mts_dialog, "aci-bench": dialogues.aci_bench}  # of what is embedded otherwise
MAX_CHARACTERS = 1_000_000  # a longer "document" is a broken file, not an article
MAX_BOOK = 20_000_000  # characters of a text that is read in pieces: four Bibles


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


def for_profile(profile: Profile, seed: int = 0, data_dir: str | Path | None = None) -> Splits:
    """The profile's data set, cut to its word limits and row counts, with no document in two splits.

    `data_dir`, or the environment variable SUMMKIT_DATA_DIR, lets a folder stand in for the profile's own set: with
    files train/validation/test.jsonl (or .jsonl.gz), or one file that is split here.
    Raises SummkitError where a column is missing or too few rows are left.
    """
    data_dir = data_dir or os.environ.get("SUMMKIT_DATA_DIR")
    raw, source = (read_folder(Path(data_dir)), "local") if data_dir else _read_known(profile.dataset)
    dropped: dict[str, list[str]] = {}
    clean = {name: _clean(rows, name, profile, dropped) for name, rows in raw.items()}
    drop_duplicates(clean, dropped)
    return Splits(**to_datasets(deal(clean, profile, seed)), source=source, dropped=dropped)


def usable(document, summary, most: int = MAX_CHARACTERS) -> str | None:
    """The reason why a pair cannot be used, or None for a good one."""
    for text in (document, summary):
        if not isinstance(text, str):
            return "not text"
        if not text.strip():
            return "empty"
        if len(text) > most:
            return f"over {most:,} characters"
        if "\0" in text or not _encodable(text):
            return "NUL or half a character"
    return None


def _encodable(text: str) -> bool:
    return not re.search("[\ud800-\udfff]", text)  # a lone surrogate: JSON can hold one, no tokenizer takes it


def read_jsonl(path: Path) -> list[dict]:
    """Rows of a .jsonl or .jsonl.gz file. Raises SummkitError with the file and line of what is not a JSON object."""
    opener = gzip.open if path.suffix == ".gz" else open
    rows = []
    try:
        with opener(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    rows.append(json.loads(line))
                    if not isinstance(rows[-1], dict):
                        raise SummkitError(f"{path.name}, line {number}: a JSON object is needed, document and summary")
    except (ValueError, RecursionError, EOFError, OSError, zlib.error) as error:
        raise SummkitError(
            f"{path.name}, after {len(rows)} rows: cannot be read as JSON lines in UTF-8 ({error})"
        ) from None
    return rows


def _read_known(name: str) -> tuple[dict[str, list[dict]], str]:
    if name == "examples":
        return {"all": read_jsonl(Path(__file__).with_name("examples.jsonl"))}, "code"
    if name in assets.ASSETS:
        return {"all": READERS.get(name, read_jsonl)(assets.fetch(name))}, "embedded"
    return read_hub(name), "hub"


def read_hub(name: str, splits: dict[str, str] | None = None) -> dict[str, list[dict]]:
    """The rows of a set of the Hub; `splits` maps our names of splits to the set's own.

    Without `splits` they are called alike, and all but train may be missing.
    Raises SummkitError where the Hub, the set or one of the splits is not there.
    """
    import datasets

    hub.require(f"data set {name}")
    try:
        loaded = datasets.load_dataset(name, CONFIGS.get(name))
    except (OSError, ValueError, RuntimeError) as error:
        raise SummkitError(f"data set {name} could not be read from the Hub: {error}") from None
    splits = splits or {split: split for split in SPLITS if split in loaded or split == "train"}
    missing = [split for split in splits.values() if split not in loaded]
    if missing:
        raise SummkitError(f"data set {name} has no split {missing[0]!r}; it has: {', '.join(loaded)}")
    return {split: loaded[theirs] for split, theirs in splits.items()}


def read_folder(folder: Path) -> dict[str, list[dict]]:
    """Rows of a folder's train/validation/test.jsonl (or .jsonl.gz) by split, or of its one file, as {"all": rows}."""
    if not folder.is_dir():
        raise SummkitError(f"data folder {folder}: no such folder")
    paths = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    files = {path.name.split(".")[0]: path for path in paths}
    if set(SPLITS) <= set(files):
        return {split: read_jsonl(files[split]) for split in SPLITS}
    if len(paths) == 1:
        return {"all": read_jsonl(paths[0])}
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


def _clean(rows, split: str, profile: Profile, dropped: dict) -> list[dict]:
    if not len(rows):
        raise SummkitError(f"{split}: no rows")
    names = getattr(rows, "column_names", None) or dict.fromkeys(name for row in rows for name in row)
    columns, kept = _columns(names, split), []
    for number, row in enumerate(rows, 1):
        document, summary = (row.get(column) for column in columns)
        where = f"{split}:{number}"
        reason = usable(document, summary) or _length_reason(document, profile)
        if reason:
            dropped.setdefault(reason, []).append(where)
        else:
            # An abstract is one paragraph; arXiv's are broken into lines of 80 letters.
            text = " ".join(document.split()) if columns[0] == "abstract" else document.strip()
            texts = {"document": text, "summary": " ".join(summary.split())}
            kept.append({"id": row_id(row.get("id"), where), **texts, "where": where})
    if not kept:
        reasons = ", ".join(f"{reason} ({len(taken)})" for reason, taken in dropped.items())
        raise SummkitError(f"{split}: nothing is left of {len(rows)} rows; dropped: {reasons}")
    return kept


def row_id(given, where: str) -> str:
    """A row's own id as text, or where it stands, if it has none that can be written."""
    return where if given is None or not _encodable(str(given)) else str(given)


def _length_reason(document: str, profile: Profile) -> str | None:
    words = len(document.split())
    if words < profile.min_words:
        return f"under {profile.min_words} words"
    return f"over {profile.max_words} words" if profile.max_words and words > profile.max_words else None


def text_key(row: dict) -> bytes:
    """The same for texts that differ in case and space alone. The Hub's XSum is half a gigabyte of text: a digest."""
    words = " ".join(f"{row['document']}\n{row.get('second', '')}".lower().split())
    return hashlib.blake2b(words.encode(), digest_size=16).digest()


def drop_duplicates(clean: dict[str, list[dict]], dropped: dict) -> None:
    """A document counts once, and where it is in two splits, test keeps it, then validation."""
    seen = set()
    for split in reversed(list(clean)):
        kept = []
        for row in clean[split]:
            key = text_key(row)
            if key in seen:
                dropped.setdefault("duplicate document", []).append(row["where"])
            else:
                seen.add(key)
                kept.append(row)
        clean[split] = kept


def deal(clean: dict[str, list[dict]], profile: Profile, seed: int) -> dict[str, list[dict]]:
    """Rows by split, as many as the profile says, drawn with `seed`; a split that the set lacks is taken from train.

    One pool is dealt test first, so that asking for more rows to train on moves no test row.
    """
    wanted = {"test": profile.test_rows, "validation": profile.validation_rows, "train": profile.train_rows}
    dealt, pools = {}, {name: random.Random(seed).sample(rows, len(rows)) for name, rows in clean.items()}
    for split, number in wanted.items():
        pool = pools["all"] if "all" in pools else pools.get(split, pools["train"])
        dealt[split], pool[:] = pool[:number], pool[number:] if number else []
        if not dealt[split] or (split != "train" and len(dealt[split]) < number):
            raise SummkitError(
                f"{split}: {number or 1} rows wanted, {len(dealt[split])} left after the checks; "
                f"ask for fewer ({split}_rows), or widen min_words and max_words"
            )
    return dealt


def to_datasets(rows: dict[str, list[dict]]) -> dict:
    """{split: datasets.Dataset} with the rows' columns, but for where they come from."""
    import datasets

    def made(kept):
        return datasets.Dataset.from_dict({key: [row[key] for row in kept] for key in kept[0] if key != "where"})

    return {split: made(rows[split]) for split in SPLITS}


def excerpt(text: str, words: int = 25) -> str:
    """The first words of a text, with an ellipsis where there are more: a quotation, not a copy."""
    parts = text.split()
    return " ".join(parts[:words]) + (" […]" if len(parts) > words else "")
