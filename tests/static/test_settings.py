"""Every option of a profile does something: settings that nothing reads are a known mistake of work of this kind."""

import dataclasses
import re
from pathlib import Path

import pytest

from summkit.config import Profile

PACKAGE = Path(__file__).parents[2] / "summkit"
READERS = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py") if path.name != "config.py"]
NOTEBOOK = (PACKAGE.parent / "task3" / "NOTEBOOK" / "task_3.ipynb").read_text(encoding="utf-8")


def options() -> list[str]:
    if dataclasses.is_dataclass(Profile):
        return [field.name for field in dataclasses.fields(Profile)]
    return list(Profile.model_fields)


@pytest.mark.parametrize("name", [name for name in options() if name != "reason"])
def test_an_option_is_read_where_things_are_done(name):
    use = re.compile(rf"\b(profile|chosen|known|dial|settings)\.{name}\b")
    assert any(use.search(text) for text in (*READERS, NOTEBOOK)), f"nothing reads the option {name}"
