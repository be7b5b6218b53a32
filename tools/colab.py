"""Run every notebook as on Colab: in an environment like Colab's, alone in an empty folder, its install cell unchanged.

Called by `make test-colab`. `colab-pins.txt` says what Colab has before the first cell runs. Notebooks that ask for the
same extras share an environment, so that one that asks for too little fails. The address in the install cell leads to a
copy of this repository as it is here; uncommitted changes are part of it, new files only once git tracks them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))
import links  # noqa: E402 - it is beside this file

# Runs in the environment: the notebook, in the working folder, by a kernel for which Colab's own module is there.
EXECUTE = """
import sys
import nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=3600).execute()
except nbclient.exceptions.CellExecutionError as error:
    sys.exit(f"{error.ename}: {error.evalue}")
"""
STARTUP = """
import importlib.util, sys
from importlib.machinery import ModuleSpec
sys.modules["google.colab"] = importlib.util.module_from_spec(ModuleSpec("google.colab", None))
"""


def repository_copy(folder: Path) -> Path:
    """Return a bare repository in `folder` whose main is this working tree."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    copy = folder / "summkit.git"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(copy))
    git("push", "--quiet", str(copy), f"{git('stash', 'create') or 'HEAD'}:refs/heads/main")
    return copy


def environment(folder: Path, copy: Path, home: Path) -> dict[str, str]:
    """Return the variables under which a notebook runs."""
    address = f"https://github.com/{links.repository()}"
    profile = home / "ipython" / "profile_default" / "startup"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "colab.py").write_text(STARTUP, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SUMMKIT", "VIRTUAL"))}
    return kept | {
        "GIT_CONFIG_COUNT": "1",  # git, and so pip, reads the copy in place of the address
        "GIT_CONFIG_KEY_0": f"url.{copy.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PATH": str(folder / "share" / "jupyter"),
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SUMMKIT_PROFILE": "smoke",
        "TQDM_DISABLE": "1",
    }


def main() -> int:
    """Build the environments, run the notebooks, and return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", help="paths in this repository; without any, all of them")
    parser.add_argument("--python", default="3.13", help="Colab's Python: a version or a path, for uv")
    options = parser.parse_args()
    chosen = [Path(name).resolve() for name in options.notebooks] or [p for p in links.pages() if p.suffix == ".ipynb"]
    groups: defaultdict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in chosen:
        groups[tuple(json.loads(path.read_text(encoding="utf-8"))["metadata"]["summkit"]["extras"])].append(path)
    uv = [sys.executable, "-m", "uv", "--quiet"]
    failed = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        place = Path(name)
        copy = repository_copy(place)
        for number, (extras, paths) in enumerate(groups.items()):
            folder = place / f"environment-{number}"
            subprocess.run([*uv, "venv", "--python", options.python, str(folder)], check=True)
            python = folder / "bin" / "python"
            pins = str(ROOT / "tools" / "colab-pins.txt")
            subprocess.run([*uv, "pip", "install", "--python", str(python), "-r", pins], check=True)
            for path in paths:
                started = time.monotonic()
                with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as empty:
                    command = [str(python), "-c", EXECUTE, str(path)]
                    variables = environment(folder, copy, place)
                    done = subprocess.run(command, cwd=empty, env=variables, capture_output=True, text=True)
                reason = done.stderr.strip().splitlines()[-1][:500] if done.returncode else "ok"
                seconds = time.monotonic() - started
                print(f"{path.relative_to(ROOT)} [{','.join(extras)}]: {seconds:.0f} s, {reason}", flush=True)
                failed += [path] if done.returncode else []
    print(f"{len(chosen) - len(failed)} passed, {len(failed)} failed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
