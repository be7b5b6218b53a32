"""Badges, install cells, CITATION.cff and the table of chapters agree with the one place that names the repository."""

import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import summkit

ROOT = Path(__file__).parents[2]


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


links = load("links")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = [path for path in links.pages() if path.suffix == ".ipynb"]
NOTEBOOKS = [path for path in PAGES if "EXERCISES" not in path.parts]


def test_every_page_agrees_with_pyproject():
    changed = [str(path.relative_to(ROOT)) for path in links.outdated(links.repository())]
    assert changed == [], "run `make links`"
    assert links.names_used() == {links.repository()}


def test_all_addresses_of_the_project_are_in_the_repository():
    assert all(url.startswith(PROJECT["urls"]["Repository"]) for url in PROJECT["urls"].values())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_badges(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    name, slug = path.relative_to(ROOT).as_posix(), links.repository()
    title = "".join(notebook["cells"][0]["source"])
    assert f"]({links.colab(slug, name)})" in title and f"]({links.kaggle(slug, name)})" in title


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_notebook_has_an_install_cell_with_its_extras(path):
    notebook, slug = json.loads(path.read_text(encoding="utf-8")), links.repository()
    extras = notebook["metadata"]["summkit"]["extras"]
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    (install,) = [c for c in notebook["cells"] if "nbval-skip" in c["metadata"].get("tags", [])]
    assert f'"{links.requirement(slug, extras)}"' in "".join(install["source"])


STUDIES = [path for path in NOTEBOOKS if path.parent.name == "notebooks"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_page_names_its_neighbours_and_its_contents(path):
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    order = [ROOT / notebook for notebook, _ in links.chapters()]
    place = order.index(path) if path in order else None
    near = order[:2] if place is None else [*order[place - 1 : place], *order[place + 1 : place + 2]]
    linked = re.findall(r"(?:Previous|Next) chapter: \[([^\]]+)\]\(([^)]+)\)", cells[0])
    assert [(path.parent / target).resolve() for _, target in linked] == near
    assert [title for title, _ in linked] == [
        json.loads(page.read_text(encoding="utf-8"))["metadata"]["summkit"]["title"] for page in near
    ]
    sections = re.findall(r"^## (\d+)\. (.+)$", "\n".join(cells), flags=re.MULTILINE)
    assert "**Contents.** " + "; ".join(map(" ".join, sections)) + "." in cells[1]


# What a page must have for an extra: energy that it shows, an exported model, a teacher, a model out of an ONNX file.
USES = {
    "costs": r"\bWh\b|energy(?!=False)",
    "export": "to_ctranslate2",
    "distill": "TEACHER_URL",
    "long": "flan-t5-small",
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_asks_for_the_extras_that_it_uses_and_no_other(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    source = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    assert notebook["metadata"]["summkit"]["extras"] == sorted(use for use in USES if re.search(USES[use], source))


class Pip:
    """Stands in for subprocess.run: pip, which installs transformers 5.24 or fails."""

    def __init__(self, code=0):
        self.code, self.calls = code, []

    def __call__(self, command, **settings):
        self.calls.append(command[3:])
        return SimpleNamespace(returncode=self.code, stderr="ERROR: no such address")


@pytest.fixture
def install_cell(monkeypatch):
    """Run the install cell as on Colab, with a stand-in for pip and an imported transformers of some version."""

    def run(pip, imported=None):
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
        for name in ("transformers", "tokenizers", "peft", "accelerate", "datasets", "huggingface_hub"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        if imported:
            monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(__version__=imported))
        monkeypatch.setattr(subprocess, "run", pip)
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "5.24.0")
        exec(links.INSTALL_CELL, {})

    return run


def test_the_install_cell_asks_for_a_restart_only_where_it_is_needed(install_cell):
    pip = Pip()
    install_cell(pip)
    install_cell(pip, "5.24.0")
    assert pip.calls[0] == ["install", "-q", "REQUIREMENT"] and pip.calls[1] == ["uninstall", "-q", "-y", "torchao"]
    with pytest.raises(
        RuntimeError, match=r"an older transformers was imported: restart the kernel, then run all cells"
    ):
        install_cell(pip, "5.15.1")


def test_an_installation_that_fails_is_an_error_with_pips_own_words(install_cell):
    with pytest.raises(RuntimeError, match="pip install failed, so this notebook cannot run:\nERROR: no such address"):
        install_cell(Pip(code=1))


def test_the_install_cell_does_nothing_on_a_readers_own_machine(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something was started"))
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    exec(links.INSTALL_CELL, {})


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_notebooks_title_is_the_one_in_its_metadata(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    heading = "".join(notebook["cells"][0]["source"]).splitlines()[0]
    assert heading == f"# {notebook['metadata']['summkit']['title']}"


def test_the_table_has_every_chapter_and_its_pages_exist():
    table = links.table(links.repository())
    rows = [line for line in table.splitlines() if line.startswith("| [")]
    titles = [metadata["title"] for _, metadata in links.chapters()]
    assert [re.match(r"\| \[([^\]]+)\]", row)[1] for row in rows] == titles
    assert [metadata["stage"] for _, metadata in links.chapters()][:4] == list(links.FIRST)
    for target in re.findall(r"\]\(([^)]+)\)", table):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


def test_a_fork_gets_its_own_links(tmp_path):
    for name in ("README.md", "CITATION.cff", "pyproject.toml", "task2", "notebooks", "task1", "task3"):
        copied = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copied(ROOT / name, tmp_path / name)
    for path, text in links.outdated("a-teacher/course.2027", tmp_path).items():
        path.write_text(text, encoding="utf-8")
    assert links.outdated("a-teacher/course.2027", tmp_path) == {}
    assert links.repository(tmp_path / "pyproject.toml") == "a-teacher/course.2027"
    for path in links.pages(tmp_path):
        assert f"github.com/{links.repository()}" not in path.read_text(encoding="utf-8"), path


def test_an_edit_of_pyproject_alone_is_seen_and_repaired(tmp_path):
    for name in ("README.md", "CITATION.cff", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("task1", "task2", "task3", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    pyproject = tmp_path / "pyproject.toml"
    text = pyproject.read_text(encoding="utf-8")
    pyproject.write_text(text.replace(f"github.com/{links.repository()}", "github.com/me/mine"), encoding="utf-8")
    changed = links.outdated("me/mine", tmp_path)
    assert {tmp_path / "README.md", tmp_path / "CITATION.cff"} < set(changed)


def test_versions_agree():
    version = summkit.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    date = re.search(rf"## \[{re.escape(version)}\] - (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))[1]
    assert f"date-released: {date}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_licence_is_the_one_that_is_declared():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Copyright 2026 the summkit authors" in text
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["authors"] == [{"name": "the summkit authors"}]
    assert "\nlicense: Apache-2.0\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
