"""Prices: the table is read whole and checked, another stands in for it, money is time or energy times a price."""

import re
import tomllib
from pathlib import Path

import pytest

from summkit.errors import SummkitError
from summkit.resources import prices

HEAD = "machine,device,usd,per,as_of,source\n"
MINE = HEAD + 'desk,"a GPU, old",0.25,hour,2026-10,"my bill"\ngrid,all,0.3,kWh,2026-09,a contract\n'


@pytest.fixture(autouse=True)
def own_table(monkeypatch):
    monkeypatch.delenv("SUMMKIT_PRICES", raising=False)


@pytest.fixture
def table(tmp_path):
    """A function that writes a table and returns its path."""

    def write(text, name="mine.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return write


def test_our_own_rows_say_when_and_who():
    rows = prices.read_prices()
    assert len({row.machine for row in rows}) == len(rows) >= 10
    for row in rows:
        assert 0 < row.usd < 200 and row.as_of >= "2025-12" and len(row.source) > 20, row
        assert row.per == ("kWh" if row.machine.startswith("own-") else "hour")
        assert re.fullmatch(r"[a-z0-9.-]+", row.machine), "names that need no quotes in a shell"
    assert {"T4", "A100", "H100", "H200"} <= set(" ".join(row.device for row in rows).split())


def test_it_goes_into_the_package():
    project = tomllib.loads((Path(prices.__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert "*.csv" in project["tool"]["setuptools"]["package-data"]["*"]


def test_money_is_hours_times_the_machines_price_or_kwh_times_the_grids(table):
    path = table(MINE)
    assert prices.cost_usd(1800, "desk", path=path) == pytest.approx(0.125)
    assert prices.cost_usd(1800, "desk", 5.0, path) == pytest.approx(0.125), "the hour includes its electricity"
    assert prices.cost_usd(1800, "grid", 0.5, path) == pytest.approx(0.15)
    assert prices.cost_usd(7200, "hf-t4") == pytest.approx(2 * prices.find_price("hf-t4").usd)
    with pytest.raises(SummkitError, match="grid has a price per kWh, but the energy is unknown"):
        prices.cost_usd(1800, "grid", path=path)


def test_a_readers_table_stands_in_for_ours(table, monkeypatch):
    path = table(MINE)
    monkeypatch.setenv("SUMMKIT_PRICES", str(path))
    assert [row.machine for row in prices.read_prices()] == ["desk", "grid"]
    assert prices.find_price("desk") == prices.Price("desk", "a GPU, old", 0.25, "hour", "2026-10", "my bill")
    other = table(HEAD + "lent,none,0,hour,2026-11,a friend\n", "other.csv")
    assert prices.cost_usd(3600, "lent", path=other) == 0, "an argument comes before the environment"
    with pytest.raises(SummkitError, match="unknown machine with a price 'hf-t4'; known: desk, grid"):
        prices.cost_usd(1, "hf-t4")


def test_what_a_spreadsheet_writes_is_read(table):
    saved = "\ufeff" + MINE.replace("source", "source,note").replace('my bill"', 'my bill",mine').replace("\n", "\r\n")
    assert len(prices.read_prices(table(saved + "\r\n"))) == 2


ROW = "desk,GPU,0.25,hour,2026-10,my bill"


@pytest.mark.parametrize(
    ("text", "about"),
    [
        (HEAD + ROW.replace("0.25", "cheap"), "line 2: column 'usd' is 'cheap'"),
        (HEAD + ROW.replace("0.25", "-1"), "line 2: column 'usd' is '-1'"),
        (HEAD + ROW.replace("0.25", "nan"), "line 2: column 'usd' is 'nan'"),
        (HEAD + ROW.replace("0.25", '"0,25"'), "line 2: column 'usd' is '0,25'; a number of US dollars.* 0.35"),
        (HEAD + ROW.replace("0.25", "0,25"), "line 2: more cells than columns"),
        (HEAD + ROW.replace("hour", "day"), "line 2: column 'per' is 'day'; it is one of: hour, kWh"),
        (HEAD + ROW.replace("2026-10", "last year"), "line 2: column 'as_of' is 'last year'"),
        (HEAD + ROW.replace("2026-10", "2026-13"), "line 2: column 'as_of' is '2026-13'"),
        (HEAD + ROW + "\n\nshop,GPU,1,hour,2026-10,", "line 4: column 'source' is empty"),
        (HEAD + "desk,GPU", "line 2: column 'usd' is empty"),
        (HEAD + ROW + "\n" + ROW, "line 3: column 'machine': 'desk' is repeated"),
        (ROW, "no column 'machine'; the first row names them: machine,device,usd"),
        ("", "no column 'machine'"),
        (HEAD.replace("usd", "price") + ROW, "no column 'usd'"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_column(table, text, about):
    with pytest.raises(SummkitError, match=rf"mine\.csv[,:] {about}"):
        prices.read_prices(table(text))


def test_what_is_no_table_is_named(table, tmp_path):
    broken = table(HEAD + 'desk,"GPU" old,1,hour,2026-10,x', "broken.csv")
    for path in (tmp_path / "gone.csv", tmp_path, table(b"\xff\xfe\x00", "utf16.csv"), broken):
        with pytest.raises(SummkitError, match=rf"prices .*{path.name} cannot be read as CSV"):
            prices.read_prices(path)
