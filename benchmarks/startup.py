"""How long it takes to import, to show --help, and to get from a clone to the first summary."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import ROOT, Contestant

# What a new user asks first, with the embedded model, on an article that is in the repository.
FIRST = """
import json
from pathlib import Path
import summkit
from summkit.config import choose_profile, PROFILES
from summkit.data import templates
from summkit.inference import generation
from summkit.models import loading
dial = choose_profile("cpu")
tokenizer, model = loading.load_tokenizer(dial.model), loading.load_model(dial.model)
template = templates.build_template(dial.template, tokenizer)
text = json.loads((Path(summkit.__file__).parent / "data/sets/examples.jsonl").open().readline())["document"]
limits = {"max_length": dial.max_length, "max_new_tokens": dial.max_new_tokens}
print(generation.summarize(model, tokenizer, template, [text], **limits)[0].text)
"""


def command(*arguments: str, folder: Path = ROOT, **environment: str) -> dict:
    """Seconds and peak bytes of a command and the processes it starts. Raises CalledProcessError where it fails."""
    import resource  # Windows has none

    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(arguments, cwd=folder, check=True, capture_output=True, text=True, env=os.environ | environment)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    peak = after.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    taken = {"cpu_seconds": cpu, "wall_seconds": wall, "peak_rss_bytes": peak}
    return taken | {"device_seconds": None, "peak_device_bytes": None}


def _python(*arguments: str):
    def run(work: dict) -> dict:
        command(sys.executable, *arguments)  # files that were never read are the disk's business
        return command(sys.executable, *arguments)

    return run


CONTESTANTS = {
    "python": Contestant(_python("-c", "pass"), "the interpreter alone: the ceiling here"),
    "summkit": Contestant(_python("-c", "import summkit"), "import summkit"),
    "summkit --help": Contestant(_python("-m", "summkit", "--help"), "python -m summkit --help"),
    "transformers": Contestant(_python("-c", "from transformers import Trainer"), "from transformers import Trainer"),
    "trl": Contestant(_python("-c", "from trl import SFTTrainer"), "from trl import SFTTrainer", "trl"),
}


def from_clone(folder: Path) -> dict:
    """Wall and CPU seconds of clone, installation and first summary, empty caches; {"absent": why} where one fails."""
    fresh = {"PIP_NO_CACHE_DIR": "1", "SUMMKIT_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    copy = folder / "summkit"
    steps = {
        "clone": lambda: command("git", "clone", "--quiet", str(ROOT), str(copy), folder=folder),
        "install": lambda: command("make", "install", folder=copy, **fresh, PYTHONPATH=""),
        "first summary": lambda: command(".venv/bin/python", "-c", FIRST, folder=copy, **fresh, PYTHONPATH=""),
    }
    found = {}
    for name, step in steps.items():
        harness.progress_line(f"startup: {name}")
        try:
            found[name] = {key: value for key, value in step().items() if key in ("cpu_seconds", "wall_seconds")}
        except (OSError, subprocess.CalledProcessError) as error:
            code = getattr(error, "returncode", "not found")
            return found | {"absent": f"{name} failed ({code})"}
    return found


def run(options) -> dict:
    """The record of this benchmark. `options`: smoke, from_clone, rounds, threads."""
    found = harness.compete("startup", CONTESTANTS, {}, options.rounds, options.threads)
    clone = {"absent": "not asked for: --from-clone"}
    if options.from_clone:
        with tempfile.TemporaryDirectory() as folder:
            clone = from_clone(Path(folder))
    return harness.record("startup", "smoke" if options.smoke else "cpu", options.threads, from_clone=clone, **found)
