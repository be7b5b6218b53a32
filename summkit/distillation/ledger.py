"""A JSON lines file to which a long job appends; after a kill, all lines except the last are complete.

Only one process writes at a time. An incomplete last line is removed when the file is next read; any other broken line
raises an error with its number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from summkit import files
from summkit.errors import SummkitError

_LINE_START = b'{"id": '


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Lock `path` for writing. Raises SummkitError if another process has locked it, or if it cannot be written."""
    with ExitStack() as stack:
        try:
            stack.enter_context(files.lock(f"{path}.lock"))
        except OSError as error:
            raise SummkitError(f"cannot write {path}: {error.strerror}; choose another file") from None
        yield


def append(path: Path, lines: list[dict]) -> None:
    """Add lines, each with a text "id" as its first key, and return when they are on the disk."""
    try:
        with open(path, "ab") as file:
            file.write(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SummkitError(f"cannot write {path}: {error.strerror}; fix that, and run the same command again") from None


def read(path: Path) -> dict[str, tuple[str, dict]]:
    """Read all lines; the caller must hold the lock.

    Args:
        path: The file, which may be missing.

    Returns:
        {id: ("file, line number", line)}.

    Raises:
        SummkitError: A line is not a JSON object with an id, or repeats an earlier line's id.
    """
    lines: dict[str, tuple[str, dict]] = {}
    try:
        content = path.read_bytes() if path.exists() else b""
        *complete, torn = content.split(b"\n")
        for number, raw in enumerate(complete, 1):
            location = f"{path}, line {number}"
            line = _parse(raw)
            if line is None:
                raise SummkitError(f"{location}: broken; delete the line to process the row again")
            if line["id"] in lines:
                raise SummkitError(f"{location}: {line['id']!r} is in an earlier line too; delete one of them")
            lines[line["id"]] = (location, line)
        if not torn.startswith(_LINE_START[: len(torn)]):
            raise SummkitError(f"{path}: the text after line {len(complete)} is not a label; choose another file")
        if torn:
            os.truncate(path, len(content) - len(torn))
    except OSError as error:
        raise SummkitError(f"cannot continue {path}: {error.strerror}; choose another file") from None
    return lines


def _parse(raw: bytes) -> dict | None:
    try:
        line = json.loads(raw)
        return line if isinstance(line["id"], str) else None
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
