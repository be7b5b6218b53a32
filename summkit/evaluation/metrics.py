"""The metrics: `METRICS` has an entry for each, with its heading, its format and its calculation.

Functions map texts to numbers; nothing is generated or downloaded. Overlap scores are from 0 to 100, shares
from 0 to 1. The texts of one call are lists of equal length; error messages count rows from 1. Words are those of the
tokenizer that suits the references (see `languages`). `overlap` is an `evaluate.Metric` that needs no Hub.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

import numpy as np

from summkit.data.checks import check_texts
from summkit.data.sentences import split_sentences
from summkit.data.support import supported_facts
from summkit.evaluation import languages
from summkit.evaluation.intervals import Statistic, mean_statistic
from summkit.registry import Registry

if TYPE_CHECKING:
    import evaluate

_log = logging.getLogger(__name__)
Texts = Sequence[str]
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
BLEU_TOKENIZERS = {languages.USUAL: "13a", languages.WORDS: "intl", languages.CHARACTERS: "char"}  # sacrebleu's names
MAX_ROUGE_CELLS = 4_000_000  # words of the prediction times words of the reference: rouge-score fills a table of these


@dataclass(frozen=True)
class Metric:
    """One metric of summaries or labels.

    Attributes:
        heading: Heading of its column in tables of scores; "" for no column.
        unit: Name of the unit of differences; "" for a metric whose differences are not reported.
        factor: Factor by which a score is multiplied for display.
        decimals: Number of decimals shown.
        kind: Kind of answer that it scores.
        rows: For a summary's metric, a function (predictions, references, documents) → float array [rows], nan for a
            row that has no value; or [rows, columns], with a `statistic`. `score_summaries` and `compare_summaries`
            report every metric with such a function. None: the score is computed elsewhere.
        statistic: The score, from means of the columns: [samples, columns] → [samples].
        needs: What the metric assumes of the texts: nothing, spaces between words, or English.
        share_of_rows: Whether a row counts as right or wrong, and the score is the share that is right.
    """

    heading: str
    unit: str = ""
    factor: float = 1
    decimals: int = 1
    kind: Literal["summary", "label"] = "summary"
    rows: Callable[[Texts, Texts, Texts], np.ndarray] | None = None
    statistic: Statistic = mean_statistic
    needs: Literal["", "spaces", "English"] = ""
    share_of_rows: bool = False

    def applies(self, tokenizer: str) -> bool:
        """Whether the metric applies to texts for which `choose_tokenizer` chose this tokenizer."""
        if self.needs == "English":
            return tokenizer == languages.USUAL
        return self.needs != "spaces" or tokenizer != languages.CHARACTERS


def rouge_rows(predictions: Texts, references: Texts) -> dict[str, np.ndarray]:
    """Calculate ROUGE-1, 2, L and Lsum row by row. An empty text scores 0.

    English is scored as rouge-score does it, with the Porter stemmer; other languages by the words of `languages`,
    without a stemmer. Sentences are split here for Lsum, without nltk's data.

    Args:
        predictions: The generated texts.
        references: The reference texts.

    Returns:
        F1 times 100: {type: float array [rows]}. ROUGE-L and Lsum of a pair longer than 2,000 by 2,000 words are nan,
        with a warning: their time grows with the product.

    Raises:
        SummkitError: There is no row, or a row is not a text.

    Example:
        >>> rouge_rows(["the cat sat on the mat"], ["the cat lay on a mat"])["rouge2"]
        array([20.])
    """
    check_texts(predictions=predictions, references=references)
    scores = _rouge_scores(tuple(predictions), tuple(references))
    return {kind: scores[:, column].copy() for column, kind in enumerate(ROUGE_TYPES)}


@lru_cache(maxsize=16)  # four metrics and several comparisons need the same scores
def _rouge_scores(predictions: tuple[str, ...], references: tuple[str, ...]) -> np.ndarray:
    """Return F1 times 100, float array [rows, types]."""
    from rouge_score.rouge_scorer import RougeScorer

    usual = languages.choose_tokenizer(references) == languages.USUAL
    tokenizer = None if usual else SimpleNamespace(tokenize=languages.unicode_words)
    kinds = {False: ROUGE_TYPES, True: ROUGE_TYPES[:2]}  # by whether the row is too long for a table of words
    scorers = {is_long: RougeScorer(list(kinds[is_long]), use_stemmer=True, tokenizer=tokenizer) for is_long in kinds}
    rows = []
    too_long = []
    for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True), 1):
        is_long = _words(prediction, usual) * _words(reference, usual) > MAX_ROUGE_CELLS
        if is_long:
            too_long.append(row)
        lines = ("\n".join(split_sentences(text)) for text in (reference, prediction))
        scores = scorers[is_long].score(*lines)
        rows.append([100 * scores[kind].fmeasure if kind in scores else np.nan for kind in ROUGE_TYPES])
    if too_long:
        _log.warning(
            f"ROUGE-L and ROUGE-Lsum of {len(too_long)} of {len(rows)} rows (the first is row {too_long[0]}) are not "
            f"calculated: their time grows with the product of both texts' words, here above {MAX_ROUGE_CELLS:,}"
        )
    return np.array(rows, dtype=float)


def _words(text: str, usual: bool) -> int:
    return len(re.findall(r"[a-z0-9]+", text.lower()) if usual else languages.unicode_words(text))


def corpus_bleu3(predictions: Texts, references: Texts) -> dict[str, float]:
    """Return sacrebleu's corpus BLEU with n-grams up to 3: {"bleu3": 0 to 100}."""
    from sacrebleu.metrics import BLEU

    check_texts(predictions=predictions, references=references)
    bleu = BLEU(max_ngram_order=3, tokenize=BLEU_TOKENIZERS[languages.choose_tokenizer(references)])
    return {"bleu3": float(bleu.corpus_score(list(predictions), [list(references)]).score)}


def novel_ngrams(summary: str, document: str, n: int, tokenizer: str | None = None) -> float:
    """Return the share (0 to 1) of the summary's n-grams of lowercased words that the document lacks; nan for none.

    Args:
        summary: The summary.
        document: The document.
        n: Words in an n-gram.
        tokenizer: The tokenizer; None: the one that suits the document.

    Example:
        >>> novel_ngrams("The cat barked", "the cat sat", 2)
        0.5
    """
    tokenizer = tokenizer or languages.choose_tokenizer([document])
    ngrams = _ngrams(summary, n, tokenizer)
    known = set(_ngrams(document, n, tokenizer))
    return sum(ngram not in known for ngram in ngrams) / len(ngrams) if ngrams else float("nan")


def _ngrams(text: str, n: int, tokenizer: str) -> list[tuple]:
    is_usual = tokenizer == languages.USUAL
    words = re.findall(r"\w+(?:['’]\w+)*", text.lower()) if is_usual else languages.unicode_words(text)
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def _rouge_column(kind: str, predictions: Texts, references: Texts, documents: Texts) -> np.ndarray:
    return rouge_rows(predictions, references)[kind]


def _support_rows(predictions: Texts, references: Texts, documents: Texts) -> np.ndarray:
    """Return the names and numbers that the document supports, and all of them: float array [rows, 2]."""
    pairs = zip(predictions, documents, strict=True)
    return np.array([supported_facts(text, document) for text, document in pairs], dtype=float)


def _novel_rows(n: int, predictions: Texts, references: Texts, documents: Texts) -> np.ndarray:
    tokenizer = languages.choose_tokenizer(references)
    pairs = zip(predictions, documents, strict=True)
    return np.array([novel_ngrams(text, document, n, tokenizer) for text, document in pairs])


def _word_rows(predictions: Texts, references: Texts, documents: Texts) -> np.ndarray:
    spaced = languages.choose_tokenizer(references) != languages.CHARACTERS
    return np.array([float(len(text.split() if spaced else languages.unicode_words(text))) for text in predictions])


METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "rouge1": Metric("ROUGE-1", "ROUGE-1 points", rows=partial(_rouge_column, "rouge1")),
        "rouge2": Metric("ROUGE-2", "ROUGE-2 points", rows=partial(_rouge_column, "rouge2")),
        "rougeL": Metric("ROUGE-L", "ROUGE-L points", rows=partial(_rouge_column, "rougeL")),
        "rougeLsum": Metric("ROUGE-Lsum", "ROUGE-Lsum points", rows=partial(_rouge_column, "rougeLsum")),
        "bleu3": Metric("BLEU-3", "BLEU-3 points"),
        "similarity": Metric("similarity", "points of similarity"),
        "topic_f1": Metric("topic F1", "points of topic F1"),
        "support": Metric(
            "supported names and numbers, %",
            "percentage points of names and numbers that the article supports",
            100,
            decimals=0,
            rows=_support_rows,
            statistic=lambda means: means[:, 0] / means[:, 1],
            needs="English",
        ),
        "novel_1grams": Metric("", rows=partial(_novel_rows, 1), needs="spaces"),
        "novel_2grams": Metric("novel bigrams, %", "", 100, decimals=0, rows=partial(_novel_rows, 2), needs="spaces"),
        "words": Metric("words", "words", rows=_word_rows),
        "ended_by_eos": Metric("ended by EOS, %", factor=100, decimals=0),
        "accuracy": Metric("accuracy, %", "points of accuracy", 100, kind="label", share_of_rows=True),
        "micro_f1": Metric("micro F1, %", "points of micro F1", 100, kind="label"),
        "macro_f1": Metric("macro F1, %", "points of macro F1", 100, kind="label"),
        "matthews": Metric("Matthews", "in Matthews' correlation", decimals=2, kind="label"),
        "subset_accuracy": Metric(
            "all labels right, %", "points of rows with all labels right", 100, kind="label", share_of_rows=True
        ),
        "calibration_error": Metric("calibration error, points", factor=100, kind="label"),
    },
)


def overlap() -> evaluate.Metric:
    """Return mean ROUGE and corpus BLEU-3 as one `evaluate.Metric`, which needs neither the Hub nor a folder.

    Example:
        >>> scores = overlap().compute(predictions=["the bridge is open"], references=["rain fell on the town"])
        >>> round(scores["rouge1"], 1)
        22.2
    """
    import datasets
    import evaluate

    class Overlap(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            text = datasets.Value("string")
            return evaluate.MetricInfo(
                description="Mean F1 times 100 of ROUGE-1, 2, L and Lsum, and corpus BLEU of n-grams up to 3.",
                citation="",
                features=datasets.Features({"predictions": text, "references": text}),
            )

        def _compute(self, predictions: Texts, references: Texts) -> dict[str, float]:
            rows = rouge_rows(predictions, references)
            return {kind: float(np.nanmean(rows[kind])) for kind in rows} | corpus_bleu3(predictions, references)

        def _build_data_dir(self) -> str:
            return ""  # all in memory: no folder in the home directory, and no file shared by processes

    return Overlap(keep_in_memory=True)
