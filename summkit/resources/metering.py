"""Floor 1. What a stretch of work cost: wall and CPU time, peak memory, energy, carbon, money.

It measures and guesses nothing: what is not known here is None. Energy comes from codecarbon, kept offline and silent;
without a hardware counter it is a model of the machine's power, and said to be an estimate.
"""

import logging
import os
import sys
import time

from summkit.errors import SummkitError

ENERGY_SECONDS = 15  # between two readings of the energy; their cost is milliseconds
# How codecarbon calls the ways in which it reads a counter instead of estimating from the load.
COUNTERS = ("intel_rapl", "windows_emi", "intel_power_gadget")


class Meter:
    """Measures a `with` block. Ready to read after it, also where the block raised; None is for unknown.

    wall_seconds, cpu_seconds (this process, and children that ended), peak_rss_bytes (of the process in the block, on
    Linux; elsewhere since it began; what earlier work has left in memory counts), peak_device_bytes (allocated by torch
    on the current GPU in the block), added_bytes (by how much the block's peak is above its beginning, on the GPU where
    there is one; call `settle` before the block), energy_kwh (of the whole machine; the memory's share is always
    modelled), energy_is_estimate, co2_kg (where SUMMKIT_COUNTRY is set to a three-letter ISO code), cost_usd (where
    SUMMKIT_PRICE_PER_HOUR is set), laps ({name: seconds}).

    `country` is that of co2_kg, from the block's begin on; None where none is set.
    Raises SummkitError on entering, before any work is lost, where one of these settings makes no sense.
    """

    def __init__(self, energy: bool = True):
        self.energy, self.country = energy, None
        self.laps: dict[str, float] = {}
        self.wall_seconds = self.cpu_seconds = self.peak_rss_bytes = self.peak_device_bytes = None
        self.added_bytes = None
        self.energy_kwh = self.energy_is_estimate = self.co2_kg = self.cost_usd = None

    def __enter__(self):
        self._price, self.country = _price(), _country()
        self._peak_before = 0
        _begin_peak(self)
        self._tracker = _start_tracker(self.country) if self.energy else None
        self._held = _resident_bytes()
        if _cuda():
            _cuda().reset_peak_memory_stats()
            self._held = _cuda().memory_allocated()
        self._lap = self._wall = time.perf_counter()
        self._cpu = _cpu_seconds()
        return self

    def __exit__(self, *_):
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
        """Seconds since the block began or the last lap, kept under `name`; laps of one name add up."""
        now = time.perf_counter()
        seconds, self._lap = now - self._lap, now
        self.laps[name] = self.laps.get(name, 0.0) + seconds
        return seconds

    def resources(self) -> dict:
        """The record's section "resources"."""
        names = ("peak_rss_bytes", "peak_device_bytes", "energy_kwh", "energy_is_estimate", "co2_kg", "cost_usd")
        return {name: getattr(self, name) for name in names}

    def _read_energy(self) -> None:
        if self._tracker is None:
            return
        try:
            self._tracker.stop()
            data = self._tracker.final_emissions_data
            estimate = _is_estimate(self._tracker)
            self.energy_kwh, self.energy_is_estimate = float(data.energy_consumed), estimate
            self.co2_kg = float(data.emissions) if self.country else None
        except Exception:  # codecarbon swallows its own errors and then lacks attributes: no energy, and no harm
            return


def release_memory() -> None:
    """Give what earlier work has left free in this process back to the system: what a block adds is seen from here."""
    import ctypes
    import gc

    gc.collect()
    if _cuda():
        _cuda().empty_cache()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)  # glibc's; musl has none, and keeps little


_open: list[Meter] = []  # each keeps the peak it saw before one inside it began counting anew


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
    """Most memory this process has had resident since it, or the innermost Meter, began; in bytes."""
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


def _cuda():
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


def _start_tracker(country: str | None):
    """Codecarbon's tracker, started; None where it is not installed or fails."""
    try:
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.input import DataSource

        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)  # its import sets INFO
        # Every setting with which a user's ~/.codecarbon.config could make it write, call out or scale is given here.
        tracker = OfflineEmissionsTracker(
            country_iso_code=country or "USA", output_methods=[], log_level="critical", allow_multiple_runs=True,
            measure_power_secs=ENERGY_SECONDS, tracking_mode="machine", electricitymaps_api_token="", output_dir=".",
            emissions_endpoint=None, output_handlers=[], cloud_provider=None, cloud_region=None, region=None, pue=1.0,
            force_carbon_intensity_g_co2e_kwh=None, force_cpu_power=None, force_ram_power=None, logger_preamble="",
        )  # fmt: skip
        countries = DataSource().get_global_energy_mix_data()
    except Exception:
        return None
    if country and country not in countries:
        raise SummkitError(
            f"SUMMKIT_COUNTRY={country!r}: no country that codecarbon knows; give an ISO code or unset it"
        )
    tracker.start()  # it swallows what goes wrong, which shows when it is read
    return tracker


def _is_estimate(tracker) -> bool:
    """False only where every processor is read from a counter: a GPU always is (NVML), a CPU by RAPL and its like."""
    modes = [getattr(hardware, "_mode", None) for hardware in tracker._hardware if type(hardware).__name__ == "CPU"]
    return not modes or any(mode not in COUNTERS for mode in modes)
