"""The registered data sets: one YAML file each in `sets/`, checked when it is read.

To add a data set, add a file there, or call `register_dataset` in your own code.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

from summkit.errors import SummkitError, build
from summkit.files import read_mapping
from summkit.registry import Registry

SPLITS = ("train", "validation", "test")
SETS = Path(__file__).parent / "sets"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Schema:
    """The labels of a data set.

    Attributes:
        classes: Names of the classes, in the order of the data set's label numbers.
        words: The label words that a model answers with, in the same order.
    """

    classes: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DataSet:
    """One data set: the location of its rows, their columns, and the licence.

    Attributes:
        name: The name in a profile; for a data set of the Hub, its id ("org/name").
        source: "code" for a file beside the YAML file, "embedded" for files from the package index (see
            `offline/assets.py`), or "hub".
        about: A description of the rows in one sentence.
        licence: The terms of use.
        credit: The line that a report prints below quoted rows.
        files: File names for "code", names of assets for "embedded"; if empty, the asset has the name of the data set.
        reader: The function that turns the files into rows: one of `readers.py`, or your own as "package.module:name".
        configuration: The configuration on the Hub, if the data set has several.
        revision: The commit, tag or branch on the Hub; None for the newest.
        splits: Our names of splits → the Hub's. If empty, the names are the same, and all but train may be missing.
        columns: Our names ("document", "summary", "second", "label") → the data set's. Others are detected.
        wording: The name of the instruction for this data set (see `wordings.yaml`).
        labels: Classes and label words, for classification; None for summarisation.
        several_labels: Whether a row may have more than one label.
    """

    name: str
    source: Literal["code", "embedded", "hub"]
    about: str = ""
    licence: str = ""
    credit: str = ""
    files: tuple[str, ...] = ()
    reader: str = "jsonl"
    configuration: str | None = None
    revision: str | None = None
    splits: dict[Literal["train", "validation", "test"], str] = Field(default_factory=dict)
    columns: dict[Literal["document", "summary", "second", "label"], str] = Field(default_factory=dict)
    wording: str = "news"
    labels: Schema | None = None
    several_labels: bool = False

    @field_validator("labels")
    @classmethod
    def _one_word_a_class(cls, labels: Schema | None) -> Schema | None:
        if labels and not 2 <= len(labels.classes) == len(labels.words):
            raise ValueError("two or more classes are needed, and as many words")
        return labels


DATASETS: Registry[DataSet] = Registry("data set")


def register_dataset(data_set: DataSet | str | Path) -> DataSet:
    """Add a data set, so that `dataset: NAME` finds it in every notebook and configuration of this process.

    Args:
        data_set: The data set, or the path of its YAML file. File names in it are relative to it.

    Raises:
        SummkitError: The file contains an unknown key or a wrong value, or the name already exists.

    Example:
        >>> mine = register_dataset(DataSet(name="org/minutes", source="hub", columns={"document": "transcript"}))
        >>> DATASETS.find("org/minutes").columns
        {'document': 'transcript'}
        >>> del DATASETS["org/minutes"]
    """
    if isinstance(data_set, DataSet):
        return DATASETS.add(data_set.name, data_set)
    path = Path(data_set)
    read = build(DataSet, read_mapping(path, "data set"), f"data set {path.name}:")
    if read.source == "code":
        read = dataclasses.replace(read, files=tuple(str(path.parent / name) for name in read.files))
    return DATASETS.add(read.name, read)


for _path in sorted(SETS.glob("*.yaml")):
    register_dataset(_path)


def find_dataset(name: str) -> DataSet:
    """Return the data set called `name`; an unregistered name is a data set of the Hub.

    Raises:
        SummkitError: A configuration or a revision is named for a data set that is not on the Hub.

    Example:
        >>> mine = find_dataset("org/minutes:german@v2")
        >>> mine.name, mine.configuration, mine.revision
        ('org/minutes', 'german', 'v2')
    """
    rest, _, revision = name.partition("@")
    base, _, configuration = rest.partition(":")
    data_set = DATASETS.get(base) or DataSet(name=base, source="hub")
    if base == name:
        return data_set
    if data_set.source != "hub":
        raise SummkitError(f"data set {name}: {base} is not on the Hub, and has no configurations or revisions")
    chosen = configuration or data_set.configuration
    return dataclasses.replace(data_set, configuration=chosen, revision=revision or None)
