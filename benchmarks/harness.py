"""How everything is measured: each contestant in its own process, in rounds, in alternating order.

Each round starts with the ceiling of the machine, so that a share compares measurements of the same minutes.
"""

import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from summkit import progress
from summkit.errors import SummkitError
from summkit.reporting import records
from summkit.resources import metering

ROOT = Path(__file__).parents[1]
MEASURES = ("cpu_seconds", "wall_seconds", "device_seconds", "peak_rss_bytes", "grown_bytes", "peak_device_bytes")
PEERS = ("trl", "ctranslate2", "llama-cpp-python", "unsloth")  # packages; their versions stand in the record
OUT_OF_TIME = "no time was left; the same command goes on"
RATES = ("sgemm_flop_per_second", "read_bytes_per_second", "bf16_flop_per_second")


@dataclass(frozen=True)
class Contestant:
    """A contestant: `run` takes the work (a dict) and returns its results; `about` is for the table.

    `needs` names a module without which it cannot run. `once`: it takes too long for more than one round.
    """

    run: Callable[[dict], dict]
    about: str
    needs: str = ""
    once: bool = False


def measure(work: Callable) -> tuple[object, dict]:
    """Return what `work()` returns, and its cost alone: {CPU, wall and device seconds, peak bytes}.

    Device seconds are those between two events on the GPU's own clock; None without a GPU.
    """
    import psutil
    import torch

    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if torch.cuda.is_available() else []
    before = psutil.Process().memory_info().rss
    with metering.Meter(energy=False) as meter:
        if events:
            events[0].record()
        started = time.process_time()  # finer than the meter's clock, which ticks a hundred times a second
        value = work()
        cpu_seconds = time.process_time() - started
        if events:
            events[1].record()
            torch.cuda.synchronize()
    taken = {"cpu_seconds": cpu_seconds, "wall_seconds": meter.wall_seconds}
    taken["device_seconds"] = events[0].elapsed_time(events[1]) / 1000 if events else None
    taken |= {"peak_rss_bytes": meter.peak_rss_bytes, "peak_device_bytes": meter.peak_device_bytes}
    return value, taken | {"grown_bytes": meter.peak_rss_bytes and meter.peak_rss_bytes - before}


def compete(benchmark: str, contestants: dict[str, Contestant], work: dict, rounds: int, threads: int) -> dict:
    """{name: {"about", "rounds": [...], a spread for each measure} or {"about", "absent": reason}}, and "ceiling".

    Round r starts with contestant r, so that none is always first. A contestant that fails is left out with its reason;
    if the library itself fails, that is an error.
    """
    found = {name: {"about": one.about, "rounds": []} for name, one in contestants.items()}
    for name, one in contestants.items():
        if one.needs and importlib.util.find_spec(one.needs) is None:
            found[name]["absent"] = f"not installed here: {one.needs}"
    ceilings = []
    for number in range(rounds):
        ceilings.append(start("ceiling", "ceiling", {}, threads))
        names = list(contestants)
        names = names[number % len(names) :] + names[: number % len(names)]
        for name in names:
            if "absent" not in found[name] and not (contestants[name].once and number):
                progress_line(f"{benchmark}, round {number + 1} of {rounds}: {name}")
                _one(benchmark, name, work, threads, found[name])
    for entry in found.values():
        entry |= {m: spread([r.get(m) for r in entry["rounds"]]) for m in MEASURES if "absent" not in entry}
    return {"contestants": found, "ceiling": {rate: spread([c.get(rate) for c in ceilings]) for rate in RATES}}


def _one(benchmark: str, name: str, work: dict, threads: int, entry: dict) -> None:
    try:
        entry["rounds"].append(start(benchmark, name, work, threads))
    except SummkitError as error:
        if name.startswith("summkit"):
            raise
        entry["absent"], entry["rounds"] = str(error), []


QUIET = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
# Beside the numbers of threads: threads that wait for work would be counted as if they worked.
QUIET |= {"OMP_WAIT_POLICY": "PASSIVE", "SUMMKIT_HEADLESS": "1"}


def start(
    benchmark: str, name: str, work: dict, threads: int, python: str = sys.executable, timeout: float | None = None
) -> dict:
    """Return what contestant `name` measured in its own process. Raises SummkitError if it fails."""
    quiet = QUIET | {"OMP_NUM_THREADS": str(threads)}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "work.json", Path(folder) / "result.json"]
        files[0].write_text(json.dumps(work | {"folder": folder, "threads": threads}), encoding="utf-8")
        try:
            done = subprocess.run(
                [python, "-m", "benchmarks.contestant", benchmark, name, *map(str, files)],
                env=os.environ | quiet | {"PYTHONPATH": os.pathsep.join(paths)},
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise SummkitError(OUT_OF_TIME) from None
        except OSError as error:
            raise SummkitError(f"{name} cannot be started by {python}: {error.strerror}") from None
        if done.returncode or not files[1].is_file():
            raise SummkitError(f"{name} failed: {_last_line(done.stderr) or f'exit {done.returncode}'}")
        return json.loads(files[1].read_text(encoding="utf-8"))


def own(benchmark: str, name: str, work: dict, threads: int, timeout: float | None = None) -> dict:
    """As `start`, but in a process that is forked from this one, with what this one has imported.

    Where this one has started CUDA, or processes cannot be forked, it is `start`.
    """
    cuda_started = "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized()
    if cuda_started or not hasattr(os, "fork"):
        return start(benchmark, name, work, threads, timeout=timeout)
    with tempfile.TemporaryDirectory() as folder:
        result, error = Path(folder) / "result.json", Path(folder) / "error.txt"
        child = os.fork()
        if not child:
            _contest(benchmark, name, work | {"folder": folder, "threads": threads}, result, error)
        ends = time.monotonic() + (timeout or float("inf"))
        try:
            while not (ended := os.waitpid(child, os.WNOHANG))[0]:
                if time.monotonic() > ends:
                    raise SummkitError(OUT_OF_TIME)
                time.sleep(0.05)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        if not result.is_file():
            reason = error.read_text(encoding="utf-8") if error.is_file() else f"exit {ended[1]}"
            raise SummkitError(f"{name} failed: {_last_line(reason)}")
        return json.loads(result.read_text(encoding="utf-8"))


def _contest(benchmark: str, name: str, work: dict, result: Path, error: Path) -> None:
    """Run a contestant and end the process, without what the parent would do at its end."""
    import importlib

    try:
        os.chdir(work["folder"])
        module = importlib.import_module(f"benchmarks.{benchmark}")
        run = module.prepare if name == "prepare" else module.CONTESTANTS[name].run
        part = result.with_suffix(".part")
        part.write_text(json.dumps(run(work)), encoding="utf-8")
        os.replace(part, result)
    except BaseException as failure:
        error.write_text(f"{type(failure).__name__}: {failure}", encoding="utf-8")
    finally:
        os._exit(0)


def _last_line(text: str) -> str:
    """Return the last line of a traceback without paths, because it goes into a record."""
    lines = text.strip().splitlines()
    return re.sub(r"(/[\w.+-]+){2,}|[A-Za-z]:\\\S+", "…", lines[-1])[:300] if lines else ""


def spread(values: list) -> dict | None:
    """{"median", "low", "high"} of the numbers among `values`; None where there are none."""
    numbers = [value for value in values if value is not None]
    return {"median": statistics.median(numbers), "low": min(numbers), "high": max(numbers)} if numbers else None


def machine(threads: int) -> dict:
    """Describe the machine: processor or GPU, cores, bytes of memory, threads of a contestant."""
    import psutil

    about = {"processor": _processor(), "cores": os.cpu_count(), "memory_bytes": psutil.virtual_memory().total}
    return about | {"system": f"{platform.system()} {platform.machine()}", "gpu": gpu_name(), "threads": threads}


@functools.cache
def _gpu() -> tuple[str | None, bool]:
    """The GPU's name and whether it computes in bf16, asked in a process of its own: this one must not start CUDA."""
    code = "import json; from summkit.config import detect_hardware; h = detect_hardware(); "
    code += "print(json.dumps([h.name if h.device == 'cuda' else None, h.bf16]))"
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    name, bf16 = json.loads(done.stdout.splitlines()[-1])
    return name, bf16


def gpu_name() -> str | None:
    """Return the name of the GPU that torch sees, or None. Without an NVIDIA driver, torch is not imported."""
    return _gpu()[0]


def bf16() -> bool:
    """Whether the GPU computes in bf16."""
    return _gpu()[1]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def device_name(about: dict) -> str:
    """One line for a machine, as `machine` describes it."""
    return about["gpu"] or f"{about['processor']}, {about['cores']} cores"


def file_name(benchmark: str, device: str) -> str:
    """Return the name of the file of a benchmark's record on a device."""
    return f"{benchmark}-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


def record(benchmark: str, profile: str, threads: int, **details) -> dict:
    """Return a run record whose details are the machine and the results of a benchmark."""
    about = machine(threads)
    made = records.new_record(f"benchmarks/{benchmark}", profile, 0, device_name(about))
    return records.fill_record(made, "details", machine=about, peers={name: version(name) for name in PEERS}, **details)


def version(package: str) -> str | None:
    """The version of an installed package; None for another."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def progress_line(text: str) -> None:
    """Print to stderr what is being measured, unless progress is switched off (TQDM_DISABLE)."""
    if not os.environ.get("TQDM_DISABLE"):
        print(text, file=sys.stderr, flush=True)


def quiet() -> None:
    """Silence progress bars and notes of the libraries."""
    progress.quiet_libraries()
