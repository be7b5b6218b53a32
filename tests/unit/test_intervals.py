"""Intervals: bootstraps by hand, rows that cannot be used, and paired differences."""

import math

import numpy as np
import pytest

from summkit.errors import SummkitError
from summkit.evaluation import intervals


def test_bootstrap_covers_and_repeats():
    values = np.random.default_rng(1).normal(20, 10, 400)
    low, high = intervals.bootstrap(values, seed=3)
    error = values.std() / 20
    assert values.mean() - low == pytest.approx(1.96 * error, rel=0.15) and low < values.mean() < high
    assert (low, high) == intervals.bootstrap(values, seed=3) != intervals.bootstrap(values, seed=4)
    assert intervals.bootstrap([5.0, 5.0]) == (5, 5)


def test_counting_how_often_a_row_was_drawn_is_drawing_it():
    columns = np.random.default_rng(1).normal(3, 1, (50, 2))
    drawn = columns[np.random.default_rng(2).integers(50, size=(2000, 50))].mean(axis=1)
    expected = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    found = intervals.bootstrap(columns, lambda means: means[:, 0] / means[:, 1], seed=2)
    assert found == pytest.approx(tuple(expected))


def test_bootstrap_leaves_nan_out_and_says_nothing_of_one_row():
    assert intervals.bootstrap([1.0, 2.0, 3.0, math.nan]) == intervals.bootstrap([1.0, 2.0, 3.0])
    for few in ([], [1.0], [1.0, math.nan]):
        assert all(map(math.isnan, intervals.bootstrap(few)))


def test_draws_in_several_batches_are_the_same_draws(monkeypatch):
    columns = np.random.default_rng(1).normal(3, 1, (50, 2))
    whole = intervals.bootstrap(columns, lambda means: means[:, 0] / means[:, 1])
    monkeypatch.setattr(intervals, "DRAWN_AT_ONCE", 50 * 300)
    assert intervals.bootstrap(columns, lambda means: means[:, 0] / means[:, 1]) == pytest.approx(whole, rel=1e-12)


@pytest.mark.filterwarnings("error")
def test_scores_that_are_not_finite_are_left_out():
    columns = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])  # some draws have 0 / 0, some 1 / 0
    low, high = intervals.bootstrap(columns, lambda means: means[:, 0] / means[:, 1])
    assert 1 <= low < high < 10
    assert all(map(math.isnan, intervals.bootstrap(np.zeros((3, 2)), lambda means: means[:, 0] / means[:, 1])))


def test_entries_are_what_a_record_holds():
    assert intervals.score_entry([]) == {"mean": None, "low": None, "high": None}
    assert intervals.score_entry([2.0, math.nan]) == {"mean": 2, "low": None, "high": None}
    columns = [[1.0, 2.0], [3.0, 4.0]]
    entry = intervals.score_entry(columns, lambda means: means[:, 0] / means[:, 1])
    assert entry == {"mean": pytest.approx(4 / 6), "low": pytest.approx(1 / 2), "high": pytest.approx(3 / 4)}
    difference = intervals.difference_entry(columns, [[1.0, 1.0], [1.0, 1.0]], lambda means: means[:, 0] / means[:, 1])
    assert difference == {name: pytest.approx(entry[key] - 1) for name, key in zip(difference, entry, strict=True)}
    assert list(difference) == ["difference", "low", "high"]


def test_paired_bootstrap_sees_a_difference_and_does_not_see_none():
    generator = np.random.default_rng(0)
    hard, noise = generator.normal(20, 10, 64), generator.normal(0, 2, (2, 64))
    difference, low, high = intervals.paired_bootstrap(hard + 2 + noise[0], hard)
    assert 0 < low < difference < high < 4
    # Unpaired, the same two points drown in how much the rows differ.
    assert intervals.bootstrap(hard + 2 + noise[0])[0] < intervals.bootstrap(hard)[1]
    same = (intervals.paired_bootstrap(hard, hard + generator.normal(0, 2, 64)) for _ in range(100))
    assert sum(low > 0 or high < 0 for _, low, high in same) < 13  # about 5 in 100
    assert intervals.paired_bootstrap([1.0, 2.0], [1.0, 2.0]) == (0, 0, 0)
    with pytest.raises(SummkitError, match="2 against 1"):
        intervals.paired_bootstrap([1.0, 2.0], [1.0])


def test_wilsons_interval_is_the_formulas_and_covers_where_no_row_is_wrong():
    z = 1.959964
    for right, rows in ((40, 40), (0, 60), (7, 10)):
        middle, root = right + z**2 / 2, z * math.sqrt(right * (rows - right) / rows + z**2 / 4)
        ends = ((middle - root) / (rows + z**2), (middle + root) / (rows + z**2))
        assert intervals.wilson(right, rows) == pytest.approx(ends, abs=1e-6)
    assert intervals.wilson(40, 40)[0] < 1 - 3 / 40 + 0.02  # the rule of three is near
