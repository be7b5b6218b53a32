"""Figures of labels: every system, class and bin that went in is on the Axes."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from summkit.evaluation import classification
from summkit.reporting import figures

ACTUAL = np.arange(3) == np.array([0, 1, 2, 1, 0, 2, 2, 1])[:, None]
SAID = np.arange(3) == np.array([0, 1, 2, 2, 0, 2, 0, 1])[:, None]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_bar_for_every_system_and_measure():
    scores = {
        "zero_shot": classification.score_labels(SAID, ACTUAL),
        "fine-tuned": classification.score_labels(ACTUAL, ACTUAL),
    }
    ax = figures.score_bars(scores, {"accuracy": "accuracy", "macro_f1": "macro F1"})
    bars = [bar for container in ax.containers if hasattr(container, "patches") for bar in container.patches]
    assert [round(bar.get_height(), 1) for bar in bars] == pytest.approx([75, 75.6, 100, 100], abs=0.1)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["zero-shot", "fine-tuned"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["accuracy", "macro F1"]


def test_a_bar_without_an_interval_has_no_whiskers():
    whole = {"mean": 0.5, "low": 0.4, "high": 0.7}
    scores = {"known": {"accuracy": whole}, "unknown": {"accuracy": whole | {"low": None, "high": None}}}
    ax = figures.score_bars(scores, {"accuracy": "accuracy"})
    drawn = [segment[:, 1].tolist() for lines in ax.collections for segment in lines.get_segments()]
    assert drawn == [pytest.approx([40, 70]), pytest.approx([50, 50])]


def test_a_metric_that_does_not_apply_has_no_bar():
    scores = {"a": {"support": {"mean": None, "low": None, "high": None}}, "b": {"support": {"mean": 0.5, "low": None}}}
    scores["b"]["support"]["high"] = None
    ax = figures.score_bars(scores, {"support": "support"})
    bars = [bar for container in ax.containers if hasattr(container, "patches") for bar in container.patches]
    assert [bar.get_height() for bar in bars] == [0, 50] and [text.get_text() for text in ax.texts] == ["n/a", ""]
