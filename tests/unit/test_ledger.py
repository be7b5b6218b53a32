"""The file that a job adds to: whole after a kill, never two writers, and nothing in it is dropped in silence."""

import json
import subprocess
import sys

import pytest

from summkit import files
from summkit.distillation import labelling
from summkit.errors import SummkitError

LINES = [{"id": "1", "text": "ein Löwe"}, {"id": "2", "text": "a\u2028b\n"}]


@pytest.fixture
def path(tmp_path):
    labelling.append(tmp_path / "l.jsonl", LINES)
    return tmp_path / "l.jsonl"


def test_what_was_added_is_read(path):
    labelling.append(path, [{"id": "3"}])
    found = labelling.read(path)
    assert [line for _, line in found.values()] == [*LINES, {"id": "3"}]
    assert found["3"][0] == f"{path}, line 3"
    assert labelling.read(path.with_name("none.jsonl")) == {}


@pytest.mark.parametrize("size", range(1, 25))
def test_a_torn_last_line_is_cut_off_wherever_it_was_torn(path, size):
    before = path.read_bytes()
    path.write_bytes(before + json.dumps({"id": "3", "text": "Löwe"}, ensure_ascii=False).encode()[:size])
    assert list(labelling.read(path)) == ["1", "2"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("broken", [b"{", b"[1]", b'{"id": 3}', b'"id"', b"\xff", b"", b'{"text": "a"}', b"[" * 99_999])
def test_a_broken_line_in_the_middle_is_named(path, broken):
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first, broken, second, b'{"id": "9']))
    before = path.read_bytes()
    with pytest.raises(SummkitError, match=r"l\.jsonl, line 2: broken; delete the line"):
        labelling.read(path)
    assert path.read_bytes() == before


def test_a_row_twice_is_named(path):
    labelling.append(path, LINES[:1])
    with pytest.raises(SummkitError, match="line 3: '1' is in an earlier line too"):
        labelling.read(path)


@pytest.mark.parametrize("content", ["A letter to a friend.", '{"id": "1"}\nand no more', "\0\0\0"])
def test_a_file_of_something_else_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "l.jsonl"
    path.write_text(content)
    with pytest.raises(SummkitError, match="is not a label; choose another file"):
        labelling.read(path)
    assert path.read_text() == content


def test_one_process_at_a_time(path):
    code = "import sys, pathlib; from summkit import files\n"
    code += "with files.lock(sys.argv[1]): print('in')"
    with files.lock(path):
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "SummkitError: another process holds" in done.stderr and done.stdout == ""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.stdout == "in\n"


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(SummkitError, match="cannot write .*; fix that, or choose another file"):
        labelling.append(tmp_path, LINES)
    with pytest.raises(SummkitError, match="cannot continue"):
        labelling.read(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SummkitError, match="choose another file"):
        labelling.append(tmp_path / "file" / "l.jsonl", LINES)
