"""Train with `fit`: transformers' Trainer, with the loss and the output head on the summary's positions only.

It resumes from the last complete checkpoint, keeps the best one, stops early, and saves the current adapter on Ctrl-C.
Under torchrun every process trains on its share of each batch; only the first one writes.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from summkit import files, progress
from summkit.config import Profile
from summkit.data.tokenisation import Collator
from summkit.models import loading
from summkit.training import checkpoints, loop, sharding, trackers

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

_log = logging.getLogger(__name__)


@dataclass
class FitResult:
    """The result of a training.

    Losses are means over summary tokens, in nats. Seconds are wall time, in total over all parts of a resumed run.
    `padding_fraction` is the share of computed positions that were padding.
    """

    method: str
    steps: int
    epochs: float
    seconds: float
    tokens: int
    padding_fraction: float
    train_loss: float | None
    eval_loss: float | None
    resumed_from: str | None
    best_step: int | None
    stopped_early: bool
    interrupted: bool
    adapter: str
    history: list[dict] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return the record's `training` section: all fields except the history and the adapter's folder."""
        return {key: value for key, value in asdict(self).items() if key not in ("history", "adapter")}


@dataclass
class Job:
    """One training: the arguments of `fit`, values computed before the first step, and counts during training."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    train: Dataset
    validation: Dataset
    profile: Profile
    seed: int
    out_dir: Path
    checkpoint: Path | None = None  # the checkpoint to resume from
    made_with: dict[str, Any] = field(default_factory=dict)  # its fingerprint
    counts: dict[str, Any] = field(default_factory=lambda: {"tokens": 0, "positions": 0, "seconds": 0.0})
    order: Any = None  # the sampler of the rows


def fit(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    validation: Dataset,
    profile: Profile,
    *,
    seed: int,
    out_dir: str | Path,
    resume: bool = False,
    on_log: Callable[[list[dict]], None] | None = None,
    callbacks: Iterable[TrainerCallback] = (),
) -> FitResult:
    """Train a model on encoded rows, and save the best adapter in out_dir/adapter.

    Rows whose summary is longer than an encoder-decoder's decoder can write are dropped, with a warning. If the profile
    names a tracker, the history is also logged there. If it names a DeepSpeed file, or accelerate launches FSDP, the
    training uses that.

    Args:
        model: The model that `apply_method` has prepared.
        tokenizer: The model's tokenizer.
        train: Rows to train on, from `data.encode_rows`.
        validation: Rows for evaluation and for choosing the best checkpoint.
        profile: The settings.
        seed: Seed of the rows' order and of dropout.
        out_dir: The folder for checkpoints and the adapter.
        resume: Resume from the newest complete checkpoint in `out_dir`; on a CPU the result is bit for bit the same as
            without the interruption. If False, checkpoints of an earlier run there are removed.
        on_log: Called with the history, a list of {"step", "loss" | "eval_loss", …}, after each new entry.
        callbacks: Further TrainerCallbacks, such as `evaluation.generation_scores`. The history includes the metrics
            that their on_evaluate adds.

    Returns:
        Steps, losses, times and counts, and the adapter's folder.

    Raises:
        SummkitError: The checkpoints were made with other settings, the settings are incompatible with each other or
            with the model, or the disk has no room for the checkpoints.
    """
    job = Job(model, tokenizer, train, validation, profile, seed, Path(out_dir))
    _check(job, resume)
    trainer = _trainer(job, [loop.bookkeeping(job, on_log), *callbacks])
    interrupted = False
    try:
        with trackers.tracked(profile.track, out_dir):
            trainer.train(resume_from_checkpoint=str(job.checkpoint) if job.checkpoint else None)
    except KeyboardInterrupt:
        if sharding.is_spread(profile):  # the other processes may be at another step: no weights can be gathered
            raise KeyboardInterrupt("interrupted: --resume continues from the last complete checkpoint") from None
        interrupted = True
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
        _log.warning(
            "interrupted at step %d: the current adapter is saved; resume to continue", trainer.state.global_step
        )
    weights = sharding.trained_weights(trainer.model) if sharding.is_spread(profile) else None
    if progress.first_process():
        checkpoints.save_adapter(trainer.model, job.out_dir / "adapter", profile, weights)
    return _result(job, trainer, interrupted)


def _check(job: Job, resume: bool) -> None:
    """Check all settings before anything is written, and find the checkpoint to resume from."""
    trackers.check_tracker(job.profile.track)
    sharding.check_sharding(job.profile)
    loading.check_positions(job.model, job.profile.max_length, job.profile.max_new_tokens)
    job.train = loading.writable_rows(job.train, job.model)
    job.validation = loading.writable_rows(job.validation, job.model)
    job.made_with = checkpoints.fingerprint(job.profile, job.seed, job.train, job.validation)
    manifest = {}
    if resume and (checkpoint := checkpoints.last_whole_checkpoint(job.out_dir)):
        manifest = checkpoints.check_same(checkpoint, job.made_with)
        job.checkpoint = checkpoint
    job.counts |= manifest.get("counts", {})
    job.order = loop.same_order(_rows_in_a_step(job.profile), list(job.train["length"]), manifest.get("order"))
    if progress.first_process():  # others save only after the first steps, which wait for this process
        checkpoints.clear_after(job.out_dir, job.checkpoint)
        checkpoints.check_room(job.out_dir, job.model, job.profile.optimizer)


def _trainer(job: Job, callbacks: list[TrainerCallback]) -> Trainer:
    from transformers import EarlyStoppingCallback, PrinterCallback

    if hasattr(job.model, "peft_config"):  # as in `save_adapter`: no checkpoint asks the Hub
        job.model.save_pretrained = functools.partial(job.model.save_pretrained, save_embedding_layers=False)
    trainer = loop.summary_trainer(
        job,
        model=job.model,
        args=training_arguments(job),
        train_dataset=job.train,
        eval_dataset=job.validation,
        data_collator=Collator(job.tokenizer, **loading.padding(job.model)),
        processing_class=job.tokenizer,
        callbacks=[EarlyStoppingCallback(job.profile.patience), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)  # prints each log as a dict; the progress bar shows it
    trainer.model.config.use_cache = False
    return trainer


def training_arguments(job: Job) -> TrainingArguments:
    """Return the Trainer's settings: those of arguments.yaml, and those computed from the job."""
    from transformers import TrainingArguments

    profile = job.profile
    table = files.read_mapping(Path(__file__).with_name("arguments.yaml"), "arguments")
    options = {argument: getattr(profile, option) for argument, option in table["profile"].items()}
    steps = math.ceil(len(job.train) / _rows_in_a_step(profile))
    between = max(1, math.ceil(steps / profile.evaluations_per_epoch))
    arguments = TrainingArguments(
        output_dir=str(job.out_dir),
        fp16=profile.compute_dtype == "float16",
        bf16=profile.compute_dtype == "bfloat16",
        eval_steps=between,
        save_steps=between,
        seed=job.seed,
        data_seed=job.seed,
        report_to=profile.track or "none",
        project=trackers.PROJECT,
        deepspeed=profile.deepspeed or None,
        use_cpu=job.model.device.type == "cpu",  # else a Mac's GPU would be used although the weights are on the CPU
        **options,
        **table["always"],
    )
    # One process uses one GPU: with Kaggle's two, Trainer would use DataParallel, which breaks 4-bit weights. No
    # public argument prevents this.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _rows_in_a_step(profile: Profile) -> int:
    return profile.batch_size * profile.gradient_accumulation * int(os.environ.get("WORLD_SIZE", 1))


def _result(job: Job, trainer: Trainer, interrupted: bool) -> FitResult:
    state = trainer.state
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return FitResult(
        method=job.profile.method,
        steps=state.global_step,
        epochs=round(state.epoch or 0, 4),
        seconds=job.counts["seconds"],
        tokens=job.counts["tokens"],
        padding_fraction=1 - job.counts["tokens"] / max(1, job.counts["positions"]),
        train_loss=sum(losses) / len(losses) if losses else None,
        eval_loss=state.best_metric,
        resumed_from=job.checkpoint.name if job.checkpoint else None,
        best_step=state.best_global_step,
        stopped_early=not interrupted and state.global_step < state.max_steps,
        interrupted=interrupted,
        adapter=str(job.out_dir / "adapter"),
        history=state.log_history,
    )
