"""Make a folder for `kaggle kernels push`: a chapter's notebook and its kernel-metadata.json.

    python jobs/kaggle/make_metadata.py task3 --user NAME

The keys are those of Kaggle's documentation, docs/kernels_metadata.md in github.com/Kaggle/kaggle-cli.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

from summkit.errors import SummkitError, check_known
from summkit.recipes import notebooks


def main(arguments: list[str] | None = None) -> int:
    """Write the folder. Return the exit code: 2, with a message, if the call is wrong."""
    parser = argparse.ArgumentParser(description="make a chapter's notebook and its kernel-metadata.json for Kaggle")
    parser.add_argument("stage", help="as `python -m summkit list` names it")
    parser.add_argument("--user", required=True, help="your name on Kaggle, as in the address of your profile")
    parser.add_argument("--out", metavar="DIR", help="default: runs/kaggle/STAGE")
    parser.add_argument("--data", metavar="OWNER/NAME", help="a data set on Kaggle with train.jsonl and so on")
    parser.add_argument("--cpu", action="store_true", help="without a GPU")
    options = parser.parse_args(arguments)
    try:
        folder = write(**vars(options))
    except (SummkitError, OSError) as error:
        print(f"make_metadata: {error}", file=sys.stderr)
        return 2
    print(f"{folder}: kaggle kernels push -p {folder}")
    return 0


def write(stage: str, user: str, out: str | None = None, data: str | None = None, cpu: bool = False) -> Path:
    """Write the folder for `stage`, and return it. Its notebook reads `data`, an OWNER/NAME, if that is given.

    Raises SummkitError for an unknown stage, a name that Kaggle would refuse, and a notebook that reads no data.
    """
    known = notebooks.stages()
    check_known("stage", stage, known)
    for what, name in (("user", user), *([("data", data)] if data else [])):
        if not re.fullmatch(r"[\w-]+/[\w-]+" if what == "data" else r"[\w-]+", name):
            example = "owner/name" if what == "data" else "name"
            raise SummkitError(f"{what} {name!r}: write it as in its address on Kaggle, such as {example}")
    notebook = known[stage].notebook
    folder = Path(out or Path("runs") / "kaggle" / stage)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / notebook.name, _with_data(notebook, data))
    text = json.dumps(metadata(stage, notebook.name, user, data, cpu), indent=2)
    _replace(folder / "kernel-metadata.json", text + "\n")
    return folder


def metadata(stage: str, file: str, user: str, data: str | None = None, cpu: bool = False) -> dict:
    """Return the contents of kernel-metadata.json. Kaggle makes the slug from the title, so the two must agree."""
    title = " ".join(["summkit", *re.split(r"[^a-z0-9]+", stage.lower())])
    return {
        "id": f"{user}/{title.replace(' ', '-')}",
        "title": title,
        "code_file": file,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": not cpu,
        "machine_shape": "" if cpu else "NvidiaTeslaT4",
        "enable_internet": True,  # the first cell installs, and the profile t4 asks the Hub
        "dataset_sources": [data] if data else [],
        "competition_sources": [],
        "kernel_sources": [],
        "model_sources": [],
    }


def _with_data(notebook: Path, data: str | None) -> str:
    text = notebook.read_text(encoding="utf-8")
    if not data:
        return text
    found = json.loads(text)
    for cell in found["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            source = "".join(cell["source"])
            place = f'DATA = "/kaggle/input/{data.partition("/")[2]}"'  # where Kaggle shows it
            cell["source"], count = re.subn(r"^DATA = None\b", place, source, flags=re.MULTILINE)
            if count == 1:
                return json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    raise SummkitError(f"{notebook.name} has no parameter DATA = None: leave --data out")


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    sys.exit(main())
