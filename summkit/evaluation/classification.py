"""Score labels: metrics with intervals, thresholds, calibration and tables by class.

Truth and predictions are boolean arrays [rows, classes], with exactly one True per row in single-label tasks, so that
the same code scores one label, several labels and pairs of texts. scikit-learn's scorers calculate one score at a time,
which takes seconds for the 2,000 draws of an interval. So the scores here are computed from counts that add up over
rows, for many draws at once; tests compare them with scikit-learn's numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from summkit.errors import SummkitError
from summkit.evaluation.intervals import Statistic, difference_entry, score_entry

if TYPE_CHECKING:
    from datasets import Dataset

Labels: TypeAlias = ArrayLike  # boolean [rows, classes]
BINS = 10  # of confidence, in the calibration error


def true_labels(dataset: Dataset, classes: int) -> np.ndarray:
    """Return the labels of a data set as a boolean array [rows, classes]."""
    actual: np.ndarray = np.zeros((len(dataset), classes), dtype=bool)
    for row, labels in enumerate(dataset["labels"]):
        actual[row, labels] = True
    return actual


def top_label(scores: ArrayLike) -> np.ndarray:
    """Return the most likely label of each row: scores of any kind [rows, classes] → boolean [rows, classes].

    Example:
        >>> top_label([[0.2, 0.8], [0.6, 0.4]]).tolist()
        [[False, True], [True, False]]
    """
    scores = np.asarray(scores)
    return np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None]


def assign_labels(probabilities: ArrayLike, threshold: float) -> np.ndarray:
    """Return every label at or above the threshold, and always the most likely one: boolean [rows, classes]."""
    return top_label(probabilities) | (np.asarray(probabilities) >= threshold)


def best_threshold(probabilities: ArrayLike, actual: Labels) -> float:
    """Return the threshold with the highest micro F1; choose it on validation rows, never on test rows."""
    candidates = np.unique(np.round(np.asarray(probabilities), 3))
    candidates = candidates[candidates > 0]
    return float(max(candidates, key=lambda threshold: micro_f1(assign_labels(probabilities, threshold), actual)))


def micro_f1(predicted: Labels, actual: Labels) -> float:
    """Return F1 over all labels of all rows together, 0 to 1; with one label per row it equals the accuracy."""
    return float(_micro_f1(_counts(predicted, actual).mean(axis=0, keepdims=True))[0])


def score_labels(
    predicted: Labels, actual: Labels, several: bool = False, probabilities: ArrayLike | None = None, seed: int = 0
) -> dict:
    """Score the labels of one system.

    Args:
        predicted: Boolean [rows, classes].
        actual: The truth, in the same form.
        several: Whether a row may have several labels.
        probabilities: [rows, classes], for the calibration error of the most likely label.
        seed: Seed of the bootstrap.

    Returns:
        The system's entry in a record's `scores`: each metric as {"mean", "low", "high"} (95 %, bootstrap over rows),
        and n. For one label: accuracy, macro F1 and Matthews' correlation (-1 to 1); for several: micro F1, macro
        F1 and subset accuracy (exactly the right labels in a row). Macro F1 is over the classes that occur in truth or
        predictions.

    Raises:
        SummkitError: The shapes differ, there is no row, or a row of a single-label task has not exactly one label.

    Example:
        >>> actual = top_label([[1, 0], [0, 1], [1, 0], [0, 1]])
        >>> score_labels(top_label([[1, 0], [0, 1], [1, 0], [1, 0]]), actual)["accuracy"]
        {'mean': 0.75, 'low': 0.25, 'high': 1.0}
    """
    predicted, actual = _checked(predicted, actual, several)
    counts = _counts(predicted, actual)
    scores: dict = {name: score_entry(counts, statistic, seed) for name, statistic in _statistics(several).items()}
    if probabilities is not None:
        gaps = _calibration_gaps(probabilities, actual)
        scores["calibration_error"] = score_entry(gaps, lambda means: abs(means).sum(axis=1), seed)
    return scores | {"n": len(actual)}


def compare_labels(
    a: Labels, b: Labels, actual: Labels, several: bool = False, seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """Compare the predictions of two systems on the same rows.

    Args:
        a: Predictions of the first system, boolean [rows, classes].
        b: Predictions of the second system.
        actual: The truth.
        several: Whether a row may have several labels.
        seed: Seed of the bootstrap.

    Returns:
        {metric: {"difference", "low", "high"}}, a minus b (95 %, paired bootstrap).

    Raises:
        SummkitError: See `score_labels`.
    """
    counts_a = _counts(*_checked(a, actual, several))
    counts_b = _counts(*_checked(b, actual, several))
    return {
        name: difference_entry(counts_a, counts_b, statistic, seed) for name, statistic in _statistics(several).items()
    }


def _checked(predicted: Labels, actual: Labels, several: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return both as boolean arrays, or raise an error that names the shape or the row."""
    predicted, actual = np.asarray(predicted, dtype=bool), np.asarray(actual, dtype=bool)
    if predicted.shape != actual.shape or actual.ndim != 2 or not len(actual):
        raise SummkitError(f"predictions are {predicted.shape}, the truth is {actual.shape}: [rows, classes] is needed")
    for name, labels in (("predictions", predicted), ("truth", actual)):
        wrong = np.flatnonzero(labels.sum(axis=1) != 1)
        if not several and len(wrong):
            row = wrong[0]
            raise SummkitError(f"{name}, row {row + 1}: {labels[row].sum()} labels, but one a row is asked for")
    return predicted, actual


def _counts(predicted: Labels, actual: Labels) -> np.ndarray:
    """Return counts that add up over rows: hits, predictions and truths by class; whether the whole row is right.

    Float array [rows, 3 · classes + 1].
    """
    predicted, actual = np.asarray(predicted, dtype=float), np.asarray(actual, dtype=float)
    whole = (predicted == actual).all(axis=1)[:, None]
    return np.concatenate([predicted * actual, predicted, actual, whole], axis=1)


def _statistics(several: bool) -> dict[str, Statistic]:
    """Return the scores as functions of means of `_counts`: [samples, columns] → [samples]."""
    if several:
        return {"micro_f1": _micro_f1, "macro_f1": _macro_f1, "subset_accuracy": lambda means: means[:, -1]}
    return {"accuracy": lambda means: means[:, -1], "macro_f1": _macro_f1, "matthews": _matthews}


def _split(means: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the hits, predictions and truths, [samples, classes] each."""
    hits, predicted, actual = np.split(means[:, :-1], 3, axis=1)
    return hits, predicted, actual


def _micro_f1(means: np.ndarray) -> np.ndarray:
    hits, predicted, actual = _split(means)
    return 2 * hits.sum(axis=1) / (predicted + actual).sum(axis=1)


def _macro_f1(means: np.ndarray) -> np.ndarray:
    """Average F1 over the classes that occur; the others have no F1."""
    hits, predicted, actual = _split(means)
    occurs = (predicted + actual) > 0
    f1 = np.divide(2 * hits, predicted + actual, out=np.zeros_like(hits), where=occurs)
    return f1.sum(axis=1) / occurs.sum(axis=1)


def _matthews(means: np.ndarray) -> np.ndarray:
    """Gorodkin's form for any number of classes; 0 where truth or predictions have a single class, as scikit-learn."""
    hits, predicted, actual = _split(means)
    spread = (1 - (predicted**2).sum(axis=1)) * (1 - (actual**2).sum(axis=1))
    above_chance = hits.sum(axis=1) - (predicted * actual).sum(axis=1)
    return np.divide(above_chance, np.sqrt(spread), out=np.zeros_like(spread), where=spread > 1e-12)


def _calibration_gaps(probabilities: ArrayLike, actual: Labels) -> np.ndarray:
    """Return confidence minus correctness, in the column of the row's bin: [rows, bins].

    The sum of the absolute means of the columns is the expected calibration error.
    """
    probabilities, actual = np.asarray(probabilities), np.asarray(actual)
    if probabilities.shape != actual.shape:
        raise SummkitError(
            f"probabilities are {probabilities.shape}, the truth is {actual.shape}: they must have the same shape"
        )
    confidence = probabilities.max(axis=1)
    correct = (top_label(probabilities) & actual).any(axis=1)
    bins = (confidence * BINS).astype(int).clip(0, BINS - 1)
    return np.where(bins[:, None] == np.arange(BINS), (confidence - correct)[:, None], 0.0)
