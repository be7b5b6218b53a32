"""Load a classification data set as columns `id`, `document`, `second`, `labels`, checked, in three splits.

Rows have one label, several labels, or one label for a pair of texts. In each case the model answers with a label word.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from summkit.data import streaming, templates
from summkit.data.checks import LABEL_COLUMNS, SECOND_COLUMNS, TEXT_COLUMNS, find_column, reason_unusable
from summkit.data.registry import DATASETS, DataSet, Schema
from summkit.data.sources import own_data, read_rows
from summkit.data.splits import CheckedRows, Splits, row_id
from summkit.errors import SummkitError, check_known

if TYPE_CHECKING:
    from collections.abc import Iterable

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from summkit.config import Profile

# Task with labels → the data set that provides the wording, and the labels of a local folder without a classes.txt.
LABEL_TASKS = {
    "agnews": "fancyzhx/ag_news",
    "goemotions": "google-research-datasets/go_emotions",
    "mnli": "nyu-mll/multi_nli",
}


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
        data: A file or a folder that replaces the data set, as in `load_summaries`. Its labels are the numbers or
            names of the classes of the task's data set, or of the folder's own classes.txt, with one name per line.

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
    folder = own_data(data)
    data_set = _data_set(profile, folder)
    schema = data_set.labels or Schema((), ())
    raw, source = read_rows(data_set, folder)
    find = partial(_columns, data_set=data_set)
    rows = CheckedRows(raw, find, partial(_row, schema=schema, several=data_set.several_labels))
    _drop_conflicts(rows)
    rows.drop_duplicates()
    if not data_set.several_labels:
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


def _data_set(profile: Profile, folder: Path | None) -> DataSet:
    data_set = _reference(profile)
    if folder:
        labels = _folder_schema(folder) or DATASETS[LABEL_TASKS[profile.task]].labels
        return replace(data_set, columns={}, labels=labels)
    check_known("data set with labels", profile.dataset, [name for name, one in DATASETS.items() if one.labels])
    return data_set


def _folder_schema(folder: Path) -> Schema | None:
    """Read a folder's classes.txt, one name per line. The names in lower case are the label words."""
    path = folder / "classes.txt"
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SummkitError(f"{path.name}: not a text in UTF-8 ({error})") from None
    classes = tuple(line.strip() for line in lines if line.strip())
    words = tuple(name.lower() for name in classes)
    if not 2 <= len(classes) == len(set(words)):
        raise SummkitError(f"{path.name}: two or more different class names are needed, one a line; found {classes}")
    return Schema(classes, words)


def _columns(names: Iterable[str], split: str, data_set: DataSet) -> dict[str, str]:
    kinds = {"document": ("text", TEXT_COLUMNS), "label": ("label", LABEL_COLUMNS)}
    if templates.get_wording(data_set.wording).second:
        kinds["second"] = ("second text", SECOND_COLUMNS)
    return {
        column: find_column(names, data_set.column_names(column, known), kind, split)
        for column, (kind, known) in kinds.items()
    }


def _row(row: dict, columns: dict[str, str], location: str, schema: Schema, several: bool) -> dict | str:
    texts: dict[str, Any] = {key: row.get(columns[key]) for key in ("document", "second") if key in columns}
    labels = label_numbers(row.get(columns["label"]), schema, location, several)
    reasons = [*map(reason_unusable, texts.values()), None if labels else "no label"]
    if any(reasons):
        return next(filter(None, reasons))
    document = texts["document"].strip()
    second = texts.get("second", "").strip()
    return {"id": row_id(row.get("id"), location), "document": document, "second": second, "labels": labels}


def label_numbers(value: object, schema: Schema, location: str, several: bool = True) -> list[int]:
    """Return class numbers, sorted, from a number, a class name or a list of them; [] for none (None, -1).

    Raises:
        SummkitError: A label is outside the schema, or there are several where one is needed.
    """
    names = [name.lower() for name in schema.classes]
    values = value if isinstance(value, list) else [value]
    numbers = set()
    for item in values if value not in (None, -1) else []:
        if isinstance(item, str) and item.strip().lower() in names:
            item = names.index(item.strip().lower())
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < len(names):
            known = ", ".join(f"{number} {name}" for number, name in enumerate(schema.classes))
            raise SummkitError(f"{location}: label {item!r} is outside the schema: {known}")
        numbers.add(item)
    if len(numbers) > 1 and not several:
        raise SummkitError(f"{location}: {len(numbers)} labels, {sorted(numbers)}; this task takes one label a row")
    return sorted(numbers)


def _drop_conflicts(rows: CheckedRows) -> None:
    """Drop all copies of a text that have different labels: the right one is unknown."""
    first: dict[bytes, list[int]] = {}
    mixed = set()
    for part in rows.splits.values():
        for key, labels in streaming.column_values(part, "key", "labels"):
            if first.setdefault(key, labels) != labels:
                mixed.add(key)
    rows.keep("key", lambda key: key not in mixed, "same text with other labels")


def _drop_lone_classes(rows: CheckedRows) -> None:
    counts = Counter(
        labels[0] for part in rows.splits.values() for (labels,) in streaming.column_values(part, "labels")
    )
    rows.keep("labels", lambda labels: counts[labels[0]] > 1, "the only row of its class")
