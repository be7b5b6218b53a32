"""The run record: complete, strict, atomic, portable."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from summkit.errors import SummkitError
from summkit.reporting import records


@pytest.fixture
def record():
    return records.new_record("task3", "smoke", 0)


def git(folder, *arguments):
    names = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True, env=env)
    return done.stdout.strip()


def test_a_new_record_has_every_key_and_guesses_nothing(record):
    assert tuple(record) == records.ORDER
    for section, keys in records.SECTIONS.items():
        assert tuple(record[section]) == keys
        if section != "environment":
            assert set(record[section].values()) == {None}
    assert record["wall_seconds"] is None and record["scores"] == {} and record["figures"] == []
    assert record["started"].endswith("+00:00") and "." not in record["started"]
    assert record["environment"]["device"] == "cpu" and record["environment"]["transformers"]


def test_environment_imports_none_of_what_it_reports():
    code = "import sys; from summkit.reporting import records; records.environment(); "
    code += "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'peft', 'datasets')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_write_and_read_give_the_same_record_back(record, tmp_path):
    records.fill_record(record, "run", wall_seconds=1.5)
    records.fill_record(record, "data", id="examples", dropped={"empty": 2})
    records.fill_record(record, "scores", lead1={"rouge1": {"mean": 16.8, "low": 14.0, "high": 19.5}, "n": 64})
    path = records.write_record(record, tmp_path / "run" / "run.json")
    assert records.read_record(path) == record
    assert tuple(json.loads(path.read_text())) == records.ORDER
    assert path.read_text().endswith("}\n")
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]
    assert record["scores"]["lead1"]["rougeLsum"] is None


@pytest.mark.parametrize("section", ["model", "data", "training", "generation", "resources", "environment", "run"])
def test_an_unknown_key_is_refused_with_the_known_ones(record, section):
    with pytest.raises(SummkitError, match="known:"):
        records.fill_record(record, section, train_los=1.0)


def test_unknown_sections_and_misspelt_rouge_are_refused(record):
    with pytest.raises(SummkitError, match="known: data, details"):
        records.fill_record(record, "score", lead1={})
    with pytest.raises(SummkitError, match="rougeLsum"):
        records.fill_record(record, "scores", lead1={"rougel": 1.0})


def test_nan_becomes_null_and_numpy_becomes_numbers(record, tmp_path):
    numpy = pytest.importorskip("numpy")
    records.fill_record(
        record, "training", train_loss=float("nan"), steps=numpy.int64(3), eval_loss=numpy.float32("inf")
    )
    record["details"]["late"] = [float("nan"), (1, 2)]  # put in past fill(): the writer checks again
    records.fill_record(record, "details", lengths=numpy.array([1.5, 2.5]), note="text \ud800")
    read = records.read_record(records.write_record(record, tmp_path / "run.json"))
    assert read["training"]["train_loss"] is None and read["training"]["eval_loss"] is None
    assert read["training"]["steps"] == 3
    assert read["details"] == {"late": [None, [1, 2]], "lengths": [1.5, 2.5], "note": "text ?"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/data/model", "model"),
        ("~/model/", "model"),
        ("C:\\models\\x", "x"),
        ("\\\\host\\share", "share"),
        ("file:///data/x", "x"),
        ("org/model", "org/model"),
    ],
)
def test_what_describes_the_run_has_no_path_of_the_machine(record, text, name, tmp_path):
    records.fill_record(record, "model", id=text)
    record["data"]["id"] = text  # put in past fill_record
    read = records.read_record(records.write_record(record, tmp_path / "run.json"))
    assert read["model"]["id"] == read["data"]["id"] == name


@pytest.mark.parametrize(
    "text",
    [
        "Ticket 7: the disk of /root is full.",
        "/root was full.",
        "C:\\Windows was full on the server.",
        "file:7 was lost.",
        "~/x",
        "saved to /home/somebody/out",
    ],
)
def test_texts_are_recorded_as_they_are(record, text, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/root")
    details = {"examples": [{"reference": text}], text: {"deep": [text]}}
    records.fill_record(record, "details", **details)
    records.fill_record(record, "scores", **{text: {"rouge1": None}})
    read = records.read_record(records.write_record(record, tmp_path / "run.json"))
    assert read["details"] == details and text in read["scores"]


def test_no_kind_of_value_stops_a_record(record, tmp_path, caplog):
    records.fill_record(record, "details", seen={1}, folder=Path("/x"), by_number={1: 2}, raw=b"a")
    read = records.read_record(records.write_record(record, tmp_path / "run.json"))
    assert read["details"] == {"seen": "{1}", "folder": str(Path("/x")), "by_number": {"1": 2}, "raw": "b'a'"}
    assert "the record's details.seen is a set, recorded as text" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema": 1, "stage"', "broken"),
        (b'{"schema": 1, "seed": NaN}', "NaN is not JSON"),
        (b"\xff\xfe", "broken"),
        (b'{"schema": 99}', "schema 99, this version reads 1"),
        (b"[]", "schema 'list'"),
        (b'{"schema": 1}', "missing or unknown keys: data, details"),
        (None, "No such file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SummkitError, match=message) as error:
        records.read_record(path)
    assert str(path) in str(error.value)


def test_an_interrupted_write_leaves_the_old_record(record, tmp_path, monkeypatch):
    path = records.write_record(record, tmp_path / "run.json")
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SummkitError, match="No space left"):
        records.write_record(records.fill_record(record, "run", seed=7), path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_record_with_a_stray_key_is_not_written(record, tmp_path):
    record["scoers"] = {}
    with pytest.raises(SummkitError, match="scoers"):
        records.write_record(record, tmp_path / "run.json")


def test_git_commit_says_dirty_and_is_null_outside(tmp_path, monkeypatch):
    inside, loose = tmp_path / "module.py", tmp_path / "untracked.py"
    inside.write_text("a = 1\n")
    monkeypatch.setattr(records, "_installed_commit", lambda: "installed")
    monkeypatch.setattr(records, "__file__", str(inside))
    assert records.git_commit() == "installed"
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "module.py")
    git(tmp_path, "commit", "-qm", "one")
    loose.write_text("b = 1\n")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert records.git_commit() == head
    inside.write_text("a = 2\n")
    assert records.git_commit() == head + "+dirty"
    monkeypatch.setattr(records, "__file__", str(loose))
    assert records.git_commit() == "installed"  # a package inside another project's checkout


class Installed:
    """A distribution whose pip wrote `origin` into direct_url.json."""

    def __init__(self, origin):
        self.origin = origin

    def read_text(self, name):
        assert name == "direct_url.json"
        return self.origin


@pytest.mark.parametrize(
    ("origin", "commit"),
    [
        ('{"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}', "abc123"),
        ('{"url": "file:///somewhere", "dir_info": {"editable": true}}', None),
        (None, None),
    ],
)
def test_without_a_checkout_the_commit_is_the_one_that_pip_installed(monkeypatch, origin, commit):
    monkeypatch.setattr(records, "_git", lambda *_: None)
    monkeypatch.setattr(records.importlib.metadata, "distribution", lambda _: Installed(origin))
    assert records.git_commit() == commit


def test_every_key_of_a_record_says_what_it_is():
    for section, keys in records._LISTED.items():
        assert all(isinstance(meaning, str) and len(meaning) > 4 for meaning in keys.values()), section


@pytest.fixture
def collect():
    spec = importlib.util.spec_from_file_location("collect", Path(__file__).parents[2] / "jobs" / "collect.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_records_of_many_runs_are_one_table(record, tmp_path, monkeypatch, capsys, collect):
    monkeypatch.chdir(tmp_path)
    assert collect.main(["none"]) == 2 and "there is no run.json below none" in capsys.readouterr().err
    for name, seed, started in (("b/task3", 1, "2026-01-01"), ("a/task3", 2, "2026-01-02"), ("a/task3/REPORT", 2, "x")):
        records.fill_record(record, "training", eval_loss=float(seed))
        records.fill_record(record, "details", rows=[1, 2], failed=None)
        records.write_record(record | {"seed": seed, "started": started}, tmp_path / "runs" / name / "run.json")
    assert collect.main(["runs", "--out", "all.csv"]) == 0
    rows = list(csv.DictReader(Path("all.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["run"], row["seed"], row["training.eval_loss"]) for row in rows] == [
        ("runs/b/task3", "1", "1.0"),
        ("runs/a/task3", "2", "2.0"),
    ]
    assert "details.rows" not in rows[0] and "environment.torch" in rows[0]
    Path("runs/a/task3/run.json").write_text("{")
    assert collect.main(["runs"]) == 2 and "is broken" in capsys.readouterr().err


def test_a_table_of_runs_is_written_whole_or_not_at_all(tmp_path, monkeypatch, capsys, collect):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):  # the second has no start, as after a change by hand
        record = records.new_record("task3", "smoke", seed=seed) | ({"started": None} if seed else {})
        records.write_record(record, Path("runs", str(seed), "run.json"))
    Path("taken").mkdir()
    assert collect.main(["runs", "--out", "taken"]) == 2 and "directory" in capsys.readouterr().err
    assert collect.main(["runs", "--out", "new/all.csv"]) == 0
    assert len(Path("new/all.csv").read_text().splitlines()) == 3
