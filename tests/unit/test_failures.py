"""What fails ends in one line and an exit code: a full disk, no home, an encoding, another Python, a fault of ours."""

import errno
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from summkit import cli

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
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "the disk is full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "the disk is full"),
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory is short; a smaller batch_size"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9"), "memory is short"),
        (MemoryError(), "memory is short"),
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
    assert "has no package 'yaml': run `make install` once, then write .venv/bin/python" in done.stderr


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
    (tmp_path / "c.json").write_text(json.dumps(SMOKE))

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * kilobytes, 1024 * kilobytes))

    done = run("train", "c.json", cwd=tmp_path, preexec_fn=limited)
    last = done.stderr.splitlines()[-1]
    assert done.returncode in (1, 2) and last.startswith("summkit: ") and "File too large" in last


@pytest.mark.slow
def test_a_disk_that_is_full_ends_the_training_in_one_line_and_resume_goes_on(one_thread, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        (tmp_path / "c.json").write_text(json.dumps(SMOKE | {"out": "small/run", "epochs": 2}))
        (small / "other").write_bytes(b"x" * 250_000)
        done = run("train", "c.json", cwd=tmp_path)
        last = done.stderr.splitlines()[-1]
        assert done.returncode in (1, 2) and last.startswith("summkit: ") and "No space left" in last
        (small / "other").unlink()
        subprocess.run(["mount", "-o", "remount,size=9000k", str(small)], check=True)
        assert run("train", "c.json", "--resume", cwd=tmp_path).returncode == 0
        assert (small / "run" / "run.json").is_file()
    finally:
        subprocess.run(["umount", str(small)], check=False)
