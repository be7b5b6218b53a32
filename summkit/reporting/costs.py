"""Floor 2. What trainings took, side by side, from their records: time, memory, energy, carbon, money, quality.

All of it is of the training alone: loading the model and scoring it are the same work for every way to train.
"""

COLUMNS = (
    "seconds", "useful tokens/s", "computed tokens/s", "host GB", "device GB", "Wh", "g CO2", "US cents",
    "validation loss", "ROUGE-1", "cents a point", "failed",
)  # fmt: skip


def cost_table(records: dict[str, dict], untrained: float = 0.0):
    """{name: record of `train`} → a DataFrame of COLUMNS, a row a record; None is for unknown.

    seconds: steps, evaluations and checkpoints. Useful tokens are those of the rows, computed ones have the padding
    too. host and device GB: the process' peak in the whole run; of several processes, the first one's, and so are Wh,
    g CO2 and US cents (each of them counts the whole machine). ROUGE-1 is of the test rows. cents a point: for each
    point of ROUGE-1 above `untrained`; None where there are none. failed: why there are no numbers.
    """
    import pandas as pd

    frame = pd.DataFrame({name: _row(record, untrained) for name, record in records.items()}, dtype=object).T
    frame = frame.reindex(columns=COLUMNS).astype(object)
    return frame.where(frame.notna(), None)


def _row(record: dict, untrained: float) -> dict:
    training, used, details = record["training"], record["resources"], record["details"]
    if details.get("failed"):
        return {"failed": details["failed"]}
    seconds, kwh = training["seconds"], details.get("training_kwh")
    part = seconds / record["wall_seconds"]
    rouge = (record["scores"].get("fine_tuned") or {}).get("rouge1")
    gained = rouge["mean"] - untrained if rouge else None
    cents = _times(used["cost_usd"], 100 * part)
    return {
        "seconds": seconds,
        "useful tokens/s": training["tokens"] / seconds,
        "computed tokens/s": training["tokens"] / (1 - training["padding_fraction"]) / seconds,
        "host GB": _times(used["peak_rss_bytes"], 1e-9),
        "device GB": _times(used["peak_device_bytes"], 1e-9),
        "Wh": _times(kwh, 1000),
        # Of the run's CO2 the share that the training has of its energy.
        "g CO2": used["co2_kg"] * 1000 * kwh / used["energy_kwh"] if used["co2_kg"] and kwh else None,
        "US cents": cents,
        "validation loss": training["eval_loss"],
        "ROUGE-1": rouge and rouge["mean"],
        "cents a point": cents / gained if cents is not None and gained and gained > 0 else None,
        "failed": None,
    }


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
