"""Floor 7. Data in, Axes out: the look that all figures share, and the figures that more than one chapter draws."""

from pathlib import Path


def style() -> None:
    """seaborn's whitegrid, a palette that colour-blind readers can tell apart, a size that keeps notebooks small."""
    import seaborn as sns

    sns.set_theme(
        context="notebook", style="whitegrid", palette="colorblind", rc={"figure.dpi": 80, "figure.figsize": (7, 4)}
    )


def save(fig, out, name: str) -> Path:
    """Write the figure to out/figures/NAME.png and return the path."""
    folder = Path(out) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    fig.savefig(path, dpi=110, bbox_inches="tight")
    return path


def learning_curves(history: list[dict], ax=None):
    """Training and validation loss (nats per summary token) over optimizer steps, from `FitResult.history`."""
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots()[1]
    for key, label, look in (
        ("loss", "training batch", {"alpha": 0.5}),
        ("eval_loss", "validation rows", {"marker": "o"}),
    ):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            ax.plot(*zip(*points, strict=True), label=label, **look)
    ax.set(xlabel="optimizer step", ylabel="loss (nats per summary token)", title="Loss on the summary's tokens")
    ax.legend()
    return ax
