"""Collect the records of many runs into one table, a row a run, as CSV.

    python jobs/collect.py runs --out runs.csv

A column is a key of run.json, such as training.eval_loss or scores.fine_tuned.rouge1.mean. Lists are left out.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from summkit.errors import SummkitError
from summkit.files import write_text
from summkit.reporting import read_record


def main(arguments: list[str] | None = None) -> int:
    """Write the table. Return the exit code: 2, with a message, if one cannot be read or written."""
    parser = argparse.ArgumentParser(description="collect the records of many runs into one table")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="every run.json below these folders is read")
    parser.add_argument("--out", default="runs.csv", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        frame = table(options.folders)
        write_text(options.out, frame.to_csv(index=False, lineterminator="\n"))
    except (SummkitError, OSError) as error:
        print(f"collect: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(frame)} runs, {len(frame.columns)} columns")
    return 0


def table(folders: list[str]) -> pd.DataFrame:
    """Return a row for each record below `folders`, the oldest run first. Reports' copies of a record are left out."""
    paths = {path for folder in folders for path in Path(folder).rglob("run.json") if path.parent.name != "REPORT"}
    if not paths:
        raise SummkitError(f"there is no run.json below {', '.join(folders)}")
    records = [{"run": path.parent.as_posix()} | read_record(path) for path in sorted(paths)]
    frame = pd.json_normalize(sorted(records, key=lambda record: str(record["started"])))
    return frame.drop(columns=[name for name in frame if frame[name].map(type).eq(list).any()])


if __name__ == "__main__":
    sys.exit(main())
