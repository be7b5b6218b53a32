"""Measure a few optimizer steps, and predict from them what a training will take in time and memory.

The measured steps are plain ones: no scheduler, no clipping, nothing is saved. Two ways to train differ in what their
profiles say and in nothing else. The steps do not show which way learns better. A prediction does not count loading
the model and writing checkpoints.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from summkit.config import Profile
from summkit.data import templates, tokenisation
from summkit.errors import SummkitError
from summkit.models import loading, methods
from summkit.resources import memory, metering
from summkit.resources.shapes import on_meta
from summkit.training import losses

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STEPS = 3  # optimizer steps that are measured, after one that is not
FORWARD = 1 / 3  # of a training step's work is the forward pass alone, which evaluating takes


@dataclass(frozen=True)
class Trial:
    """What a few measured steps took.

    Attributes:
        seconds: Of the steps that count.
        added_bytes: Memory above the loaded model (gradients, the optimizer's state, what backward needs); on the GPU
            where there is one. None where it cannot be read.
        trained: How many numbers train.
        loss: Mean loss of the held-out rows after the steps, in nats.
    """

    seconds: float
    added_bytes: int | None
    trained: int
    loss: float


@dataclass(frozen=True)
class Forecast:
    """What a training will take.

    Attributes:
        seconds: Of the training with its evaluations.
        peak_bytes: The planned memory of the process, or of the GPU where there is one.
        tokens: What it reads and writes in all epochs.
        trial: The steps that were measured for it.
    """

    seconds: float
    peak_bytes: int
    tokens: int
    trial: Trial


def measure_steps(
    model_name: str,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict],
    held: list[dict],
    profile: Profile,
    seed: int = 0,
    warm_up: int = 0,
) -> Trial:
    """Train a fresh model once over some rows, as the profile says, and measure it.

    A step takes profile.batch_size × profile.gradient_accumulation rows in their order, with profile.optimizer at
    profile.learning_rate; half precision is bf16 autocast.

    Args:
        model_name: What `models.load_model` loads.
        tokenizer: The model's.
        rows: Rows of `data.encode`.
        held: Rows whose loss is computed after the steps.
        profile: How to train.
        seed: Decides adapters and dropout.
        warm_up: How many steps come first and are not counted. The very first step makes the optimizer's state, and
            takes as long as several.

    Returns:
        What the steps took.

    Raises:
        SummkitError: No step is left to count; or as `models.load_model` and `models.apply_method` do.
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
    collate = tokenisation.Collator(tokenizer, **loading.padding(model))
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
    return Trial(seconds, used.added_bytes, sum(p.numel() for p in trained), loss)


def accumulate_gradients(model: PreTrainedModel, collate: tokenisation.Collator, batches: list[list[dict]]) -> None:
    """Add up the gradients of one step's batches: the gradient of all rows in one batch.

    Each batch's loss is divided by the answer tokens of all batches.
    """
    tokens = sum(label != tokenisation.IGNORE for batch in batches for row in batch for label in row["labels"])
    for batch in batches:
        inputs = {name: tensor.to(model.device) for name, tensor in collate(batch).items()}
        losses.summary_loss(model, inputs, num_items_in_batch=tokens).backward()


def forecast_training(profile: Profile, train: Dataset, validation: Dataset, seed: int = 0) -> Forecast:
    """Predict what `training.fit` will take.

    A fresh model is trained for STEPS of the training's own steps, rows of like length together, spread over all
    lengths: short rows alone take longer by the token, and rows of unlike length are padded. The first call in a
    process pays for what a process needs once: call it twice, and use the second answer.

    Args:
        profile: How to train.
        train: Rows with id, document and summary.
        validation: Rows that are evaluated on.
        seed: As in `measure_steps`.

    Returns:
        The forecast.

    Raises:
        SummkitError: As `models.load_model`, `models.apply_method` and `plan_training` do.
    """
    tokenizer = loading.load_tokenizer(profile.model)
    template = templates.build_template(profile.template, tokenizer, templates.get_wording(profile.wording))
    meta = on_meta(profile.model)
    limits = (profile.max_length, profile.max_new_tokens, loading.is_encoder_decoder(meta))
    rows, held = (list(tokenisation.encode_rows(part, template, tokenizer, *limits)) for part in (train, validation))
    size = profile.batch_size * profile.gradient_accumulation
    steps = _of_all_lengths(rows, size)
    warm_up = (steps[0] * size)[:size]  # a whole step, even of fewer rows
    tried = [row for step in [warm_up, *steps] for row in step]
    trial = measure_steps(profile.model, tokenizer, tried, held[:2], profile, seed, warm_up=1)
    tokens = _tokens(rows) * profile.epochs
    evaluating = _tokens(held) * max(1, profile.epochs * profile.evaluations_per_epoch) * FORWARD
    seconds = trial.seconds / sum(map(_tokens, steps)) * (tokens + evaluating)
    return Forecast(seconds, _memory(meta, profile, rows), round(tokens), trial)


def _now(model: PreTrainedModel) -> float:
    """Seconds, when all that was asked of the model's device is done."""
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
    """STEPS steps of `size` rows each: in order of length, the middle one of each equal part of all of them."""
    steps = tokenisation.length_sorted_batches([row["length"] for row in rows], size)
    part = max(1, len(steps) / STEPS)
    middle = [steps[int((place + 0.5) * part)] for place in range(min(STEPS, len(steps)))]
    return [[rows[number] for number in step] for step in middle]


def _memory(meta: PreTrainedModel, profile: Profile, rows: list[dict]) -> int:
    """Bytes of a step on rows as long as the longest."""
    import torch

    answer = max(sum(label != tokenisation.IGNORE for label in row["labels"]) for row in rows)
    longest: dict[str, Any] = {"sequence_length": max(len(row["input_ids"]) for row in rows), "logits_tokens": answer}
    longest["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    return memory.plan_training(meta, **memory.plan_settings(profile, **longest)).total


def _tokens(rows: list[dict]) -> int:
    return sum(row["length"] for row in rows)
