"""Every option of a profile does something: settings that nothing reads are a known mistake of work of this kind."""

import dataclasses
import re
from pathlib import Path

import pytest

from summkit.config import Profile

PACKAGE = Path(__file__).parents[2] / "summkit"
READERS = {path.name: path.read_text(encoding="utf-8") for path in PACKAGE.glob("*.py") if path.name != "profiles.py"}
NOTEBOOK = (PACKAGE.parent / "task3" / "NOTEBOOK" / "task_3.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Profile) if field.name != "reason"])
def test_an_option_is_read_where_things_are_done(name):
    use = re.compile(rf"\b(profile|chosen|known|dial)\.{name}\b")
    assert any(use.search(text) for text in (*READERS.values(), NOTEBOOK)), f"nothing reads the option {name}"
