"""What README and docs/ promise is there: files, anchors, options, commands; and README stays short."""

import re
from pathlib import Path

import pytest
import yaml

from summkit.config import TASKS
from summkit.models import METHODS
from tests.static import gate
from tests.static.test_settings import options

ROOT = Path(__file__).parents[2]
COMMANDS = yaml.safe_load((ROOT / "summkit" / "commands.yaml").read_text(encoding="utf-8"))
SKIPPED = {"runs", "build"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not SKIPPED & set(path.relative_to(ROOT).parts) and not path.relative_to(ROOT).parts[0].startswith(".")
)
NOTEBOOKS = [ROOT / path for path in gate.notebooks()]
DOCS = sorted((ROOT / "docs").glob("*.md"))


def read(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_inside_the_repository_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text(encoding="utf-8")), target


def glossary_links(text: str) -> list[str]:
    return re.findall(r"\]\([^)\s]*glossary\.md#([^)\s]*)\)", text)


def test_every_term_that_a_page_links_to_is_in_the_glossary_and_is_linked_once():
    terms = anchors(read("docs/glossary.md"))
    found = {page: glossary_links(page.read_text(encoding="utf-8")) for page in [*PAGES, *NOTEBOOKS]}
    assert sum(map(len, found.values())) > 15
    wrong = {page.name: sorted(set(links) - terms) for page, links in found.items() if set(links) - terms}
    assert wrong == {}
    assert [page.name for page, links in found.items() if len(set(links)) < len(links)] == []


def test_a_term_stands_in_the_glossary_once_and_is_explained():
    parts = re.split(r"^### (.+)$", read("docs/glossary.md"), flags=re.MULTILINE)[1:]
    terms, texts = parts[::2], [text.split("## ")[0].strip() for text in parts[1::2]]
    assert len({term.lower() for term in terms}) == len(terms) > 50
    assert [term for term, text in zip(terms, texts, strict=True) if not 5 < len(text.split()) < 75] == []


def test_the_readme_reaches_its_first_table_of_chapters_in_1000_words():
    before, end, _ = read("README.md").partition("<!-- end of chapters -->")
    assert end and len(before.split()) <= 1000


def test_every_page_of_docs_is_in_the_readme():
    assert DOCS and all(f"(docs/{page.name})" in read("README.md") for page in DOCS)


def test_every_option_is_explained_and_every_explained_option_exists():
    section = read("docs/configuration.md").split("## Options")[1].split("\n## ")[0]
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert named == set(options()) - {"name", "task", "reason"}


def test_every_command_is_explained():
    section = read("docs/command-line.md").split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)", section, flags=re.MULTILINE)
    assert sorted(rows) == sorted(COMMANDS)


def test_every_option_of_summarize_is_explained():
    named = set(re.findall(r"`(--[\w-]+)", read("docs/command-line.md").split("option of `summarize`")[1]))
    assert named == set(COMMANDS["summarize"]["arguments"]) - {"files", "--adapter"}


def test_every_method_is_explained():
    section = read("docs/configuration.md").split("## Methods")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)} == set(METHODS)


def test_every_task_is_named():
    assert all(f"`{name}`" in read("docs/configuration.md") for name in TASKS)


def test_every_file_that_the_architecture_names_exists():
    named = set(re.findall(r"`((?:summkit|tests|tools|docs|notebooks|jobs)/[\w./-]*)`", read("docs/architecture.md")))
    assert len(named) > 25
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert missing == []


def test_every_download_is_in_the_page_on_licences():
    text = read("docs/data-and-licences.md")
    assets = yaml.safe_load(read("summkit/offline/assets.yaml"))
    packages = {f"{asset['package']} {asset['version']}" for asset in assets.values() if "package" in asset}
    sets = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "summkit/data/sets").glob("*.yaml")]
    names = packages | {found["name"] for found in sets if found["source"] == "hub"}
    assert len(names) > 10 and {name for name in names if name not in text} == set()
