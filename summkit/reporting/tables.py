"""Format values of a record: a JSON value as the text of a cell, several values as a Markdown table.

Texts come from articles and models. They are escaped, so that Markdown and HTML show them unchanged.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from summkit.evaluation import METRICS, markdown_table, score_table
from summkit.files import read_mapping
from summkit.resources.memory import size_text

_NAMES = read_mapping(Path(__file__).with_name("names.yaml"), "names")
_SCORE = {"mean", "low", "high"}


def is_single(value: Any) -> bool:
    """Whether a value fits into one cell: a number, a text, a score with its interval, or a list of these."""
    if isinstance(value, list):
        return not any(isinstance(item, dict | list) for item in value)
    return not isinstance(value, dict) or set(value) == _SCORE or not value


def scores_table(scores: dict[str, dict]) -> str:
    """Return the scores of several systems as a Markdown table, with n and any other numbers of the entries."""
    table = score_table({display_name(system): entry for system, entry in scores.items()})
    for key, value in next(iter(scores.values())).items():
        if key not in METRICS and isinstance(value, int | float):
            table[display_name(key)] = [cell_text(entry.get(key)) for entry in scores.values()]
    return markdown_table(table)


def rows_table(rows: dict[str, Any] | list, index: str = "", empty: str = "") -> str:
    """Return rows of values as a Markdown table.

    Args:
        rows: Rows by name, or a list of rows; a row is a dict of values, or one value.
        index: Heading of the column of names.
        empty: What is shown in place of an empty text.
    """
    import pandas as pd

    named: dict = rows if isinstance(rows, dict) else dict(enumerate(rows, 1))
    if all(_is_scored(row) for row in named.values()):
        return scores_table(named)
    cells = {key: {"value": row} if is_single(row) or isinstance(row, list) else row for key, row in named.items()}
    columns = dict.fromkeys(column for row in cells.values() for column in row)

    def text(key: str, row: dict, column: str) -> str:
        return _with_unit(key if column == "value" else column, row.get(column)) or empty

    texts = {display_name(column): [text(key, row, column) for key, row in cells.items()] for column in columns}
    return markdown_table(pd.DataFrame(texts, index=pd.Index(map(display_name, named), name=index)))


def _is_scored(row: Any) -> bool:
    """Whether a row is an entry of scores: a number of rows, metrics with intervals, and other numbers."""
    if not isinstance(row, dict) or not row.get("n"):
        return False
    others = [value for key, value in row.items() if key not in METRICS or not isinstance(value, dict)]
    return "rouge1" in row or (len(others) < len(row) and all(isinstance(value, int | float) for value in others))


def _with_unit(key: str, value: Any) -> str:
    """Return `cell_text`, or a number with a readable unit if its key names one."""
    if isinstance(value, int | float) and str(key).endswith("_bytes"):
        return size_text(value)
    if isinstance(value, int | float) and str(key).endswith("_kwh"):
        return f"{1000 * value:.2g} Wh"
    return cell_text(value)


def cell_text(value: Any) -> str:
    r"""Return any JSON value as the text of a cell.

    Example:
        >>> cell_text({"mean": 26.31, "low": 24.1, "high": 28.56})
        '26.31 [24.1, 28.56]'
        >>> cell_text(["*bold*", None, 12345])
        '\\*bold\\*, –, 12,345'
    """
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, dict) and set(value) == _SCORE:
        interval = None not in (value["low"], value["high"])
        ends = f" [{cell_text(value['low'])}, {cell_text(value['high'])}]" if interval else ""
        return cell_text(value["mean"]) + ends
    if isinstance(value, dict):
        return ", ".join(f"{display_name(key)} {cell_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(cell_text(item) for item in value)
    return number_text(value) if isinstance(value, int | float) else plain_text(value)


def number_text(value: float) -> str:
    """Return a number with four digits, or three if it is below 1; whole numbers and thousands in full."""
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}"


def plain_text(value: Any) -> str:
    """Return a text in one line, escaped so that Markdown and HTML show it unchanged."""
    return re.sub(r"([\\`*_\[\]#~])", r"\\\1", html.escape(" ".join(str(value).split()), quote=False))


def display_name(key: Any) -> str:
    """Return the display name of a key of the record.

    Example:
        >>> display_name("fine_tuned"), display_name("lead3"), display_name("seconds_by_part")
        ('fine-tuned', 'lead-3', 'seconds by part')
        >>> display_name("zero_shot_validation")
        'zero-shot, validation rows'
        >>> display_name("fine_tuned_minus_lead1")
        'fine-tuned minus lead-1'
    """
    if isinstance(key, str) and "_minus_" in key:
        return " minus ".join(map(display_name, key.split("_minus_")))
    if isinstance(key, str) and key.endswith(("_train", "_validation")):
        system, _, split = key.rpartition("_")
        return f"{display_name(system)}, {split} rows"
    return _NAMES.get(key) or re.sub(r"^(lead|oracle)(\d+)$", r"\1-\2", plain_text(str(key).replace("_", " ")))


def chapter_name(stage: str) -> str:
    """Return the display name of a chapter.

    Example:
        >>> chapter_name("task1/xsum"), chapter_name("notebooks/03_long_documents")
        ('Task 1, XSum', 'Long documents')
    """
    parts = [display_name(re.sub(r"^\d+_", "", part)) for part in stage.removeprefix("notebooks/").split("/")]
    name = re.sub(r"^task(\d)", r"task \1", ", ".join(parts))
    return name[:1].upper() + name[1:]
