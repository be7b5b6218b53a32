"""nbgrader itself grades the solutions, untouched student versions, typical wrong answers and harmful submissions."""

import csv
import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.wrong_answers import BOOKS, WRONG, changed, lost, wrong

pytest.importorskip("nbgrader")

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "course.py"
# Harmful lines before a function's body in task3, and the cell that is lost; with these, grading goes on.
HARMFUL = {
    "endless-loop": "    while True:\n        pass\n",
    "too-much-memory": "    torch.ones(40_000_000_000)\n",
}


def submit(folder, student, path, text):
    place = folder / student / "handed in" / f"{path.stem} (1).ipynb"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")


def run(*arguments):
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


def rows(course, name):
    with open(course / f"points-{name}.csv", encoding="utf-8", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The folder of the student versions."""
    course = tmp_path_factory.mktemp("released")
    assert (done := run("--course", course)).returncode == 0, done.stderr
    return course / "release"


def hand_in_and_grade(name, folder, released):
    """Grade every submission of this file to one assignment; return the course folder and what was printed."""
    path, course, submissions = BOOKS[name], folder / "course", folder / "submissions"
    submit(submissions, "solution", path, path.read_text(encoding="utf-8"))
    submit(submissions, "untouched", path, (released / name / path.name).read_text("utf-8"))
    for mistake in (mistake for assignment, mistake in WRONG if assignment == name):
        submit(submissions, mistake, path, wrong(name, mistake))
    if name == "task3":
        start = "    longest = max("
        for student, lines in HARMFUL.items():
            submit(submissions, student, path, changed(path, start, lines + start))
        submit(submissions, "kernel-killed", path, changed(path, "choices = {}", "import os\n\nos._exit(1)"))
    return course, run(submissions, "--course", course, "--cell-seconds", 40, "--seconds", 400, "--memory-gb", 8)


@pytest.fixture(scope="module")
def graded(request, tmp_path_factory, released):
    """{assignment: its course folder, and what was printed} of the assignments that are tested, two at a time."""
    parameters = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    names = {call.params["name"] for call in parameters if call and "name" in call.params}
    with ThreadPoolExecutor(2) as pool:
        rounds = {
            name: pool.submit(hand_in_and_grade, name, tmp_path_factory.mktemp(name), released)
            for name in sorted(names)
        }
    return {name: done.result() for name, done in rounds.items()}


def cells(name):
    """{graded cell without the name of its assignment: points} and the points that a person gives."""
    notebook = json.loads(BOOKS[name].read_text(encoding="utf-8"))
    marks = [cell["metadata"].get("nbgrader", {}) for cell in notebook["cells"]]
    points = {mark["grade_id"]: mark["points"] for mark in marks if mark.get("grade")}
    by_hand = sum(mark["points"] for mark in marks if mark.get("grade") and mark["solution"])
    return points, by_hand


def costs(course, name, student):
    """{graded cell: the points that a student has less than the solution}."""
    row, best = (rows(course, name)[who] for who in (student, "solution"))
    return {cell: float(best[cell]) - float(row[cell]) for cell in cells(name)[0] if row[cell] != best[cell]}


@pytest.mark.parametrize("name", BOOKS)
def test_the_solution_gets_all_points_that_a_machine_gives(graded, name):
    points, by_hand = cells(name)
    row = rows(graded[name][0], name)["solution"]
    assert row["state"] == "" and float(row["out_of"]) == sum(points.values()) == 100
    assert float(row["points"]) == 100 - by_hand and float(row["to_grade_by_hand"]) == by_hand


@pytest.mark.parametrize("name", BOOKS)
def test_the_untouched_student_version_gets_none_and_does_not_crash(graded, name):
    row = rows(graded[name][0], name)["untouched"]
    assert (row["state"], float(row["points"]), float(row["to_grade_by_hand"])) == ("", 0, 0)


@pytest.mark.parametrize(("name", "mistake"), WRONG)
def test_a_wrong_answer_loses_exactly_its_points(graded, name, mistake):
    assert costs(graded[name][0], name, mistake) == lost(name, mistake)


@pytest.mark.parametrize("name", ["task3"])
@pytest.mark.parametrize("student", HARMFUL)
def test_a_harmful_answer_loses_its_cell_and_grading_goes_on(graded, name, student):
    assert costs(graded[name][0], name, student) == {"task3-left-pad": 5}


@pytest.mark.parametrize("name", ["task3"])
def test_what_cannot_be_graded_is_said_and_the_others_are_graded(graded, name):
    course, done = graded[name]
    row = rows(course, name)["kernel-killed"]
    assert row["state"].startswith("nbgrader could not run it") and row["points"] == ""
    assert done.returncode == 1 and "1 with a problem" in done.stdout


@pytest.mark.parametrize("name", BOOKS)
def test_every_student_has_a_feedback_page(graded, name):
    course = graded[name][0]
    for student in rows(course, name):
        (page,) = (course / "feedback" / student / name).glob("*.html")
        assert page.stat().st_size > 100


@pytest.mark.parametrize("name", ["task3"])
def test_a_feedback_page_says_what_was_wrong(graded, name):
    page = graded[name][0] / "feedback/labels-not-shifted/task3/task_3_exercises.html"
    assert "position t predicts token t + 1" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", BOOKS)
def test_the_student_version_has_no_solution_and_no_hidden_check(released, name):
    text = (released / name / BOOKS[name].name).read_text(encoding="utf-8")
    assert "YOUR CODE HERE" in text and "SOLUTION" not in text and "HIDDEN" not in text and "For the grader" not in text
    assert "summkit @ git+https" in text


def test_one_student_hands_in_several_assignments(tmp_path, released):
    names = list(BOOKS)[-2:]
    for name in names:
        text = (released / name / BOOKS[name].name).read_text(encoding="utf-8")
        submit(tmp_path / "in", "anna", BOOKS[name], text)
    done = run(tmp_path / "in", "--course", tmp_path / "course")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("course/release/*")) == names, "what nobody handed in is not made"
    for name in names:
        assert [row["state"] for row in rows(tmp_path / "course", name).values()] == [""]


@pytest.mark.parametrize("name", ["task3"])
def test_points_given_by_hand_survive_a_second_round(graded, name, tmp_path):
    course, _ = graded[name]
    database = sqlite3.connect(course / "gradebook.db")
    with database:
        database.execute(
            "UPDATE grade SET manual_score = 7, needs_manual_grade = 0 WHERE cell_id = (SELECT id FROM base_cell WHERE "
            "name = 'task3-judgement') AND notebook_id IN (SELECT n.id FROM submitted_notebook n JOIN "
            "submitted_assignment a ON n.assignment_id = a.id WHERE a.student_id = 'solution')"
        )
    database.close()
    path = BOOKS[name]
    submit(tmp_path, "solution", path, path.read_text(encoding="utf-8"))
    assert run(tmp_path, "--course", course).returncode == 0
    row = rows(course, name)["solution"]
    assert float(row["task3-judgement"]) == 7 and float(row["points"]) == 97


def test_what_is_no_submission_is_refused(tmp_path):
    (tmp_path / "anna.ipynb").write_text('{"cells": 3}')
    done = run(tmp_path, "--course", tmp_path / "course")
    assert done.returncode == 2 and "anna.ipynb: not a notebook of this course" in done.stderr
    text = BOOKS["task3"].read_text(encoding="utf-8")
    (tmp_path / "anna.ipynb").unlink()
    submit(tmp_path, "anna", BOOKS["task3"], text)
    (tmp_path / "anna" / "old.ipynb").write_text(text, encoding="utf-8")
    done = run(tmp_path, "--course", tmp_path / "course")
    assert done.returncode == 2 and "anna has two notebooks of task3" in done.stderr
    assert "Traceback" not in done.stderr
