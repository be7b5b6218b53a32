"""Load a classification data set as columns `id`, `document`, `second`, `labels`, checked, in three splits.

Rows have one label, several labels, or one label for a pair of texts. In each case the model answers with a label word.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from summkit.data import checks, templates
from summkit.data.formats import text_lines
from summkit.data.registry import DATASETS, DataSet, Schema, find_dataset
from summkit.data.sources import own_data, read_rows
from summkit.data.splits import CheckedRows, Splits, column_values, row_id, writing_rows
from summkit.errors import SummkitError, check_known

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from summkit.config import Profile
    from summkit.data.sources import Rows

# Task with labels → the data set that provides the wording, and the labels of a local folder without a classes.txt.
LABEL_TASKS = {
    "agnews": "fancyzhx/ag_news",
    "goemotions": "google-research-datasets/go_emotions",
    "mnli": "nyu-mll/multi_nli",
}

MOST_CLASSES = 100  # more labels than this are taken for the wrong column
_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class LabelledSplits(Splits):
    """Three splits with columns id, document, second ("" where there is none) and labels, a list of class numbers."""

    schema: Schema


def load_labels(profile: Profile, seed: int = 0, data: str | Path | None = None) -> LabelledSplits:
    """Load the data set of the profile's task, with every row checked and no text in two splits.

    These rows are dropped and counted by reason: unusable texts, rows without a label, duplicates, every copy of a text
    that has different labels, and the only row of a class.

    Args:
        profile: Sets the task, the data set and the number of rows.
        seed: Seed for drawing the rows, and for splitting a data set without splits.
        data: Your own rows in place of the data set, as in `load_summaries`. Their labels are the numbers or names of
            classes: those of classes.txt beside the rows, one name per line; or else of the task's data set, if any
            label is one of them; or else all labels that there are.

    Returns:
        The three splits and their schema.

    Raises:
        SummkitError: A column is missing, a label is outside the schema, or too few rows are left.

    Example:
        >>> from summkit.config import choose_profile
        >>> splits = load_labels(choose_profile("smoke", task="agnews"))
        >>> splits.schema.words
        ('world', 'sports', 'business', 'technology')
    """
    own = own_data(data)
    data_set = _data_set(profile, own)
    raw, source = read_rows(data_set, own)
    usual = {"document": checks.TEXT_COLUMNS, "label": checks.LABEL_COLUMNS}
    if templates.get_wording(data_set.wording).second:
        usual["second"] = checks.SECOND_COLUMNS
    columns = checks.columns_of(profile, {} if own else data_set.columns, raw, usual)
    several = data_set.several_labels
    task = DATASETS[LABEL_TASKS[profile.task]].labels or Schema((), ())
    schema = data_set.labels or _schema_of(raw, columns, task, several)
    rows = CheckedRows(raw, columns, partial(_row, schema=schema, several=several))
    _drop_conflicts(rows)
    rows.drop_duplicates()
    if not several:
        _drop_lone_classes(rows)
    return LabelledSplits(**rows.deal(profile, seed), source=source, dropped=rows.dropped, schema=schema)


def label_template(profile: Profile, tokenizer: Tokenizer, schema: Schema) -> templates.Template:
    """Build the template of the profile's task; "{words}" in its instruction becomes the label words."""
    wording = templates.get_wording(_reference(profile).wording, profile.instruction)
    words = ", ".join(schema.words[:-1]) + f" or {schema.words[-1]}"
    named = replace(wording, instruction=wording.instruction.replace("{words}", words))
    return templates.build_template(profile.template, tokenizer, named)


def labels_as_text(rows: Dataset, schema: Schema) -> Dataset:
    """Make rows for `encode_rows` with the label word as the summary; a row with several labels is repeated for each.

    So the order of a row's labels has no effect, and its label words share the probability.
    """
    words = {"words": schema.words}
    with writing_rows():
        return rows.map(_worded, batched=True, fn_kwargs=words, remove_columns=rows.column_names, desc="labels")


def _worded(batch: dict, words: tuple[str, ...]) -> dict:
    pairs = [(number, label) for number, labels in enumerate(batch["labels"]) for label in labels]
    columns = {key: [batch[key][number] for number, _ in pairs] for key in ("document", "second")}
    return columns | {"summary": [words[label] for _, label in pairs]}


def _reference(profile: Profile) -> DataSet:
    """Return the profile's data set if it is registered with labels, or else the one of its task."""
    check_known("task with labels", profile.task, LABEL_TASKS)
    data_set = DATASETS.get(profile.dataset)
    return data_set if data_set and data_set.labels else DATASETS[LABEL_TASKS[profile.task]]


def _data_set(profile: Profile, own: Path | None) -> DataSet:
    reference = _reference(profile)
    if own:
        return replace(reference, labels=_own_schema(own if own.is_dir() else own.parent))
    data_set = find_dataset(profile.dataset)
    if profile.dataset in DATASETS:
        check_known("data set with labels", profile.dataset, [name for name, one in DATASETS.items() if one.labels])
    return replace(data_set, wording=reference.wording, several_labels=reference.several_labels)


def _own_schema(folder: Path) -> Schema | None:
    """Read a folder's classes.txt, one name per line. The names in lower case are the label words."""
    path = folder / "classes.txt"
    return _schema(filter(None, map(str.strip, text_lines(path))), path.name) if path.is_file() else None


def _schema(names: Iterable[str], location: str) -> Schema:
    classes = tuple(names)
    words = tuple(name.lower() for name in classes)
    if not 2 <= len(classes) == len(set(words)):
        raise SummkitError(f"{location}: two or more different class names are needed, one a line; found {classes}")
    return Schema(classes, words)


def _schema_of(raw: Mapping[str, Rows], columns: Mapping[str, dict], task: Schema, several: bool) -> Schema:
    """Return the schema of rows without one: of the Hub's feature, of the task's data set, or of the labels themselves.

    The task's is taken if any of the labels is one of its classes, so that a wrong label in the rows is an error.
    """
    names: Counter[str] = Counter()
    for split, rows in raw.items():
        column = columns[split]["label"] if len(rows) else ""
        feature = getattr(rows, "features", {}).get(column)
        if named := getattr(getattr(feature, "feature", feature), "names", None):
            return _schema(named, split)
        for row in rows:
            names.update(map(_label_name, _labels(row.get(column), several)))
            if len(names) > MOST_CLASSES:
                raise SummkitError(f"{split}: too many labels in {column!r}; name another column with label_column")
    values = {name.lower(): name for name in names}
    are_numbers = all(name.isdigit() for name in values)
    numbers = [_class_number(name, task) for name in values]
    from_one = are_numbers and "0" not in values and (None in numbers or set(numbers) == {*range(1, len(numbers) + 1)})
    if not values or (set(numbers) != {None} and not from_one):
        if are_numbers:
            named = ", ".join(f"{number} {name}" for number, name in enumerate(task.classes) if str(number) in values)
            _log.warning("labels are read as %s (classes.txt beside the rows can name others)", named)
        return task
    if names.total() == len(names) > 2 and not several:
        raise SummkitError(f"each row has another label in {column!r}; name another column with label_column")
    classes = sorted(values.values(), key=lambda name: name.zfill(9) if name.isdigit() else name)
    _log.warning("classes: %s (classes.txt beside the rows can name others)", ", ".join(classes))
    return _schema(classes, "labels")


def _row(row: dict, columns: dict[str, str], location: str, schema: Schema, several: bool) -> dict | str:
    names = [name for name in ("document", "second") if name in columns]
    texts: dict[str, Any] = {name: checks.as_text(row.get(columns[name]), "user") for name in names}
    labels = label_numbers(row.get(columns["label"]), schema, location, several)
    reasons = [*map(checks.reason_unusable, texts.values()), None if labels else "no label"]
    if any(reasons):
        return next(filter(None, reasons))
    document = texts["document"].strip()
    second = texts.get("second", "").strip()
    return {"id": row_id(row.get("id"), location), "document": document, "second": second, "labels": labels}


def label_numbers(value: object, schema: Schema, location: str, several: bool = True) -> list[int]:
    """Return class numbers, sorted, from a number, a class name or a list of them; [] for none (None, NaN, "", -1).

    Numbers may also be texts or floats, and true and false are 1 and 0 where there are two classes.

    Raises:
        SummkitError: A label is outside the schema, or there are several where one is needed.

    Example:
        >>> pets = Schema(("Cat", "Dog"), ("cat", "dog"))
        >>> [label_numbers(value, pets, "train:1") for value in ("dog", 1.0, "0", True, ["cat", 1], "")]
        [[1], [1], [0], [1], [0, 1], []]
    """
    numbers = set()
    for item in _labels(value, several):
        number = _class_number(item, schema)
        if number is None:
            known = ", ".join(f"{number} {name}" for number, name in enumerate(schema.classes))
            way_out = "correct it, or name your classes in classes.txt beside the rows, one a line"
            raise SummkitError(f"{location}: label {item!r} is outside the schema: {known}; {way_out}")
        numbers.add(number)
    if len(numbers) > 1 and not several:
        raise SummkitError(f"{location}: {len(numbers)} labels, {sorted(numbers)}; this task takes one label a row")
    return sorted(numbers)


def _labels(value: Any, several: bool) -> list:
    """Return the labels of a row, none for a missing value; a text may be a list: "1, 5" (for several), "['joy']"."""
    if checks.chat_turns(value):
        value = checks.as_text(value, "assistant")
    if isinstance(value, list):
        return value
    if value is None or value != value or str(value).strip() in ("", "-1", "-1.0", "[]"):
        return []
    if not isinstance(value, str) or not (several or value.strip().startswith("[")):
        return [value]
    parts = re.split(r"[\[\],;|]|(?<=['\"])\s+(?=['\"])", value)
    return [label for part in parts if (label := part.strip(" \n'\""))]


def _label_name(value: object) -> str:
    """Return a label as text: 1.0 is "1"."""
    return re.sub(r"^(\d+)\.0+$", r"\1", str(value).strip())


def _class_number(value: object, schema: Schema) -> int | None:
    name = _label_name(value).lower()
    names = [one.lower() for one in schema.classes]
    if name in names:
        return names.index(name)
    if isinstance(value, bool) and len(names) == 2:
        return int(value)
    return int(name) if re.fullmatch("[0-9]{1,6}", name) and int(name) < len(names) else None


def _drop_conflicts(rows: CheckedRows) -> None:
    """Drop all copies of a text that have different labels: the right one is unknown."""
    first: dict[bytes, list[int]] = {}
    mixed = set()
    for part in rows.splits.values():
        for key, labels in column_values(part, "key", "labels"):
            if first.setdefault(key, labels) != labels:
                mixed.add(key)
    rows.keep("key", lambda key: key not in mixed, "same text with other labels")


def _drop_lone_classes(rows: CheckedRows) -> None:
    counts = Counter(labels[0] for part in rows.splits.values() for (labels,) in column_values(part, "labels"))
    rows.keep("labels", lambda labels: counts[labels[0]] > 1, "the only row of its class")
