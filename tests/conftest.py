"""Fixtures that several test files use."""

import pytest

from tests.hub import LocalHub


@pytest.fixture
def local_hub(tmp_path):
    """An empty local Hub on 127.0.0.1: see tests/hub.py for what it serves and how a child process is pointed at it."""
    with LocalHub(tmp_path / "hub") as hub:
        yield hub
