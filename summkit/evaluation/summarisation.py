"""Score summaries: metrics with intervals, baselines, and paired differences.

Only generated texts are scored, never prompt and answer together, and never teacher-forced tokens. Results are plain
numbers for a run record, with None for unknown values, never nan. `METRICS` in `metrics` lists the metrics;
`classification` scores labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from summkit.data.checks import check_texts
from summkit.data.sentences import lead
from summkit.errors import SummkitError, check_known
from summkit.evaluation.baselines import extractive_oracle
from summkit.evaluation.intervals import difference_entry, score_entry
from summkit.evaluation.languages import USUAL, choose_tokenizer
from summkit.evaluation.metrics import METRICS, Texts


def measure_rows(predictions: Texts, references: Texts, documents: Texts) -> dict[str, np.ndarray]:
    """Return the values of each metric of summaries, row by row: {name: float [rows] or [rows, columns]}.

    All values of a metric that does not apply to the language of the references are nan.
    """
    check_texts(predictions=predictions, references=references, documents=documents)
    tokenizer = choose_tokenizer(references)
    unknown = np.full((len(predictions), 1), np.nan)
    return {
        name: metric.rows(predictions, references, documents) if metric.applies(tokenizer) else unknown
        for name, metric in METRICS.items()
        if metric.rows
    }


def score_summaries(
    predictions: Texts, references: Texts, documents: Texts, ended: Sequence[bool] | None = None, seed: int = 0
) -> dict:
    """Score the summaries of one system.

    ROUGE is from 0 to 100; support and novelty are shares from 0 to 1; words are counted between spaces, if the script
    has them. Support is the share over the names and numbers of all rows together, not a mean of the rows' shares.

    Args:
        predictions: The generated summaries.
        references: The reference summaries, one for each.
        documents: The documents, one for each.
        ended: For each row, whether the model ended the summary with EOS; "ended_by_eos" is the share.
        seed: Seed of the bootstrap.

    Returns:
        The system's entry in a record's `scores`: each metric as {"mean", "low", "high"} (95 %, bootstrap over rows),
        then "ended_by_eos" and "n", the number of rows. If the references are not English, "tokenizer" is the one that
        was used (see `languages`), and a metric that does not apply has the mean None.

    Raises:
        SummkitError: There is no row, the lists have different lengths, or a row is not a text.

    Example:
        >>> summaries = ["Rain fell on Kent.", "A bridge shut."]
        >>> documents = ["Rain fell on Kent. Roads closed.", "A bridge shut. It is old."]
        >>> scores = score_summaries(summaries, ["Kent is wet.", "A bridge shut."], documents)
        >>> print("{mean:.1f} [{low:.1f}, {high:.1f}]".format(**scores["rouge1"]))
        64.3 [28.6, 100.0]
    """
    rows = measure_rows(predictions, references, documents)
    scores: dict = {name: score_entry(values, METRICS[name].statistic, seed) for name, values in rows.items()}
    scores |= {"ended_by_eos": ended_share(ended, len(predictions)), "n": len(predictions)}
    tokenizer = choose_tokenizer(references)
    return scores if tokenizer == USUAL else scores | {"tokenizer": tokenizer}


def ended_share(ended: Sequence[bool] | None, rows: int) -> float | None:
    """Return the share of `rows` that the model ended with EOS; None if that is unknown.

    Raises:
        SummkitError: `ended` has another number of rows.
    """
    if ended is None:
        return None
    if len(ended) != rows:
        raise SummkitError(f"one row each is needed, but there are {rows} predictions, {len(ended)} ended")
    return sum(map(bool, ended)) / rows


def compare_summaries(
    name_a: str, name_b: str, predictions: Mapping[str, Texts], references: Texts, documents: Texts, seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """Compare two systems on the same rows.

    Args:
        name_a: The first system.
        name_b: The second system.
        predictions: The summaries of each system.
        references: The reference summaries.
        documents: The documents.
        seed: Seed of the bootstrap.

    Returns:
        {metric: {"difference", "low", "high"}}, a minus b, for each metric that has a unit. If the interval
        (95 %, paired bootstrap) excludes 0, the difference is clear on these rows.

    Raises:
        SummkitError: A system is unknown; or as for `score_summaries`.
    """
    for name in (name_a, name_b):
        check_known("system", name, predictions)
    rows_a, rows_b = (measure_rows(predictions[name], references, documents) for name in (name_a, name_b))
    return {
        name: difference_entry(rows_a[name], rows_b[name], METRICS[name].statistic, seed)
        for name in rows_a
        if METRICS[name].unit
    }


def lead_baselines(rows: Sequence[Mapping], ks: Sequence[int] = (1, 3)) -> dict[str, list[str]]:
    r"""Return the first k sentences of each document: {"lead1": [...], "lead3": [...]}.

    Args:
        rows: A data set, or dicts with a `document`.
        ks: How many sentences.

    Raises:
        SummkitError: There is no row, or a document is not a text.

    Example:
        >>> lead_baselines([{"document": "Rain fell. It was cold. It got warm. It was over."}], ks=[1, 2])
        {'lead1': ['Rain fell.'], 'lead2': ['Rain fell.\nIt was cold.']}
    """
    documents = [row["document"] for row in rows]
    check_texts(documents=documents)
    return {f"lead{k}": [lead(document, k) for document in documents] for k in ks}


def oracle_extracts(rows: Sequence[Mapping], ks: Sequence[int] = (1, 3)) -> dict[str, list[str]]:
    """Return the best extracts of at most k sentences: {"oracle1": [...], "oracle3": [...]}.

    They are chosen with the reference, and so are an upper bound for systems that copy sentences.

    Args:
        rows: A data set, or dicts with `document` and `summary`.
        ks: How many sentences.

    Raises:
        SummkitError: There is no row, or a document or summary is not a text.
    """
    documents = [row["document"] for row in rows]
    summaries = [row["summary"] for row in rows]
    check_texts(documents=documents, summaries=summaries)
    pairs = list(zip(documents, summaries, strict=True))
    return {f"oracle{k}": [extractive_oracle(document, summary, k) for document, summary in pairs] for k in ks}
