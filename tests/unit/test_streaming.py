"""Streams: rows go through memory and do not stay there; a file that cannot be finished is not left, nor the folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from summkit.data import formats, splits
from summkit.errors import SummkitError


def rows(count: int, size: int = 1):
    return ({"id": str(n), "document": f"{n} é雪 " * size, "labels": [n, n + 1]} for n in range(count))


def python(code: str, **variables) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 2500])
def test_what_is_written_is_read_in_order(count):
    made = splits.write_rows(rows(count))
    assert len(made) == count and made.to_list() == list(rows(count))
    assert all(file["filename"].startswith(splits.rows_folder()) for file in made.cache_files)


def test_long_texts_are_written_few_at_a_time():
    made = splits.write_rows(rows(400, 4_000))
    assert len(made.data.column("id").chunks) > 3 and made[39]["document"] == "39 é雪 " * 4_000


def test_nobody_waits_for_all_rows_before_the_first_are_written():
    def written() -> int:
        return sum(file.stat().st_size for file in Path(splits.rows_folder()).iterdir())

    before, seen = written(), []

    def watched():
        for row in rows(9000):
            seen.append(written() - before)
            yield row

    splits.write_rows(watched())
    assert seen[0] == 0 < seen[2500] < seen[8500]


def test_values_of_columns_come_row_by_row_also_of_some_rows_in_another_order():
    made = splits.write_rows(rows(3000))
    assert list(splits.column_values(made, "id", "labels")) == [(str(n), [n, n + 1]) for n in range(3000)]
    order = [*range(2999, 1000, -1), 5]
    assert list(splits.column_values(made.select(order), "id")) == [(str(n),) for n in order]


def test_an_error_on_the_way_leaves_no_file():
    def broken():
        yield from rows(7000)
        raise SummkitError("a row goes wrong")

    before = os.listdir(splits.rows_folder())
    with pytest.raises(SummkitError, match="a row goes wrong"):
        splits.write_rows(broken())
    assert os.listdir(splits.rows_folder()) == before


def test_the_folder_lies_in_tmpdir_and_goes_with_the_process(tmp_path):
    code = """
from summkit.data import splits
made = splits.write_rows({"document": str(n)} for n in range(9))
made = made.map(lambda row: {"longer": row["document"] * 2})
print(splits.rows_folder(), *[file["filename"] for file in made.cache_files])
"""
    done = python(code + "raise KeyError('at the end')", TMPDIR=str(tmp_path), PYTHONWARNINGS="error::ResourceWarning")
    folder, file = done.stdout.split()
    assert folder.startswith(f"{tmp_path}/summkit-rows-") and file.startswith(f"{folder}/")
    assert list(tmp_path.iterdir()) == [] and "KeyError" in done.stderr and "Warning" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no limit for files there")
def test_no_room_is_an_error_that_names_the_way_out(tmp_path):
    code = """
import resource
import sys
from summkit.data import splits
from summkit.errors import SummkitError
sys.dont_write_bytecode = True  # a cut .pyc would stay
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    splits.write_rows({"document": "long " * 20 + str(n)} for n in range(9000))
except SummkitError as error:
    print(error)
"""
    said = python(code, TMPDIR=str(tmp_path)).stdout
    assert said.startswith(f"rows cannot be written to {tmp_path}/summkit-rows-") and "TMPDIR" in said


@pytest.mark.skipif(sys.platform == "win32", reason="no limit for files there")
def test_no_room_for_tokens_is_the_same_error(tmp_path):
    code = """
import resource
import sys
from summkit.data import build_template, encode_rows, splits
from summkit.errors import SummkitError
from summkit.models import tiny_tokenizer
rows = splits.write_rows({"document": f"long {n}", "summary": "short"} for n in range(3000))
sys.dont_write_bytecode = True  # a cut .pyc would stay
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    encode_rows(rows, build_template("instruction", tiny_tokenizer()), tiny_tokenizer(), 320, 24)
except SummkitError as error:
    print(error)
"""
    said = python(code, TMPDIR=str(tmp_path)).stdout
    assert said.startswith(f"rows cannot be written to {tmp_path}/summkit-rows-") and "TMPDIR" in said


def test_rows_of_a_file_are_read_anew_each_time(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in [{"a": 1}, {"b": 2, "a": 3}, {}]), encoding="utf-8")
    lines = formats.FileRows(path)
    assert len(lines) == 3 and lines.column_names == ["a", "b"]
    assert list(lines) == list(lines) == [{"a": 1}, {"b": 2, "a": 3}, {}]


def test_a_file_is_checked_before_its_first_row_is_used(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a"', encoding="utf-8")
    with pytest.raises(SummkitError, match=r"rows\.jsonl, line 2: cannot be read as JSON"):
        formats.FileRows(path)
