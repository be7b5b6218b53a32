"""Files for GitHub are valid, CI runs what `make quick` runs, and the list of slow tests has no file that is gone."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import SLOW

ROOT = Path(__file__).parents[2]
GITHUB = sorted((ROOT / ".github").rglob("*.yml"))
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "path", [*GITHUB, ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"], ids=lambda p: p.name
)
def test_yaml_is_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda p: p.stem)
def test_an_issue_template_has_what_github_needs(path):
    template = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert template["name"] and template["description"]
    ids = [part["id"] for part in template["body"]]
    assert len(set(ids)) == len(ids) and all(part["attributes"]["label"] for part in template["body"])


def test_both_commands_run_on_three_pythons_and_the_quick_tests_on_two_systems():
    assert WORKFLOW["jobs"]["both-commands"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert WORKFLOW["jobs"]["both-commands"]["steps"][-1] == {"run": ".ci/run"}
    assert WORKFLOW["jobs"]["quick"]["strategy"]["matrix"]["os"] == ["macos-latest", "windows-latest"]


def load(name: str) -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))


def test_the_lowest_and_the_newest_releases_run_the_quick_tests():
    rows = WORKFLOW["jobs"]["bounds"]["strategy"]["matrix"]["include"]
    assert [(row["name"], row["resolution"]) for row in rows] == [("lowest", "lowest-direct"), ("newest", "highest")]
    assert WORKFLOW["jobs"]["bounds"]["steps"][-1]["run"].startswith("make test-bounds RESOLUTION=${{ matrix.resol")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert '-m "not slow" tests' in makefile.split("\ntest-bounds:")[1].split("\n\n")[0]


def test_the_package_is_tried_on_three_systems_and_before_it_is_published():
    assert set(WORKFLOW["jobs"]["package"]["strategy"]["matrix"]["os"]) == {
        "ubuntu-latest",
        "macos-latest",
        "windows-latest",
    }
    publish = load("publish")
    for steps in (WORKFLOW["jobs"]["package"]["steps"], publish["jobs"]["build"]["steps"]):
        run = [step.get("run") for step in steps]
        assert run.index("python -m build") < run.index("python tools/try_package.py dist")
    assert publish[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    assert publish["jobs"]["publish"]["needs"] == "build"


def test_pages_are_tried_in_a_browser():
    assert WORKFLOW["jobs"]["browser"]["steps"][-1] == {"run": "make test-browser"}


def test_notebooks_run_as_on_colab_each_week_and_when_they_change():
    colab = load("colab")
    assert set(colab[True]) == {"schedule", "workflow_dispatch", "pull_request"}
    assert {"**.ipynb", "pyproject.toml"} <= set(colab[True]["pull_request"]["paths"])
    assert colab["jobs"]["notebooks"]["steps"][-1] == {"run": "make test-colab"}


def test_the_pins_of_colab_have_a_date_and_are_below_what_the_install_cell_brings():
    text = (ROOT / "tools" / "colab-pins.txt").read_text(encoding="utf-8")
    assert re.search(r"read on \d{4}-\d\d-\d\d, with Python 3\.\d+", text)
    assert {"torch", "torchao", "transformers", "peft", "datasets"} <= set(re.findall(r"^(\w+)==", text, re.MULTILINE))


def test_the_quick_job_runs_the_commands_of_make_quick():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.split("\nlint:")[1].split("\n\n")[0]
    commands = [line.strip() for line in recipe.splitlines()[1:]]
    wanted = [command.replace("$(PY)", "python").replace("$(VENV)/bin/", "") for command in commands]
    steps = [step["run"] for step in WORKFLOW["jobs"]["quick"]["steps"] if "run" in step]
    assert steps[1:-1] == wanted
    (quick,) = re.findall(r"^quick:.*\n\t.* (-m .*)$", makefile, flags=re.MULTILINE)
    assert steps[-1].endswith(quick)


POSIX_ONLY = {"resource", "fcntl", "pwd", "grp", "termios"}


@pytest.mark.parametrize("folder", ["summkit", "tests", "benchmarks", "tools", "jobs"])
def test_windows_can_import_every_module(folder):
    """A test file that cannot be imported stops the whole run, even where none of its tests is chosen."""
    found = []
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            found += [f"{path.relative_to(ROOT)}: {name}" for name in names & POSIX_ONLY]
    assert found == []


def test_ci_calls_the_two_commands_of_the_readme():
    called = re.findall(r"^phase (.+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert called == ["make run", "make test"]


def test_what_is_listed_as_slow_exists():
    for entry in SLOW:
        name, _, function = entry.partition("::")
        path = ROOT / "tests" / "unit" / name
        assert path.is_file(), name
        assert not function or f"def {function}(" in path.read_text(encoding="utf-8"), entry
