"""The run record: settings, data, environment and results of a run in one JSON file, the source of reports.

`record.yaml` lists its keys. This module writes and reads records; it does not measure or format. Unknown values are
null, never a guess. Texts in `scores` and `details` are recorded as they are. The other sections describe the run
itself; of a path of the machine, they have only the last part.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from summkit.errors import SummkitError, check_known
from summkit.files import make_folder, read_mapping, write_text

if TYPE_CHECKING:
    from summkit.config import Profile

SCHEMA = 1
_LISTED: dict[str, dict] = read_mapping(Path(__file__).with_name("record.yaml"), "keys of a record")
SECTIONS = {section: tuple(keys) for section, keys in _LISTED.items()}
RUN = ("stage", "profile", "seed", "started", "wall_seconds")
OPEN = ("scores", "details")  # sections whose keys a chapter chooses
_RESULTS = ("scores", "generation", "resources", "environment", "figures", "details")
_LATER = ("compile_seconds", "speed")  # keys of `training` that the first records lack
ORDER = ("schema", *RUN, "model", "data", "training", *_RESULTS)
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_MACHINE_PATH = re.compile(r"/|~[\w.-]*/|[A-Za-z]:[\\/]|\\\\|file:")


def run_folder(stage: str) -> Path:
    """Make and return the folder of a run of `stage`, inside SUMMKIT_RUN_DIR or ./runs.

    Raises:
        SummkitError: The folder cannot be made.
    """
    return make_folder(Path(os.environ.get("SUMMKIT_RUN_DIR", "runs")) / stage, "--out")


def new_record(stage: str, profile: Profile | str, seed: int, device: str = "cpu") -> dict:
    """Return a new record with null values except for stage, profile, seed, start and environment.

    Args:
        stage: The chapter's name, such as "task3".
        profile: A profile or its name.
        seed: The run's seed.
        device: Description of the hardware.

    Example:
        >>> record = new_record("task3", "smoke", seed=0)
        >>> fill_record(record, "training", steps=68)["training"]["steps"]
        68
    """
    record = {"schema": SCHEMA, "stage": stage, "profile": getattr(profile, "name", profile), "seed": seed}
    record |= {"started": datetime.now(UTC).isoformat(timespec="seconds"), "wall_seconds": None}
    record |= {section: dict.fromkeys(keys) for section, keys in SECTIONS.items()}
    record |= {"scores": {}, "figures": [], "details": {}, "environment": environment(device)}
    return {key: record[key] for key in ORDER}


def environment(device: str = "cpu") -> dict[str, str | None]:
    """Return the versions of the packages that a run depends on, without importing them."""
    known = {"python": platform.python_version(), "device": device, "git_commit": git_commit()}
    return {key: known[key] if key in known else _version(key) for key in SECTIONS["environment"]}


def git_commit() -> str | None:
    """Return the commit of the code.

    Returns:
        The commit of the checkout that tracks this file, with "+dirty" if tracked files were changed. Without such a
        checkout, the commit from which pip installed it. Otherwise None.
    """
    code = Path(__file__).resolve()
    if _git(code.parent, "ls-files", "--error-unmatch", code.name) is None:
        return _installed_commit()
    commit = _git(code.parent, "rev-parse", "HEAD")
    changed = _git(code.parent, "status", "--porcelain", "--untracked-files=no")
    return commit and commit + ("+dirty" if changed else "")


def fill_record(record: dict, section: str, **values: Any) -> dict:
    """Put values into a section of a record, and return the record.

    Args:
        record: A record; it is changed.
        section: A section of record.yaml, "scores", "details", or "run" for the top level (wall_seconds, …).
        **values: Values by key. In "scores" a value is one system's dict; missing ROUGE keys and n are added as null.
            A value that JSON does not have is recorded as text, with a warning.

    Raises:
        SummkitError: The section or a key is unknown. The record is then unchanged.
    """
    check_known("section of the record", section, {*SECTIONS, *OPEN, "run"})
    known = RUN if section == "run" else SECTIONS.get(section, tuple(values))
    for key in values:
        check_known(f"key of the record's section {section!r}", key, known)
    if section == "scores":
        values = {system: _complete_scores(system, entry) for system, entry in values.items()}
    clean = {key: _clean(value, f"{section}.{key}") for key, value in values.items()}
    (record if section == "run" else record[section]).update(clean)
    return record


def write_record(record: dict, path: str | Path) -> Path:
    """Check a record and write it atomically.

    Raises:
        SummkitError: A key is missing or unknown, or the file cannot be written.
    """
    clean = _clean(record, "")
    _check_keys(clean, "the record to be written")
    for section in SECTIONS:
        clean[section] = {key: _without_path(value) for key, value in clean[section].items()}
    clean = {key: clean[key] for key in ORDER}
    try:
        return write_text(path, json.dumps(clean, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise SummkitError(f"cannot write the run record {path}: {error.strerror}; choose another folder") from error


def read_record(path: str | Path) -> dict:
    """Read a run.json.

    Raises:
        SummkitError: The file is missing, broken, or of another schema; the message names the file.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        message = f"cannot read the run record {path}: {error.strerror}; give the run.json of a run"
        raise SummkitError(message) from error
    except ValueError as error:  # broken JSON, NaN, or bytes that are not UTF-8
        raise SummkitError(f"the run record {path} is broken ({error}); repeat the run to write a new one") from error
    if isinstance(record, dict) and isinstance(record.get("training"), dict):
        record["training"] |= {key: record["training"].get(key) for key in _LATER}
    _check_keys(record, path)
    return record


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed_commit() -> str | None:
    try:
        origin = importlib.metadata.distribution("summkit").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    return json.loads(origin or "{}").get("vcs_info", {}).get("commit_id")


def _git(folder: Path, *arguments: str) -> str | None:
    # Inside a git hook, GIT_DIR and similar variables point at the hook's repository, so remove them.
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    options: dict[str, Any] = {"cwd": folder, "env": env, "capture_output": True, "text": True, "timeout": 20}
    try:
        return subprocess.run(["git", *arguments], check=True, **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _complete_scores(system: str, entry: dict) -> dict:
    for key in entry:
        if key.lower().startswith("rouge"):  # "rougel" would be a second, silent rougeL
            check_known(f"ROUGE score of {system!r}", key, ROUGE)
    return dict.fromkeys((*ROUGE, "n")) | entry


def _clean(value: Any, location: str) -> Any:
    """Return a value as strict JSON: arrays and tensors as numbers, tuples as lists, NaN and infinities as null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        inside = f"{location}." if location else ""
        return {_clean(str(key), location): _clean(item, f"{inside}{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, f"{location}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if not isinstance(value, str):
        logging.getLogger(__name__).warning(f"the record's {location} is a {type(value).__name__}, recorded as text")
    return str(value).encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be written


def _without_path(value: Any) -> Any:
    """Return the last part of a path of this machine, and any other value as it is."""
    is_path = isinstance(value, str) and _MACHINE_PATH.match(value)
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if is_path else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_keys(record: Any, name: str | Path) -> None:
    schema = record.get("schema") if isinstance(record, dict) else type(record).__name__
    if schema != SCHEMA:
        message = f"{name}: schema {schema!r}, this version reads {SCHEMA}; repeat the run to write a new record"
        raise SummkitError(message)
    wrong = set(record) ^ set(ORDER)
    for section in (*SECTIONS, *OPEN):
        entry = record.get(section)
        if not isinstance(entry, dict):
            wrong.add(section)
        elif section in SECTIONS:
            wrong |= {f"{section}.{key}" for key in set(SECTIONS[section]) ^ set(entry)}
    figures = record.get("figures")
    if not isinstance(figures, list) or not all(isinstance(figure, str) for figure in figures):
        wrong.add("figures")
    if wrong:
        raise SummkitError(f"{name}: not a run record; missing or unknown keys: {', '.join(sorted(wrong))}")
