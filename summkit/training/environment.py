"""The programs around a training: DeepSpeed and FSDP, which spread it over processes, and experiment trackers.

Settings that do not fit together, and packages that are not installed, are errors before a training starts. A tracker
is imported only if a profile names it. The Trainer's own integrations write to it (`report_to`) and never prompt.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from summkit import files, progress
from summkit.config import Profile
from summkit.errors import SummkitError
from summkit.models.methods import METHODS

if TYPE_CHECKING:
    import torch

PROJECT = "summkit"


def check_environment(profile: Profile) -> None:
    """Check that the profile's tracker is installed, and that it fits DeepSpeed or FSDP if one of them is used.

    Raises:
        SummkitError: It does not, or a package is missing; the message says what to do.
    """
    if profile.track and not _is_installed(profile.track):
        raise SummkitError(f"track={profile.track!r}: {profile.track} is not installed; pip install {profile.track}")
    if profile.deepspeed:
        zero_stage(profile)
        if not _is_installed("deepspeed"):
            raise SummkitError("DeepSpeed is not installed: pip install 'summkit[deepspeed]', or leave deepspeed out")
        if "LOCAL_RANK" not in os.environ:
            raise SummkitError("DeepSpeed needs torchrun, even for one GPU: torchrun … -m summkit train CONFIG")
        if under_fsdp():
            raise SummkitError("accelerate launches FSDP, and the configuration names DeepSpeed: use one of them")
    if (profile.deepspeed or under_fsdp()) and profile.optimizer != "adamw_torch":
        raise SummkitError(f"optimizer {profile.optimizer!r} has a state that cannot be spread: use 'adamw_torch'")
    if not is_spread(profile):
        return
    if profile.precision not in ("fp32", "fp16", "bf16"):
        raise SummkitError(
            f"precision {profile.precision!r}: quantised weights cannot be spread over processes; use 'fp32' or "
            "'bf16', or ZeRO-2, which spreads the optimizer alone"
        )
    if METHODS.find(profile.method).prompt_tuning:
        raise SummkitError(f"method {profile.method!r} trains few numbers beside whole weights: use torchrun alone")


def zero_stage(profile: Profile) -> int:
    """Return the ZeRO stage of the profile's DeepSpeed file; 0 without such a file.

    Raises:
        SummkitError: The file is missing or broken.
    """
    if not profile.deepspeed:
        return 0
    zero = files.read_mapping(profile.deepspeed, "deepspeed").get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, dict) else None
    if stage not in (0, 1, 2, 3):
        raise SummkitError(
            f"deepspeed {profile.deepspeed}: zero_optimization.stage={stage!r}; it must be 0, 1, 2 or 3, as in "
            "jobs/deepspeed/zero2.json"
        )
    return stage


def is_spread(profile: Profile) -> bool:
    """Whether the weights are spread over processes, so that all processes must take part in each use of the model."""
    return zero_stage(profile) == 3 or under_fsdp()


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gather all trained weights on the CPU, {name: tensor}. If weights are spread, every process must call this."""
    return {name: _whole(weight) for name, weight in model.named_parameters() if weight.requires_grad}


def under_fsdp() -> bool:
    """Whether `accelerate launch` started this process with a configuration for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def _whole(weight: torch.Tensor) -> torch.Tensor:
    if hasattr(weight, "full_tensor"):  # FSDP2
        return weight.detach().full_tensor().cpu()
    if hasattr(weight, "ds_id"):  # ZeRO-3
        import deepspeed

        with deepspeed.zero.GatheredParameters([weight]):
            return weight.detach().cpu().clone()
    return weight.detach().cpu().contiguous()


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None  # without an origin, it is only a folder of that name


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
