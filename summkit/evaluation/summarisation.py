"""Floor 6. From summaries to the table that a reader can trust: scores with intervals, baselines, paired differences.

Everything here is about texts that were already generated, scored alone (never prompt and answer, never teacher-forced
tokens). Results are plain numbers, ready for a run record: what cannot be known is None, never nan.
`classification` is the twin for labels; the table is made here for both.
"""

import math

from summkit.data.checks import check_texts
from summkit.data.sentences import lead
from summkit.errors import SummkitError, check_known
from summkit.evaluation.baselines import extractive_oracle
from summkit.evaluation.metrics import (
    ROUGE_TYPES,
    bootstrap,
    mean_entry,
    novel_ngrams,
    paired_bootstrap,
    plain,
    rouge_rows,
)
from summkit.evaluation.support import supported_facts

# The table's columns: entry of a score → (heading, factor, decimals). Shares are shown in percent.
SUMMARY_COLUMNS = {
    "rouge1": ("ROUGE-1", 1, 1),
    "rouge2": ("ROUGE-2", 1, 1),
    "rougeL": ("ROUGE-L", 1, 1),
    "rougeLsum": ("ROUGE-Lsum", 1, 1),
    "bleu3": ("BLEU-3", 1, 1),
    "similarity": ("similarity", 1, 1),
    "topic_f1": ("topic F1", 1, 1),
    "support": ("supported names and numbers, %", 100, 0),
    "novel_2grams": ("novel bigrams, %", 100, 0),
    "words": ("words", 1, 1),
    "ended_by_eos": ("ended by EOS, %", 100, 0),
}
LABEL_COLUMNS = {
    "accuracy": ("accuracy, %", 100, 1),
    "micro_f1": ("micro F1, %", 100, 1),
    "macro_f1": ("macro F1, %", 100, 1),
    "matthews": ("Matthews", 1, 2),
    "subset_accuracy": ("all labels right, %", 100, 1),
    "calibration_error": ("calibration error, points", 100, 1),
}
COLUMNS = SUMMARY_COLUMNS | LABEL_COLUMNS
_MEANS = (*ROUGE_TYPES, "novel_1grams", "novel_2grams", "words")


def measure_rows(predictions, references, documents) -> dict:
    """Every measure of every row: {name: float array [rows]}; `supported` of `facts` are counts, nan is 'has none'."""
    import numpy as np

    check_texts(predictions=predictions, references=references, documents=documents)
    pairs = list(zip(predictions, documents, strict=True))
    rows = rouge_rows(predictions, references)
    for n in (1, 2):
        rows[f"novel_{n}grams"] = np.array([novel_ngrams(text, document, n) for text, document in pairs])
    rows["words"] = np.array([float(len(text.split())) for text in predictions])
    counts = np.array([supported_facts(text, document) for text, document in pairs], dtype=float)
    rows["supported"], rows["facts"] = counts.T
    return rows


def score_summaries(predictions, references, documents, ended=None, seed: int = 0) -> dict:
    """One system's entry in a record's `scores`: each measure as {"mean", "low", "high"} (95 %, bootstrap over rows).

    ROUGE from 0 to 100; support and novelty are shares from 0 to 1; words are counted between spaces. Support is the
    share of all rows' names and numbers together, not a mean of shares: a row with one name weighs as one.
    `ended`, one truth value a row, says which summaries the model ended itself: "ended_by_eos" is their share.
    """
    rows = measure_rows(predictions, references, documents)
    if ended is not None and len(ended) != len(predictions):
        raise SummkitError(f"one row each is needed, but there are {len(predictions)} predictions, {len(ended)} ended")
    result = {name: mean_entry(rows[name], seed) for name in ROUGE_TYPES}
    result["support"] = _support(rows, seed)
    result |= {name: mean_entry(rows[name], seed) for name in _MEANS[4:]}
    share = None if ended is None else sum(map(bool, ended)) / len(ended)
    return result | {"ended_by_eos": share, "n": len(predictions)}


def _support(rows: dict, seed: int) -> dict:
    supported, facts = rows["supported"].sum(), rows["facts"].sum()
    low, high = bootstrap(list(zip(rows["supported"], rows["facts"], strict=True)), lambda m: m[:, 0] / m[:, 1], seed)
    return plain(mean=supported / facts if facts else math.nan, low=low, high=high)


def lead_baselines(rows, ks=(1, 3)) -> dict[str, list[str]]:
    """The lead-k summaries of `rows` (a data set or dicts with a `document`): {"lead1": [...], "lead3": [...]}."""
    documents = [row["document"] for row in rows]
    check_texts(documents=documents)
    return {f"lead{k}": [lead(document, k) for document in documents] for k in ks}


def oracle_extracts(rows, ks=(1, 3)) -> dict[str, list[str]]:
    """The best extracts of at most k sentences of `rows` (document and summary): {"oracle1": [...], "oracle3": [...]}.

    A bound above systems that copy, as `baselines` are one below: they have seen the reference.
    """
    check_texts(documents=[row["document"] for row in rows], summaries=[row["summary"] for row in rows])
    return {f"oracle{k}": [extractive_oracle(row["document"], row["summary"], k) for row in rows] for k in ks}


def compare_summaries(name_a: str, name_b: str, predictions: dict, references, documents, seed: int = 0) -> dict:
    """How much system a is above system b on the same rows: {measure: {"difference", "low", "high"}}, all a minus b.

    `predictions` is {system: texts}. Measures are the four ROUGE types, support and words. An interval (95 %, paired
    bootstrap: both systems on the same drawn rows) that leaves out 0 is a difference that these rows can show.
    """
    for name in (name_a, name_b):
        check_known("system", name, predictions)
    a, b = (measure_rows(predictions[name], references, documents) for name in (name_a, name_b))
    result = {}
    for name in (*ROUGE_TYPES, "support", "words"):
        numbers = _support_difference(a, b, seed) if name == "support" else paired_bootstrap(a[name], b[name], seed)
        result[name] = plain(**dict(zip(("difference", "low", "high"), numbers, strict=True)))
    return result


def _support_difference(a: dict, b: dict, seed: int) -> tuple[float, float, float]:
    import numpy as np

    def difference(sums):
        return sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]

    columns = np.stack([a["supported"], a["facts"], b["supported"], b["facts"]], axis=1)
    if not columns[:, 1].sum() or not columns[:, 3].sum():
        return math.nan, math.nan, math.nan
    return float(difference(columns.sum(axis=0)[None])[0]), *bootstrap(columns, difference, seed)


def score_table(scores: dict[str, dict]):
    """A pandas DataFrame of text, a system a row in the order given: "26.3 [24.1, 28.6]", or "–" for what is unknown.

    A column is there where a system has its measure; those of summaries, where there are summaries, even if it is
    unknown for all of them.
    Print it with `to_string()`, or for a report with `markdown_table` (pandas' own `to_markdown` needs tabulate).
    """
    import pandas as pd

    table = {
        heading: [_cell(entry.get(key), *form) for entry in scores.values()]
        for key, (heading, *form) in COLUMNS.items()
        if any(
            key in entry and entry.get("rouge1" if key in SUMMARY_COLUMNS else key) is not None
            for entry in scores.values()
        )
    }
    return pd.DataFrame(table, index=pd.Index(list(scores), name="system"))


def difference_table(differences: dict[str, dict], measures: dict[str, str]):
    """A pandas DataFrame of text from entries of `compare`, a pair a row: "+1.2 [+0.3, +2.0] *", or "–" for unknown.

    `measures` maps an entry's key to its heading. A star marks an interval that leaves out 0.
    """
    import pandas as pd

    rows = {
        pair: {heading: _signed(found[key]) for key, heading in measures.items()} for pair, found in differences.items()
    }
    return pd.DataFrame(rows).T


def _signed(d: dict) -> str:
    if None in d.values():
        return "–"
    star = " *" * (d["low"] > 0 or d["high"] < 0)
    return f"{d['difference']:+.1f} [{d['low']:+.1f}, {d['high']:+.1f}]{star}"


def _cell(entry, factor: int, decimals: int) -> str:
    value, low, high = (entry["mean"], entry["low"], entry["high"]) if isinstance(entry, dict) else (entry, None, None)
    if value is None:
        return "–"
    mean = f"{value * factor:.{decimals}f}"
    return mean if low is None else f"{mean} [{low * factor:.{decimals}f}, {high * factor:.{decimals}f}]"


def markdown_table(frame) -> str:
    """A DataFrame as a Markdown table, its index first; bars and newlines inside a cell are made harmless."""
    rows = [[frame.index.name or "", *frame.columns], *map(list, frame.itertuples())]
    lines = ["| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|---" * (len(frame.columns) + 1) + "|")
    return "\n".join(lines)
