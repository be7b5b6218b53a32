"""Make the exercises that students get, and grade what they hand in, with nbgrader.

`make assignments` writes build/course: `release/` is for students. `make grade SUBMISSIONS=folder` grades each notebook
below the folder in a process of its own. docs/teaching.md says how to use both, and what the limits do not prevent.
"""

from __future__ import annotations

import argparse
import csv
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
COURSE = ROOT / "build" / "course"
KEPT = {"PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE"}
CONFIG = """\
# Written by tools/course.py. Start `nbgrader formgrader` from this folder to grade the answers in words.
c = get_config()
c.CourseDirectory.course_id = "summkit"
c.ExecutePreprocessor.timeout = {cell_seconds}
c.Execute.timeout = {cell_seconds}
c.ClearSolutions.code_stub = {{"python": "# YOUR CODE HERE\\nraise NotImplementedError"}}
"""


class CourseError(Exception):
    """What a teacher can put right; shown without a traceback."""


@dataclass(frozen=True)
class Limits:
    """What one submission may use.

    Attributes:
        seconds: Wall-clock time of the whole notebook, and CPU time of each of its processes.
        cell_seconds: Time of one cell. A cell that takes longer gets no points; the next one runs.
        memory_gb: Memory that a process may allocate, in GB.
    """

    seconds: int = 300
    cell_seconds: int = 60
    memory_gb: float = 4


def exercises(root: Path = ROOT) -> dict[str, Path]:
    """Return {assignment: the teacher's notebook}, in the order of the course.

    A chapter's assignment has the chapter's name, as in `task1-xsum`. In notebooks/EXERCISES, where several chapters
    share a folder, it has the file's: `primer_exercises.ipynb` is the assignment `primer`.

    Raises:
        CourseError: Two notebooks would be one assignment.
    """
    found = [*sorted(root.glob("notebooks/EXERCISES/*.ipynb")), *sorted(root.glob("task*/**/EXERCISES/*.ipynb"))]
    named: dict[str, Path] = {}
    for path in found:
        folders = path.relative_to(root).parts[:-2]
        stem = path.stem.removesuffix("_exercises").replace("_", "-")
        name = stem if folders == ("notebooks",) else "-".join(folders)
        if name in named:
            raise CourseError(f"{path} and {named[name]} are both the assignment {name}. Keep one of them")
        named[name] = path
    return named


def graded_cells(path: Path) -> dict[str, float]:
    """Return {grade_id: points} of a notebook's graded cells, in their order.

    Raises:
        CourseError: The file is not a notebook.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        marks = [cell["metadata"].get("nbgrader", {}) for cell in notebook["cells"]]
        return {mark["grade_id"]: float(mark["points"]) for mark in marks if mark.get("grade")}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CourseError(f"not a notebook of this course: {type(error).__name__}") from None


def make_assignments(
    course: Path, limits: Limits, ref: str | None = None, only: Collection[str] | None = None
) -> list[Path]:
    """Write the course folder with source and student versions, and return the student versions.

    Args:
        course: The folder that nbgrader works in.
        limits: What one submission may use.
        ref: A tag or commit of this repository that the install cells ask for; None: its default branch.
        only: The assignments to make; None: all.

    Raises:
        CourseError: nbgrader is not installed, or refuses a notebook.
    """
    if not find_spec("nbgrader"):
        raise CourseError("nbgrader is not installed: pip install -e '.[course]'")
    course.mkdir(parents=True, exist_ok=True)
    config = CONFIG.format(cell_seconds=limits.cell_seconds)
    (course / "nbgrader_config.py").write_text(config, encoding="utf-8")
    made = []
    for name, path in exercises().items():
        if only is not None and name not in only:
            continue
        folder = course / "source" / name
        folder.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        if ref:
            text = re.sub(r"( @ git\+https://github\.com/[\w./-]+)", rf"\g<1>@{ref}", text)
        (folder / path.name).write_text(text, encoding="utf-8")
        done = _nbgrader(course, "generate_assignment", name, "--create", "--force")
        if done.returncode:
            raise CourseError(
                f"nbgrader made no student version of {path.relative_to(ROOT)}. If graded cells were added or removed "
                f"after the first submission was graded, move {course} away and start again.\n{done.stdout[-2000:]}"
            )
        made.append(course / "release" / name / path.name)
    return made


def find_submissions(folder: Path) -> list[tuple[str, str, Path]]:
    """Return (student, assignment, file) of each notebook below a folder, sorted.

    The student is the name of the first folder, or of the file where it is in no folder. The assignment is found by the
    graded cells, so that the file may have any name.

    Raises:
        CourseError: There is no notebook, a name cannot be a student's, or a student has two notebooks of one exercise.
    """
    known = {cell: name for name, path in exercises().items() for cell in graded_cells(path)}
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.rglob("*.ipynb")):
        inside = path.relative_to(folder)
        if ".ipynb_checkpoints" in inside.parts:
            continue
        student = inside.parts[0].removesuffix(".ipynb")
        if not re.fullmatch(r"\w[\w.@ -]*", student):
            raise CourseError(
                f"{path}: {student!r} cannot be a student's name; use letters, digits, '.', '-', '_', '@'"
            )
        try:
            names = {known[cell] for cell in graded_cells(path) if cell in known}
        except CourseError as error:
            raise CourseError(f"{path}: {error}") from None
        if len(names) != 1:
            raise CourseError(f"{path} has the graded cells of {len(names)} exercises, and it must be one")
        place = student, names.pop()
        if place in found:
            raise CourseError(f"{student} has two notebooks of {place[1]}: {found[place]} and {path}. Keep one of them")
        found[place] = path
    if not found:
        raise CourseError(f"there is no notebook below {folder}")
    return [(*place, path) for place, path in found.items()]


def grade(folder: Path, course: Path, limits: Limits) -> dict[str, list[dict]]:
    """Grade each submission below a folder, and write the points and the feedback pages.

    Args:
        folder: One folder a student, or one file a student.
        course: The folder that nbgrader works in.
        limits: What one submission may use.

    Returns:
        {assignment: its rows}, as in the CSV files `points-<assignment>.csv` of the course folder.

    Raises:
        CourseError: The submissions cannot be told apart, or nbgrader is not installed.
    """
    if os.name != "posix":
        raise CourseError("the limits of time and memory need Linux or macOS; on Windows use WSL or the container")
    submissions = find_submissions(folder)
    make_assignments(course, limits, only={name for _, name, _ in submissions})
    tables: dict[str, list[dict]] = {}
    for student, name, path in submissions:
        target = course / "submitted" / student / name / exercises()[name].name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        row = _points(course, student, name, _autograde(course, student, name, limits))
        tables.setdefault(name, []).append(row)
        print(f"{student}, {name}: {row['state'] or row['points']}", flush=True)
    for name, rows in tables.items():
        _nbgrader(course, "generate_feedback", name, "--force")
        for row in rows:
            _complete_page(course / "feedback" / row["student"] / name / f"{exercises()[name].stem}.html", row)
    for name, rows in tables.items():
        with open(course / f"points-{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return tables


def _autograde(course: Path, student: str, name: str, limits: Limits) -> str:
    """Run one submission, and return what went wrong, or an empty string."""
    for made in ("autograded", "feedback"):
        shutil.rmtree(course / made / student / name, ignore_errors=True)
    done = _nbgrader(course, "autograde", name, "--student", student, "--create", "--force", limits=limits)
    if done.returncode == TOO_LONG:
        return f"stopped after {limits.seconds} s"
    if done.returncode:
        errors = re.findall(r"^ *[\w.]*?(\w+Error: .+)|CRITICAL\] (.+)", done.stdout, flags=re.MULTILINE)
        return "nbgrader could not run it: " + ("".join(errors[-1]) if errors else f"exit {done.returncode}")
    return ""


def _complete_page(page: Path, row: dict) -> None:
    """Write a feedback page that says why, where nbgrader made none."""
    if row["state"] or not page.is_file():
        row["state"] = row["state"] or "graded, but nbgrader made no feedback page"
        page.parent.mkdir(parents=True, exist_ok=True)
        text = f"<meta charset='utf-8'><h1>{html.escape(page.stem)}</h1><p>{html.escape(row['state'])}</p>"
        page.write_text(text, encoding="utf-8")


TOO_LONG = -1000  # in place of an exit status


def _nbgrader(course: Path, *arguments: str, limits: Limits | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of nbgrader; with limits, without the teacher's environment, and leave none of its processes.

    Without limits nothing of a submission is run.
    """
    import psutil

    command = [sys.executable, "-m", "nbgrader", *arguments]
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        environment = {name: value for name, value in os.environ.items() if name in KEPT}
        environment |= {"HOME": home, "TMPDIR": home, "SUMMKIT_GRADING": mark, "SUMMKIT_PROFILE": "smoke"}
        environment |= {"SUMMKIT_HEADLESS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg"}
        # nbgrader calls alembic by its name, which is beside this Python.
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        environment |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        bounds = (lambda: _set_limits(limits)) if limits else None
        process = subprocess.Popen(
            command, cwd=course, env=environment, stdout=log, stderr=subprocess.STDOUT, preexec_fn=bounds
        )
        try:
            code = process.wait(limits.seconds if limits else 600)
        except subprocess.TimeoutExpired:
            code = TOO_LONG
        finally:
            # The kernel has a session of its own, and a submission may have started more: all of them have the mark.
            for other in psutil.process_iter(["environ"]):
                if (other.info["environ"] or {}).get("SUMMKIT_GRADING") == mark:
                    other.kill()
            process.wait()
        log.seek(0)
        return subprocess.CompletedProcess(command, code, log.read(), "")


def _set_limits(limits: Limits) -> None:
    """Bound this process and all that it starts: CPU time, allocated memory, the size of a file."""
    import resource

    memory = int(limits.memory_gb * 1e9)
    wanted = {resource.RLIMIT_CPU: limits.seconds, resource.RLIMIT_DATA: memory, resource.RLIMIT_FSIZE: 10**9}
    for kind, most in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _points(course: Path, student: str, name: str, state: str) -> dict:
    """Return the row of a student: the sum, what a person has still to grade, and the points of each cell."""
    from nbgrader.api import Gradebook

    cells = graded_cells(exercises()[name])
    row = {"student": student, "points": None, "out_of": sum(cells.values()), "to_grade_by_hand": None, "state": state}
    row |= dict.fromkeys(cells)
    if state:
        return row
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        grades = {g.name: g for book in gradebook.find_submission(name, student).notebooks for g in book.grades}
        row |= {cell: grades[cell].score for cell in cells}
        row["points"] = sum(grades[cell].score for cell in cells)
        row["to_grade_by_hand"] = sum(cells[cell] for cell in cells if grades[cell].needs_manual_grade)
    return row


def main() -> int:
    """Make or grade; return 1 where a submission could not be graded, 2 where the call is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("submissions", nargs="?", type=Path, help="a folder of submissions to grade; none: only make")
    parser.add_argument("--course", type=Path, default=COURSE, help="the folder that nbgrader works in")
    parser.add_argument("--seconds", type=int, default=Limits.seconds, help="for one submission (%(default)s)")
    parser.add_argument("--cell-seconds", type=int, default=Limits.cell_seconds, help="for one cell (%(default)s)")
    parser.add_argument("--memory-gb", type=float, default=Limits.memory_gb, help="for one process (%(default)s)")
    parser.add_argument("--ref", help="a tag or commit that the install cells of student versions ask for")
    asked = parser.parse_args()
    limits, course = Limits(asked.seconds, asked.cell_seconds, asked.memory_gb), asked.course.absolute()
    try:
        if asked.submissions is None:
            for path in make_assignments(course, limits, asked.ref):
                print(path)
            return 0
        tables = grade(asked.submissions, course, limits)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2
    for name, rows in tables.items():
        failed = sum(row["state"] != "" for row in rows)
        print(f"{len(rows)} of {name}, {failed} with a problem: {course / f'points-{name}.csv'}")
    print(f"feedback pages: {course / 'feedback'}")
    return int(any(row["state"] for rows in tables.values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
