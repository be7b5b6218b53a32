"""Floor 0. What a run costs in money: a small dated table of list prices, which the reader can replace.

The table is prices.csv beside this file; another of the same columns stands in for it by SUMMKIT_PRICES or an argument.
A price is that of the whole machine, however many of its GPUs a run uses, without discounts, storage and taxes.
"""

import csv
import math
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path

from summkit.errors import SummkitError, check_known

TABLE = Path(__file__).with_name("prices.csv")
UNITS = ("hour", "kWh")


@dataclass(frozen=True)
class Price:
    """One row: `usd` an hour of the machine, or a kWh that it takes, as `per` says.

    `device` is what computes, in words; `as_of` the month of the price, as in 2026-11; `source` who says so.
    """

    machine: str
    device: str
    usd: float
    per: str
    as_of: str
    source: str


COLUMNS = tuple(field.name for field in fields(Price))


def read_prices(path: str | Path | None = None) -> list[Price]:
    """The rows of the table `path`, else of the one that SUMMKIT_PRICES names, else of summkit's own.

    Raises SummkitError, naming file, line and column, for what is missing, stands twice or is no price.
    """
    path = Path(path or os.environ.get("SUMMKIT_PRICES") or TABLE)
    prices: dict[str, Price] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, restval="", strict=True)
            _check_columns(table.fieldnames or [], path)
            for row in table:
                where = f"{path.name}, line {table.line_num}"
                price = _price(row, where)
                if price.machine in prices:
                    raise SummkitError(f"{where}: column 'machine': {price.machine!r} has a line above; leave one")
                prices[price.machine] = price
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SummkitError(f"the table of prices {path} cannot be read as CSV in UTF-8: {error}") from None
    return list(prices.values())


def find_price(machine: str, path: str | Path | None = None) -> Price:
    """The row of `machine`. Raises SummkitError for one that the table lacks, listing those it has."""
    prices = {price.machine: price for price in read_prices(path)}
    check_known("machine with a price", machine, prices)
    return prices[machine]


def cost_usd(seconds: float, machine: str, energy_kwh: float | None = None, path: str | Path | None = None) -> float:
    """USD that `seconds` on `machine` cost; where it is paid by the kWh, those that `energy_kwh` costs.

    Raises SummkitError where the machine has no price, or is paid by the kWh and these are not known.
    """
    price = find_price(machine, path)
    if price.per == "hour":
        return seconds / 3600 * price.usd
    if energy_kwh is None:
        raise SummkitError(f"{machine} is paid by the kWh, and the energy is not known: choose one paid by the hour")
    return energy_kwh * price.usd


def _check_columns(there: list[str], path: Path) -> None:
    missing = [column for column in COLUMNS if column not in there]
    if missing:
        raise SummkitError(f"{path.name}: no column {missing[0]!r}; the first row names them: {','.join(COLUMNS)}")


def _price(row: dict, where: str) -> Price:
    if None in row:  # where csv puts what is left over
        raise SummkitError(f"{where}: more cells than columns; put one that holds a comma between double quotes")
    values = {column: row[column].strip() for column in COLUMNS}
    for column, text in values.items():
        if not text:
            raise SummkitError(f"{where}: column {column!r} is empty")
    if values["per"] not in UNITS:
        raise SummkitError(f"{where}: column 'per' is {values['per']!r}; it is one of: {', '.join(UNITS)}")
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", values["as_of"], re.ASCII):
        raise SummkitError(f"{where}: column 'as_of' is {values['as_of']!r}; a year and month is needed, as in 2026-11")
    return Price(**values | {"usd": _usd(values["usd"], where)})


def _usd(text: str, where: str) -> float:
    try:
        usd = float(text)
    except ValueError:
        usd = math.nan
    if not 0 <= usd < math.inf:
        raise SummkitError(f"{where}: column 'usd' is {text!r}; a number of US dollars is needed, as in 0.35")
    return usd
