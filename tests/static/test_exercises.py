"""Every exercise keeps the rules that nbgrader and students need, and is not taken for a chapter."""

import json
import re

import pytest

from tests.static import gate
from tests.static.test_links import links
from tests.wrong_answers import BOOKS as ASSIGNMENTS
from tests.wrong_answers import MISTAKES, WRONG, lost, wrong
from tools.course import CourseError, exercises, find_submissions, graded_cells

BOOKS = gate.notebooks(exercises=True)
PATH = gate.ROOT / "task3" / "EXERCISES" / "task_3_exercises.ipynb"


@pytest.mark.parametrize("rule", gate.EXERCISE_RULES)
@pytest.mark.parametrize("path", BOOKS, ids=str)
def test_exercise(path, rule):
    assert list(gate.EXERCISE_RULES[rule](gate.Book(gate.ROOT / path))) == []


def test_an_exercise_is_no_chapter():
    assert BOOKS and not set(BOOKS) & set(gate.notebooks())
    assert not {path.as_posix() for path in BOOKS} & {name for name, _ in links.chapters()}


def test_every_exercise_is_an_assignment():
    assert sorted(ASSIGNMENTS.values()) == [gate.ROOT / path for path in BOOKS]


def test_an_assignment_has_the_name_of_its_chapter(tmp_path):
    places = [
        "task1/xsum/EXERCISES/a.ipynb",
        "task2/EXERCISES/b.ipynb",
        "notebooks/EXERCISES/big_primer_exercises.ipynb",
    ]
    for place in [*places, "task2/NOTEBOOK/b.ipynb", "build/EXERCISES/c.ipynb"]:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    wanted = {"big-primer": places[2], "task1-xsum": places[0], "task2": places[1]}
    assert exercises(tmp_path) == {name: tmp_path / place for name, place in wanted.items()}
    (tmp_path / "task2/EXERCISES/d.ipynb").touch()
    with pytest.raises(CourseError, match="both the assignment task2"):
        exercises(tmp_path)


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_ten_typical_mistakes_of_an_assignment_are_known(name):
    mistakes = [mistake for assignment, mistake in WRONG if assignment == name]
    points = graded_cells(ASSIGNMENTS[name])
    assert len(mistakes) >= 10
    for mistake in mistakes:
        assert wrong(name, mistake)
        assert lost(name, mistake).items() <= points.items(), f"{mistake} loses what no check gives"


def test_every_list_of_mistakes_belongs_to_an_assignment():
    assert set(MISTAKES) <= set(ASSIGNMENTS)


def test_a_submission_is_known_by_its_cells(tmp_path):
    for number, path in enumerate(ASSIGNMENTS.values()):
        place = tmp_path / "anna" / f"exercise {number}.ipynb"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(path.read_bytes())
    found = {name: (student, path.stem) for student, name, path in find_submissions(tmp_path)}
    assert found == {name: ("anna", f"exercise {number}") for number, name in enumerate(ASSIGNMENTS)}


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
