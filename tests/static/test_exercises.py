"""Every exercise keeps the rules that nbgrader and students need, and is not taken for a chapter."""

import json
import re

import pytest

from tests.static import gate
from tests.static.test_links import links

BOOKS = gate.notebooks(exercises=True)
PATH = gate.ROOT / "task3" / "EXERCISES" / "task_3_exercises.ipynb"


@pytest.mark.parametrize("rule", gate.EXERCISE_RULES)
@pytest.mark.parametrize("path", BOOKS, ids=str)
def test_exercise(path, rule):
    assert list(gate.EXERCISE_RULES[rule](gate.Book(gate.ROOT / path))) == []


def test_an_exercise_is_no_chapter():
    assert BOOKS and not set(BOOKS) & set(gate.notebooks())
    assert not {path.as_posix() for path in BOOKS} & {name for name, _ in links.chapters()}


def test_no_two_exercises_share_a_cell():
    """`make grade` tells by the ids of the graded cells which exercise a file is."""
    names = [
        cell.metadata["nbgrader"]["grade_id"]
        for path in BOOKS
        for _, cell in gate.Book(gate.ROOT / path).cells
        if "nbgrader" in cell.metadata
    ]
    assert names and len(set(names)) == len(names)


@pytest.mark.parametrize("path", BOOKS, ids=str)
def test_a_student_finds_the_exercise(path):
    page = path.parent.parent / "README.md"
    assert f"EXERCISES/{path.name})" in (gate.ROOT / page).read_text(encoding="utf-8")


def marked(index, **changes):
    """A breaker that changes nbgrader's metadata of the cell whose grade_id ends with `index`."""
    return lambda cells: cells[index]["metadata"]["nbgrader"].update(changes)


def replaced(index, old, new):
    def breaker(cells):
        source = "".join(cells[index]["source"])
        assert old in source
        cells[index]["source"] = source.replace(old, new)

    return breaker


BROKEN = [
    ("solutions", marked("task3-row-eos", points=5)),
    ("solutions", marked("task3-row-eos", grade_id="task3-row-mask")),
    ("solutions", replaced("task3-row", "BEGIN SOLUTION", "BEGIN")),
    ("solutions", replaced("task3-loss-shift", "### END HIDDEN TESTS", "")),
    ("solutions", replaced("task3-row-eos", "assert ", "print(")),
    ("solutions", lambda cells: cells["task3-row"]["metadata"].clear()),
    ("bare", lambda cells: cells["task3-row"].update(execution_count=1)),
    ("kernel", lambda cells: cells["task3-row"]["metadata"].update(execution={})),
]


@pytest.mark.parametrize(("rule", "breaker"), BROKEN)
def test_a_broken_exercise_is_noticed(rule, breaker, tmp_path):
    notebook = json.loads(PATH.read_text(encoding="utf-8"))
    breaker(
        {cell["metadata"]["nbgrader"]["grade_id"]: cell for cell in notebook["cells"] if "nbgrader" in cell["metadata"]}
    )
    folder = tmp_path / gate.EXERCISES
    folder.mkdir()
    (folder / "book.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    assert list(gate.EXERCISE_RULES[rule](gate.Book(folder / "book.ipynb")))


def test_an_exercise_without_a_hint_is_noticed(tmp_path):
    text = re.sub("<details><summary>", "", PATH.read_text(encoding="utf-8"))
    (tmp_path / "book.ipynb").write_text(text, encoding="utf-8")
    assert list(gate.folded(gate.Book(tmp_path / "book.ipynb")))
