"""Run one contestant in its own process, so that its peak memory is its own. `harness` starts it.

python -m benchmarks.contestant BENCHMARK NAME WORK.json RESULT.json
"""

import importlib
import json
import sys
from pathlib import Path


def main(benchmark: str, name: str, work: str, result: str) -> None:
    """Run contestant `name` (or the benchmark's `prepare`) on the work in one file; write its results to the other."""
    module = importlib.import_module(f"benchmarks.{benchmark}")
    run = module.prepare if name == "prepare" else module.CONTESTANTS[name].run
    found = run(json.loads(Path(work).read_text(encoding="utf-8")))
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
