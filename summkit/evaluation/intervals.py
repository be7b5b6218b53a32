"""Intervals: bootstraps of a mean, of a score of pooled counts and of a paired difference; Wilson's of a share.

Rows are drawn with replacement, as many as there are. The interval is the middle 95 % of the score over 2,000 draws.
Functions return nan for unknown values; the entries of a run record have None instead.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from summkit.errors import SummkitError

Statistic = Callable[[np.ndarray], np.ndarray]  # means of columns [samples, columns] → scores [samples]
RESAMPLES = 2000
LEVEL = 0.95
DRAWN_AT_ONCE = 1_000_000  # row numbers in memory


def mean_statistic(means: np.ndarray) -> np.ndarray:
    """Return the mean of the first column: the statistic for one value a row."""
    return means[:, 0]


def bootstrap(columns: ArrayLike, statistic: Statistic = mean_statistic, seed: int = 0) -> tuple[float, float]:
    """Return the percentile interval of a statistic of column means.

    Args:
        columns: One value for each row [rows], or several [rows, columns]. Rows with a nan are left out.
        statistic: Maps the means of drawn rows [samples, columns] to scores [samples]. Infinite and nan scores are
            left out.
        seed: The same seed draws the same rows.

    Returns:
        (low, high); (nan, nan) for fewer than two rows, which do not show any spread.

    Example:
        >>> right, asked = [1, 3, 2, 0], [2, 3, 4, 1]
        >>> low, high = bootstrap(list(zip(right, asked)), lambda means: means[:, 0] / means[:, 1])
        >>> print(f"{sum(right) / sum(asked):.2f} [{low:.2f}, {high:.2f}]")
        0.60 [0.29, 0.90]
    """
    from scipy import stats

    complete = _complete_rows(columns)
    rows = len(complete)
    if rows < 2:
        return math.nan, math.nan

    def of_drawn_rows(drawn: np.ndarray, axis: int) -> np.ndarray:
        # drawn: row numbers (samples, rows). Counting how often each row was drawn, and one matrix product, takes a
        # twentieth of the time of scipy's `paired=True`, which copies every column of every drawn row.
        offsets: np.ndarray = rows * np.arange(len(drawn))[:, None]
        times = np.bincount((drawn + offsets).ravel(), minlength=drawn.size).reshape(drawn.shape)
        return statistic(times @ complete / rows)

    settings = {"n_resamples": RESAMPLES, "batch": max(1, DRAWN_AT_ONCE // rows), "rng": np.random.default_rng(seed)}
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # scipy's own interval is nan if one score is
        result = stats.bootstrap((np.arange(rows),), of_drawn_rows, vectorized=True, method="percentile", **settings)
    scores = result.bootstrap_distribution[np.isfinite(result.bootstrap_distribution)]
    if not len(scores):
        return math.nan, math.nan
    low, high = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def wilson(count: int, rows: int) -> tuple[float, float]:
    """Return Wilson's interval (1927) of the share `count / rows`. Unlike a bootstrap's, it has a width at 0 and 1.

    Example:
        >>> low, high = wilson(40, 40)
        >>> print(f"40 of 40: at least {low:.0%}, at most {high:.0%}")
        40 of 40: at least 91%, at most 100%
    """
    from scipy import stats

    found = stats.binomtest(count, rows).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, seed: int = 0, statistic: Statistic = mean_statistic
) -> tuple[float, float, float]:
    """Compare two systems on the same drawn rows.

    Args:
        a: Values of the first system, [rows] or [rows, columns]. Rows where either system has nan are left out.
        b: Values of the second system, in the same order.
        seed: See `bootstrap`.
        statistic: See `bootstrap`.

    Returns:
        (score of a − score of b, low, high). If the interval excludes 0, the difference is clear on these rows.

    Raises:
        SummkitError: The systems have different numbers of rows.

    Example:
        >>> paired_bootstrap([3.0, 5.0, 7.0], [2.0, 4.0, 6.0])
        (1.0, 1.0, 1.0)
    """
    first = np.asarray(a, dtype=float)
    second = np.asarray(b, dtype=float)
    if len(first) != len(second):
        raise SummkitError(f"a paired comparison needs the same rows: {len(first)} against {len(second)}")
    if statistic is mean_statistic:
        return (_score(first - second, statistic), *bootstrap(first - second, statistic, seed))
    both = np.concatenate([first, second], axis=1)

    def difference(means: np.ndarray) -> np.ndarray:
        means_a, means_b = np.split(means, 2, axis=1)
        return statistic(means_a) - statistic(means_b)

    return (_score(both, difference), *bootstrap(both, difference, seed))


def score_entry(values: ArrayLike, statistic: Statistic = mean_statistic, seed: int = 0) -> dict[str, float | None]:
    """Return a score of `values` as a run record holds it: {"mean", "low", "high"}; see `bootstrap`.

    Example:
        >>> score_entry([1.0, 2.0, 3.0])
        {'mean': 2.0, 'low': 1.0, 'high': 3.0}
    """
    return _entry("mean", _score(values, statistic), *bootstrap(values, statistic, seed))


def difference_entry(
    a: ArrayLike, b: ArrayLike, statistic: Statistic = mean_statistic, seed: int = 0
) -> dict[str, float | None]:
    """Return a − b as a run record holds it: {"difference", "low", "high"}; see `paired_bootstrap`."""
    return _entry("difference", *paired_bootstrap(a, b, seed, statistic))


def _complete_rows(values: ArrayLike) -> np.ndarray:
    """Return [rows] or [rows, columns] as float [rows, columns], without the rows that have a nan."""
    columns = np.asarray(values, dtype=float)
    if columns.ndim == 1:
        columns = columns[:, None]
    return columns[~np.isnan(columns).any(axis=1)]


def _score(values: ArrayLike, statistic: Statistic) -> float:
    complete = _complete_rows(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(statistic(complete.mean(axis=0, keepdims=True))[0]) if len(complete) else math.nan


def _entry(name: str, *numbers: float) -> dict[str, float | None]:
    keys = (name, "low", "high")
    return {key: None if math.isnan(number) else number for key, number in zip(keys, numbers, strict=True)}
