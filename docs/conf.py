"""Settings of the book: the repository's pages, notebooks and docstrings as a website. `make site` builds it.

Sphinx reads the repository itself, so the pages stay as they are. Small hooks add what only a book needs: the table of
contents, links to files that have no page, buttons that open a notebook elsewhere, and pages made from docstrings.
"""

from __future__ import annotations

import pkgutil
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import links  # noqa: E402  (tools/links.py, the one place that knows where the repository is)

import summkit  # noqa: E402

SLUG = links.repository()
REPOSITORY = f"https://github.com/{SLUG}"
CHAPTERS = [notebook.removesuffix(".ipynb") for notebook, _ in links.chapters()]
# Pages that are made here; git ignores build/.
REFERENCE = "build/reference"
PACKAGES = [module.name for module in pkgutil.iter_modules(summkit.__path__) if module.ispkg]
MODULES = [*PACKAGES, "reporting.figures", "reporting.widgets", "config", "errors"]

project = "summkit"
copyright = "2026 the summkit authors"
version = release = summkit.__version__
language = "en"
root_doc = "README"
FOLDERS = ("docs", "task*", "notebooks", "jobs", "benchmarks", REFERENCE)
include_patterns = ["*.md", *(f"{folder}/**" for folder in FOLDERS)]
exclude_patterns = ["**/.*", "**/runs", "**/results", "**/EXERCISES"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# Pages and notebooks: the committed outputs, and the anchors that GitHub has.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
math_numfig = False
html_math_renderer = "mathml"

# The reference: what a package offers, in the order of its source. `x` in a docstring is code.
napoleon_use_ivar = True  # fields are part of their class, no entries of their own
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
default_role = "code"

html_theme = "sphinx_book_theme"
html_title = "summkit"
html_baseurl = links.book(SLUG)
html_static_path = ["book.css"]
html_css_files = ["book.css"]
html_context = {"default_mode": "auto"}  # light or dark as the reader's system
html_theme_options = {
    "navbar_persistent": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "github-dark",
    "repository_url": REPOSITORY,
    "repository_branch": "main",
    "path_to_docs": "",
    "use_repository_button": True,
    "use_source_button": True,
    "use_issues_button": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
}


def write_reference(app: Sphinx) -> None:
    """Write a page for each package and module that readers import, and one with the licence."""
    start = ".. autofunction:: summkit.start\n\n.. autoclass:: summkit.Run\n   :members:\n"
    pages = {"sk": f".. automodule:: summkit\n\n{start}"}
    for name in MODULES:
        package = "   :imported-members:\n" if name in PACKAGES else ""
        pages[f"sk.{name}"] = f".. automodule:: summkit.{name}\n   :members:\n{package}"
    text = "Every public name, with its docstring. In Python, `import summkit as sk` offers them.\n\n.. toctree::\n\n"
    pages["Reference"] = text + "".join(f"   {title}\n" for title in pages)
    pages["Licence"] = ".. literalinclude:: /LICENSE\n   :language: none\n"
    folder = ROOT / REFERENCE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for title, text in pages.items():
        (folder / f"{title}.rst").write_text(f"{title}\n{'=' * len(title)}\n\n{text}", encoding="utf-8")


def below_page(docname: str, found: set[str]) -> list[str]:
    """Return the pages of the folders directly below a README's own, and the reports there."""
    folder, slash, name = docname.rpartition("/")
    inside = re.compile(rf"{re.escape(folder)}/(REPORT/)?[^/]+/README")
    return sorted(filter(inside.fullmatch, found)) if slash and name == "README" else []


def contents(found: set[str]) -> dict[str, list[str]]:
    """Return {caption: pages} of the whole book."""
    guides = ["docs/running", "docs/configuration", "docs/command-line", "docs/data-and-licences", "docs/architecture"]
    book = {
        "Quick start": ["notebooks/quickstart"],
        "Primer and core chapters": CHAPTERS[:4],
        "One label, several, pairs": [page for page in CHAPTERS[4:] if page.startswith("task")],
        "Studies": [page for page in CHAPTERS[4:] if page.startswith("notebooks")] + ["notebooks/template"],
        "Tasks and reports": ["task1/README", "task2/README", "task3/README", "notebooks/README"],
        "Guides": guides + sorted(page for page in found - set(guides) if page.startswith("docs/")),
        "Measurements and jobs": ["benchmarks/README", "jobs/README"],
        "Reference": [f"{REFERENCE}/Reference"],
        "The project": ["CONTRIBUTING", "CHANGELOG", f"{REFERENCE}/Licence"],
    }
    placed = {page for pages in book.values() for page in pages} | {root_doc}
    placed |= {page for other in found for page in below_page(other, found)}
    more = sorted(page for page in found - placed if not page.startswith(REFERENCE))
    return {**book, "More": more}


def add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append the table of contents to a page's text as Sphinx reads it; a notebook has its own."""
    if app.env.doc2path(docname).suffix != ".md":
        # JupyterLab's anchors keep capitals and punctuation, those of this book do not.
        source[0] = re.sub(r"(?<=\]\(#)[^)\s]+", lambda anchor: re.sub(r"[^\w-]", "", anchor[0].lower()), source[0])
        return
    found = app.env.found_docs
    for caption, pages in (contents(found) if docname == root_doc else {"": below_page(docname, found)}).items():
        if pages:
            lines = ["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), ""]
            source[0] += "\n".join(["\n", *lines, *(f"/{page}" for page in pages), "```\n"])


class RepositoryLinks(SphinxTransform):
    """Let a link to a folder open its README, and a link to a file that is no page open it in the repository."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        """Change the links of one page."""
        kinds = (addnodes.pending_xref, addnodes.download_reference)
        for node in [node for kind in kinds for node in self.document.findall(kind)]:
            target = node["reftarget"]
            if target.startswith("#") or target in self.env.found_docs:
                continue
            if node.get("refdomain") == "doc":  # a notebook without a page
                path = ROOT / f"{target}.ipynb"
            elif node.get("reftype") == "myst":
                path = (ROOT / self.env.docname).parent.joinpath(target).resolve()
            else:
                continue
            place = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
            if f"{place}/README" in self.env.found_docs:
                node.attributes |= {"refdomain": "doc", "reftarget": f"{place}/README", "reftargetid": None}
            elif place and path.exists():
                kind = "tree" if path.is_dir() else "blob"
                node.replace_self(nodes.reference("", "", *node.children, refuri=f"{REPOSITORY}/{kind}/main/{place}"))


def add_buttons(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Offer Colab and Kaggle on a notebook's page, and no source for a page that is made here."""
    buttons = context.get("header_buttons", [])
    notebook = f"{pagename}.ipynb"
    if (ROOT / notebook).is_file():
        places = {"Colab": links.colab(SLUG, notebook), "Kaggle": links.kaggle(SLUG, notebook)}
        style = {"type": "link", "icon": "fa-solid fa-play", "tooltip": "Run this chapter there"}
        entries = [
            {**style, "url": url, "text": f"Open in {name}", "label": f"launch-{name.lower()}"}
            for name, url in places.items()
        ]
        group = {
            "type": "group",
            "icon": "fa-solid fa-rocket",
            "tooltip": "Run this chapter",
            "label": "launch-buttons",
        }
        buttons.insert(0, {**group, "buttons": entries})
    if pagename.startswith("build/"):
        for group in (one for one in buttons if one["type"] == "group"):
            group["buttons"] = [one for one in group["buttons"] if one["label"] != "source-file-button"]
        context["header_buttons"] = [one for one in buttons if one["label"] != "download-buttons"]


def finish(app: Sphinx, error: Exception | None) -> None:
    """Make README.html the page that opens first."""
    if not error:
        shutil.copy(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def returns_section(docstring: Any, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
    """Take what `Returns:` says as text: types are in the signature, so that a colon is a colon."""
    return [("", "", docstring._dedent(docstring._consume_to_next_section()))]


def visit_math(translator: Any, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers show without a script; one of its own line scrolls where it is wide."""
    if isinstance(node, nodes.math):
        translator.body.append(tex2mathml(node.astext(), as_block=False))
    else:
        translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the hooks."""
    GoogleDocstring._consume_returns_section = returns_section
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.add_transform(RepositoryLinks)
    app.connect("builder-inited", write_reference)
    app.connect("source-read", add_contents)
    app.connect("html-page-context", add_buttons, priority=900)
    app.connect("build-finished", finish)
