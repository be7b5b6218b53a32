"""Read raw rows by split from this package, the package index, the Hub, or the user's own files.

Rows of a file are read one by one, so that a large file need not fit into memory. This is own code because the loader
of `datasets` does not name the broken line of a JSON file, and takes a second for any small one.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import itertools
import json
import logging
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeAlias

from summkit.data.checks import chat_turns
from summkit.data.registry import SPLITS, DataSet
from summkit.errors import SummkitError
from summkit.offline import assets, hub

if TYPE_CHECKING:
    from datasets import Dataset

    Rows: TypeAlias = "Sequence[dict] | FileRows | Dataset"

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
# Beside the rows of a download, or above them: they describe the set and hold no rows.
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset-metadata.json", "croissant.json")
_SPLIT_NAMES = {"val": "validation", "valid": "validation", "dev": "validation"} | {name: name for name in SPLITS}
_DECODER = json.JSONDecoder()
# The first bytes of other kinds of files → what they are.
_NO_TEXT = {
    b"PK\3\4": "a spreadsheet or a zip archive: save it as CSV UTF-8, or unpack it",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with `git lfs pull`",
}
_log = logging.getLogger(__name__)


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
    form = _format(path)
    if form == ".parquet":
        return _parquet_rows(path)
    return _table_rows(path) if form in (".csv", ".tsv") else _json_rows(path)


def _format(path: Path) -> str:
    return "" if path.name in _ABOUT else Path(path.name.lower().removesuffix(".gz")).suffix


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
    if _format(path) == ".json" and len(head) == 1 and isinstance(head[0], dict):
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


def own_data(data: str | Path | None) -> Path | None:
    """Return the absolute path of the file or folder with the user's rows: `data`, or SUMMKIT_DATA_DIR, or None.

    Raises:
        SummkitError: There is no such file or folder.
    """
    name = data or os.environ.get("SUMMKIT_DATA_DIR")
    if not name:
        return None
    path = Path(str(name)).expanduser().absolute()
    if not path.exists():
        given = "data" if data else "SUMMKIT_DATA_DIR"
        raise SummkitError(f"{given} {name}: no such file or folder (a set of the Hub is named by the option dataset)")
    return path


def read_rows(data_set: DataSet, own: Path | None = None) -> tuple[Mapping[str, Rows], str]:
    """Return the raw rows of a data set by split, or as {"all": rows}, and their source.

    Args:
        data_set: The data set.
        own: The file or folder that replaces it, if any.

    Returns:
        The rows, and "code", "embedded", "hub" or "local".

    Raises:
        SummkitError: The rows cannot be fetched or read.
    """
    if own:
        return read_own(own), "local"
    if data_set.source == "hub":
        return read_hub(data_set), "hub"
    locate = assets.fetch if data_set.source == "embedded" else Path
    paths = [locate(name) for name in data_set.files or (data_set.name,)]
    read = resolve_name(data_set.reader if ":" in data_set.reader else f"{__name__}:{data_set.reader}")
    return {"all": read(*paths)}, data_set.source


def read_hub(data_set: DataSet) -> Mapping[str, Rows]:
    """Return the rows of a data set on the Hub, with our names of the splits.

    Raises:
        SummkitError: The Hub cannot be reached, or the data set cannot be read or lacks one of the splits.
    """
    import datasets

    name = data_set.name
    if Path(name).exists():
        raise SummkitError(f"data set {name} is a path on this machine: name it by the option data")
    hub.require_hub(f"data set {name}")
    options = {"revision": data_set.revision} if data_set.revision else {}
    try:
        loaded = datasets.load_dataset(name, data_set.configuration, **options)
    except Exception as error:  # of many types, since files of any kind are read
        reason = " ".join(str(error.__cause__ or error).split())[:400]
        advice = f"; name one as {name}:CONFIGURATION" if "onfig" in reason else hub.offline_advice()
        raise SummkitError(f"data set {name} could not be read from the Hub: {reason}{advice}") from None
    if not data_set.splits:
        return _by_split(loaded, f"data set {name}")
    for split in data_set.splits.values():
        if split not in loaded:
            raise SummkitError(f"data set {name} has no split {split!r}; it has: {', '.join(loaded)}")
    return {split: loaded[theirs] for split, theirs in data_set.splits.items()}


def _by_split(loaded: Mapping[str, Rows], location: str) -> Mapping[str, Rows]:
    """Return {our name of a split: rows}; a single split of any name is {"all": rows}, which is split later."""
    found: dict[str, Rows] = {}
    for name, rows in loaded.items():
        split = _SPLIT_NAMES.get(name)
        if split in found:
            raise SummkitError(f"{location}: one split for {split} is needed; there are: {', '.join(loaded)}")
        if split:
            found[split] = rows
        elif len(loaded) > 1:
            _log.warning("%s: the split %r is not used", location, name)
    if len(loaded) == 1 and "train" not in found:
        return {"all": next(iter(loaded.values()))}
    if "train" not in found:
        raise SummkitError(f"{location} has no split 'train'; it has: {', '.join(loaded)}")
    for split in set(SPLITS) - set(found):
        _log.warning("%s has no split %r: its rows are taken from the training rows", location, split)
    return {split: found[split] for split in SPLITS if split in found}


def read_own(path: Path) -> Mapping[str, Rows]:
    """Return the rows of a file, or of a folder with a file for each split, or that `datasets` saved.

    A file belongs to the split in its name ("train", "val", "validation", "dev", "test"); a split in numbered parts
    ("train-00000-of-00002.parquet") is read as one. A single file is {"all": rows}, which is split later.

    Raises:
        SummkitError: There is no file to read, it is unclear which file is which split, or a file is broken.
    """
    if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        import datasets

        try:
            saved = datasets.load_from_disk(str(path))
        except Exception as error:  # of json, pyarrow or datasets, by what is broken
            raise SummkitError(
                f"data {path}: written by save_to_disk, but a part is missing or broken, so save it again "
                f"({type(error).__name__}: {error})"
            ) from None
        return _by_split(saved if isinstance(saved, dict) else {"all": saved}, f"data {path}")
    groups: dict[str, list[Path]] = {}
    for file in _data_files(path):
        words = re.split(r"[^a-z]+", f"{file.parent.name if file.parent != path else ''} {file.name}".lower())
        split = next((_SPLIT_NAMES[word] for word in words if word in _SPLIT_NAMES), "all")
        groups.setdefault("all" if path.is_file() else split, []).append(file)
    if "train" in groups and "all" in groups:
        _log.warning("data %s: %s: in no split, and not used", path, ", ".join(f.name for f in groups.pop("all")))
    for split, parts in groups.items():
        total = re.search(r"\d-of-0*(\d+)", parts[0].name)
        if total and len(parts) < int(total[1]):
            _log.warning("data %s: %d of %s parts of %s are here", path, len(parts), total[1], split)
        if len(parts) > 1 and not _is_one_split(parts):
            wanted = "one file" if split == "all" else f"one file for {split}"
            found = ", ".join(part.name for part in parts)
            raise SummkitError(f"data {path}: {wanted} is needed, or train, validation and test; found: {found}")
    if not groups:
        formats = f"{', '.join(FORMATS)}; all but Parquet also as .gz; save a spreadsheet as CSV UTF-8"
        raise SummkitError(f"data {path}: no file of rows is here; the formats are {formats}")
    return _by_split({split: FileRows(*parts) for split, parts in groups.items()}, f"data {path}")


def _is_one_split(parts: Sequence[Path]) -> bool:
    """Whether files are the numbered parts of one split in one folder, each there once."""
    counted = [re.search(r"^(.*?)(\d+)-of-(\d+)", part.name) for part in parts]
    numbers = [int(match[2]) for match in counted if match]
    names = {(part.parent, match[1], match[3]) for part, match in zip(parts, counted, strict=True) if match}
    return len(names) == 1 and numbers == list(range(numbers[0], numbers[0] + len(parts)))


def _data_files(path: Path) -> list[Path]:
    """Return the file itself, the data files of a folder, or those of its subfolders; hidden files do not count."""
    for found in ([path], path.glob("[!._]*"), path.glob("[!._]*/[!._]*")):
        files = sorted(file for file in found if file.is_file() and _format(file) in FORMATS)
        if files:
            return files
    return []


jsonl = FileRows  # the reader of a data set that is JSON lines


def mts_dialog(path: Path) -> list[dict]:
    """Read MTS-Dialog's CSV as rows {"id", "document", "summary"}: part of a visit and a section of the note."""
    return [_conversation(row["ID"], row["dialogue"], row["section_text"]) for row in _table_rows(path)]


def aci_bench(path: Path) -> list[dict]:
    """Read ACI-Bench's JSON as rows {"id", "document", "summary"}: a whole visit and its whole note."""
    return [_conversation(visit["file"], visit["src"], visit["tgt"]) for visit in _json_rows(path)]


def _conversation(name: str, dialogue: str, note: str) -> dict:
    """Put one turn on each line, and normalise white space."""
    turns = (" ".join(line.split()) for line in dialogue.splitlines())
    return {"id": name, "document": "\n".join(filter(None, turns)), "summary": note.strip()}


def bbc_topics(path: Path) -> list[dict]:
    """Read articles whose topic is the folder in their name, as in "business/001"."""
    return [{"id": row["name"], "label": row["name"].split("/")[0], **row} for row in _json_rows(path)]


def rte_and_cb(rte: Path, cb: Path) -> list[dict]:
    """Read RTE and CommitmentBank as one set of two classes: neutral and contradiction become "not entailment"."""
    import datasets

    columns = {"sentence1": "premise", "sentence2": "hypothesis"}
    read = datasets.Dataset.from_file
    tables = {"rte": read(str(rte)).rename_columns(columns), "cb": read(str(cb))}
    return [
        row | {"id": f"{name}-{row['idx']}", "label": int(row["label"] > 0)}
        for name, table in tables.items()
        for row in table
    ]
