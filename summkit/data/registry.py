"""The data sets that summkit knows by name: one YAML file each in `sets/`, checked when it is read.

A new data set is a new file there, or a call of `register_dataset` from your own code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

from summkit.errors import build
from summkit.files import read_mapping
from summkit.registry import Registry

SPLITS = ("train", "validation", "test")
SETS = Path(__file__).parent / "sets"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Schema:
    """The labels of a data set.

    Attributes:
        classes: Names of the classes, in the order of the data set's label numbers.
        words: The words that a model answers with, in the same order.
    """

    classes: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DataSet:
    """One data set: where its rows are, what they hold, and on what terms.

    Attributes:
        name: What a profile calls it; a set of the Hub has its id there ("org/name").
        source: "code" for a file beside the YAML file, "embedded" for files out of the package index (see
            `offline/assets.py`), or "hub".
        about: What the rows are, in a sentence.
        licence: On what terms they may be used.
        credit: The line that a report prints below quoted rows.
        files: For "code" file names, for "embedded" names of assets; without any, the asset is called as the set.
        reader: The function that turns the files into rows: one of `readers.py`, or your own as "package.module:name".
        configuration: The Hub's name of the part that is wanted, where a set has several.
        splits: Our names of splits → the Hub's. Without it they are called alike, and all but train may be missing.
        columns: Our names ("document", "summary", "second", "label") → the set's. Without it they are searched for.
        wording: The name of the instruction that fits (see `wordings.yaml`).
        labels: Classes and label words; a set that has them is for classification, any other for summarisation.
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

    def column_names(self, column: str, known: Sequence[str]) -> Sequence[str]:
        """Return what a column may be called: the name that the set states, or else the `known` ones."""
        return (self.columns[column],) if column in self.columns else known


DATASETS: Registry[DataSet] = Registry("data set")


def register_dataset(data_set: DataSet | str | Path) -> DataSet:
    """Add a data set, so that `dataset: NAME` finds it in every notebook and configuration of this process.

    Args:
        data_set: The data set, or the path of its YAML file, which may name files that are beside it.

    Raises:
        SummkitError: The file holds an unknown key or a wrong value, or the name is taken.

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
    """Return the data set called `name`; a name that is not registered is taken for a data set of the Hub."""
    return DATASETS.get(name) or DataSet(name=name, source="hub")
