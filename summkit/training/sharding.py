"""Training with weights or optimizer spread over processes: DeepSpeed's ZeRO, and FSDP by accelerate.

Incompatible settings raise an error before the training starts. At its end the trained weights are gathered.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

from summkit import files
from summkit.config import Profile
from summkit.errors import SummkitError
from summkit.models.methods import METHODS

if TYPE_CHECKING:
    import torch


def check_sharding(profile: Profile) -> None:
    """Check that the profile is compatible with DeepSpeed or FSDP, if one of them is used.

    Raises:
        SummkitError: It is incompatible, or DeepSpeed is not installed; the message says what to do.
    """
    if profile.deepspeed:
        zero_stage(profile)
        spec = importlib.util.find_spec("deepspeed")
        if spec is None or spec.origin is None:  # without an origin, it is only a folder of that name, as in jobs/
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
