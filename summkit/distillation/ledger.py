"""Floor 0. A file of JSON lines that a long job adds to: killed at any moment, it is whole up to its last full line.

One process writes at a time. What a kill left of a last line is cut off when the file is next read; anything else that
is not as it was written is an error with its line's number, never dropped.
"""

import json
import os
from contextlib import contextmanager
from pathlib import Path

from summkit.errors import SummkitError

_BEGINS = b'{"id": '


@contextmanager
def one_process(path: Path):
    """The right to write `path` for as long as it lasts. Raises SummkitError where another process has it."""
    import filelock

    lock = filelock.FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise SummkitError(f"another process writes {path}: wait for it, or choose another file") from None
    except OSError as error:
        raise SummkitError(f"cannot write {path}: {error.strerror}; choose another file") from None
    try:
        yield
    finally:
        lock.release()


def append(path: Path, lines: list[dict]) -> None:
    """Add `lines`, each with a text "id" as its first key, and return when they are on the disk."""
    try:
        with open(path, "ab") as file:
            file.write(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SummkitError(f"cannot write {path}: {error.strerror}; the same again goes on once it can be") from None


def read(path: Path) -> dict[str, tuple[str, dict]]:
    """{id: ("file, line number", line)}, empty where there is no file. Call it with the right to write.

    Raises SummkitError for a line that is no JSON object with an id, or with the id of an earlier line.
    """
    lines: dict[str, tuple[str, dict]] = {}
    try:
        content = path.read_bytes() if path.exists() else b""
        *whole, torn = content.split(b"\n")
        for number, raw in enumerate(whole, 1):
            where, line = f"{path}, line {number}", _parse(raw)
            if line is None:
                raise SummkitError(
                    f"{where}: broken; delete the line and its row is done again, or choose another file"
                )
            if line["id"] in lines:
                raise SummkitError(f"{where}: {line['id']!r} has an earlier line too; delete one of them")
            lines[line["id"]] = where, line
        if not torn.startswith(_BEGINS[: len(torn)]):
            raise SummkitError(f"{path}: what follows line {len(whole)} is no line of this job; choose another file")
        if torn:
            os.truncate(path, len(content) - len(torn))
    except OSError as error:
        raise SummkitError(f"cannot go on with {path}: {error.strerror}; choose another file") from None
    return lines


def _parse(raw: bytes) -> dict | None:
    try:
        line = json.loads(raw)
        return line if isinstance(line["id"], str) else None
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
