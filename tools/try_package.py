"""Install the wheel that a folder has into a new environment, and use it in an empty folder, with the profile smoke."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

CONFIGURATION = {"profile": "smoke", "score": ["test"], "out": "trained"}
COMMANDS = (
    ["--version"],
    ["doctor"],
    ["list"],
    ["copy", "chapters"],
    ["run", "task3", "--profile", "smoke", "--out", "run"],
    ["train", "mine.json"],
    ["report", "run/task3", "trained"],
    ["summarize", "article.txt", "--adapter", "run/task3/adapter"],
    ["label", "rows.jsonl", "--out", "labels.jsonl", "--profile", "smoke"],
    ["export", "--adapter", "trained/adapter", "--out", "merged"],
)


def main(dist: Path) -> int:
    """Try every command, and return 1 if one failed."""
    (wheel,) = dist.resolve().glob("summkit-*.whl")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        venv.create(folder / "environment", with_pip=True)
        programs = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
        subprocess.run([programs / "python", "-m", "pip", "install", "-q", f"{wheel}[notebooks]"], check=True)
        empty = folder / "a folder"
        empty.mkdir()
        (empty / "mine.json").write_text(json.dumps(CONFIGURATION), encoding="utf-8")
        (empty / "article.txt").write_text("The bridge over the river was closed on Monday.\n", encoding="utf-8")
        rows = [{"id": n, "document": f"Bridge {n} over the river was closed on Monday."} for n in range(4)]
        (empty / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        # As a user has it: without PYTHONUTF8, the encoding of Windows has no "CO₂".
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SUMMKIT_"))}
        output = {"capture_output": True, "text": True, "errors": "replace"}
        kept["CUDA_VISIBLE_DEVICES"] = ""  # CI's Macs have a GPU that holds nothing
        for command in COMMANDS:
            done = subprocess.run([programs / "summkit", *command], cwd=empty, env=kept, **output)
            print(f"{done.returncode}  summkit {' '.join(command)}", flush=True)
            if done.returncode:
                print(done.stdout + done.stderr)
                return 1
        needed = ("chapters/task3/NOTEBOOK/task_3.ipynb", "chapters/jobs/deepspeed/zero3.json", "trained/run.json")
        missing = [path for path in needed if not (empty / path).is_file()]
        print(f"missing: {', '.join(missing)}" if missing else "the package works")
        return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
