"""Read raw rows by split from this package, the package index, the Hub or a local folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, TypeAlias

from summkit.data.registry import SPLITS, DataSet
from summkit.data.streaming import JsonLines
from summkit.errors import SummkitError
from summkit.offline import assets, hub

if TYPE_CHECKING:
    from datasets import Dataset

    Rows: TypeAlias = Sequence[dict] | JsonLines | Dataset


def own_data(data: str | Path | None) -> Path | None:
    """Return the absolute path of the file or folder with the user's rows: `data`, or SUMMKIT_DATA_DIR, or None.

    Raises:
        SummkitError: There is no such file or folder.
    """
    name = data or os.environ.get("SUMMKIT_DATA_DIR")
    if not name:
        return None
    path = Path(name).expanduser().absolute()
    if not path.exists():
        raise SummkitError(f"data {name}: no such file or folder")
    return path


def read_rows(data_set: DataSet, folder: Path | None = None) -> tuple[dict[str, Rows], str]:
    """Return the raw rows of a data set by split, or as {"all": rows}, and their source.

    Args:
        data_set: The data set.
        folder: The folder that replaces it, if any.

    Returns:
        The rows, and "code", "embedded", "hub" or "local".

    Raises:
        SummkitError: The rows cannot be fetched or read.
    """
    if folder:
        return read_folder(folder), "local"
    if data_set.source == "hub":
        return read_hub(data_set), "hub"
    locate = assets.fetch if data_set.source == "embedded" else Path
    paths = [locate(name) for name in data_set.files or (data_set.name,)]
    read = resolve_name(data_set.reader if ":" in data_set.reader else f"summkit.data.readers:{data_set.reader}")
    return {"all": read(*paths)}, data_set.source


def read_hub(data_set: DataSet) -> dict[str, Rows]:
    """Return the rows of a data set on the Hub, with our names of the splits.

    Raises:
        SummkitError: The Hub cannot be reached, or lacks the data set or one of the splits.
    """
    import datasets

    name = data_set.name
    hub.require_hub(f"data set {name}")
    try:
        loaded = datasets.load_dataset(name, data_set.configuration)
    except (OSError, ValueError, RuntimeError) as error:
        raise SummkitError(f"data set {name} could not be read from the Hub: {error}") from None
    splits: dict = data_set.splits or {split: split for split in SPLITS if split in loaded or split == "train"}
    for split in splits.values():
        if split not in loaded:
            raise SummkitError(f"data set {name} has no split {split!r}; it has: {', '.join(loaded)}")
    return {split: loaded[theirs] for split, theirs in splits.items()}


def read_folder(folder: Path) -> dict[str, Rows]:
    """Return the rows of train, validation and test.jsonl (or .jsonl.gz) by split, or of one file as {"all": rows}.

    Raises:
        SummkitError: The folder does not exist, contains other files, or a file is broken.
    """
    paths = [folder] if folder.is_file() else sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    files = {path.name.split(".")[0]: path for path in paths}
    if set(SPLITS) <= set(files):
        return {split: JsonLines(files[split]) for split in SPLITS}
    if len(paths) == 1:
        return {"all": JsonLines(paths[0])}
    names = ", ".join(path.name for path in paths) or "none"
    raise SummkitError(
        f"data folder {folder}: train.jsonl, validation.jsonl and test.jsonl are needed, or one file to be split; "
        f"JSON lines files found: {names}"
    )
