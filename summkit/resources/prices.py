"""The cost of a run in US dollars, from a small table of dated list prices, which a user can replace.

The table is prices.csv beside this file; SUMMKIT_PRICES or an argument can name another one with the same columns. A
price is for the whole machine, no matter how many of its GPUs a run uses, without discounts, storage and taxes.
"""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path

from summkit.errors import SummkitError, check_known

TABLE = Path(__file__).with_name("prices.csv")


@dataclass(frozen=True)
class Price:
    """One row of the table.

    Attributes:
        machine: The machine's name, for the command line and notebooks.
        device: Description of the processor or GPU.
        usd: Price in US dollars.
        per: Unit of the price: "hour" or "kWh".
        as_of: Month of the price, as in 2026-11.
        source: Source of the price.
    """

    machine: str
    device: str
    usd: float
    per: str
    as_of: str
    source: str


COLUMNS = tuple(field.name for field in fields(Price))
# Format of a cell, and its description for errors.
FORMATS = {
    "usd": (r"\d+\.?\d*(e-?\d+)?|\.\d+", "a number of US dollars is needed, as in 0.35"),
    "per": (r"hour|kWh", "it is one of: hour, kWh"),
    "as_of": (r"\d{4}-(0[1-9]|1[0-2])", "a year and month is needed, as in 2026-11"),
}


def read_prices(path: str | Path | None = None) -> list[Price]:
    """Read a table of prices.

    Args:
        path: A CSV file; None: the file in SUMMKIT_PRICES, or else summkit's own.

    Raises:
        SummkitError: A value is missing, repeated or invalid; the message names file, line and column.
    """
    path = Path(path or os.environ.get("SUMMKIT_PRICES") or TABLE)
    prices: dict[str, Price] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, restval="", strict=True)
            missing = [column for column in COLUMNS if column not in (table.fieldnames or [])]
            if missing:
                columns = ",".join(COLUMNS)
                raise SummkitError(f"{path.name}: no column {missing[0]!r}; the first row names them: {columns}")
            for row in table:
                location = f"{path.name}, line {table.line_num}"
                price = _price(row, location)
                if price.machine in prices:
                    raise SummkitError(f"{location}: column 'machine': {price.machine!r} is repeated; remove one")
                prices[price.machine] = price
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SummkitError(f"the table of prices {path} cannot be read as CSV in UTF-8: {error}") from None
    return list(prices.values())


def find_price(machine: str, path: str | Path | None = None) -> Price:
    """Return the price of a machine.

    Raises:
        SummkitError: The table lacks the machine; the message lists its machines.
    """
    prices = {price.machine: price for price in read_prices(path)}
    check_known("machine with a price", machine, prices)
    return prices[machine]


def cost_usd(seconds: float, machine: str, energy_kwh: float | None = None, path: str | Path | None = None) -> float:
    """Return what a run costs in US dollars.

    Args:
        seconds: Duration of the run.
        machine: A machine of the table.
        energy_kwh: Energy of the run, for a machine with a price per kWh.
        path: Another table; see `read_prices`.

    Raises:
        SummkitError: The machine has no price, or it has a price per kWh and the energy is unknown.

    Example:
        >>> cost_usd(1800, "hf-t4")
        0.25
    """
    price = find_price(machine, path)
    if price.per == "hour":
        return seconds / 3600 * price.usd
    if energy_kwh is None:
        raise SummkitError(f"{machine} has a price per kWh, but the energy is unknown: choose one priced per hour")
    return energy_kwh * price.usd


def _price(row: dict, location: str) -> Price:
    if None in row:  # the key of surplus cells in csv
        raise SummkitError(f"{location}: more cells than columns; put one that holds a comma between double quotes")
    values = {column: row[column].strip() for column in COLUMNS}
    for column, text in values.items():
        pattern, needed = FORMATS.get(column, (".*", ""))
        if not text:
            raise SummkitError(f"{location}: column {column!r} is empty")
        if not re.fullmatch(pattern, text, re.ASCII):
            raise SummkitError(f"{location}: column {column!r} is {text!r}; {needed}")
    return Price(**values | {"usd": float(values["usd"])})
