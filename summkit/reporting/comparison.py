"""Compare several runs: their scores, and the costs of their trainings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from summkit.evaluation import markdown_table, score_table
from summkit.progress import near
from summkit.reporting import records, tables

if TYPE_CHECKING:
    from pandas import DataFrame


def comparison_table(runs: list[Path]) -> str:
    """Return several runs as Markdown tables: scores, and the cost of trainings.

    Args:
        runs: Folders with a run.json.

    Returns:
        A table with a row for each system of each run, and a table with a row for each training. The row of a failed
        training gives the reason.

    Raises:
        SummkitError: A record cannot be read.
    """
    scores: dict[str, dict] = {}
    trainings: dict[str, dict] = {}
    for run in runs:
        record = records.read_record(run / "run.json")
        title = f"{near(run)}: {record['stage']}, {record['profile']}, seed {record['seed']}"
        scores |= {f"{title}, {tables.display_name(system)}": entry for system, entry in record["scores"].items()}
        if record["training"]["steps"] or record["details"].get("failed"):
            trainings[title] = record
    parts = []
    if scores:
        table = score_table(scores)
        table.insert(0, "n", [entry["n"] for entry in scores.values()])
        parts.append(markdown_table(table))
    if trainings:
        parts.append(markdown_table(cost_table(trainings).map(tables.cell_text)))
    return "\n\n".join(parts) or "none of these runs has scores to compare"


def cost_table(runs: dict[str, dict]) -> DataFrame:
    """Return the costs of trainings from their records, one row for each.

    Costs are of the training only, since loading and scoring a model takes the same work for all methods. With several
    processes, memory is that of the first one, which also measures energy, carbon and cost for the whole machine.

    Args:
        runs: Records of `train` by name.

    Returns:
        seconds: of steps, evaluations and checkpoints; useful tokens/s: of the rows; computed tokens/s: with padding;
        host GB, device GB: peaks of the whole run; Wh, g CO2, US cents; validation loss; ROUGE-1: of the test rows;
        failed: the reason if there are no numbers. None means unknown.
    """
    import pandas as pd

    frame = pd.DataFrame({name: _costs(run) for name, run in runs.items()}, dtype=object).T
    return frame.where(frame.notna(), None)


def _costs(record: dict) -> dict[str, float | str | None]:
    """Return a row of `cost_table`. NaN means unknown, and so values computed from NaN are NaN."""

    def known(section: dict, key: str) -> float:
        return math.nan if section.get(key) is None else section[key]

    training = record["training"]
    resources = record["resources"]
    seconds = known(training, "seconds")
    kwh = known(record["details"], "training_kwh")
    return {
        "seconds": seconds,
        "useful tokens/s": known(training, "tokens") / seconds,
        "computed tokens/s": known(training, "tokens") / (1 - known(training, "padding_fraction")) / seconds,
        "host GB": known(resources, "peak_rss_bytes") / 1e9,
        "device GB": known(resources, "peak_device_bytes") / 1e9,
        "Wh": 1000 * kwh,
        # The run's carbon times the training's share of its energy.
        "g CO2": 1000 * known(resources, "co2_kg") * kwh / (known(resources, "energy_kwh") or math.nan),
        "US cents": 100 * known(resources, "cost_usd") * seconds / known(record, "wall_seconds"),
        "validation loss": known(training, "eval_loss"),
        "ROUGE-1": known((record["scores"].get("fine_tuned") or {}).get("rouge1") or {}, "mean"),
        "failed": record["details"].get("failed"),
    }
