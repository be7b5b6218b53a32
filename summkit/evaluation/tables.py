"""Tables of scores and differences, as pandas DataFrames of text and as Markdown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from summkit.evaluation.intervals import wilson
from summkit.evaluation.languages import USUAL
from summkit.evaluation.metrics import METRICS, Metric

if TYPE_CHECKING:
    from pandas import DataFrame


def score_table(scores: dict[str, dict]) -> DataFrame:
    """Return the scores of several systems, with intervals, as text.

    A metric has a column if a system has a value for it. Metrics of summaries have a column if there are summaries,
    even if it is unknown for all of them. Print the table with `to_string()`, or write it with `markdown_table`.

    Args:
        scores: Entries of a run record by system, as `score_summaries` and `score_labels` return them.

    Returns:
        A row for each system, a column for each metric, with cells such as "26.3 [24.1, 28.6]"; "–" is unknown, and
        "n/a" a metric that does not apply to the language. Where all rows agree, the bootstrap's interval has no width
        and says nothing about other rows: a share of right labels then has Wilson's interval, from n, and any other
        score has none.

    Example:
        >>> score_table({"lead1": {"accuracy": {"mean": 0.52, "low": 0.424, "high": 0.63}}}).to_dict()
        {'accuracy, %': {'lead1': '52.0 [42.4, 63.0]'}}
        >>> all_right = {"accuracy": {"mean": 1.0, "low": 1.0, "high": 1.0}, "n": 40}
        >>> score_table({"model": all_right}).to_dict()
        {'accuracy, %': {'model': '100.0 [91.2, 100.0]'}}
    """
    import pandas as pd

    columns = {}
    for name, metric in METRICS.items():
        always = "rouge1" if metric.kind == "summary" else name  # known for every system of this kind
        shown = any(name in entry and entry.get(always) is not None for entry in scores.values())
        if metric.heading and shown:
            columns[metric.heading] = [_cell(entry, name, metric) for entry in scores.values()]
    return pd.DataFrame(columns, index=pd.Index(list(scores), name="system"))


def markdown_table(frame: DataFrame) -> str:
    """Return a DataFrame as a Markdown table, its index first; bars and newlines inside a cell are escaped.

    pandas has `to_markdown`, which needs a further package (tabulate) and does not escape.
    """
    rows = [[frame.index.name or "", *frame.columns], *map(list, frame.itertuples())]
    lines = ["| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|---" * (len(frame.columns) + 1) + "|")
    return "\n".join(lines)


def _cell(scores: dict, name: str, metric: Metric) -> str:
    """Return the text for a score with its interval, or for a number alone, such as a share."""
    if not metric.applies(scores.get("tokenizer", USUAL)):
        return "n/a"
    score = scores.get(name)
    entry = score if isinstance(score, dict) else {"mean": score}
    if _is_flat(entry):
        entry = {"mean": entry["mean"]}
        if metric.share_of_rows and scores.get("n"):
            low, high = wilson(round(entry["mean"] * scores["n"]), scores["n"])
            entry |= {"low": low, "high": high}
    texts = {key: f"{metric.factor * part:.{metric.decimals}f}" for key, part in entry.items() if part is not None}
    return "{mean} [{low}, {high}]".format(**texts) if len(texts) == 3 else texts.get("mean", "–")


def _is_flat(entry: dict) -> bool:
    """Whether the interval has no width, up to rounding."""
    low, high = entry.get("low"), entry.get("high")
    return low is not None and high is not None and math.isclose(low, high, abs_tol=1e-9)
