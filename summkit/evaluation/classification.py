"""Floor 6. From labels to the table that a reader can trust: scores with intervals, thresholds, calibration.

The twin of `evaluation` for tasks whose answer is a label. Truth and predictions are boolean arrays [rows, classes],
one True a row where one label is asked, so that one, several and pairs are scored by the same code. Every score is a
function of counts that add up over rows; intervals draw the rows again (bootstrap) and count anew.
"""

from summkit.errors import SummkitError
from summkit.evaluation.metrics import bootstrap

BINS = 10  # of confidence, in reliability and calibration error


def true_labels(dataset, classes: int):
    """The labels of a data set as a boolean array [rows, classes]."""
    import numpy as np

    found = np.zeros((len(dataset), classes), dtype=bool)
    for row, labels in enumerate(dataset["labels"]):
        found[row, labels] = True
    return found


def top_label(scores):
    """The likeliest label alone of each row: [rows, classes] of any scores → boolean [rows, classes]."""
    import numpy as np

    scores = np.asarray(scores)
    return np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None]


def assign_labels(probabilities, threshold: float):
    """Every label at or above the threshold, and the likeliest in any case: boolean [rows, classes]."""
    import numpy as np

    return top_label(probabilities) | (np.asarray(probabilities) >= threshold)


def best_threshold(probabilities, actual) -> float:
    """The threshold with the highest micro F1 on these rows: take validation rows, never those that are scored."""
    import numpy as np

    tried = np.unique(np.round(np.asarray(probabilities), 3))
    tried = tried[tried > 0]
    return float(max(tried, key=lambda t: micro_f1(assign_labels(probabilities, t), actual)))


def micro_f1(predicted, actual) -> float:
    """F1 of all labels of all rows together, 0 to 1; with one label a row it is the accuracy."""
    return float(_micro_f1(_counts(predicted, actual, True).mean(axis=0)))


def score_labels(predicted, actual, several: bool = False, probabilities=None, seed: int = 0) -> dict:
    """One system's entry in a record's `scores`: each measure as {"mean", "low", "high"} (95 %), and n.

    One label: accuracy, macro F1, Matthews' correlation. `several`: micro F1, macro F1, subset accuracy (every label
    of the row right, and none too many). With `probabilities` also the expected calibration error, of the likeliest
    label. Shares from 0 to 1, Matthews from -1 to 1. Macro F1 is over classes that occur in truth or prediction.
    """
    predicted, actual = _checked(predicted, actual, several)
    counts = _counts(predicted, actual, several)
    found = {name: _entry(counts, measure, seed) for name, measure in _measures(several, actual.shape[1]).items()}
    if probabilities is not None:
        found["calibration_error"] = _entry(_gaps(probabilities, actual), lambda gaps: abs(gaps).sum(axis=1), seed)
    return found | {"n": len(actual)}


def compare_labels(a, b, actual, several: bool = False, seed: int = 0) -> dict:
    """How much predictions `a` are above `b` on the same rows: {measure: {"difference", "low", "high"}}, a minus b."""
    import numpy as np

    (a, actual), (b, _) = _checked(a, actual, several), _checked(b, actual, several)
    counts = np.concatenate([_counts(a, actual, several), _counts(b, actual, several)], axis=1)
    half, result = counts.shape[1] // 2, {}
    for name, measure in _measures(several, actual.shape[1]).items():

        def difference(means, measure=measure):
            return measure(means[:, :half]) - measure(means[:, half:])

        entry = _entry(counts, difference, seed)
        result[name] = {"difference": entry["mean"], "low": entry["low"], "high": entry["high"]}
    return result


def per_class(predicted, actual, classes):
    """A pandas DataFrame, a class a row: rows that have it, predictions of it, precision, recall and F1 (nan: none)."""
    import numpy as np
    import pandas as pd

    predicted, actual = np.asarray(predicted), np.asarray(actual)
    hits, said, there = (x.sum(axis=0).astype(float) for x in (predicted & actual, predicted, actual))
    with np.errstate(invalid="ignore"):
        columns = {"rows": there.astype(int), "predicted": said.astype(int), "precision": hits / said,
                   "recall": hits / there, "F1": 2 * hits / (said + there)}  # fmt: skip
    return pd.DataFrame(columns, index=pd.Index(list(classes), name="class"))


def confusion_matrix(predicted, actual, classes):
    """A pandas DataFrame of counts for one label a row: true classes down, predicted across."""
    import numpy as np
    import pandas as pd

    table = np.asarray(actual).astype(int).T @ np.asarray(predicted).astype(int)
    return pd.DataFrame(table, index=pd.Index(classes, name="true"), columns=pd.Index(classes, name="predicted"))


def reliability_table(probabilities, actual):
    """Bins of the likeliest label's probability: a DataFrame of confidence and accuracy (means), and rows, per bin."""
    import pandas as pd

    confidence, right = _confidence(probabilities, actual)
    frame = pd.DataFrame({"bin": _bin(confidence), "confidence": confidence, "accuracy": right, "rows": 1})
    return frame.groupby("bin").agg({"confidence": "mean", "accuracy": "mean", "rows": "sum"})


def most_confident_mistakes(probabilities, actual, count: int = 10) -> list[tuple[int, int, float]]:
    """(row, predicted class, its probability) of the rows whose likeliest label is wrong, surest first."""
    confidence, right = _confidence(probabilities, actual)
    wrong = sorted((row for row in range(len(right)) if not right[row]), key=lambda row: -confidence[row])
    return [(row, int(probabilities[row].argmax()), float(confidence[row])) for row in wrong[:count]]


def _checked(predicted, actual, several: bool):
    import numpy as np

    predicted, actual = np.asarray(predicted, dtype=bool), np.asarray(actual, dtype=bool)
    if predicted.shape != actual.shape or actual.ndim != 2 or not len(actual):
        raise SummkitError(f"predictions are {predicted.shape}, the truth is {actual.shape}: [rows, classes] is needed")
    for name, found in (("predictions", predicted), ("truth", actual)):
        wrong = np.flatnonzero(found.sum(axis=1) != 1)
        if not several and len(wrong):
            raise SummkitError(f"{name}, row {wrong[0] + 1}: {found[wrong[0]].sum()} labels, one a row is asked")
    return predicted, actual


def _counts(predicted, actual, several: bool):
    """What adds up over rows, [rows, columns]: the confusion matrix, or per class hits, predictions, truths; and the
    rows that are right as a whole, in the last column.
    """
    import numpy as np

    predicted, actual = np.asarray(predicted, dtype=float), np.asarray(actual, dtype=float)
    if not several:
        return (actual[:, :, None] * predicted[:, None, :]).reshape(len(actual), -1)
    whole = (predicted == actual).all(axis=1)[:, None]
    return np.concatenate([predicted * actual, predicted, actual, whole], axis=1)


def _measures(several: bool, classes: int) -> dict:
    if several:
        return {"micro_f1": _micro_f1, "macro_f1": _macro_f1, "subset_accuracy": lambda means: means[..., -1]}

    def of_matrix(measure):
        return lambda means: measure(means.reshape(len(means), classes, classes))

    return {
        "accuracy": of_matrix(_accuracy),
        "macro_f1": of_matrix(_macro_f1_of_matrix),
        "matthews": of_matrix(_matthews),
    }


def _entry(columns, measure, seed: int) -> dict:
    import math

    value = float(measure(columns.mean(axis=0)[None])[0])
    low, high = bootstrap(columns, measure, seed)
    return {key: None if math.isnan(x) else float(x) for key, x in (("mean", value), ("low", low), ("high", high))}


def _micro_f1(means):
    hits, said, there = _thirds(means)
    return 2 * hits.sum(axis=-1) / (said + there).sum(axis=-1)


def _macro_f1(means):
    return _mean_f1(*_thirds(means))


def _thirds(means):
    size = means.shape[-1] // 3
    return means[..., :size], means[..., size : 2 * size], means[..., 2 * size : 3 * size]


def _mean_f1(hits, said, there):
    """Mean over the classes that occur at all; the others have no F1."""
    import numpy as np

    occurs = (said + there) > 0
    f1 = np.divide(2 * hits, said + there, out=np.zeros_like(hits), where=occurs)
    return f1.sum(axis=-1) / occurs.sum(axis=-1)


def _accuracy(matrix):
    return matrix.trace(axis1=1, axis2=2)


def _macro_f1_of_matrix(matrix):
    import numpy as np

    return _mean_f1(np.einsum("bii->bi", matrix).copy(), matrix.sum(axis=1), matrix.sum(axis=2))


def _matthews(matrix):
    """Gorodkin's form for any number of classes; 0 where truth or predictions hold a single class, as scikit-learn."""
    import numpy as np

    said, there = matrix.sum(axis=1), matrix.sum(axis=2)
    spread = (1 - (said**2).sum(axis=1)) * (1 - (there**2).sum(axis=1))
    above_chance = matrix.trace(axis1=1, axis2=2) - (said * there).sum(axis=1)
    return np.divide(above_chance, np.sqrt(spread), out=np.zeros_like(spread), where=spread > 1e-12)


def _confidence(probabilities, actual):
    """The likeliest label's probability, and whether the row has it: two float arrays [rows]."""
    import numpy as np

    probabilities, actual = np.asarray(probabilities), np.asarray(actual)
    if probabilities.shape != actual.shape:
        raise SummkitError(f"probabilities are {probabilities.shape}, the truth is {actual.shape}: the same is needed")
    return probabilities.max(axis=1), (top_label(probabilities) & actual).any(axis=1).astype(float)


def _bin(confidence):
    return (confidence * BINS).astype(int).clip(0, BINS - 1)


def _gaps(probabilities, actual):
    """[rows, bins]: confidence minus rightness in the row's bin. Means of columns, added up without their signs, are
    the expected calibration error.
    """
    import numpy as np

    confidence, right = _confidence(probabilities, actual)
    return np.where(_bin(confidence)[:, None] == np.arange(BINS), (confidence - right)[:, None], 0.0)
