"""Measure a few optimizer steps, predict the time of a training from them, and say what would fit.

The measured steps are plain: no scheduler, no clipping, and nothing is saved. Two measurements differ only in their
profiles. They do not show which profile learns better. A prediction does not include loading the model and writing
checkpoints.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from summkit import data
from summkit.config import Profile, detect_hardware
from summkit.data import batching, tokenisation
from summkit.data.classification import LabelledSplits
from summkit.errors import SummkitError
from summkit.models import loading, methods
from summkit.resources import memory, metering
from summkit.training import losses

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from summkit.data import Splits, Template

STEPS = 3  # measured optimizer steps, after one warm-up step
SAMPLE = 256  # training rows that `plan_lines` looks at
FORWARD = 1 / 3  # share of the forward pass in a training step; evaluation needs only this


@dataclass(frozen=True)
class Trial:
    """The time and memory of a few measured steps.

    Attributes:
        seconds: Time of the measured steps.
        added_bytes: Memory in addition to the loaded model (gradients, the optimizer's state, activations), on the GPU
            if there is one. None if it cannot be measured.
        trained: The number of trained weights.
        loss: Mean loss of the held-out rows after the steps, in nats.
        peak_bytes: Peak memory of the whole process during the steps, or of the GPU if there is one.
    """

    seconds: float
    added_bytes: int | None
    trained: int
    loss: float
    peak_bytes: int | None = None


def measure_steps(
    model_name: str,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict],
    held: list[dict],
    profile: Profile,
    seed: int = 0,
    warm_up: int = 0,
) -> Trial:
    """Train a fresh model on some rows with a profile's settings, and measure it.

    A step takes profile.batch_size × profile.gradient_accumulation rows in order, with profile.optimizer at
    profile.learning_rate; half precision is bf16 autocast.

    Args:
        model_name: The model, a name for `models.load_model`.
        tokenizer: The model's tokenizer.
        rows: Rows of `data.encode`.
        held: Rows whose loss is computed after the steps.
        profile: The settings.
        seed: Seed of adapters and dropout.
        warm_up: Number of first steps that are not counted. The very first step creates the optimizer's state, and
            takes as long as several steps.

    Returns:
        The time and memory of the steps.

    Raises:
        SummkitError: There is no step to count; or as for `models.load_model` and `models.apply_method`.
    """
    import torch
    from transformers import set_seed

    size = profile.batch_size
    together = size * profile.gradient_accumulation
    if len(rows) <= warm_up * together:
        raise SummkitError(
            f"{len(rows)} rows are too few to measure: steps take {together} rows, and the first {warm_up} of them "
            f"are not counted; give at least {warm_up * together + 1} rows"
        )
    set_seed(seed)
    model = loading.load_model(model_name, profile.precision, profile.compute_dtype)
    model = methods.apply_method(model, profile).train()
    if profile.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.config.use_cache = False
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(trained, profile)
    collate = batching.Collator(tokenizer, **loading.padding(model))
    half = profile.compute_dtype == "bfloat16"
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
    peak = used.peak_device_bytes or used.peak_rss_bytes
    return Trial(seconds, used.added_bytes, sum(p.numel() for p in trained), loss, peak)


def accumulate_gradients(model: PreTrainedModel, collate: batching.Collator, batches: list[list[dict]]) -> None:
    """Add up the gradients of one step's batches, which gives the gradient of all rows in one batch.

    Each batch's loss is divided by the answer tokens of all batches.
    """
    tokens = sum(label != tokenisation.IGNORE for batch in batches for row in batch for label in row["labels"])
    for batch in batches:
        inputs = {name: tensor.to(model.device) for name, tensor in collate(batch).items()}
        losses.summary_loss(model, inputs, num_items_in_batch=tokens).backward()


def forecast_training(
    profile: Profile, train: Dataset, validation: Dataset, seed: int = 0, template: Template | None = None
) -> float:
    """Predict the seconds of `training.fit` with its evaluations.

    A fresh model is trained for STEPS steps of rows of similar length, spread over all lengths: short rows alone take
    longer per token, and rows of different lengths are padded. The first call in a process includes its start-up
    costs: call it twice, and use the second result.

    Args:
        profile: The settings.
        train: Rows with id, document and summary.
        validation: Rows for evaluation.
        seed: As in `measure_steps`.
        template: The prompt template; None: the profile's template of summaries.

    Raises:
        SummkitError: As for `measure_steps`.
    """
    tokenizer = loading.load_tokenizer(profile.model)
    template = template or data.summary_template(profile, tokenizer)
    encoder_decoder = loading.is_encoder_decoder(memory.on_meta(profile.model))
    limits = (profile.max_length, profile.max_new_tokens, encoder_decoder)
    rows, held = (list(tokenisation.encode_rows(part, template, tokenizer, *limits)) for part in (train, validation))
    size = profile.batch_size * profile.gradient_accumulation
    steps = _of_all_lengths(rows, size)
    warm_up = (steps[0] * size)[:size]  # a full step, even if there are fewer rows
    tried = [row for step in [warm_up, *steps] for row in step]
    trial = measure_steps(profile.model, tokenizer, tried, held[:2], profile, seed, warm_up=1)
    tokens = _tokens(rows) * profile.epochs
    evaluating = _tokens(held) * max(1, profile.epochs * profile.evaluations_per_epoch) * FORWARD
    return trial.seconds / sum(map(_tokens, steps)) * (tokens + evaluating)


def plan_lines(profile: Profile, splits: Splits | LabelledSplits, seed: int = 0) -> str:
    """Return what a training will take, as text for a terminal: memory with its parts, time, and disk.

    The memory is planned without weights, for rows of the profile's full length. Time is predicted from a few steps,
    which are measured on this machine. If the plan does not fit, nothing is loaded or measured, and the text says which
    settings would fit.

    Args:
        profile: The settings.
        splits: The rows; of many, a sample is looked at.
        seed: As in `measure_steps`.

    Raises:
        SummkitError: As for `forecast_training`.
    """
    machine = detect_hardware()
    device = "cpu" if machine.device == "cpu" else "cuda"
    room = machine.memory_bytes or 0
    model = memory.on_meta(profile.model)
    plan = memory.plan_training(model, **memory.plan_settings(profile, device=device))
    steps = math.ceil(profile.epochs * len(splits.train) / (profile.batch_size * profile.gradient_accumulation))
    lines = [
        f"rows: {', '.join(f'{len(getattr(splits, name)):,} {name}' for name in ('train', 'validation', 'test'))}",
        f"memory, planned for batches of {profile.batch_size} × {profile.max_length} tokens:",
        *(f"  {memory.size_text(size):>8}  {part}: {how}" for part, size, how in plan.rows() if size),
    ]
    if not plan.fits(room):
        changes = _fitting(model, profile, room, device)
        options = " ".join(f"-p {name}={str(value).lower()}" for name, value in changes.items())
        way_out = f"these settings would fit: {options}" if changes else "choose a smaller model"
        return "\n".join([*lines, f"this machine ({machine.name}) has {memory.size_text(room)}: too little; {way_out}"])
    share = min(1.0, SAMPLE / len(splits.train))
    parts = [splits.train.select(range(min(SAMPLE, len(splits.train))))]
    parts.append(splits.validation.select(range(math.ceil(share * len(splits.validation)))))
    template = None
    if isinstance(splits, LabelledSplits):
        template = data.label_template(profile, loading.load_tokenizer(profile.model), splits.schema)
        parts = [data.labels_as_text(part, splits.schema) for part in parts]
    seconds = forecast_training(profile, parts[0], parts[1], seed, template) / share
    saved = plan["gradients"]
    checkpoints = 2 * (saved + plan["optimizer state"])  # the best and the newest
    duration = f"{seconds / 60:,.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    lines += [
        f"this machine ({machine.name}) has {memory.size_text(room)}: it fits",
        f"time, from {STEPS} steps measured here: about {seconds / steps:.2g} s a step with its share of the "
        f"evaluations; {steps:,} steps take about {duration}",
        f"disk: about {memory.size_text(saved + checkpoints)}, for the adapter and two checkpoints",
    ]
    return "\n".join(lines)


def _fitting(model: PreTrainedModel, profile: Profile, room: int, device: str) -> dict[str, Any]:
    """Return changes of settings with which a training would fit, those that change the result least first."""
    rows = profile.batch_size * profile.gradient_accumulation
    ways: list[dict[str, Any]] = [
        {"gradient_checkpointing": True},
        {"batch_size": 1, "gradient_accumulation": rows},
        {"precision": "nf4", "method": "lora"},
        {"max_length": max(profile.max_length // 2, 2 * profile.max_new_tokens)},
    ]
    changes: dict[str, Any] = {}
    for way in ways:
        changes |= {name: value for name, value in way.items() if getattr(profile, name) != value}
        settings = memory.plan_settings(profile.replace(**changes), device=device)
        if memory.plan_training(model, **settings).fits(room):
            if "batch_size" in changes:
                size = min(memory.largest_batch(model, room, **settings), profile.batch_size)
                changes |= {"batch_size": size, "gradient_accumulation": math.ceil(rows / size)}
            return changes
    return {}


def _now(model: PreTrainedModel) -> float:
    """Return the time in seconds, after all work on the model's device is finished."""
    import torch

    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _optimizer(trained: list[torch.nn.Parameter], profile: Profile) -> Any:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=".",
        optim=profile.optimizer,
        learning_rate=profile.learning_rate,
        report_to="none",
        use_cpu=trained[0].device.type == "cpu",
    )
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    return kind(trained, **settings)


def _of_all_lengths(rows: list[dict], size: int) -> list[list[dict]]:
    """Return STEPS steps of `size` rows: the middle one of each equal part of all steps, sorted by length."""
    steps = batching.length_sorted_batches([row["length"] for row in rows], size)
    part = max(1, len(steps) / STEPS)
    middle = [steps[int((place + 0.5) * part)] for place in range(min(STEPS, len(steps)))]
    return [[rows[number] for number in step] for step in middle]


def _tokens(rows: list[dict]) -> int:
    return sum(row["length"] for row in rows)
