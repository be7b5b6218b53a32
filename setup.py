"""The part of the build that pyproject.toml cannot say: a wheel has the chapters, without their outputs, and jobs/.

They are in `summkit/course`, with the names that they have here. An editable installation reads them from the
repository.
"""

from __future__ import annotations

import json
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
COURSE = (
    "task*/NOTEBOOK/*.ipynb",
    "task*/*/NOTEBOOK/*.ipynb",
    "notebooks/*.ipynb",
    "task3/REPORT/run.json",
    "jobs/**/*",
)


def without_outputs(notebook: str) -> str:
    """Return a notebook's text without outputs and counts: the figures are nine tenths of its size."""
    content = json.loads(notebook)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


class BuildWithCourse(build_py):
    """Copies the library, then the course."""

    def run(self) -> None:
        """Copy both into the folder from which the wheel is made."""
        super().run()
        files = [path for pattern in COURSE for path in ROOT.glob(pattern) if path.is_file() and path.suffix != ".pyc"]
        for path in files if not self.editable_mode else []:
            target = Path(self.build_lib, "summkit", "course", path.relative_to(ROOT))
            target.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8")
            content = without_outputs(text) if path.suffix == ".ipynb" else text
            target.write_text(content, encoding="utf-8", newline="\n")


setup(cmdclass={"build_py": BuildWithCourse})
