"""Every option of a profile does something: settings that nothing reads are a known mistake of work of this kind."""

import re
from pathlib import Path

import pytest

from summkit.config import options

PACKAGE = Path(__file__).parents[2] / "summkit"
READERS = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py") if path.name != "config.py"}
ARGUMENTS = (PACKAGE / "training" / "arguments.yaml").read_text(encoding="utf-8")
SPEED = (PACKAGE / "training" / "speed.py").read_text(encoding="utf-8").split("\n_OPTIONS")[1]  # option: its function
NOTEBOOK = (PACKAGE.parent / "task3" / "NOTEBOOK" / "task_3.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", options())
def test_an_option_is_read_where_things_are_done(name):
    use = re.compile(rf"\b(profile|chosen|settings)\.({name}|limits)\b" if "max_" in name else rf"\.{name}\b")
    listed = f": {name}\n" in ARGUMENTS or f'"{name}": _' in SPEED
    if name.endswith("_column"):  # the columns of a task are read in one place, by their kind
        listed = 'getattr(profile, f"{column}_column")' in READERS[PACKAGE / "data" / "checks.py"]
    assert listed or any(use.search(text) for text in (*READERS.values(), NOTEBOOK)), f"nothing reads the option {name}"
