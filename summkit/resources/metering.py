"""Measure a block of work: wall and CPU time, peak memory, energy, carbon emissions and cost.

A value that cannot be measured is None, never a guess. Energy is measured by codecarbon
(`pip install "summkit[costs]"`), offline and without output. Without a hardware counter it is computed from a model of
the machine's power, and marked as an estimate.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any

from summkit.errors import SummkitError

ENERGY_SECONDS = 15  # between two readings of the energy; a reading takes milliseconds
# codecarbon's names of the modes that read a counter instead of estimating from the load.
COUNTERS = ("intel_rapl", "windows_emi", "intel_power_gadget")

# All settings by which a user's ~/.codecarbon.config could make it write files, use the network or scale values.
_UNSET = ("cloud_provider", "cloud_region", "emissions_endpoint", "force_carbon_intensity_g_co2e_kwh", "region")
_SETTINGS: dict[str, Any] = dict.fromkeys((*_UNSET, "force_cpu_power", "force_ram_power"))
_SETTINGS |= {"measure_power_secs": ENERGY_SECONDS, "tracking_mode": "machine", "pue": 1.0, "allow_multiple_runs": True}
_SETTINGS |= {"output_dir": ".", "output_methods": [], "output_handlers": []}
_SETTINGS |= {"log_level": "critical", "logger_preamble": "", "electricitymaps_api_token": ""}


class Meter:
    """Measures a `with` block. Its values can be read afterwards, even if the block raised; None means unknown.

    Args:
        energy: Whether to measure energy.

    Attributes:
        wall_seconds: Wall time of the block.
        cpu_seconds: CPU time of this process and of its finished child processes.
        peak_rss_bytes: Peak memory of the process in the block, on Linux; elsewhere since the process started. It
            includes memory that earlier work still holds.
        peak_device_bytes: Peak memory that torch allocated on the current GPU in the block.
        added_bytes: Difference between the peak and the memory at the start of the block, on the GPU if there is one;
            call `release_memory` before the block.
        energy_kwh: Energy of the whole machine; the part of its memory is always modelled.
        energy_is_estimate: False if counters of all processors were read.
        energy_parts: The kWh that were "measured" by meters, of GPUs (NVML) and of processors that have one, and those
            that were "estimated". The record has them in its details.
        co2_kg: Carbon emissions, if SUMMKIT_COUNTRY is set to a three-letter ISO code.
        cost_usd: Cost, if SUMMKIT_PRICE_PER_HOUR is set.
        country: The country for co2_kg.
        laps: {name: seconds}.

    Raises:
        SummkitError: One of these variables has an invalid value. It is raised before the block runs.

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
    energy_parts: dict[str, float] | None = None
    co2_kg: float | None = None
    cost_usd: float | None = None
    country: str | None = None

    def __init__(self, energy: bool = True) -> None:
        self.energy = energy
        self.laps: dict[str, float] = {}

    def __enter__(self) -> Meter:
        """Start to measure."""
        import psutil

        self._price, self.country = _price(), _country()
        self._tracker = _start_tracker(self.country) if self.energy else None
        self._peak_before = 0
        self._held = psutil.Process().memory_info().rss
        if _cuda():
            _cuda().reset_peak_memory_stats()
            self._held = _cuda().memory_allocated()
        _begin_peak(self)  # after all that may fail: it registers this meter
        self._lap = self._wall = time.perf_counter()
        self._cpu = sum(os.times()[:4])
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and read all values."""
        self.wall_seconds = time.perf_counter() - self._wall
        self.cpu_seconds = sum(os.times()[:4]) - self._cpu
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
            measured = float(data.gpu_energy) + (0.0 if self.energy_is_estimate else float(data.cpu_energy))
            self.energy_parts = {"measured": measured, "estimated": self.energy_kwh - measured}
            if self.country:
                self.co2_kg = float(data.emissions)
        except Exception:  # codecarbon hides its own errors and then lacks attributes: the energy stays unknown
            return


def release_memory() -> None:
    """Return freed memory to the system, so that `Meter.added_bytes` does not miss reused memory."""
    import ctypes
    import gc

    gc.collect()
    if _cuda():
        _cuda().empty_cache()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)  # only glibc has it; musl keeps little memory


_open: list[Meter] = []  # each stores its peak from before an inner meter reset the counter


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
    """Return the process's peak resident bytes since its start, or since the innermost Meter started."""
    try:
        # On Linux getrusage's peak survives exec: a kernel that a large process starts would report its parent's peak.
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _cuda() -> Any:
    """Return torch.cuda if the work uses it, or else None."""
    # This never imports torch, and never creates a GPU context.
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
        raise SummkitError(f"SUMMKIT_PRICE_PER_HOUR={text!r}: USD per hour are needed, as in 0.35; or unset it")
    return price


def _country() -> str | None:
    code = os.environ.get("SUMMKIT_COUNTRY", "").strip().upper()
    if code and not (len(code) == 3 and code.isascii() and code.isalpha()):
        raise SummkitError(
            f"SUMMKIT_COUNTRY={code!r}: a country's three-letter ISO code is needed, such as FRA; or unset it"
        )
    return code or None


def _start_tracker(country: str | None) -> Any:
    """Start codecarbon's tracker; return None if it is not installed or fails."""
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
            f"SUMMKIT_COUNTRY={country!r}: codecarbon has no such country; set a valid ISO code or unset it"
        )
    tracker.start()  # it hides its errors, which appear when its values are read
    return tracker


def _is_estimate(tracker: Any) -> bool:
    """Return False only if all processors have counters: GPUs always do (NVML), CPUs with RAPL or a similar counter.

    codecarbon has this only in its private list of hardware; without the list, energy counts as an estimate.
    """
    hardware = getattr(tracker, "_hardware", ())
    modes = [getattr(part, "_mode", None) for part in hardware if type(part).__name__ == "CPU"]
    return not modes or any(mode not in COUNTERS for mode in modes)
