"""Find the rows of a data set by split: in this package, in the package index, on the Hub, or in the user's own files.

`formats` reads the files, and `readers` turns the files of some data sets into rows.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, TypeAlias

from summkit.data.formats import FORMATS, FileRows, file_format
from summkit.data.registry import SPLITS, DataSet
from summkit.errors import SummkitError
from summkit.offline import assets, hub

if TYPE_CHECKING:
    from datasets import Dataset

    Rows: TypeAlias = "Sequence[dict] | FileRows | Dataset"

# Beside the rows of a download, or above them: they describe the set and hold no rows.
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset-metadata.json", "croissant.json")
_SPLIT_NAMES = {"val": "validation", "valid": "validation", "dev": "validation"} | {name: name for name in SPLITS}
_log = logging.getLogger(__name__)


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
    read = resolve_name(data_set.reader if ":" in data_set.reader else f"summkit.data.readers:{data_set.reader}")
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
        files = sorted(
            file for file in found if file.is_file() and file.name not in _ABOUT and file_format(file) in FORMATS
        )
        if files:
            return files
    return []
