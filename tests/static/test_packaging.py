"""Dependencies: what the library imports is declared, what is pinned fits the bounds, and both say what it is for."""

import ast
import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINNED = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
# Where the name to import is not the name to install.
INSTALLED_AS = {"IPython": "ipython", "sklearn": "scikit-learn", "yaml": "pyyaml", "azure": "azure-ai-ml"}
COMES_WITH = {"httpx": "transformers", "markupsafe": "jinja2", "pyarrow": "datasets", "traitlets": "ipywidgets"}
COMES_WITH |= {"huggingface-hub": "transformers"}
# Packages that a user installs for one option, and that are named where they are missing.
OPTIONAL = {"wandb", "mlflow"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line.split("#")[0].strip()) for line in lines]
    return {normal(found.name): found for found in parsed if found.name != "summkit"}


BASE = requirements(PROJECT["dependencies"])
DECLARED = BASE | requirements([line for lines in EXTRAS.values() for line in lines])
TESTED = requirements(PINNED)


def imported() -> set[str]:
    names = set()
    for path in (ROOT / "summkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
    return {normal(INSTALLED_AS.get(name, name)) for name in names - set(sys.stdlib_module_names) - {"summkit"}}


def test_what_is_imported_is_declared():
    assert {COMES_WITH.get(name, name) for name in imported()} - set(DECLARED) - OPTIONAL == set()


@pytest.mark.parametrize("name", sorted(TESTED))
def test_a_pinned_version_fits_its_bound(name):
    (pin,) = TESTED[name].specifier
    assert pin.operator == "=="
    if name != "setuptools":  # it installs the package, so it is declared under build-system
        assert DECLARED[name].specifier.contains(pin.version)


def test_the_tested_set_has_every_dependency():
    # For benchmarks, tracking, several GPUs, one GPU, and grading.
    installed_apart = {"trl", "trackio", "deepspeed", "liger-kernel", "nbgrader"}
    installed_apart |= set(requirements(EXTRAS["docs"] + EXTRAS["browser"]))  # `make site`, `make test-browser`
    assert set(DECLARED) - set(TESTED) == installed_apart


def test_each_pin_and_each_dependency_says_what_it_is_for():
    assert all(re.search(r"  # \S", line) for line in PINNED)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.split("\ndependencies = [\n")[1].split("\n]")[0]
    assert all(re.search(r'",  # \S', line) for line in block.splitlines())


def test_services_and_large_libraries_of_few_chapters_are_extras():
    assert {"openai", "codecarbon", "onnx", "ctranslate2", "pypdf"} & set(BASE) == set()


def test_every_data_file_goes_into_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    files = [path for path in (ROOT / "summkit").rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
    left_out = [str(path) for path in files if not any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)]
    assert files and left_out == []


def build(lib: Path) -> Path:
    """What a wheel has from this repository."""
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", lib, "build_py", "--build-lib", lib]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return lib / "summkit" / "course"


def test_a_wheel_has_the_chapters_without_their_outputs_and_the_jobs(tmp_path):
    course = build(tmp_path)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    chapters = {name for name in listed if name.endswith(".ipynb") and "/EXERCISES/" not in name}
    wanted = chapters | {name for name in listed if name.startswith("jobs/")}
    found = {path.relative_to(course).as_posix() for path in course.rglob("*") if path.is_file()}
    assert found == wanted | {"task3/REPORT/run.json"}
    for name in wanted:
        there, here = ((root / name).read_text(encoding="utf-8") for root in (course, ROOT))
        if not name.endswith(".ipynb"):
            assert there == here
            continue
        cells, committed = json.loads(there)["cells"], json.loads(here)["cells"]
        assert [cell["source"] for cell in cells] == [cell["source"] for cell in committed]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert sum(path.stat().st_size for path in course.rglob("*")) < 1_000_000


def test_an_sdist_has_what_its_wheel_needs():
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
    tasks = sorted(path.name for path in ROOT.glob("task*"))
    assert re.findall(r"^recursive-include (\S+) \*\.ipynb$", manifest, flags=re.MULTILINE) == tasks
    assert "\ninclude notebooks/*.ipynb task3/REPORT/run.json\ngraft jobs\n" in manifest


def test_the_linter_is_one_version_everywhere():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (pin,) = TESTED["ruff"].specifier
    assert f"rev: v{pin.version}" in hooks
