"""Copy the executed notebooks of runs and their reports to where they are committed; `make notebooks` calls it.

Those of a chapter are in its folder; those of a study are notebooks/NAME.ipynb and notebooks/REPORT/NAME/. If the
README has a pair of marks for the chapter, its results are written between them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

from summkit.errors import SummkitError
from summkit.files import write_text
from summkit.progress import near
from summkit.reporting import records, report, tables

ROOT = Path(__file__).parents[1]


def publish(run: Path, repository: Path = ROOT) -> Path:
    """Publish one run, and return its report's page.

    Raises:
        SummkitError: The record is broken, or the repository has no notebook of that name.
    """
    record = records.read_record(run / "run.json")
    chapter = repository / record["stage"]
    is_study = chapter.parent == repository / "notebooks"
    notebooks = chapter.parent if is_study else chapter / "NOTEBOOK"
    folder = notebooks / "REPORT" / chapter.name if is_study else chapter / "REPORT"
    executed = sorted(run.glob(f"{chapter.name}.ipynb" if is_study else "*.ipynb"))
    if not executed or not all((notebooks / path.name).is_file() for path in executed):
        raise SummkitError(f"{near(run)}: a run of {record['stage']!r}, but the repository has no such notebook")
    page = report.write_report(run, folder)
    for path in executed:
        shutil.copy(path, notebooks / path.name)
    readme = repository / "README.md"
    if record["scores"] and readme.is_file():
        table = tables.scores_table(record["scores"])
        result = f"{table}\n\n{report.scores_note(record)}\n\n{report.cost_line([record])}\n"
        marks = re.compile(rf"(<!-- result of {record['stage']}: [^\n]*-->\n).*?(<!-- end of result -->)", re.DOTALL)
        write_text(readme, marks.sub(lambda mark: mark[1] + result + mark[2], readme.read_text(encoding="utf-8")))
    return page


def main(arguments: list[str] | None = None) -> int:
    """Publish the runs that are named, and print their pages; return 2, with a message, where that is impossible."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    try:
        for run in parser.parse_args(arguments).runs:
            print(near(publish(run)))
    except SummkitError as error:
        print(f"publish: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
