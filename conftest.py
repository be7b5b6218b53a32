"""What every test run needs, including notebooks: no network, no GPU, no progress bars, the profile smoke for cells.

What the tests compare is a CPU's arithmetic, so GPUs are hidden from this process and from those that it starts, before
torch is imported. `make test-gpu` sets SUMMKIT_TEST_GPU=1, and tests/gpu sees them.

It is in the top folder because nbval collects the chapters' folders, and because kernels inherit this environment.
"""

import os
import sys

import pytest

if not os.environ.get("SUMMKIT_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["HIP_VISIBLE_DEVICES"] = ""
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")

# Its processes get this environment.
from tests import warm


def pytest_configure(config):
    if config.getoption("nbval_lax", False) or config.getoption("nbval", False):
        os.environ.setdefault("SUMMKIT_PROFILE", "smoke")
        os.environ.setdefault("SUMMKIT_HEADLESS", "1")
        if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
            sys.executable = warm.python()  # of the kernels, and of what they start; not of pytest's workers
    else:
        # Not for kernels: they draw into the notebook.
        os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.hookimpl
def pytest_collectstart(collector):
    """Do not let nbval compare stderr: warnings differ between machines."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
