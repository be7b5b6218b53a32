"""Fixtures that several test files use, and which test files are slow."""

import signal
from pathlib import Path

import pytest

from tests.hub import LocalHub

# Files whose tests start processes, train, or wait. `make quick` leaves them out: python -m pytest -m "not slow".
SLOW = {
    "test_hub_stages.py",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(item.fspath).name in SLOW:
            item.add_marker(pytest.mark.slow)


def hear_ctrl_c() -> None:
    """For `preexec_fn` of a child that will be interrupted: what a shell starts in the background ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def local_hub(tmp_path):
    """An empty local Hub on 127.0.0.1: see tests/hub.py for what it serves and how a child process is pointed at it."""
    with LocalHub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture(scope="module")
def one_thread():
    """A tiny model is faster on one thread, and bits depend on how many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
