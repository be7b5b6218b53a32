"""Baselines of labels: they learn what words can tell, and know nothing of a class that they never saw."""

import random

import numpy as np
import pytest

from summkit.errors import SummkitError
from summkit.evaluation import baselines, classification

WORDS = {0: ("goal", "match", "coach"), 1: ("shares", "profit", "bank"), 2: ("chip", "software", "browser")}
COMMON = ("the", "a", "said", "on", "monday", "of", "week")


def toy(rows: int, seed: int, labels=(0, 1, 2), several: bool = False):
    """(texts, truth): a text has two words of each of its labels, among words that say nothing."""
    draw, texts, actual = random.Random(seed), [], np.zeros((rows, 4), dtype=bool)
    for row in range(rows):
        own = draw.sample(labels, draw.choice((1, 2)) if several else 1)
        actual[row, own] = True
        words = [word for label in own for word in draw.sample(WORDS[label], 2)] + draw.choices(COMMON, k=8)
        texts.append(" ".join(draw.sample(words, len(words))))
    return texts, actual


@pytest.fixture(scope="module", params=[False, True], ids=["one label", "several"])
def fitted(request):
    train, validation = (toy(rows, seed, several=request.param) for seed, rows in enumerate((120, 40)))
    return baselines.TfIdf(train, validation, request.param), request.param


def test_what_words_tell_is_learned(fitted):
    found, several = fitted
    texts, actual = toy(60, 9, several=several)
    given = found.probabilities(texts)
    assert given.shape == (60, 4) and found.C in (1, 10, 100)
    threshold = classification.best_threshold(given, actual) if several else 2
    assert classification.micro_f1(classification.assign_labels(given, threshold), actual) > 0.95
    if not several:
        np.testing.assert_allclose(given.sum(axis=1), 1)


def test_a_class_that_no_training_row_has_gets_nothing(fitted):
    given = fitted[0].probabilities(["a goal", "nothing of this was there before"])
    assert (given[:, 3] == 0).all() and (given[:, :3] > 0).all()


def test_two_classes_of_four_are_told_apart():
    train, validation = toy(60, 1, (0, 2)), toy(20, 2, (0, 2))
    found = baselines.TfIdf(train, validation)
    given = found.probabilities(["goal match", "chip browser"])
    assert given.argmax(axis=1).tolist() == [0, 2] and (given[:, [1, 3]] == 0).all()


def test_a_fit_is_the_same_again():
    first, again = (baselines.TfIdf(toy(60, 1), toy(20, 2)).probabilities(["goal bank"]) for _ in range(2))
    assert (first == again).all()


def test_the_commonest_class_for_every_row():
    actual = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 1]], dtype=bool)
    assert baselines.majority_baseline(actual, 2).tolist() == [[0, 0, 1]] * 2
    assert classification.score_labels(baselines.majority_baseline(actual, 3), actual)["matthews"]["mean"] == 0


def test_one_class_alone_is_nothing_to_learn():
    texts, actual = toy(9, 1, (2,))
    for several in (False, True):
        with pytest.raises(SummkitError, match="the training rows have 1 class"):
            baselines.TfIdf((texts, actual), (texts, actual), several)


@pytest.mark.filterwarnings("ignore:Label .* is present in all training examples")
def test_a_class_that_every_row_has_needs_no_words():
    texts, actual = toy(40, 1, (0, 1))
    actual[:, 3] = True
    found = baselines.TfIdf((texts, actual), (texts, actual), several=True)
    assert (found.probabilities(texts)[:, 3] == 1).all()
