"""Write every link to this repository, the install cells, and the table of chapters in README.md.

`[project.urls]` in pyproject.toml says where the repository lives. A fork runs `make links REPO=owner/name` once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYPROJECT = ROOT / "pyproject.toml"
FIRST = ("notebooks/00_how_a_language_model_writes", "task1/xsum", "task2", "task3")
BEGIN = "<!-- chapters: made by `make links` from the notebooks' metadata -->"
END = "<!-- end of chapters -->"
SLUG = r"[\w.-]+/[\w-]+(?:\.[\w-]+)*"  # owner/name, as in github.com/owner/name
COLAB = re.compile(rf"(colab\.research\.google\.com/github/)({SLUG})(/blob/main/)([\w./-]+\.ipynb)")
KAGGLE = re.compile(rf"(kaggle\.com/kernels/welcome\?src=https://github\.com/)({SLUG})(/blob/main/)([\w./-]+\.ipynb)")
INSTALL = re.compile(rf"summkit(?:\[[\w,-]*\])? @ git\+https://github\.com/({SLUG})")
# The first code cell of every notebook. REQUIREMENT is this repository, with the extras in the notebook's metadata.
INSTALL_CELL = """\
import os
import sys

# On Colab and Kaggle only: install summkit, which takes some seconds.
if "google.colab" in sys.modules or os.path.exists("/kaggle"):
    import subprocess
    from importlib.metadata import version

    def pip(*arguments):
        done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"pip {arguments[0]} failed, so this notebook cannot run:\\n{done.stderr}")

    pip("install", "-q", "REQUIREMENT")
    # peft trains no LoRA beside a torchao below 0.16, which Colab has. Nothing here uses torchao.
    pip("uninstall", "-q", "-y", "torchao")
    names = ("transformers", "tokenizers", "peft", "accelerate", "datasets", "huggingface_hub")
    old = [name for name in names if name in sys.modules and sys.modules[name].__version__ != version(name)]
    if old:
        raise RuntimeError(f"an older {', '.join(old)} was imported: restart the kernel, then run all cells")
"""
CODE = re.compile(rf'repository-code: "https://github\.com/({SLUG})"')


def repository(pyproject: Path = PYPROJECT) -> str:
    """Return owner/name as pyproject.toml has it."""
    url = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    return url.removeprefix("https://github.com/")


def colab(slug: str, notebook: str) -> str:
    """Return the address that opens a notebook in Colab."""
    return f"https://colab.research.google.com/github/{slug}/blob/main/{notebook}"


def kaggle(slug: str, notebook: str) -> str:
    """Return the address that opens a notebook on Kaggle."""
    return f"https://kaggle.com/kernels/welcome?src=https://github.com/{slug}/blob/main/{notebook}"


def book(slug: str) -> str:
    """Return the address of the website that GitHub Pages makes of the repository."""
    owner, name = slug.split("/")
    return f"https://{owner}.github.io/{name}/"


def requirement(slug: str, extras: list[str]) -> str:
    """Return what an install cell asks pip for: this repository, with the extras that the page uses."""
    chosen = f"[{','.join(sorted(extras))}]" if extras else ""
    return f"summkit{chosen} @ git+https://github.com/{slug}"


def with_install_cell(text: str, required: str) -> str:
    """Return a notebook's text whose install cell, the one with the tag nbval-skip, asks for `required`."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if "nbval-skip" in cell["metadata"].get("tags", []):
            cell["source"] = INSTALL_CELL.strip().replace("REQUIREMENT", required).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def pages(root: Path = ROOT) -> list[Path]:
    """Return every file that may link to the repository, in order."""
    kinds = {".md", ".ipynb", ".cff", ".toml", ".yml", ".yaml"}
    found = []
    for folder, inner, files in os.walk(root):
        left_out = {"runs", "build", "tests"} if Path(folder) == root else set()
        inner[:] = [name for name in inner if name not in left_out and (name[0] != "." or name == ".github")]
        found += [Path(folder, name) for name in files if Path(name).suffix in kinds]
    return sorted(found)


def chapters(root: Path = ROOT) -> list[tuple[str, dict]]:
    """Return (notebook, its metadata) of each chapter in reading order; the template is none of them."""
    notebooks = [*root.glob("task*/NOTEBOOK/*.ipynb"), *root.glob("task*/*/NOTEBOOK/*.ipynb")]
    notebooks += root.glob("notebooks/[0-9]*.ipynb")
    found = []
    for path in notebooks:
        metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]["summkit"]
        found.append((path.relative_to(root).as_posix(), metadata))

    def place(chapter: tuple[str, dict]) -> tuple[int, bool, str]:
        notebook, metadata = chapter
        first = FIRST.index(metadata["stage"]) if metadata["stage"] in FIRST else len(FIRST)
        return first, notebook.startswith("notebooks/"), notebook

    return sorted(found, key=place)


def table(slug: str, root: Path = ROOT) -> str:
    """Return the table of chapters as Markdown."""
    lines = ["| chapter | what you do | minutes: `cpu` · `t4` | open |", "|---|---|---|---|"]
    for notebook, metadata in chapters(root):
        stage, minutes = metadata["stage"], metadata["minutes"]
        folder, name = stage.rsplit("/", 1) if stage.startswith("notebooks/") else (stage, "")
        page = f"{folder}/REPORT/{name}/README.md" if name else f"{folder}/README.md"
        links = f"[notebook]({notebook}) · [Colab]({colab(slug, notebook)}) · [Kaggle]({kaggle(slug, notebook)})"
        goal = metadata["goal"].rstrip(".")
        lines.append(f"| [{metadata['title']}]({page}) | {goal} | {minutes['cpu']:,} · {minutes['t4']:,} | {links} |")
    return "\n".join(lines)


def render(path: Path, text: str, slug: str, old: set[str], root: Path = ROOT) -> str:
    """Return `text`, the contents of `path`, with every link pointing to `slug` in place of a name in `old`."""
    if path.suffix == ".ipynb":
        notebook = path.relative_to(root).as_posix()
        extras = json.loads(text)["metadata"].get("summkit", {}).get("extras", [])
        text = COLAB.sub(rf"\g<1>{slug}\g<3>{notebook}", text)
        text = KAGGLE.sub(rf"\g<1>{slug}\g<3>{notebook}", text)
        text = with_install_cell(text, requirement(slug, extras))
    else:
        text = COLAB.sub(rf"\g<1>{slug}\g<3>\g<4>", text)
        text = KAGGLE.sub(rf"\g<1>{slug}\g<3>\g<4>", text)
        text = CODE.sub(f'repository-code: "https://github.com/{slug}"', text)
    if path == root / "README.md" and BEGIN in text:
        before, _, rest = text.partition(BEGIN)
        text = f"{before}{BEGIN}\n{table(slug, root)}\n{END}{rest.partition(END)[2]}"
    for name in old - {slug}:
        text = text.replace(book(name), book(slug))
        text = re.sub(rf"(github\.com/){re.escape(name)}(?![\w-])", rf"\g<1>{slug}", text)
    return text


def names_used(root: Path = ROOT) -> set[str]:
    """Return each owner/name that a badge, an install cell, CITATION.cff or pyproject.toml has now."""
    names = {repository(root / "pyproject.toml")}
    for path in pages(root):
        text = path.read_text(encoding="utf-8")
        names |= {match[2] for match in [*COLAB.finditer(text), *KAGGLE.finditer(text)]}
        if path.suffix in {".ipynb", ".cff"}:
            names |= {match[1] for match in [*INSTALL.finditer(text), *CODE.finditer(text)]}
    return names


def outdated(slug: str, root: Path = ROOT) -> dict[Path, str]:
    """Return {page: its new text} of all pages whose links do not agree with `slug`."""
    old = names_used(root)
    changed = {}
    for path in pages(root):
        text = path.read_text(encoding="utf-8")
        new = render(path, text, slug, old, root)
        if new != text:
            changed[path] = new
    return changed


def main() -> int:
    """Write the links; return 2 where the name that was given is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repo", nargs="?", help="owner/name on GitHub; without it, the name in pyproject.toml")
    slug = parser.parse_args().repo or repository()
    if not re.fullmatch(SLUG, slug):
        print(f"{slug!r} is not owner/name: make links REPO=owner/name", file=sys.stderr)
        return 2
    changed = outdated(slug)
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(path.relative_to(ROOT))
    print(f"{len(changed)} files changed; all links point to https://github.com/{slug}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
