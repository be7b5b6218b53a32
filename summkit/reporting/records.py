"""Floor 1. The run record: what a run did, on what, and what came of it, in one JSON file that reports are made from.

It writes and reads; it measures nothing and formats nothing. Absent is null, never a guess, and no path of the
machine it was made on gets in.
"""

import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from summkit.errors import SummkitError, check_known

SCHEMA = 1
# Section -> its keys, in the order in which they are written. Seconds, bytes, tokens and rows, as the names say.
SECTIONS = {
    "model": ("id", "source", "revision", "sha256", "parameters", "trainable", "footprint_bytes", "quantization"),
    "data": ("id", "source", "train", "validation", "test", "dropped"),
    "training": (
        "method", "steps", "epochs", "seconds", "tokens", "padding_fraction", "train_loss", "eval_loss",
        "resumed_from", "best_step", "stopped_early", "interrupted",
    ),
    "generation": ("samples", "seconds", "new_tokens"),
    "resources": (
        "peak_rss_bytes", "peak_device_bytes", "energy_kwh", "energy_is_estimate", "co2_kg", "cost_usd",
    ),
    "environment": ("python", "torch", "transformers", "peft", "bitsandbytes", "datasets", "device", "git_commit"),
}  # fmt: skip
RUN = ("stage", "profile", "seed", "started", "wall_seconds")
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
OPEN = ("scores", "details")  # sections whose keys the stages choose: systems, and a stage's own facts
ORDER = ("schema", *RUN, "model", "data", "training", "scores", "generation", "resources", "environment")
ORDER += ("figures", "details")
# What two runs of the same thing differ in: time, machine, versions.
VOLATILE = ("started", "wall_seconds", "training.seconds", "generation.seconds", "resources", "environment")
_MACHINE_PATH = re.compile(r"/|~[\w.-]*/|[A-Za-z]:[\\/]|\\\\|file:")


def run_folder(stage: str) -> Path:
    """Where a run of `stage` writes: SUMMKIT_RUN_DIR, else ./runs, then the stage's name. Made if it is not there."""
    folder = Path(os.environ.get("SUMMKIT_RUN_DIR", "runs")) / stage
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SummkitError(
            f"cannot make the run folder {folder}: {error.strerror}; choose another with --out"
        ) from None
    return folder


def new_record(stage: str, profile, seed: int, device: str = "cpu") -> dict:
    """The whole skeleton with null everywhere but stage, profile (a Profile or its name), seed, start and versions."""
    record = {"schema": SCHEMA, "stage": stage, "profile": getattr(profile, "name", profile), "seed": seed}
    record |= {"started": datetime.now(UTC).isoformat(timespec="seconds"), "wall_seconds": None}
    record |= {section: dict.fromkeys(keys) for section, keys in SECTIONS.items()}
    record |= {"scores": {}, "figures": [], "details": {}, "environment": environment(device)}
    return {key: record[key] for key in ORDER}


def environment(device: str = "cpu") -> dict:
    """Versions of what a run depends on, read without importing any of it; null where a package is not installed."""
    packages = ("torch", "transformers", "peft", "bitsandbytes", "datasets")
    versions = {name: _version(name) for name in packages}
    return {"python": platform.python_version(), **versions, "device": device, "git_commit": git_commit()}


def git_commit(file: Path | None = None) -> str | None:
    """The commit of the checkout that `file` (default: this one) is tracked in, with "+dirty" where tracked files
    were changed; null outside a checkout, so also where the package is installed inside somebody else's.
    """
    file = Path(file or __file__).resolve()
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit = _git(file.parent, "rev-parse", "HEAD")
    changed = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    return commit and commit + ("+dirty" if changed else "")


def fill_record(record: dict, section: str, **values) -> dict:
    """Put `values` into a section and return the record. Section "run" is the top level (wall_seconds, …).

    In "scores" a value is one system's dict: the four ROUGE keys and n (null where not given), and further metrics.
    Raises SummkitError for an unknown section, key or kind of value, and for a machine's path; nothing is put then.
    """
    check_known("section of the record", section, {*SECTIONS, *OPEN, "run"})
    known = RUN if section == "run" else SECTIONS.get(section)
    for key in values if known else ():
        check_known(f"key of the record's section {section!r}", key, known)
    if section == "scores":
        values = {name: _scores(name, entry) for name, entry in values.items()}
    clean = {key: _clean(value, f"{section}.{key}") for key, value in values.items()}
    (record if section == "run" else record[section]).update(clean)
    return record


def add_earlier_runs(record: dict, runs: list[dict]) -> dict:
    """Add to `record` what those of `runs`, records, took that began before it: a stage that goes on from them took
    their seconds, energy, carbon and money too. Peaks are the highest. What was not measured stays None.
    """
    for run in (run for run in runs if run["started"] < record["started"]):
        took, its = record["resources"], run["resources"]
        record["wall_seconds"] += run["wall_seconds"] or 0
        for key in ("energy_kwh", "co2_kg", "cost_usd"):
            took[key] = None if None in (took[key], its[key]) else took[key] + its[key]
        for key in ("peak_rss_bytes", "peak_device_bytes"):
            took[key] = max((peak for peak in (took[key], its[key]) if peak is not None), default=None)
    return record


def portable_path(path, folder=".") -> str:
    """`path` as a record may hold it: relative to `folder` with forward slashes, or its last name if it is outside."""
    path, folder = Path(path).resolve(), Path(folder).resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def write_record(record: dict, path) -> Path:
    """Check the record and write it at once and whole: a reader sees the old file or the new one, never a half.

    Raises SummkitError where the record is not of this schema, or the file cannot be written.
    """
    path = Path(path)
    clean = _clean({key: record[key] for key in ORDER if key in record}, "")
    _validate(clean | {key: value for key, value in record.items() if key not in ORDER}, "the record to be written")
    text = json.dumps(clean, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise SummkitError(f"cannot write the run record {path}: {error.strerror}; choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_record(path) -> dict:
    """The record in `path`. Raises SummkitError, naming the file, where it is missing, broken or of another schema."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise SummkitError(
            f"cannot read the run record {path}: {error.strerror}; name the run.json of a run"
        ) from error
    except ValueError as error:  # broken JSON, NaN, or bytes that are not UTF-8
        raise SummkitError(f"the run record {path} is broken ({error}); make it again with the run") from error
    _validate(record, path)
    return record


def record_differences(a: dict, b: dict, ignore=VOLATILE) -> dict:
    """{dotted key: (in a, in b)} of all that differs, but for the keys and whole sections named in `ignore`."""
    flat_a, flat_b = _flat(a), _flat(b)
    keys = [key for key in {**flat_a, **flat_b} if not any(key == i or key.startswith(i + ".") for i in ignore)]
    pairs = {key: (flat_a.get(key), flat_b.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    # Inside a git hook GIT_DIR and its like point at the hook's repository: ask about the folder instead.
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _scores(system: str, entry: dict) -> dict:
    for key in entry:
        if key.lower().startswith("rouge"):  # "rougel" would be a second, silent rougeL
            check_known(f"ROUGE score of {system!r}", key, ROUGE)
    return dict.fromkeys((*ROUGE, "n")) | entry


def _clean(value, where: str):
    """`value` as strict JSON: numpy and torch scalars as numbers, tuples as lists, NaN and infinities as null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {_key(key, where): _clean(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _text(value, where)
    if value is None or isinstance(value, bool | int):
        return value
    raise SummkitError(f"the record's {where} cannot hold a {type(value).__name__}; give numbers, text, lists or dicts")


def _key(key, where: str) -> str:
    if not isinstance(key, str):
        raise SummkitError(f"the record's {where or 'top level'} has the key {key!r}; keys are text")
    return _text(key, where)


def _text(text: str, where: str) -> str:
    home = rf"(?<![\w.]){re.escape(str(Path.home()))}(?![\w.-])"  # as a whole name: "branch/root cause" is no path
    if _MACHINE_PATH.match(text) or (len(str(Path.home())) > 1 and re.search(home, text)):
        raise SummkitError(f"the record's {where} holds a path of this machine, {text!r}; use records.portable(path)")
    return text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be written


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not JSON")


def _flat(value, prefix: str = "") -> dict:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}".lstrip(".")).items()}


def _validate(record, name) -> None:
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise SummkitError(f"{name}: schema {found!r}, this version reads {SCHEMA}; make the record again with the run")
    wrong = [key for key in {**record, **dict.fromkeys(ORDER)} if (key in record) != (key in ORDER)]
    for section, keys in SECTIONS.items():
        entry = record.get(section)
        wrong += [section] if not isinstance(entry, dict) else [f"{section}.{key}" for key in set(keys) ^ set(entry)]
    wrong += [key for key in OPEN if not isinstance(record.get(key), dict)]
    figures = record.get("figures")
    if not isinstance(figures, list) or not all(isinstance(figure, str) for figure in figures):
        wrong.append("figures")
    if wrong:
        raise SummkitError(f"{name}: not a run record, missing or unknown: {', '.join(sorted(set(wrong)))}")
