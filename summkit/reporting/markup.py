"""Floor 7. Values of a record as Markdown: any JSON value as the text of a cell, rows of values as a table.

Texts come from articles and models: everything is escaped, so that Markdown and HTML show it as it is.
"""

import html
import re

from summkit.evaluation.metrics import METRICS
from summkit.evaluation.tables import markdown_table, score_table

_NAMES = {
    "zero_shot": "zero-shot", "fine_tuned": "fine-tuned", "laps": "seconds by part", "nf4_error": "NF4 error",
    "tfidf": "TF-IDF", "zero_shot_normalised": "zero-shot, per token", "zero_shot_calibrated": "zero-shot, calibrated",
    "zero_shot_batch": "zero-shot, batch-calibrated", "bleu3": "BLEU-3", "topic_f1": "topic F1",
    "student_pretrained": "student, pretrained", "student_few_shot": "student, few-shot",
    "student_fine_tuned": "student, fine-tuned", "few_shot": "few-shot",
    "break_even": "samples until it has paid, against",
}  # fmt: skip


def is_single(value) -> bool:
    """Whether `value` goes into one cell: a number, a text, a score with its interval, a list of such."""
    if isinstance(value, list):
        return not any(isinstance(item, dict | list) for item in value)
    return not isinstance(value, dict) or set(value) == {"mean", "low", "high"} or not value


def facts_table(values: dict) -> str:
    """Names and values in two columns."""
    return _table({"value": list(values.values())}, values, "what")


def scores_table(entries: dict[str, dict]) -> str:
    """The table of systems (entries as `evaluation.score` makes them), with what else their rows hold, and n."""
    table = score_table({display_name(system): entry for system, entry in entries.items()})
    first = next(iter(entries.values()))
    for key in [key for key in first if key not in METRICS and is_plain_number(first[key])]:
        table[display_name(key)] = [cell_text(entry.get(key)) for entry in entries.values()]
    return markdown_table(table)


def is_plain_number(value) -> bool:
    return isinstance(value, int | float)


def rows_table(found: dict | list, index: str = "") -> str:
    """A table of rows, {name: row} or a list of them; a row is a dict of values, or one value."""
    found = found if isinstance(found, dict) else dict(enumerate(found, 1))
    if all(isinstance(row, dict) and {"rouge1", "n"} <= set(row) for row in found.values()):
        return scores_table(found)
    dicts = {key: {"value": row} if is_single(row) or isinstance(row, list) else row for key, row in found.items()}
    columns = list(dict.fromkeys(column for row in dicts.values() for column in row))
    return _table({display_name(c): [cell_text(row.get(c)) for row in dicts.values()] for c in columns}, found, index)


def _table(columns: dict, index, title: str) -> str:
    import pandas as pd

    frame = pd.DataFrame(columns, index=pd.Index([display_name(key) for key in index], name=title))
    return markdown_table(frame)


def cell_text(value) -> str:
    """Any JSON value as the text of one cell; of numbers, the digits that say something."""
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, dict) and set(value) == {"mean", "low", "high"}:
        known = value["low"] is not None and value["high"] is not None
        return cell_text(value["mean"]) + (f" [{cell_text(value['low'])}, {cell_text(value['high'])}]" if known else "")
    if isinstance(value, dict):
        return ", ".join(f"{display_name(key)} {cell_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(cell_text(item) for item in value)
    return number_text(value) if isinstance(value, int | float) else plain_text(value)


def number_text(value: float) -> str:
    """Four digits of a number, three of one below 1; whole numbers and thousands in full."""
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}"


def plain_text(value) -> str:
    """A text that Markdown and HTML show as it is, in one line."""
    return re.sub(r"([\\`*_\[\]#~])", r"\\\1", html.escape(" ".join(str(value).split()), quote=False))


def display_name(key) -> str:
    """A key of the record as a person would write it."""
    return _NAMES.get(key) or re.sub(r"^(lead|oracle)(\d+)$", r"\1-\2", plain_text(str(key).replace("_", " ")))
