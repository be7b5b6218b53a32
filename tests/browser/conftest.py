"""These tests need playwright and Chromium, and `make test-browser`, which installs the first."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    if os.environ.get("SUMMKIT_TEST_BROWSER"):
        return
    for item in items:
        if HERE in Path(item.fspath).parents:
            item.add_marker(pytest.mark.skip(reason="needs a browser: `make test-browser`"))
