"""nbgrader itself grades the solutions, untouched student versions, typical wrong answers and harmful submissions."""

import csv
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wrong_answers import BOOKS, WRONG, changed

pytest.importorskip("nbgrader")

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "course.py"
# Harmful lines before a function's body, and the cell that is lost; with these, grading goes on.
HARMFUL = {
    "endless-loop": ("    while True:\n        pass\n", {"left-pad": 5}),
    "too-much-memory": ("    torch.ones(40_000_000_000)\n", {"left-pad": 5}),
}


def submit(folder, student, path, text):
    place = folder / student / "handed in" / f"{path.stem} (1).ipynb"
    place.parent.mkdir(parents=True)
    place.write_text(text, encoding="utf-8")


def run(*arguments):
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


def rows(course, name):
    with open(course / f"points-{name}.csv", encoding="utf-8", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The course folder after one round of grading with every submission of this file, and what was printed."""
    folder = tmp_path_factory.mktemp("course")
    course, submissions = folder / "course", folder / "submissions"
    assert (done := run("--course", course)).returncode == 0, done.stderr
    for name, path in BOOKS.items():
        submit(submissions, f"solution-{name}", path, path.read_text(encoding="utf-8"))
        submit(submissions, f"untouched-{name}", path, (course / "release" / name / path.name).read_text("utf-8"))
    for student, (name, old, new, _) in WRONG.items():
        submit(submissions, student, BOOKS[name], changed(BOOKS[name], old, new))
    start = "    longest = max("
    for student, (lines, _) in HARMFUL.items():
        submit(submissions, student, BOOKS["task3"], changed(BOOKS["task3"], start, lines + start))
    killed = changed(BOOKS["task3"], "choices = {}", "import os\n\nos._exit(1)")
    submit(submissions, "kernel-killed", BOOKS["task3"], killed)
    done = run(submissions, "--course", course, "--cell-seconds", 40, "--seconds", 400, "--memory-gb", 8)
    return course, done


def cells(name):
    """{graded cell without the name of its assignment: points} and the points that a person gives."""
    notebook = json.loads(BOOKS[name].read_text(encoding="utf-8"))
    marks = [cell["metadata"].get("nbgrader", {}) for cell in notebook["cells"]]
    points = {mark["grade_id"]: mark["points"] for mark in marks if mark.get("grade")}
    by_hand = sum(mark["points"] for mark in marks if mark.get("grade") and mark["solution"])
    return points, by_hand


@pytest.mark.parametrize("name", BOOKS)
def test_the_solution_gets_all_points_that_a_machine_gives(graded, name):
    points, by_hand = cells(name)
    row = rows(graded[0], name)[f"solution-{name}"]
    assert row["state"] == "" and float(row["out_of"]) == sum(points.values()) == 100
    assert float(row["points"]) == 100 - by_hand and float(row["to_grade_by_hand"]) == by_hand


@pytest.mark.parametrize("name", BOOKS)
def test_the_untouched_student_version_gets_none_and_does_not_crash(graded, name):
    row = rows(graded[0], name)[f"untouched-{name}"]
    assert (row["state"], float(row["points"]), float(row["to_grade_by_hand"])) == ("", 0, 0)


@pytest.mark.parametrize("student", [*WRONG, *HARMFUL])
def test_a_wrong_answer_loses_exactly_its_points(graded, student):
    name, lost = (WRONG[student][0], WRONG[student][3]) if student in WRONG else ("task3", HARMFUL[student][1])
    points, _ = cells(name)
    row, best = (rows(graded[0], name)[who] for who in (student, f"solution-{name}"))
    differences = {cell: float(best[cell]) - float(row[cell]) for cell in points if row[cell] != best[cell]}
    assert differences == {f"{name}-{cell}": points for cell, points in lost.items()}


def test_what_cannot_be_graded_is_said_and_the_others_are_graded(graded):
    course, done = graded
    row = rows(course, "task3")["kernel-killed"]
    assert row["state"].startswith("nbgrader could not run it") and row["points"] == ""
    assert done.returncode == 1 and "1 with a problem" in done.stdout


def test_every_student_has_a_feedback_page(graded):
    for name in BOOKS:
        for student in rows(graded[0], name):
            (page,) = (graded[0] / "feedback" / student / name).glob("*.html")
            assert page.stat().st_size > 100
    wrong = (graded[0] / "feedback/labels-not-shifted/task3/task_3_exercises.html").read_text(encoding="utf-8")
    assert "position t predicts token t + 1" in wrong


@pytest.mark.parametrize("name", BOOKS)
def test_the_student_version_has_no_solution_and_no_hidden_check(graded, name):
    text = (graded[0] / "release" / name / BOOKS[name].name).read_text(encoding="utf-8")
    assert "YOUR CODE HERE" in text and "SOLUTION" not in text and "HIDDEN" not in text and "For the grader" not in text
    assert "summkit @ git+https" in text


def test_points_given_by_hand_survive_a_second_round(graded, tmp_path):
    course, _ = graded
    database = sqlite3.connect(course / "gradebook.db")
    with database:
        database.execute(
            "UPDATE grade SET manual_score = 7, needs_manual_grade = 0 WHERE cell_id = (SELECT id FROM base_cell WHERE "
            "name = 'task3-judgement') AND notebook_id IN (SELECT n.id FROM submitted_notebook n JOIN "
            "submitted_assignment a ON n.assignment_id = a.id WHERE a.student_id = 'solution-task3')"
        )
    database.close()
    path = BOOKS["task3"]
    submit(tmp_path, "solution-task3", path, path.read_text(encoding="utf-8"))
    assert run(tmp_path, "--course", course).returncode == 0
    row = rows(course, "task3")["solution-task3"]
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
