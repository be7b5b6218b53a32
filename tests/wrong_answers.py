"""The exercises, and their typical wrong answers: tests/mistakes/ has one file for each assignment."""

import json
import tomllib
from pathlib import Path

from tools.course import exercises

BOOKS = exercises()
MISTAKES = {path.stem: path for path in sorted((Path(__file__).parent / "mistakes").glob("*.toml"))}
# (assignment, mistake) → "old": what stands in the solution, "new": what stands there instead, "lost": {check: points}.
WRONG = {
    (name, mistake): entry
    for name, path in MISTAKES.items()
    for mistake, entry in tomllib.loads(path.read_text(encoding="utf-8")).items()
}


def changed(path, old, new):
    """The notebook at `path` as text, with `old` replaced by `new` in its solutions."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    count = 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["metadata"].get("nbgrader", {}).get("solution"):
            count += source.count(old)
            cell["source"] = source.replace(old, new)
    assert count, f"no solution has {old!r}"
    return json.dumps(notebook)


def wrong(name, mistake):
    """The notebook of an assignment as text, with one of its mistakes."""
    entry = WRONG[name, mistake]
    return changed(BOOKS[name], entry["old"], entry["new"])


def lost(name, mistake):
    """{graded cell: the points that a mistake costs}."""
    return {f"{name}-{cell}": points for cell, points in WRONG[name, mistake]["lost"].items()}
