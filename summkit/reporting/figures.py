"""Floor 7. Data in, Axes out: the look that all figures share, and the figures that more than one chapter draws."""

import itertools
from pathlib import Path


def style() -> None:
    """Seaborn's whitegrid, a palette that colour-blind readers can tell apart, a size that keeps notebooks small."""
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


def watched(history: list[dict], ax=None):
    """Scores of the answers that `watch.generation_scores` had written, 0 to 100, over optimizer steps."""
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots()[1]
    names = dict.fromkeys(key for entry in history for key in entry if key.startswith("eval_") and key != "eval_loss")
    for name in names:
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        label = {"eval_rouge1": "ROUGE-1", "eval_bleu3": "BLEU-3"}.get(name, name.removeprefix("eval_"))
        ax.plot(*zip(*points, strict=True), marker="o", label=label)
    ax.set(xlabel="optimizer step", ylabel="score (0 to 100)", title="Scores of answers while training")
    ax.legend()
    return ax


def score_bars(scores: dict[str, dict], measures: dict[str, str], ax=None):
    """One bar a system and measure, in percent, with its 95 % interval where there is one.

    `measures` maps a score's key to its name.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots()[1]
    width = 0.8 / len(scores)
    for place, (system, entry) in enumerate(scores.items()):
        found = [entry[key] for key in measures]
        middle = [100 * value["mean"] for value in found]
        around = [[100 * length for length in lengths] for lengths in zip(*map(_whiskers, found), strict=True)]
        at = [x + (place - (len(scores) - 1) / 2) * width for x in range(len(measures))]
        ax.bar(at, middle, width * 0.9, yerr=around, capsize=2, label=system, error_kw={"elinewidth": 1})
    ax.set_xticks(range(len(measures)), list(measures.values()))
    ax.set(ylabel="percent", title="Scores with 95 % intervals")
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def score_by_cost(scores: dict[str, dict], costs: dict[str, float], measure: str, bounds=(), ax=None, front=None):
    """One point a system of `costs`: its score with the 95 % interval over what it costs, on a logarithmic axis.

    `bounds` are systems without a cost: a level line each. A `front`, names of systems, is joined by a line; then the
    others are grey and without interval, and each is named beside its point, since no legend tells as many apart.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots()[1]
    ax.set(xscale="log")
    for (system, cost), mark in zip(costs.items(), itertools.cycle("os^vD*PX<>"), strict=False):
        value, name = scores[system][measure], system.replace("_", " ")
        ends = [[length] for length in _whiskers(value)]
        if front is None:
            ax.errorbar(cost, value["mean"], ends, fmt=mark, capsize=3, label=name)
        else:
            ends, color = (ends, "C0") if system in front else (None, "grey")
            ax.errorbar(cost, value["mean"], ends, fmt="o", capsize=3, color=color)
            place = 4 if sorted(costs, key=costs.get).index(system) % 2 else -11  # neighbours' names above and below
            at = {"textcoords": "offset points", "xytext": (5, place), "fontsize": 8, "color": color}
            ax.annotate(name, (cost, value["mean"]), **at)
    if front:
        ax.xaxis.set_minor_formatter("{x:g}")  # what is as near together lies between two powers of ten
        ax.plot([costs[name] for name in front], [scores[name][measure]["mean"] for name in front], color="C0", lw=0.8)
    for system, style in zip(bounds, itertools.cycle((":", "--", "-.")), strict=False):
        ax.axhline(scores[system][measure]["mean"], color="grey", linestyle=style, label=system.replace("_", " "))
    ax.set(ylabel=measure)
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def _whiskers(value: dict) -> list[float]:
    """How far the interval reaches below and above the mean, 0 where there is none."""
    return [0.0 if value[end] is None else abs(value["mean"] - value[end]) for end in ("low", "high")]


def confusion(table, ax=None):
    """Counts of true classes (down) and predicted ones (across), from `classification.confusion`."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    ax = ax or plt.subplots()[1]
    sns.heatmap(table, annot=True, fmt="d", cmap="Blues", cbar=False, linewidths=0.5, ax=ax)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.tick_params(axis="x", labelrotation=25)
    ax.tick_params(axis="y", labelrotation=0)
    return ax


def calibration(curves: dict, ax=None):
    """How often an answer is right, over how sure it is: a line a system, from `classification.reliability`."""
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots()[1]
    ax.plot([0, 1], [0, 1], color="grey", linestyle="--", label="as sure as right")
    for system, frame in curves.items():
        ax.plot(frame["confidence"], frame["accuracy"], marker="o", label=system)
        for _, row in frame.iterrows():
            ax.annotate(f"{row['rows']:.0f}", (row["confidence"], row["accuracy"]), fontsize="x-small",
                        textcoords="offset points", xytext=(4, 4))  # fmt: skip
    ax.set(xlabel="probability of the likeliest label", ylabel="share that is right",
           title="Calibration (numbers: rows in the bin)", xlim=(0, 1.02), ylim=(-0.02, 1.05))  # fmt: skip
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax
