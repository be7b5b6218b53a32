"""Floor 0. Experiment trackers, trackio, Weights & Biases, MLflow: only where a profile names one, and no questions.

The Trainer's own integrations write to them (`report_to`). Nothing here is imported unless it is asked for.
"""

import importlib.util
import os
from contextlib import contextmanager
from pathlib import Path

from summkit import progress
from summkit.config import TRACKERS
from summkit.errors import SummkitError, check_known

PROJECT = "summkit"


def check_tracker(name: str) -> None:
    """Raise SummkitError where the tracker `name` is unknown or not installed; "" is none and always fine."""
    if not name:
        return
    check_known("tracker", name, TRACKERS)
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # without an origin it is a mere folder of that name, of earlier runs
        raise SummkitError(f"track={name!r}: {name} is not installed; pip install {name}")


@contextmanager
def tracked(name: str, folder):
    """For as long as it lasts, the tracker `name` has a run that the Trainer's integration can write to.

    trackio keeps its database on this machine (TRACKIO_DIR, else the Hugging Face cache) and opens its run itself.
    wandb keeps its files in `folder`. Without WANDB_API_KEY it runs offline, and `wandb sync` sends them later; with
    one, it raises SummkitError where wandb's server is not there or refuses. mlflow goes where its own variables say
    (MLFLOW_TRACKING_URI, MLFLOW_RUN_ID; Azure ML sets them).
    """
    run = _wandb_run(Path(folder)) if name == "wandb" and progress.first_process() else None
    try:
        yield
    finally:
        if run is not None:
            run.finish()


def _wandb_run(folder: Path):
    """A new run, or None where the caller has one open already: that is written to, and left open."""
    import wandb

    if wandb.run is not None:
        return None
    wanted = os.environ.get("WANDB_MODE")
    # Left to itself, it would ask for a key.
    mode = wanted if os.environ.get("WANDB_API_KEY") or wanted == "disabled" else "offline"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), dir=str(folder), mode=mode)
    except wandb.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise SummkitError(f"wandb: {reason}; without WANDB_API_KEY it runs offline") from None
