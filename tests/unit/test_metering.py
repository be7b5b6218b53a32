"""The meter measures, stays silent, offline and harmless, and says None for what it does not know."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from summkit.errors import SummkitError
from summkit.reporting import records
from summkit.resources import metering


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("SUMMKIT_COUNTRY", "SUMMKIT_PRICE_PER_HOUR"):
        monkeypatch.delenv(name, raising=False)


def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_wall_time_passes_asleep_and_cpu_time_does_not():
    with metering.Meter(energy=False) as asleep:
        time.sleep(0.3)
    with metering.Meter(energy=False) as awake:
        spin(0.3)
    assert asleep.wall_seconds >= 0.3 and asleep.cpu_seconds < 0.1
    assert awake.cpu_seconds >= 0.25 and awake.wall_seconds >= 0.25


def test_cpu_time_counts_children():
    with metering.Meter(energy=False) as meter:
        code = "import time\nwhile time.process_time() < 0.4: pass"
        subprocess.run([sys.executable, "-c", code], check=True)
    assert meter.cpu_seconds >= 0.3


def test_peak_memory_remembers_what_was_freed():
    code = "from summkit.resources import metering\nwith metering.Meter(energy=False) as meter:\n"
    code += "    before = metering.peak_rss_bytes()\n"
    code += "    block = bytearray(b'x') * (128 * 2**20)\n    del block\nprint(meter.peak_rss_bytes - before)"
    grown = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 120 * 2**20 < grown < 160 * 2**20


def test_peak_memory_is_this_process_not_the_one_that_started_it():
    big = b"x" * (300 * 2**20)
    code = "from summkit.resources import metering; print(metering.peak_rss_bytes())"
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert child < 100 * 2**20 < len(big)


@pytest.mark.parametrize(("platform", "peak"), [("win32", 7), ("darwin", None)])
def test_peak_memory_without_proc(monkeypatch, platform, peak):
    """A stand-in for Windows and a Mac, which have no /proc."""
    import psutil

    def no_file(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", no_file)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=7)))
    found = metering.peak_rss_bytes()
    monkeypatch.undo()
    assert found == peak if peak else found > 10**4  # Linux counts in kilobytes


def test_laps_add_up():
    with metering.Meter(energy=False) as meter:
        time.sleep(0.05)
        meter.lap("load")
        meter.lap("train")
        time.sleep(0.05)
        meter.lap("load")
    assert set(meter.laps) == {"load", "train"} and meter.laps["load"] >= 0.1
    assert sum(meter.laps.values()) <= meter.wall_seconds


def test_unknown_is_null_and_the_record_takes_it():
    with metering.Meter(energy=False) as meter:
        pass
    resources = meter.resources()
    assert resources["energy_kwh"] is None and resources["cost_usd"] is None and resources["co2_kg"] is None
    record = records.fill_record(records.new_record("task3", "smoke", 0), "resources", **resources)
    assert tuple(record["resources"]) == records.SECTIONS["resources"] == tuple(resources)


def test_it_is_read_also_after_an_exception():
    meter = metering.Meter(energy=False)
    with pytest.raises(KeyError), meter:
        raise KeyError
    assert meter.wall_seconds is not None


def test_money_is_hours_times_price(monkeypatch):
    monkeypatch.setenv("SUMMKIT_PRICE_PER_HOUR", "3600")
    with metering.Meter(energy=False) as meter:
        time.sleep(0.1)
    assert meter.cost_usd == pytest.approx(meter.wall_seconds)


@pytest.mark.parametrize("price", ["cheap", "-1", "inf", "nan"])
def test_a_price_that_is_none_stops_before_the_work(monkeypatch, price):
    monkeypatch.setenv("SUMMKIT_PRICE_PER_HOUR", price)
    with pytest.raises(SummkitError, match="SUMMKIT_PRICE_PER_HOUR"), metering.Meter(energy=False):
        pytest.fail("the work began")


@pytest.mark.parametrize("country", ["France", "F1A", "ZZZ"])
def test_a_country_that_is_none_stops_before_the_work(monkeypatch, country):
    pytest.importorskip("codecarbon")
    monkeypatch.setenv("SUMMKIT_COUNTRY", country)
    with pytest.raises(SummkitError, match="SUMMKIT_COUNTRY"), metering.Meter():
        pytest.fail("the work began")


def test_a_meter_that_cannot_start_leaves_the_others_alone(monkeypatch):
    """It stayed registered once, and every later meter wrote into it."""
    pytest.importorskip("codecarbon")
    monkeypatch.setenv("SUMMKIT_COUNTRY", "ZZZ")
    before = list(metering._open)  # a run that a test has left open, too
    with pytest.raises(SummkitError, match="ZZZ"), metering.Meter():
        pytest.fail("the work began")
    assert metering._open == before


def test_the_country_is_read_back(monkeypatch):
    with metering.Meter(energy=False) as meter:
        pass
    assert meter.country is None
    monkeypatch.setenv("SUMMKIT_COUNTRY", "swe")
    with metering.Meter(energy=False) as meter:
        pass
    assert meter.country == "SWE" and meter.co2_kg is None


def test_without_codecarbon_energy_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with metering.Meter() as meter:
        pass
    assert meter.energy_kwh is None and meter.energy_is_estimate is None and meter.wall_seconds is not None


def test_a_tracker_that_breaks_costs_only_the_energy(monkeypatch):
    # codecarbon's constructor swallows exceptions: what is missing shows only when the tracker is used.
    codecarbon = pytest.importorskip("codecarbon")
    monkeypatch.setattr(codecarbon.OfflineEmissionsTracker, "_set_from_conf", lambda *_, **__: 1 / 0)
    with metering.Meter() as meter:
        pass
    assert meter.energy_kwh is None and meter.cpu_seconds is not None


@pytest.mark.parametrize(
    ("modes", "estimate"), [(["intel_rapl"], False), (["cpu_load"], True), (["constant"], True), ([], True)]
)
def test_energy_is_measured_only_where_the_processor_has_a_counter(modes, estimate):
    ram, cpu = type("RAM", (), {}), type("CPU", (), {})
    hardware = [ram()]
    for mode in modes:
        hardware.append(cpu())
        hardware[-1]._mode = mode
    assert metering._is_estimate(SimpleNamespace(_hardware=hardware)) is estimate


def test_energy_is_an_estimate_where_codecarbon_does_not_say_what_it_read():
    assert metering._is_estimate(SimpleNamespace()) is True


@pytest.mark.parametrize(("mode", "measured"), [("intel_rapl", 7.0), ("cpu_load", 4.0)])
def test_a_gpus_energy_is_measured_and_the_record_says_which_part_was(monkeypatch, mode, measured, tmp_path):
    """A GPU's meter (NVML) is read; a processor without one is estimated, and so is the memory always."""
    from summkit import run

    cpu = type("CPU", (), {"_mode": mode})()
    data = SimpleNamespace(energy_consumed=8.0, gpu_energy=4.0, cpu_energy=3.0, ram_energy=1.0, emissions=0.1)
    tracker = SimpleNamespace(stop=lambda: None, final_emissions_data=data, _hardware=[cpu])
    monkeypatch.setattr(metering, "_start_tracker", lambda country: tracker)
    monkeypatch.setenv("SUMMKIT_RUN_DIR", str(tmp_path))
    record = records.read_record(run.start("task3", "smoke").finish())
    assert record["details"]["energy_kwh"] == {"measured": measured, "estimated": 8.0 - measured}
    assert record["resources"]["energy_kwh"] == 8.0
    assert record["resources"]["energy_is_estimate"] is (mode == "cpu_load")


ENERGY = """
import json, socket, sys, time

def refuse(*arguments, **_):
    raise SystemExit(f"the network was called: {arguments}")

socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
from summkit.resources import metering
assert "codecarbon" not in sys.modules and "torch" not in sys.modules
with metering.Meter() as meter:
    time.sleep(1.2)
assert "torch" not in sys.modules
with open(sys.argv[1], "w") as file:
    json.dump(meter.resources() | {"wall": meter.wall_seconds}, file)
"""


def test_energy_is_read_in_silence_offline_and_without_leaving_files(tmp_path):
    import json

    pytest.importorskip("codecarbon")
    home, work, out = tmp_path / "home", tmp_path / "work", tmp_path / "out.json"
    home.mkdir()
    work.mkdir()
    # A user's own settings for codecarbon must not make it write or call out.
    config = "[codecarbon]\nsave_to_file=true\nlog_level=debug\nemissions_endpoint=http://127.0.0.1:9/\n"
    config += "co2_signal_api_token=x\noutput_methods=csv\n"
    (home / ".codecarbon.config").write_text(config)
    root = os.fspath(Path(metering.__file__).parents[2])
    env = os.environ | {"HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": root, "SUMMKIT_COUNTRY": "fra"}
    command = [sys.executable, "-c", ENERGY, out]
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    read = json.loads(out.read_text())
    assert 0 < read["energy_kwh"] < 1 and 0 < read["co2_kg"] < read["energy_kwh"]
    assert read["energy_is_estimate"] in (True, False) and 1.2 <= read["wall"] < 60
    assert [p.name for p in home.iterdir()] == [".codecarbon.config"] and not list(work.iterdir())


def test_what_a_block_adds_is_seen_from_where_it_began():
    torch = pytest.importorskip("torch")
    held = torch.ones(2**24)  # 64 MiB that were there before
    freed = [torch.ones(2**10) for _ in range(20_000)]  # 80 MiB in small pieces, which malloc keeps
    del freed
    added = []
    for size in (2**24, 2**25):
        metering.release_memory()
        with metering.Meter(energy=False) as used:
            torch.ones(size)
        added.append(used.added_bytes / 2**20)
    assert held[0] == 1 and added == pytest.approx([64, 128], abs=10)
