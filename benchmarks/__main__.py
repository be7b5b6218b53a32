"""python -m benchmarks [NAME …] [--smoke] [--out DIR] …: `--help` lists what a benchmark takes."""

import argparse
import os
import sys
from pathlib import Path

from benchmarks import generation, gpu, growth, harness, page, startup, training
from summkit.errors import SummkitError, check_known
from summkit.reporting import records

BENCHMARKS = {
    "training": training.run,
    "generation": generation.run,
    "growth": growth.run,
    "startup": startup.run,
    "gpu": gpu.run,
}
RESULTS = Path(page.__file__).parent / "results"


def main(arguments=None) -> int:
    """Run benchmarks and write a record of each; without --out, update README.md too. Return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        for name in options.names:
            check_known("benchmark", name, BENCHMARKS)
        out = options.out = Path(options.out or ("runs/benchmarks" if options.smoke else RESULTS))
        for name in options.names or BENCHMARKS:
            if name == "gpu" and not options.smoke and harness.gpu_name() is None:
                harness.progress_line(f"{name}: not measured, no GPU here")
                continue
            made = BENCHMARKS[name](options)
            print(records.write_record(made, out / harness.file_name(name, made["environment"]["device"])))
            if name == "gpu" and gpu.unfinished(made):
                harness.progress_line(f"gpu: {gpu.unfinished(made)} contestants are left; the same command goes on")
        print(page.publish() if out.resolve() == RESULTS.resolve() else page.tables(out))
    except SummkitError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: interrupted; gpu goes on with the next call, the others start again", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--smoke", action="store_true", help="tiny models and few rows: that it runs, no figures")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contestant runs (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="of each contestant (default: 1)")
    parser.add_argument("--out", metavar="DIR", help="for the records (default: benchmarks/results)")
    parser.add_argument("--minutes", type=float, default=8, help="gpu: no contestant starts later (default: 8)")
    parser.add_argument("--python", metavar="PATH", help="gpu: the Python that has Unsloth, which pins older versions")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="gpu: contestants whose name has one of these texts")
    parser.add_argument("--million", action="store_true", help="growth: up to 1,000,000 rows, in the first round")
    parser.add_argument("--from-clone", action="store_true", help="startup: clone, install and first summary too")
    return parser


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
