"""What trainings took, from their records."""

import pytest

from summkit.reporting import comparison, records


def record(seconds=50.0, wall=100.0, usd=0.02, rouge=30.0, **details):
    made = records.new_record("train", "cpu", 0)
    training = {"steps": 4, "seconds": seconds, "tokens": 1000, "padding_fraction": 0.5, "eval_loss": 2.0}
    used = {"peak_rss_bytes": 2_000_000_000, "energy_kwh": 0.004, "energy_is_estimate": True, "co2_kg": 0.002}
    score = {key: {"mean": rouge, "low": rouge - 1, "high": rouge + 1} for key in records.ROUGE} | {"n": 5}
    records.fill_record(records.fill_record(made, "training", **training), "resources", **used, cost_usd=usd)
    records.fill_record(
        records.fill_record(made, "scores", fine_tuned=score), "details", **{"training_kwh": 0.001} | details
    )
    return records.fill_record(made, "run", wall_seconds=wall)


def test_the_table_is_of_the_training_alone():
    row = comparison.cost_table({"plain": record()}).loc["plain"]
    assert (row["seconds"], row["useful tokens/s"], row["computed tokens/s"]) == (50.0, 20.0, 40.0)
    assert (row["host GB"], row["device GB"], row["Wh"]) == (2.0, None, 1.0)
    assert row["g CO2"] == pytest.approx(0.5)  # a quarter of the run's energy
    assert row["US cents"] == pytest.approx(1)  # half of the run's time
    assert row["failed"] is None


def test_what_failed_is_a_row_with_its_reason():
    failed = records.fill_record(records.new_record("train", "cpu", 0), "details", failed="killed by the system")
    table = comparison.cost_table({"large": failed, "plain": record()})
    assert (table.columns[0], table.columns[-1], len(table.columns)) == ("seconds", "failed", 11)
    assert table.loc["large", "failed"] == "killed by the system"
    assert table.loc["large"].drop("failed").isna().all()
