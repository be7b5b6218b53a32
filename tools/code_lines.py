"""Count the library's lines of code, and fail where it grows. Docstrings, comments and blank lines are not counted."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "summkit"
# The goal, and the size that no change may exceed on the way to it.
GOAL = 5_200
LIMIT = 8_104
LEARNER_GOAL = 3_000
LEARNER_LIMIT = 4_660
# What a learner meets on the way from data to scores.
LEARNER = ("config.py", "run.py", "data", "models", "training", "inference", "evaluation")


def code_lines(source: str) -> int:
    """Return how many lines of `source` are neither blank, nor a comment, nor part of a docstring."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            docstrings |= set(range(first.lineno, first.end_lineno + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in docstrings
        for number, line in enumerate(source.splitlines(), 1)
    )


def count(package: Path = PACKAGE) -> Counter[str]:
    """Return lines of code by the package's direct members: folders, and modules beside them."""
    counts: Counter[str] = Counter()
    for path in sorted(package.rglob("*.py")):
        counts[path.relative_to(package).parts[0]] += code_lines(path.read_text(encoding="utf-8"))
    return counts


def main() -> int:
    """Print the sizes; return 1 where one is above its limit."""
    counts = count()
    for name, lines in counts.most_common():
        print(f"{lines:6,}  {name}{'  (learner’s path)' if name in LEARNER else ''}")
    total = counts.total()
    learner = sum(counts[name] for name in LEARNER)
    print(f"{total:6,}  lines of code in summkit/; at most {LIMIT:,}, the goal is {GOAL:,}")
    print(f"{learner:6,}  of them on the learner's path; at most {LEARNER_LIMIT:,}, the goal is {LEARNER_GOAL:,}")
    return int(total > LIMIT or learner > LEARNER_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
