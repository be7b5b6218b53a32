"""Folders and files are whole or not there, also where Windows refuses to move a folder with an open file."""

import json
import os

import pytest

from summkit import files
from summkit.errors import SummkitError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that is there already, and no waiting."""
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    made = tmp_path / "adapter"
    made.mkdir()
    (made / "weights").write_text("old")
    return made


def replace(folder, text="new"):
    with files.whole_folder(folder) as part:
        (part / "weights").write_text(text)


def as_windows(monkeypatch, refused):
    """Let os.replace raise as on Windows wherever `refused(source, target, number of the call)` says so."""
    real, calls = os.replace, []

    def moving(source, target):
        calls.append((source.name, target.name))
        if refused(source, target, len(calls)):
            raise PermissionError(13, "Access is denied")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", moving)
    return calls


def test_a_file_that_is_open_for_a_moment_is_waited_for(folder, monkeypatch):
    calls = as_windows(monkeypatch, lambda source, target, number: number <= 2)
    replace(folder)
    assert (folder / "weights").read_text() == "new" and len(calls) == 4
    assert os.listdir(folder.parent) == ["adapter"]


@pytest.mark.parametrize("moved", ["adapter", ".adapter.part"])
def test_a_file_that_stays_open_leaves_the_old_folder_and_says_why(folder, monkeypatch, moved):
    as_windows(monkeypatch, lambda source, target, number: source.name == moved)
    with pytest.raises(SummkitError, match=f"cannot rename .*{moved} to .*Access is denied; a file in it may be open"):
        replace(folder)
    assert (folder / "weights").read_text() == "old"
    assert os.listdir(folder.parent) == ["adapter"]


def test_what_was_killed_between_the_two_moves_is_restored(folder):
    folder.rename(folder.with_name(".adapter.old"))
    with pytest.raises(ZeroDivisionError), files.whole_folder(folder):
        raise ZeroDivisionError
    assert (folder / "weights").read_text() == "old"
    replace(folder)
    assert (folder / "weights").read_text() == "new"
    assert os.listdir(folder.parent) == ["adapter"]


def test_a_folder_that_the_user_has_set_aside_is_not_touched(folder):
    """`mv mine mine.old` is how many keep a copy before they make it again."""
    for kept in ("adapter.old", "adapter.part"):
        folder.with_name(kept).mkdir()
        (folder.with_name(kept) / "weights").write_text(kept)
    replace(folder)
    files.shutil.rmtree(folder)
    with files.new_folder(folder) as part:
        (part / "weights").write_text("again")
    texts = {path.name: (path / "weights").read_text() for path in folder.parent.iterdir()}
    assert texts == {"adapter": "again", "adapter.old": "adapter.old", "adapter.part": "adapter.part"}


@pytest.mark.skipif(os.name == "nt", reason="a link to a folder needs rights there")
def test_a_link_to_a_folder_stays_a_link(folder, tmp_path):
    """The folder may be on a larger disk."""
    link = tmp_path / "home" / "adapter"
    link.parent.mkdir()
    link.symlink_to(folder)
    for text in ("first", "second"):
        replace(link, text)
        assert link.is_symlink() and (folder / "weights").read_text() == text
    assert os.listdir(link.parent) == ["adapter"]


def test_a_new_folder_replaces_no_file_and_not_the_working_folder(folder, monkeypatch):
    empty = folder.with_name("empty")
    empty.mkdir()
    monkeypatch.chdir(empty)
    for there in (folder, folder / "weights", "."):
        with pytest.raises(SummkitError, match="already exists: choose a new folder"), files.new_folder(there):
            pass
    with files.new_folder("made") as part:
        (part / "weights").write_text("new")
    assert os.listdir("made") == ["weights"]


def test_events_are_lines_of_json_with_the_time(tmp_path, monkeypatch):
    monkeypatch.delenv("SUMMKIT_LOG", raising=False)
    files.log_event("nobody listens")
    monkeypatch.setenv("SUMMKIT_LOG", str(tmp_path / "log.jsonl"))
    files.log_event("started", command=["run", "naïve"])
    files.log_event("ended", exit_code=0)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line.pop("time")[-6:] for line in lines] == ["+00:00", "+00:00"]
    assert lines == [{"event": "started", "command": ["run", "naïve"]}, {"event": "ended", "exit_code": 0}]


def test_the_log_has_no_password_of_an_address(tmp_path, monkeypatch):
    monkeypatch.setenv("SUMMKIT_LOG", str(tmp_path / "log.jsonl"))
    files.log_event("started", command=["label", "--url", "https://me:secret@host:8000/v1", "-p", "A=x@y"])
    line = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8"))
    assert line["command"] == ["label", "--url", "https://***@host:8000/v1", "-p", "A=x@y"]


def test_the_log_takes_any_name_of_a_file_and_says_where_it_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SUMMKIT_LOG", str(tmp_path / "log.jsonl"))
    files.log_event("started", command=["summarize", "caf\udce9.txt"])  # a name that is not UTF-8
    assert json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8"))["command"][1] == "caf\udce9.txt"
    for path, reason in ((tmp_path, "(Is a directory|Permission denied)"), (tmp_path / "gone" / "log", "No such file")):
        monkeypatch.setenv("SUMMKIT_LOG", str(path))
        with pytest.raises(SummkitError, match=f"^SUMMKIT_LOG=.*: {reason}.*; name a file that can be written$"):
            files.log_event("started")


@pytest.mark.parametrize(("text", "key"), [("on: 1", "True"), ("base: {5: 1}", "5"), ("null: a", "None")])
def test_a_key_that_yaml_takes_for_something_else_is_named(tmp_path, text, key):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SummkitError, match=f"plan .*a.yaml is not YAML: the key {key} is not text: put it in quotes"):
        files.read_mapping(tmp_path / "a.yaml", "plan")
