"""These tests need a GPU that CUDA sees, and `make test-gpu`, which shows it to them."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def reason_skipped() -> str:
    if not os.environ.get("SUMMKIT_TEST_GPU"):
        return "needs a GPU: `make test-gpu`"
    import torch

    return "" if torch.cuda.is_available() else "no GPU that CUDA sees"


def pytest_collection_modifyitems(items):
    here = [item for item in items if HERE in Path(item.fspath).parents]
    reason = reason_skipped() if here else ""
    for item in here:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
