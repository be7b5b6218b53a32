"""Floor 7. Values of a record as Markdown: any JSON value as the text of a cell, rows of values as a table.

Texts come from articles and models: everything is escaped, so that Markdown and HTML show it as it is.
"""

import html
import re

from summkit import evaluation

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


def facts(values: dict) -> str:
    """Names and values in two columns."""
    return _table({"value": list(values.values())}, values, "what")


def scores(entries: dict[str, dict]) -> str:
    """The table of systems (entries as `evaluation.score` makes them), with what else their rows hold, and n."""
    table = evaluation.score_table({name(system): entry for system, entry in entries.items()})
    first = next(iter(entries.values()))
    for key in [key for key in first if key not in evaluation.COLUMNS and is_plain_number(first[key])]:
        table[name(key)] = [text(entry.get(key)) for entry in entries.values()]
    return evaluation.markdown_table(table)


def is_plain_number(value) -> bool:
    return isinstance(value, int | float)


def rows(found: dict | list, index: str = "") -> str:
    """A table of rows, {name: row} or a list of them; a row is a dict of values, or one value."""
    found = found if isinstance(found, dict) else dict(enumerate(found, 1))
    if all(isinstance(row, dict) and {"rouge1", "n"} <= set(row) for row in found.values()):
        return scores(found)
    dicts = {key: {"value": row} if is_single(row) or isinstance(row, list) else row for key, row in found.items()}
    columns = list(dict.fromkeys(column for row in dicts.values() for column in row))
    return _table({name(c): [text(row.get(c)) for row in dicts.values()] for c in columns}, found, index)


def _table(columns: dict, index, title: str) -> str:
    import pandas as pd

    frame = pd.DataFrame(columns, index=pd.Index([name(key) for key in index], name=title))
    return evaluation.markdown_table(frame)


def text(value) -> str:
    """Any JSON value as the text of one cell; of numbers, the digits that say something."""
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, dict) and set(value) == {"mean", "low", "high"}:
        known = value["low"] is not None and value["high"] is not None
        return text(value["mean"]) + (f" [{text(value['low'])}, {text(value['high'])}]" if known else "")
    if isinstance(value, dict):
        return ", ".join(f"{name(key)} {text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(text(item) for item in value)
    return number(value) if isinstance(value, int | float) else plain(value)


def number(value: float) -> str:
    """Four digits of a number, three of one below 1; whole numbers and thousands in full."""
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}"


def plain(value) -> str:
    """A text that Markdown and HTML show as it is, in one line."""
    return re.sub(r"([\\`*_\[\]#~])", r"\\\1", html.escape(" ".join(str(value).split()), quote=False))


def name(key) -> str:
    """A key of the record as a person would write it."""
    return _NAMES.get(key) or re.sub(r"^(lead|oracle)(\d+)$", r"\1-\2", plain(str(key).replace("_", " ")))
