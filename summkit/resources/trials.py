"""Floor 5. A few optimizer steps, measured: what a way to train takes in time and memory, before hours are spent on it.

The steps are plain ones (no scheduler, no clipping, nothing saved), so that two ways differ in what the profile says
and in nothing else. They do not say which way learns better.
"""

import time
from dataclasses import dataclass, replace

from summkit.data import tokenisation
from summkit.models import loading, methods
from summkit.resources import metering
from summkit.training import losses


@dataclass(frozen=True)
class Trial:
    """`seconds` and `added_bytes` of the steps: memory above the loaded model (gradients, the optimizer's state, what
    backward needs; on the GPU where there is one). `trained` numbers train; `loss` is that of `held` rows after it.
    """

    seconds: float
    added_bytes: int
    trained: int
    loss: float


def measure_steps(
    model_name: str, tokenizer, rows: list[dict], held: list[dict], profile, seed: int = 0, warm_up: int = 0
) -> Trial:  # fmt: skip
    """Train a fresh `model_name` once over `rows` (of `features.encode`), as the profile says, and measure it.

    A step takes profile.batch_size × profile.gradient_accumulation rows in their order, with profile.optimizer at
    profile.learning_rate; half precision is bf16 autocast. The seconds of the first `warm_up` steps are not counted:
    the very first one makes the optimizer's state, and takes as long as several. Raises SummkitError as
    `models.load_model` and `methods.apply` do.
    """
    import torch
    from transformers import set_seed

    set_seed(seed)
    model = methods.apply_method(
        loading.load_model(model_name, profile.precision, profile.compute_dtype), profile
    ).train()
    if profile.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.config.use_cache = False
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(trained, profile)
    collate = tokenisation.Collator(tokenizer, **loading.padding(model))
    size, half = profile.batch_size, profile.compute_dtype == "bfloat16"
    together = size * profile.gradient_accumulation
    metering.release_memory()
    with metering.Meter(energy=False) as used, torch.autocast(model.device.type, torch.bfloat16, enabled=half):
        for start in range(0, len(rows), together):
            if start == warm_up * together:
                began = _now(model)
            step = rows[start : start + together]
            accumulate_gradients(model, collate, [step[at : at + size] for at in range(0, len(step), size)])
            optimizer.step()
            optimizer.zero_grad()
        seconds = _now(model) - began
    loss = losses.mean_loss(model, held, tokenizer, size)
    return Trial(seconds, used.added_bytes, sum(p.numel() for p in trained), loss)


def accumulate_gradients(model, collate, batches: list[list[dict]]) -> None:
    """Add up the gradients of one step's batches, each divided by the answer tokens of all of them: the gradient of the
    one large batch.
    """
    tokens = sum(label != tokenisation.IGNORE for batch in batches for row in batch for label in row["labels"])
    for batch in batches:
        inputs = {name: tensor.to(model.device) for name, tensor in collate(batch).items()}
        losses.summary_loss(model, inputs, num_items_in_batch=tokens).backward()


def _now(model) -> float:
    """Seconds, when all that was asked of the model's device is done."""
    import torch

    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _optimizer(trained: list, profile):
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(output_dir=".", optim=profile.optimizer, learning_rate=profile.learning_rate,
                                  report_to="none", use_cpu=trained[0].device.type == "cpu")  # fmt: skip
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    return kind(trained, **settings)


def profile_variant(profile, **changes):
    """The profile with one technique changed; a batch cut into pieces keeps the rows of its step.

    `pieces`: into how many batches the profile's batch is cut (gradient accumulation).
    """
    pieces = changes.pop("pieces", 1)
    return replace(profile, batch_size=max(1, profile.batch_size // pieces), gradient_accumulation=pieces, **changes)
