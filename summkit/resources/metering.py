"""What a block of work takes: wall and CPU time, peak memory, energy, carbon, money.

What cannot be measured is None; nothing is guessed. Energy comes from codecarbon (`pip install "summkit[costs]"`),
kept offline and silent. Without a hardware counter it is computed from a model of the machine's power, and marked as an
estimate.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any

from summkit.errors import SummkitError

ENERGY_SECONDS = 15  # between two readings of the energy; a reading takes milliseconds
# What codecarbon calls the ways in which it reads a counter instead of estimating from the load.
COUNTERS = ("intel_rapl", "windows_emi", "intel_power_gadget")

# Every setting with which a user's ~/.codecarbon.config could make it write, call out or scale is given here.
_UNSET = ("cloud_provider", "cloud_region", "emissions_endpoint", "force_carbon_intensity_g_co2e_kwh", "region")
_SETTINGS: dict[str, Any] = dict.fromkeys((*_UNSET, "force_cpu_power", "force_ram_power"))
_SETTINGS |= {"measure_power_secs": ENERGY_SECONDS, "tracking_mode": "machine", "pue": 1.0, "allow_multiple_runs": True}
_SETTINGS |= {"output_dir": ".", "output_methods": [], "output_handlers": []}
_SETTINGS |= {"log_level": "critical", "logger_preamble": "", "electricitymaps_api_token": ""}


class Meter:
    """Measures a `with` block. Its values can be read afterwards, also where the block raised; None is for unknown.

    Args:
        energy: Whether to measure energy.

    Attributes:
        wall_seconds: How long the block took.
        cpu_seconds: Of this process, and of children that ended.
        peak_rss_bytes: Of the process in the block, on Linux; elsewhere since the process began. What earlier work has
            left in memory counts.
        peak_device_bytes: Allocated by torch on the current GPU in the block.
        added_bytes: By how much the block's peak is above its beginning, on the GPU where there is one; call
            `release_memory` before the block.
        energy_kwh: Of the whole machine; the share of its memory is always modelled.
        energy_is_estimate: False where all processors have counters that were read.
        co2_kg: Where SUMMKIT_COUNTRY is set to a three-letter ISO code.
        cost_usd: Where SUMMKIT_PRICE_PER_HOUR is set.
        country: That of co2_kg.
        laps: {name: seconds}.

    Raises:
        SummkitError: One of these settings makes no sense; on entering, before any work is lost.

    Example:
        >>> with Meter(energy=False) as meter:
        ...     total = sum(range(1000))
        >>> meter.wall_seconds > 0, meter.energy_kwh
        (True, None)
    """

    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_rss_bytes: int | None = None
    peak_device_bytes: int | None = None
    added_bytes: int | None = None
    energy_kwh: float | None = None
    energy_is_estimate: bool | None = None
    co2_kg: float | None = None
    cost_usd: float | None = None
    country: str | None = None

    def __init__(self, energy: bool = True) -> None:
        self.energy = energy
        self.laps: dict[str, float] = {}

    def __enter__(self) -> Meter:
        """Begin to measure."""
        self._price, self.country = _price(), _country()
        self._tracker = _start_tracker(self.country) if self.energy else None
        self._peak_before = 0
        self._held = _resident_bytes()
        if _cuda():
            _cuda().reset_peak_memory_stats()
            self._held = _cuda().memory_allocated()
        _begin_peak(self)  # after all that may fail: it registers this meter
        self._lap = self._wall = time.perf_counter()
        self._cpu = _cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        """Read everything."""
        self.wall_seconds = time.perf_counter() - self._wall
        self.cpu_seconds = _cpu_seconds() - self._cpu
        self.peak_rss_bytes = _end_peak(self)
        self.peak_device_bytes = _cuda().max_memory_allocated() if _cuda() else None
        peak = self.peak_device_bytes or self.peak_rss_bytes
        self.added_bytes = None if peak is None else max(0, peak - self._held)
        if self._price is not None:
            self.cost_usd = self.wall_seconds / 3600 * self._price
        self._read_energy()

    def lap(self, name: str) -> float:
        """Return the seconds since the block began or the last lap, and add them to the lap called `name`."""
        now = time.perf_counter()
        seconds = now - self._lap
        self._lap = now
        self.laps[name] = self.laps.get(name, 0.0) + seconds
        return seconds

    def resources(self) -> dict:
        """Return the record's section "resources"."""
        names = ("peak_rss_bytes", "peak_device_bytes", "energy_kwh", "energy_is_estimate", "co2_kg", "cost_usd")
        return {name: getattr(self, name) for name in names}

    def _read_energy(self) -> None:
        if self._tracker is None:
            return
        try:
            self._tracker.stop()
            data = self._tracker.final_emissions_data
            self.energy_kwh = float(data.energy_consumed)
            self.energy_is_estimate = _is_estimate(self._tracker)
            if self.country:
                self.co2_kg = float(data.emissions)
        except Exception:  # codecarbon swallows its own errors and then lacks attributes: no energy, and no harm
            return


def release_memory() -> None:
    """Give memory that earlier work has freed back to the system, so that `Meter.added_bytes` counts from here."""
    import ctypes
    import gc

    gc.collect()
    if _cuda():
        _cuda().empty_cache()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)  # glibc's; musl has none, and keeps little


_open: list[Meter] = []  # each keeps the peak it saw before a meter inside its block reset the counter


def _begin_peak(meter: Meter) -> None:
    for outer in _open:
        outer._peak_before = max(outer._peak_before, peak_rss_bytes() or 0)
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # Linux: the peak counts from here
    except OSError:
        pass
    _open.append(meter)


def _end_peak(meter: Meter) -> int | None:
    if meter in _open:
        _open.remove(meter)
    peak = peak_rss_bytes()
    return peak and max(peak, meter._peak_before)


def peak_rss_bytes() -> int | None:
    """Return the most bytes this process has had resident since it, or the innermost Meter, began."""
    try:
        # On Linux getrusage's peak outlives exec: a kernel started by a large process would report its parent's.
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    except ImportError:
        import psutil

        return getattr(psutil.Process().memory_info(), "peak_wset", None)


def _resident_bytes() -> int:
    import psutil

    return psutil.Process().memory_info().rss


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def _cuda() -> Any:
    """torch.cuda where the work uses it."""
    # Never imports torch, and never makes a GPU context where the work has made none.
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_available() and cuda.is_initialized() else None


def _price() -> float | None:
    text = os.environ.get("SUMMKIT_PRICE_PER_HOUR", "").strip()
    try:
        price = float(text) if text else None
    except ValueError:
        price = -1.0
    if price is not None and not 0 <= price < float("inf"):
        raise SummkitError(f"SUMMKIT_PRICE_PER_HOUR={text!r}: USD an hour are needed, as in 0.35; or unset it")
    return price


def _country() -> str | None:
    code = os.environ.get("SUMMKIT_COUNTRY", "").strip().upper()
    if code and not (len(code) == 3 and code.isascii() and code.isalpha()):
        raise SummkitError(
            f"SUMMKIT_COUNTRY={code!r}: a country's three-letter ISO code is needed, as in FRA; or unset it"
        )
    return code or None


def _start_tracker(country: str | None) -> Any:
    """Codecarbon's tracker, started; None where it is not installed or fails."""
    try:
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.input import DataSource

        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)  # its import sets INFO
        tracker = OfflineEmissionsTracker(country_iso_code=country or "USA", **_SETTINGS)
        countries = DataSource().get_global_energy_mix_data()
    except Exception:
        return None
    if country and country not in countries:
        raise SummkitError(
            f"SUMMKIT_COUNTRY={country!r}: no country that codecarbon knows; give an ISO code or unset it"
        )
    tracker.start()  # it swallows what goes wrong, which shows when it is read
    return tracker


def _is_estimate(tracker: Any) -> bool:
    """False only where every processor is read from a counter: a GPU always is (NVML), a CPU by RAPL and its like.

    codecarbon says so nowhere but in its private list of hardware; without the list, energy is called an estimate.
    """
    hardware = getattr(tracker, "_hardware", ())
    modes = [getattr(part, "_mode", None) for part in hardware if type(part).__name__ == "CPU"]
    return not modes or any(mode not in COUNTERS for mode in modes)
