"""Floor 2. What a summary is worth, one number a row: ROUGE, BLEU-3, support by the article, novelty, and intervals.

Plain text in, numbers out: nothing here generates, and nothing is downloaded. Scores of overlap run from 0 to 100,
shares from 0 to 1. `rouge()` and `bleu3()` hand the same numbers out as an `evaluate.Metric`, built without the Hub.
Texts of one call are lists of equal length; error messages count rows from 1.
"""

import math
import re

from summkit.data.checks import check_texts
from summkit.data.sentences import split_sentences
from summkit.errors import SummkitError

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
MAX_ROUGE_CELLS = 4_000_000  # words of the prediction times words of the reference: rouge-score fills a table of these


def rouge_rows(predictions, references) -> dict:
    """F1 times 100 for ROUGE-1, 2, L and Lsum: {type: float array [rows]}. Porter stemmer on; an empty text scores 0.

    Sentences are told apart here for Lsum, without nltk's data. The tokens of rouge-score are a-z and 0-9 only: other
    scripts score 0. Its table grows with prediction times reference: SummkitError above 2,000 by 2,000 words.
    """
    import numpy as np
    from rouge_score.rouge_scorer import RougeScorer

    check_texts(predictions=predictions, references=references)
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer=True)
    rows = []
    for row, pair in enumerate(zip(references, predictions, strict=True), 1):
        _check_cells(row, *pair)
        scores = scorer.score(*("\n".join(split_sentences(text)) for text in pair))
        rows.append([100 * scores[kind].fmeasure for kind in ROUGE_TYPES])
    return dict(zip(ROUGE_TYPES, np.array(rows, dtype=float).T, strict=True))


def _check_cells(row: int, reference: str, prediction: str) -> None:
    reference_words, words = (len(re.findall(r"[a-z0-9]+", text.lower())) for text in (reference, prediction))
    if words * reference_words > MAX_ROUGE_CELLS:
        raise SummkitError(
            f"row {row}: a prediction of {words:,} words against a reference of {reference_words:,} is too long for "
            "ROUGE-L (its time grows with the product): cut either, or score it by chapters"
        )


def rouge():
    """ROUGE as an `evaluate.Metric`: the means of `rouge_rows`, or with `compute(…, per_row=True)` lists of rows."""
    return make_metric("Rouge", _rouge, "Mean F1 times 100 of ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, stemmed.")


def bleu3():
    """Corpus BLEU with n-grams up to 3 as an `evaluate.Metric`: `compute(…)` gives {"bleu3": 0 to 100}."""
    return make_metric("Bleu3", _bleu3, "Corpus BLEU of n-grams up to 3 from sacrebleu, 0 to 100, one reference a row.")


def _rouge(predictions, references, per_row=False) -> dict:
    rows = rouge_rows(predictions, references)
    return {kind: values.tolist() if per_row else float(values.mean()) for kind, values in rows.items()}


def _bleu3(predictions, references) -> dict:
    from sacrebleu.metrics import BLEU

    check_texts(predictions=predictions, references=references)
    return {"bleu3": float(BLEU(max_ngram_order=3).corpus_score(list(predictions), [list(references)]).score)}


def bleu3_counts(predictions, references):
    """What BLEU-3 is made of, row by row, and what adds up: float array [rows, 8].

    Words of the prediction, of the reference; 1-, 2- and 3-grams that match; 1-, 2- and 3-grams of the prediction.
    """
    import numpy as np
    from sacrebleu.metrics import BLEU

    check_texts(predictions=predictions, references=references)
    bleu = BLEU(max_ngram_order=3)
    found = (bleu.corpus_score([p], [[r]]) for p, r in zip(predictions, references, strict=True))
    return np.array([[row.sys_len, row.ref_len, *row.counts, *row.totals] for row in found], dtype=float)


def bleu3_of(sums):
    """Corpus BLEU-3, 0 to 100, from sums over rows of `bleu3_counts`: [samples, 8] → [samples], for `bootstrap`.

    The same numbers as sacrebleu's, its smoothing of orders without a match (exponential) among them.
    """
    import numpy as np

    ours, theirs, matches, grams = sums[:, 0], sums[:, 1], sums[:, 2:5], sums[:, 5:]
    missed = matches == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(missed, 0.5 ** missed.cumsum(axis=1), matches) / grams
        brevity = np.where(ours < theirs, np.exp(1 - theirs / ours), 1.0)
        score = 100 * brevity * np.exp(np.log(precisions).mean(axis=1))
    return np.where(matches.any(axis=1) & (grams > 0).all(axis=1), score, 0.0)


def make_metric(name: str, compute, about: str):
    """An `evaluate.Metric` of compute(predictions, references, **options) -> dict, over lists of texts."""
    import datasets
    import evaluate

    class Metric(evaluate.Metric):
        def _info(self):
            text = datasets.Value("string")
            features = datasets.Features({"predictions": text, "references": text})
            usage = "Lists of texts of equal length: predictions, references."
            return evaluate.MetricInfo(description=about, citation="", inputs_description=usage, features=features)

        def _compute(self, predictions, references, **options):
            return compute(list(predictions), list(references), **options)

        def _build_data_dir(self):
            return ""  # kept in memory: no folder in the home, and no file that two processes could fight over

    Metric.__name__ = name  # evaluate names the metric after its class
    return Metric(keep_in_memory=True)


def similarity_metric(encoder):
    """The mean similarity as an `evaluate.Metric`: `compute(…)` gives {"similarity": −100 to 100}."""

    def compute(predictions, references):
        return {"similarity": float(encoder.similarity(predictions, references).mean())}

    return make_metric("Similarity", compute, "Mean cosine times 100 of two texts' sentence embeddings.")


def novel_ngrams(summary: str, document: str, n: int) -> float:
    """Share (0 to 1) of the summary's n-grams of lowercased words that the document lacks; nan where there are none."""
    ours, theirs = (_ngrams(text, n) for text in (summary, document))
    known = set(theirs)
    return sum(gram not in known for gram in ours) / len(ours) if ours else float("nan")


def _ngrams(text: str, n: int) -> list[tuple]:
    words = re.findall(r"\w+(?:['’]\w+)*", text.lower())
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def bootstrap(columns, statistic, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval (low, high) of a statistic of column means, over rows drawn with replacement.

    `columns` is [rows, columns]; `statistic` maps means [resamples, columns] to [resamples]. Rows with a nan are left
    out; fewer than two rows say nothing of their spread: (nan, nan). The same seed draws the same rows.
    """
    import numpy as np

    if resamples < 1 or not 0 < level < 1:
        raise SummkitError(f"bootstrap: resamples={resamples}, level={level}: at least 1, and between 0 and 1")
    columns = np.asarray(columns, dtype=float)
    columns = columns[~np.isnan(columns).any(axis=1)]
    if len(columns) < 2:
        return float("nan"), float("nan")
    generator, block, means = np.random.default_rng(seed), max(1, 1_000_000 // len(columns)), []
    for first in range(0, resamples, block):
        drawn = generator.integers(len(columns), size=(min(block, resamples - first), len(columns)))
        # How often each row was drawn, then one product: a mean over drawn rows would copy every column of each.
        numbered = drawn + len(columns) * np.arange(len(drawn))[:, None]
        times = np.bincount(numbered.ravel(), minlength=drawn.size).reshape(drawn.shape)
        means.append(times @ columns / len(columns))
    with np.errstate(invalid="ignore", divide="ignore"):
        values = statistic(np.concatenate(means))
    values = values[np.isfinite(values)]
    tail = (1 - level) / 2
    return tuple(map(float, np.quantile(values, [tail, 1 - tail]))) if len(values) else (float("nan"), float("nan"))


def bootstrap_interval(values, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """Interval (low, high) of the mean of `values` [rows]; see `bootstrap`."""
    import numpy as np

    return bootstrap(np.asarray(values, dtype=float)[:, None], lambda means: means[:, 0], seed, resamples, level)


def mean_entry(values, seed: int = 0) -> dict:
    """The mean of `values` [rows], nan left out, with its interval: {"mean", "low", "high"} as a record holds it."""
    kept = [value for value in values.tolist() if not math.isnan(value)]
    low, high = bootstrap_interval(values, seed)
    return plain(mean=math.fsum(kept) / len(kept) if kept else math.nan, low=low, high=high)


def plain(**numbers) -> dict:
    """Numbers as a record holds them: Python's own floats, and None for nan."""
    return {name: None if math.isnan(number) else float(number) for name, number in numbers.items()}


def paired_bootstrap(a, b, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> tuple[float, float, float]:
    """(mean of a − b, low, high) for two systems on the same rows: an interval that leaves out 0 is a difference."""
    import numpy as np

    if len(a) != len(b):
        raise SummkitError(f"a paired comparison needs the same rows: {len(a)} against {len(b)}")
    differences = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    kept = differences[~np.isnan(differences)]
    mean = float(kept.mean()) if len(kept) else float("nan")
    return (mean, *bootstrap_interval(differences, seed, resamples, level))
