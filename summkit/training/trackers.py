"""Experiment trackers: trackio, Weights & Biases, MLflow. A tracker is imported only where a profile names it.

The Trainer's own integrations write to them (`report_to`). None of them may ask a question on the terminal.
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
    """Check that the tracker `name` is known and installed; "" is none and always fine.

    Raises:
        SummkitError: It is not.
    """
    if not name:
        return
    check_known("tracker", name, TRACKERS)
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # without an origin it is a mere folder of that name, of earlier runs
        raise SummkitError(f"track={name!r}: {name} is not installed; pip install {name}")


@contextmanager
def tracked(name: str, folder: str | Path) -> Iterator[None]:
    """Keep a run of the tracker open while the block runs, for the Trainer's integration to write to.

    trackio keeps its database on this machine (TRACKIO_DIR, else the Hugging Face cache) and opens its run itself.
    wandb keeps its files in `folder`; without WANDB_API_KEY it runs offline, and `wandb sync` sends them later. mlflow
    goes where its own variables say (MLFLOW_TRACKING_URI, MLFLOW_RUN_ID; Azure ML sets them).

    Args:
        name: "trackio", "wandb", "mlflow", or "" for none.
        folder: Where files of the run may go.

    Raises:
        SummkitError: There is a WANDB_API_KEY, and wandb's server does not answer or refuses it.
    """
    run = _wandb_run(Path(folder)) if name == "wandb" and progress.first_process() else None
    try:
        yield
    finally:
        if run is not None:
            run.finish()


def _wandb_run(folder: Path) -> Any:
    """Open a new run, or return None where the caller has one open already: that is written to, and left open."""
    import wandb

    if wandb.run is not None:
        return None
    wanted = os.environ.get("WANDB_MODE")
    # Without a mode, it would ask for a key.
    mode = wanted if os.environ.get("WANDB_API_KEY") or wanted == "disabled" else "offline"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), dir=str(folder), mode=mode)
    except wandb.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise SummkitError(f"wandb: {reason}; without WANDB_API_KEY it runs offline") from None
