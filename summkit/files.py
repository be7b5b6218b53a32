"""Write files and folders atomically: after a kill, the old version or the new one is there, never a part of it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from summkit.errors import SummkitError


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file in UTF-8, atomically.

    Args:
        path: The file; its folder is made if it is missing.
        text: Its content.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written; the old one is then untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def make_folder(folder: str | Path, option: str) -> Path:
    """Make the folder of a run, if it is missing, and return it.

    Args:
        folder: The folder.
        option: The option that names it, for the error.

    Raises:
        SummkitError: It cannot be made, or nothing can be written into it.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise SummkitError(f"cannot make the run folder {folder}: {reason}; choose another with {option}")
    return folder


def check_unused(folder: str | Path) -> None:
    """Check that no run has written its record or its weights into a folder, which may be missing.

    Raises:
        SummkitError: It has an earlier run.
    """
    used = [name for name in ("run.json", "adapter") if Path(folder, name).exists()]
    if used:
        raise SummkitError(
            f"{folder} has an earlier run ({', '.join(used)}), which is not overwritten: --resume continues it, "
            "--overwrite replaces it, another folder keeps both"
        )


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` when the block ends without an error.

    Args:
        folder: The destination; an existing folder is replaced at the end, and of a link the folder it points to.

    Yields:
        A new folder beside it, removed if the block raises.
    """
    folder = Path(folder).resolve()
    part, old = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "old"))  # hidden: no names of the user's
    _restore(folder, old)  # of a process that was killed between the two moves below
    for rest in (part, old):
        shutil.rmtree(rest, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if folder.exists():
            _move(folder, old)
        _move(part, folder)
    finally:
        _restore(folder, old)
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a folder as `whole_folder` does, but never replace files.

    Raises:
        SummkitError: The folder has files, is the working folder, or cannot be written.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir()) or folder == Path.cwd()):
        raise SummkitError(f"{folder} already exists: choose a new folder, or remove it")
    try:
        with whole_folder(folder) as part:
            yield part
    except OSError as error:
        raise SummkitError(f"{folder} could not be written: {error.strerror or error}") from None


def _restore(folder: Path, old: Path) -> None:
    if old.is_dir() and not folder.exists():
        _move(old, folder)


def _move(folder: Path, target: Path) -> None:
    """Rename a folder. Windows refuses it while a file in the folder is open, often for a moment only."""
    for pause in (0.1, 0.5, 2, None):
        try:
            os.replace(folder, target)
            return
        except PermissionError as error:
            if pause is None:
                hint = "a file in it may be open in another program or notebook: close that, and try again"
                raise SummkitError(f"cannot rename {folder} to {target.name}: {error.strerror}; {hint}") from None
            time.sleep(pause)


def log_event(event: str, **values: Any) -> None:
    """Append a line of JSON with the time to the file that SUMMKIT_LOG names, if it names one.

    Raises:
        SummkitError: The file cannot be written.
    """
    if path := os.environ.get("SUMMKIT_LOG"):
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event} | values
        text = re.sub(r'(?<=://)[^\s/"]+@', "***@", json.dumps(line, ensure_ascii=False))  # no password of an address
        try:
            with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:  # \\udce9, as JSON writes it
                file.write(text + "\n")
        except OSError as error:
            raise SummkitError(f"SUMMKIT_LOG={path}: {error.strerror}; name a file that can be written") from None


@contextmanager
def lock(path: str | Path, waiting: str = "") -> Iterator[None]:
    """Hold a lock file, so that only one process at a time runs the block.

    Args:
        path: The lock file; its folder is made if it is missing.
        waiting: Message on stderr while another process holds the lock; empty: raise an error instead of waiting.

    Raises:
        SummkitError: Another process holds the lock and `waiting` is empty.
        OSError: The lock file cannot be made.
    """
    import filelock

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    held = filelock.FileLock(path)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        if not waiting:
            raise SummkitError(f"another process holds {path}: wait until it has finished") from None
        print(waiting, file=sys.stderr, flush=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def read_mapping(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a file with one JSON object, or one YAML mapping if its name ends in .yaml or .yml.

    Args:
        path: The file, in UTF-8; a byte-order mark is skipped.
        kind: What the file is, for messages.

    Raises:
        SummkitError: The file cannot be read, contains something else, or has a key twice.
    """
    import yaml

    path = Path(path)
    is_yaml = path.suffix in (".yaml", ".yml")
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = yaml.load(text, _yaml_loader()) if is_yaml else json.loads(text, object_pairs_hook=_unique)
    except OSError as error:
        raise SummkitError(f"{kind} {path}: {error.strerror}") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise SummkitError(f"{kind} {path} is not {'YAML' if is_yaml else 'JSON'}: {error}") from None
    if not isinstance(values, dict):
        raise SummkitError(f'{kind} {path}: a JSON object is needed, such as {{"profile": "cpu", "seed": 0}}')
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return values


@cache
def _yaml_loader() -> Any:
    """Return YAML's safe loader, for which 2e-4 is a number, as everywhere but in YAML 1.1, and keys are unique."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            _unique([(key.value, None) for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            values = super().construct_mapping(node, deep)
            if wrong := [key for key in values if not isinstance(key, str)]:
                raise ValueError(f"the key {wrong[0]!r} is not text: put it in quotes")
            return values

    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return Loader
