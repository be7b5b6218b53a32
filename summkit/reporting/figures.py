"""Figures that several chapters use, as functions from data to Axes, and their common style."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from summkit.reporting.tables import display_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BESIDE: dict[str, Any] = {"fontsize": "small", "loc": "upper left", "bbox_to_anchor": (1, 1)}  # a legend's place


def style() -> None:
    """Set the style of all figures: white grid, colour-blind-safe colours, a size that keeps notebooks small."""
    import seaborn as sns

    size = {"figure.dpi": 80, "figure.figsize": (7, 4)}
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc=size)


def save(fig: Figure, out: str | Path, name: str) -> Path:
    """Write a figure to out/figures/NAME.png and return the path."""
    path = Path(out) / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110, bbox_inches="tight")
    return path


def learning_curves(history: list[dict], ax: Axes | None = None) -> Axes:
    """Draw training and validation loss (nats per summary token) over optimizer steps.

    Args:
        history: `FitResult.history`: entries with a step and a loss, an eval_loss or both.
        ax: The Axes to draw on; None: new Axes.

    Example:
        >>> ax = learning_curves([{"step": 1, "loss": 3.1}, {"step": 2, "loss": 2.8}, {"step": 2, "eval_loss": 2.9}])
        >>> ax.get_legend_handles_labels()[1]
        ['training batch', 'validation rows']
    """
    import pandas as pd

    ax = _axes(ax)
    losses = pd.DataFrame(history, columns=["step", "loss", "eval_loss"]).set_index("step")
    for column, label, look in (
        ("loss", "training batch", {"alpha": 0.5}),
        ("eval_loss", "validation rows", {"marker": "o"}),
    ):
        known = losses[column].dropna()
        if len(known):
            ax.plot(known, label=label, **look)
    ax.set(xlabel="optimizer step", ylabel="loss (nats per summary token)", title="Loss on the summary's tokens")
    ax.legend()
    return ax


def score_bars(scores: dict[str, dict], measures: dict[str, str], ax: Axes | None = None) -> Axes:
    """Draw a bar for each system and measure, in percent, with its 95 % interval where there is one.

    Args:
        scores: Entries of a record's scores, by system.
        measures: {key of an entry: name to show}.
        ax: The Axes to draw on; None: new Axes.
    """
    import pandas as pd
    from matplotlib.container import BarContainer

    ax = _axes(ax)
    means = {display_name(system): [_percent(entry[key]) for key in measures] for system, entry in scores.items()}
    whiskers = np.array([[_whiskers(entry[key]) for key in measures] for entry in scores.values()])
    frame = pd.DataFrame(means, index=list(measures.values()))
    # pandas expects errors as (systems, below and above, measures).
    errors = 100 * whiskers.transpose(0, 2, 1)
    frame.plot.bar(ax=ax, yerr=errors, capsize=2, width=0.8, rot=0, error_kw={"elinewidth": 1})
    bars = [container for container in ax.containers if isinstance(container, BarContainer)]
    for container, entry in zip(bars, scores.values(), strict=True):
        ax.bar_label(container, ["n/a" if entry[key]["mean"] is None else "" for key in measures])
    ax.set(ylabel="percent", title="Scores with 95 % intervals")
    ax.legend(**_BESIDE)
    return ax


def _axes(ax: Axes | None) -> Axes:
    import matplotlib.pyplot as plt

    return plt.subplots()[1] if ax is None else ax


def _percent(value: dict) -> float:
    return np.nan if value["mean"] is None else 100 * value["mean"]  # a metric may not apply to a language


def _whiskers(value: dict) -> list[float]:
    """Return the lengths of the interval below and above the mean; 0 if there is none."""
    return [0.0 if value[end] is None else abs(value["mean"] - value[end]) for end in ("low", "high")]
