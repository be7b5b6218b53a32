"""Scores of labels: the same as scikit-learn's, with intervals; thresholds, calibration and tables by hand."""

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from summkit.errors import SummkitError
from summkit.evaluation import classification

CLASSES = 5


def one_hot(numbers, classes=CLASSES):
    return np.arange(classes) == np.asarray(numbers)[:, None]


def single(seed: int, rows: int = 60, there=range(CLASSES), said=range(CLASSES)):
    """Random (predicted, actual) class numbers; half of the predictions are right where they can be."""
    draw = np.random.default_rng(seed)
    actual, guess = draw.choice(list(there), rows), draw.choice(list(said), rows)
    right = (draw.random(rows) < 0.5) & np.isin(actual, list(said))
    return np.where(right, actual, guess), actual


def several(seed: int, rows: int = 60, absent=()):
    draw = np.random.default_rng(seed)
    actual = draw.random((rows, CLASSES)) < 0.3
    actual[:, list(absent)] = False
    actual[np.arange(rows), draw.choice([c for c in range(CLASSES) if c not in absent], rows)] = True
    return actual ^ (draw.random(actual.shape) < 0.2), actual


def probabilities(seed: int, rows: int = 60):
    return np.random.default_rng(seed).dirichlet(np.ones(CLASSES), rows)


def means(entry: dict) -> dict:
    return {key: value["mean"] for key, value in entry.items() if key != "n"}


@pytest.mark.parametrize(
    "occurs",
    [{}, {"there": (0, 2)}, {"said": (1, 3, 4)}, {"there": (0, 1), "said": (3, 4)}, {"there": (2,)}, {"said": (2,)},
     {"there": (1,), "said": (1,)}],
)  # fmt: skip
@pytest.mark.parametrize("seed", [0, 1])
def test_one_label_scores_as_scikit_learn(seed, occurs):
    predicted, actual = single(seed, **occurs)
    found = classification.score_labels(one_hot(predicted), one_hot(actual))
    assert means(found) == pytest.approx({
        "accuracy": reference.accuracy_score(actual, predicted),
        "macro_f1": reference.f1_score(actual, predicted, average="macro", zero_division=0),
        "matthews": reference.matthews_corrcoef(actual, predicted),
    })  # fmt: skip
    assert found["n"] == 60
    assert classification.micro_f1(one_hot(predicted), one_hot(actual)) == pytest.approx(found["accuracy"]["mean"])


@pytest.mark.parametrize("absent", [(), (0,), (1, 4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_several_labels_score_as_scikit_learn(seed, absent):
    predicted, actual = several(seed, absent=absent)
    predicted[:, list(absent[:1])] = False  # nobody has this one; others are predicted, and always wrong
    labels = [number for number in range(CLASSES) if predicted[:, number].any() or actual[:, number].any()]
    found = classification.score_labels(predicted, actual, several=True)
    assert means(found) == pytest.approx({
        "micro_f1": reference.f1_score(actual, predicted, average="micro"),
        "macro_f1": reference.f1_score(actual, predicted, average="macro", labels=labels, zero_division=0),
        "subset_accuracy": reference.accuracy_score(actual, predicted),
    })  # fmt: skip
    assert classification.micro_f1(predicted, actual) == pytest.approx(found["micro_f1"]["mean"])


@pytest.mark.parametrize("many", [False, True])
def test_intervals_hold_the_mean_and_repeat(many):
    predicted, actual = several(3) if many else map(one_hot, single(3))
    found, again, other = (classification.score_labels(predicted, actual, many, seed=seed) for seed in (0, 0, 1))
    assert found == again != other
    for name in means(found):
        assert found[name]["low"] < found[name]["mean"] < found[name]["high"]
    small = classification.score_labels(predicted[:15], actual[:15], many)
    assert all(np.ptp(list(small[name].values())) > np.ptp(list(found[name].values())) for name in means(found))


def test_an_accuracys_interval_is_as_wide_as_a_binomials():
    predicted, actual = map(one_hot, single(4, rows=400))
    found = classification.score_labels(predicted, actual)["accuracy"]
    error = math.sqrt(found["mean"] * (1 - found["mean"]) / 400)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_one_row_has_no_interval():
    found = classification.score_labels(one_hot([1]), one_hot([1]))
    assert found["accuracy"] == {"mean": 1, "low": None, "high": None} and found["n"] == 1


@pytest.mark.parametrize("many", [False, True])
def test_a_system_is_not_above_itself(many):
    predicted, actual = several(5) if many else map(one_hot, single(5))
    found = classification.compare_labels(predicted, predicted, actual, many)
    assert list(found) == list(means(classification.score_labels(predicted, actual, many)))
    assert all(entry == {"difference": 0, "low": 0, "high": 0} for entry in found.values())


@pytest.mark.parametrize("many", [False, True])
def test_a_difference_is_that_of_the_scores_and_paired(many):
    (a, actual), (b, _) = (several(6), several(7)) if many else (map(one_hot, single(6)), map(one_hot, single(7)))
    scores = [means(classification.score_labels(x, actual, many)) for x in (a, b)]
    found, turned = classification.compare_labels(a, b, actual, many), classification.compare_labels(b, a, actual, many)
    for name, entry in found.items():
        assert entry["difference"] == pytest.approx(scores[0][name] - scores[1][name])
        assert [-turned[name][key] for key in ("difference", "high", "low")] == pytest.approx(list(entry.values()))
    better = actual.copy()
    better[:3] = np.roll(actual[:3], 1, axis=1)
    worse = better.copy()
    worse[:12] = np.roll(actual[:12], 1, axis=1)
    assert all(entry["low"] > 0 for entry in classification.compare_labels(better, worse, actual, many).values())


def test_truth_is_a_row_of_booleans_for_each_row():
    rows = {"labels": [[0], [1, 3], []]}

    class Rows(dict):
        def __len__(self):
            return 3

    found = classification.true_labels(Rows(rows), 4)
    assert found.dtype == bool and found.tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]


def test_the_likeliest_label_is_taken_in_any_case():
    given = [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.34, 0.33, 0.33]]
    assert classification.top_label(given).tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]
    assert classification.top_label([[-9.0, -2.0], [1.0, 1.0]]).tolist() == [[0, 1], [1, 0]], "one label even in a tie"
    assert classification.assign_labels(given, 0.3).tolist() == [[1, 1, 0], [0, 0, 1], [1, 1, 1]]
    assert (classification.assign_labels(given, 2) == classification.top_label(given)).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_threshold_is_the_best_on_a_grid(seed):
    actual, given = several(seed)[1], probabilities(seed + 10)
    given = given * 0.7 + actual * 0.1
    found = classification.best_threshold(given, actual)
    best = max(
        classification.micro_f1(classification.assign_labels(given, t), actual) for t in np.arange(0.001, 1, 0.001)
    )
    assert classification.micro_f1(classification.assign_labels(given, found), actual) == pytest.approx(best)
    assert 0 < found < 1


def test_calibration_error_by_hand():
    given = np.array([[0.95, 0.05], [0.91, 0.09], [0.35, 0.65], [0.61, 0.39], [1.0, 0.0]])
    actual = one_hot([0, 1, 1, 1, 0], 2)  # right, wrong, right, wrong, right
    found = classification.score_labels(classification.top_label(given), actual, probabilities=given)[
        "calibration_error"
    ]
    assert found["mean"] == pytest.approx((abs(0.95 + 0.91 + 1.0 - 2) + abs(0.65 + 0.61 - 1)) / 5)
    assert 0 <= found["low"] <= found["high"] <= 1
    sure = classification.score_labels(actual, actual, probabilities=actual.astype(float))["calibration_error"]
    assert sure == {"mean": 0, "low": 0, "high": 0}


def test_the_calibration_error_is_the_mean_gap_of_the_bins():
    given, actual = probabilities(1, 200), one_hot(single(1, 200)[1])
    sure, right = given.max(axis=1), actual[np.arange(200), given.argmax(axis=1)]
    bins = np.minimum((10 * sure).astype(int), 9)
    error = sum(abs((sure - right)[bins == number].sum()) for number in range(10)) / 200
    found = classification.score_labels(classification.top_label(given), actual, probabilities=given)
    assert found["calibration_error"]["mean"] == pytest.approx(error)


def test_a_label_of_several_is_right_for_calibration():
    given, actual = np.array([[0.3, 0.7], [0.8, 0.2]]), np.array([[True, True], [False, True]])
    found = classification.score_labels(actual, actual, several=True, probabilities=given)
    assert found["calibration_error"]["mean"] == pytest.approx((0.3 + 0.8) / 2)


@pytest.mark.parametrize(
    ("predicted", "actual", "said"),
    [
        (one_hot([0, 1]), one_hot([0]), r"predictions are \(2, 5\), the truth is \(1, 5\)"),
        (one_hot([0], 4), one_hot([0]), r"predictions are \(1, 4\)"),
        (np.array([0, 1]), np.array([0, 1]), r"predictions are \(2,\).*\[rows, classes\] is needed"),
        (np.zeros((0, 3)), np.zeros((0, 3)), r"predictions are \(0, 3\)"),
        (np.ones((2, 3)), one_hot([0, 1], 3), "predictions, row 1: 3 labels, but one a row is asked for"),
        (one_hot([0, 1], 3), one_hot([0, 9], 3), "truth, row 2: 0 labels"),
    ],
)
def test_what_does_not_fit_is_refused(predicted, actual, said):
    with pytest.raises(SummkitError, match=said):
        classification.score_labels(predicted, actual)
    with pytest.raises(SummkitError, match=said):
        classification.compare_labels(predicted, predicted, actual)


@pytest.mark.parametrize("given", [np.ones((1, 5)), np.ones((2, 4)), np.ones(5)])
def test_probabilities_of_another_shape_are_refused(given):
    actual = one_hot([0, 1])
    with pytest.raises(SummkitError, match=r"probabilities are .*, the truth is \(2, 5\)"):
        classification.score_labels(actual, actual, probabilities=given)
