"""What fails ends in one line and an exit code: a full disk, no home, an encoding, another Python, a fault of ours."""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from summkit import cli
from summkit.offline import hub
from tests import warm

PACKAGE = Path(__file__).parents[2]
SMOKE = {"profile": "smoke", "train_rows": 8, "validation_rows": 4, "test_rows": 4, "out": "mine"}


def fails_with(monkeypatch, error: Exception) -> None:
    """Let the command `list` raise an error."""

    def failing(options):
        raise error

    monkeypatch.setattr(cli, "_list", failing)


def run(*arguments: str, **settings) -> subprocess.CompletedProcess:
    """`python -m summkit …` in its own process; it must not show a traceback."""
    environment = {"PYTHONPATH": str(PACKAGE), **settings.pop("env", os.environ)}
    command = [*settings.pop("program", [sys.executable, "-m", "summkit"]), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, **settings)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_what_nobody_foresaw_is_one_line_and_the_place_of_a_log(monkeypatch, capsys):
    fails_with(monkeypatch, ZeroDivisionError("an odd\nnumber"))
    assert cli.main(["list"]) == 1
    said = capsys.readouterr().err
    found = re.fullmatch(
        r"summkit: an error that was not foreseen: ZeroDivisionError: an odd number \(traceback: (.+)\)\n", said
    )
    log = Path(found[1])
    assert "Traceback" in log.read_text() and "in failing" in log.read_text()
    log.unlink()


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model"), "the disk is full"),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), "the disk is full, or a limit on files is reached"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "the disk is full"),
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory is short; a smaller batch_size"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9"), "memory is short"),
        (MemoryError(), "memory is short"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "REPORT"), "a file or folder cannot be used under this name"),
        (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x" * 300), "a file or folder cannot be used"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "REPORT"), "a file or folder cannot be used"),
    ],
)
def test_short_of_disk_or_memory_says_what_helps(monkeypatch, capsys, error, advice):
    fails_with(monkeypatch, error)
    assert cli.main(["list"]) == 1
    assert capsys.readouterr().err.startswith(f"summkit: {advice}")


def test_without_a_place_for_the_log_the_line_is_still_there(monkeypatch, capsys):
    fails_with(monkeypatch, ValueError("odd"))

    def full(**_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(cli.tempfile, "mkstemp", full)
    assert cli.main(["list"]) == 1
    assert capsys.readouterr().err == "summkit: an error that was not foreseen: ValueError: odd\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
def test_no_answer_is_lost_in_an_encoding_that_cannot_print_it(monkeypatch, encoding):
    answer = "桥 für 5 €"
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    monkeypatch.setattr(cli, "_list", lambda options: print(answer))
    assert cli.main(["list"]) == 0
    shown = written.getvalue().decode(encoding).strip()
    assert "\\u6865" in shown and shown.encode(encoding).decode("raw_unicode_escape", errors="replace")[0] == "桥"


@pytest.mark.parametrize("command", [[], ["run"], ["train"], ["sweep"], ["summarize"], ["label"], ["doctor"]])
def test_help_is_printed_in_ascii_too(monkeypatch, command):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    sys.stdout.flush()
    assert stop.value.code == 0 and b"usage: summkit" in written.getvalue()


def test_a_python_without_the_packages_is_told_where_they_are():
    done = run("doctor", program=[sys.executable, "-S", "-m", "summkit"], cwd=PACKAGE)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "has no package 'yaml': install it with pip, or use the Python of the environment that " in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no list of users")
def test_a_user_without_name_and_home_has_both(monkeypatch):
    def unknown(*_):
        raise KeyError("getpwuid(): uid not found: 54321")

    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    cli._find_home()
    assert Path.home().is_dir() and os.environ["USER"] == "summkit"


# A user id without an entry in the system's list, which may read everything.
STRANGER = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
STRANGER += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "/", "/nonexistent"])
def test_an_unknown_user_without_a_home_trains(one_thread, tmp_path, home):
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    if not shutil.which("setpriv") or subprocess.run([*STRANGER, "true"], capture_output=True).returncode:
        pytest.skip("only root can become another user")
    (place / "c.json").write_text(json.dumps(SMOKE))
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    kept = {name: value for name, value in kept.items() if not name.startswith(("XDG_", "SUMMKIT_", "HF_"))}
    given = kept | {"TMPDIR": str(place)} | ({"HOME": home} if home else {})
    program = [*STRANGER, sys.executable, "-m", "summkit"]
    done = run("train", "c.json", program=program, cwd=place, env=given)
    assert done.returncode == 0 and (place / "mine" / "adapter").is_dir(), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [20, 60, 150])
def test_a_file_that_cannot_grow_ends_the_training_in_one_line(one_thread, tmp_path, kilobytes):
    """A limit on the size of files, which fails as a full disk does."""
    pytest.importorskip("resource")
    (tmp_path / "c.json").write_text(json.dumps(SMOKE))
    # Python would leave a cut .pyc of a module behind, which no later process can import.
    code = f"import resource, sys; sys.dont_write_bytecode = True; limit = 1024 * {kilobytes}\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\nfrom summkit.cli import main; sys.exit(main())"
    done = run("train", "c.json", program=[warm.python(), "-c", code], cwd=tmp_path)
    last = done.stderr.splitlines()[-1]
    assert done.returncode in (1, 2) and last.startswith("summkit: ") and "File too large" in last


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_the_training_in_one_line_and_resume_goes_on(one_thread, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    environment = os.environ | {"PYTHONPATH": str(PACKAGE)}
    (tmp_path / "c.json").write_text(json.dumps(SMOKE | {"out": "small/run", "epochs": 20, "patience": 99}))
    command = [warm.python(), "-m", "summkit", "train", "c.json"]
    try:
        with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as training:
            end = time.monotonic() + 200
            while not list(small.glob("run/checkpoint-*/complete.json")) and time.monotonic() < end:
                time.sleep(0.05)
            with contextlib.suppress(OSError), open(small / "other", "wb", buffering=0) as other:
                while True:
                    other.write(b"x" * 1000)
            said = training.communicate(timeout=200)[1]
        last = said.splitlines()[-1]
        assert training.returncode in (1, 2) and last.startswith("summkit: ") and "Traceback" not in said, said
        assert "no space" in last.lower() or "disk is full" in last
        (small / "other").unlink()
        assert run("train", "c.json", "--resume", program=command[:3], cwd=tmp_path).returncode == 0
        assert json.loads((small / "run" / "run.json").read_text())["training"]["steps"] == 40
    finally:
        subprocess.run(["umount", str(small)], check=False)


@pytest.fixture
def slow_hub(monkeypatch):
    """A Hub that takes three seconds to answer; the list of its requests."""
    asked = []

    class Slow(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            time.sleep(3)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield asked
    server.shutdown()
    server.server_close()


def test_a_hub_that_takes_three_seconds_is_waited_for(slow_hub):
    hub.require_hub("model org/name")
    assert len(slow_hub) == 1 and "does not answer within 0.2 s" in hub.state(0.2)


def test_offline_the_hub_is_not_asked(slow_hub, monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    hub.require_hub("model org/name")
    assert slow_hub == [] and hub.state() == "not asked, because TRANSFORMERS_OFFLINE is set"
