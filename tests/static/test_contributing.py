"""What CONTRIBUTING shows works: its diffs apply to the files as they are, and its examples run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DIFFS = re.findall(r"```diff\n(.*?)```", TEXT, flags=re.DOTALL)
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
TITLES = re.findall(r"^### A (.+)$", TEXT, flags=re.MULTILINE)


def test_every_registry_has_a_diff_and_an_example():
    assert TITLES[:6] == ["data set", "model family", "method", "metric", "wording", "teacher"]
    assert len(DIFFS) == len(EXAMPLES) == 6


@pytest.mark.parametrize("diff", DIFFS, ids=TITLES[:6])
def test_the_lines_around_an_addition_are_there(diff):
    name = re.search(r"^\+\+\+ b/(\S+)$", diff, flags=re.MULTILINE)[1]
    path = ROOT / name
    if "--- /dev/null" in diff:
        assert path.parent.is_dir() and not path.exists()
        return
    lines = set(path.read_text(encoding="utf-8").splitlines())
    for line in diff.splitlines():
        if line[:1] in {" ", "-"} and line[1:].strip() and not line.startswith("--- "):
            assert line[1:] in lines, f"{name} no longer has: {line[1:]}"


def test_a_data_set_as_shown_is_accepted(tmp_path):
    path = tmp_path / "dialogsum.yaml"
    path.write_text("\n".join(re.findall(r"^\+(?!\+)(.*)$", DIFFS[0], flags=re.MULTILINE)), encoding="utf-8")
    code = f"import summkit as sk; print(sk.data.register_dataset({str(path)!r}).columns)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stderr, "dialogue" in done.stdout) == ("", True)


@pytest.mark.parametrize("example", EXAMPLES[1:], ids=TITLES[1:6])
def test_an_example_runs(example):
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
