"""Experiment trackers: trackio, Weights & Biases, MLflow. A tracker is imported only if a profile names it.

The Trainer's own integrations write to them (`report_to`). They never prompt on the terminal.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from summkit import progress
from summkit.config import TRACKERS
from summkit.errors import SummkitError, check_known

PROJECT = "summkit"


def check_tracker(name: str) -> None:
    """Check that the tracker `name` is known and installed; "" means no tracker.

    Raises:
        SummkitError: It is unknown or not installed.
    """
    if not name:
        return
    check_known("tracker", name, TRACKERS)
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # without an origin, it is only a folder of that name, from earlier runs
        raise SummkitError(f"track={name!r}: {name} is not installed; pip install {name}")


@contextmanager
def tracked(name: str, folder: str | Path) -> Iterator[None]:
    """Keep a run of the tracker open while the block runs; the Trainer's integration writes to it.

    trackio writes its database on this machine (TRACKIO_DIR, or else the Hugging Face cache) and opens its run itself.
    wandb writes its files to `folder`; without WANDB_API_KEY it runs offline, and `wandb sync` uploads them later.
    mlflow uses its own variables (MLFLOW_TRACKING_URI, MLFLOW_RUN_ID; Azure ML sets them).

    Args:
        name: "trackio", "wandb", "mlflow", or "" for none.
        folder: The folder for files of the tracker.

    Raises:
        SummkitError: WANDB_API_KEY is set, and wandb's server does not answer or rejects it.
    """
    run = _wandb_run(Path(folder)) if name == "wandb" and progress.first_process() else None
    try:
        yield
    finally:
        if run is not None:
            run.finish()


def _wandb_run(folder: Path) -> Any:
    """Open a new run, or return None if the caller already has an open run, which is used and left open."""
    import wandb

    if wandb.run is not None:
        return None
    wanted = os.environ.get("WANDB_MODE")
    # Without a mode, wandb would prompt for a key.
    mode = wanted if os.environ.get("WANDB_API_KEY") or wanted == "disabled" else "offline"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), dir=str(folder), mode=mode)
    except wandb.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise SummkitError(f"wandb: {reason}; without WANDB_API_KEY it runs offline") from None
