"""Train with `fit`: transformers' Trainer, with the loss and the output head on the summary's positions only.

It resumes from the last complete checkpoint, keeps the best one, stops early, and saves the current adapter on Ctrl-C.
Under torchrun every process trains on its share of each batch; only the first one writes. Functions make the classes
that extend transformers' own, since these are imported only when a training starts.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from summkit import files, progress
from summkit.config import Profile
from summkit.data.batching import Collator, length_sorted_batches
from summkit.data.tokenisation import IGNORE
from summkit.errors import SummkitError
from summkit.models import loading
from summkit.training import checkpoints, environment, speed
from summkit.training.losses import mean_loss, summary_loss

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from torch.utils.data import Sampler
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

_log = logging.getLogger(__name__)


@dataclass
class FitResult:
    """The result of a training.

    Losses are means over summary tokens, in nats. Seconds are wall time, in total over all parts of a resumed run.
    `padding_fraction` is the share of computed positions that were padding. `speed` has the options for speed of the
    profile, each "on" or with the reason why it is off. Seconds are without `compile_seconds`.
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
    speed: dict[str, str] = field(default_factory=dict)
    compile_seconds: float | None = None
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
    collate: Any = None  # the collator of the training's batches
    counted: Any = None  # tokens and positions since the last count, on the device
    speed: dict[str, str] = field(default_factory=dict)  # the report of `speed.fast`
    compile_seconds: float | None = None

    def count(self) -> None:
        """Add what the device has counted to `counts`; this waits for the device."""
        tokens, positions = (0, 0) if self.counted is None else self.counted.tolist()
        self.counts["tokens"] += tokens
        self.counts["positions"] += positions
        self.counted = None


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

    Called again with the same model, it starts from the same first adapter; a method without an adapter continues from
    the trained weights, and a warning says so. Interrupted, it saves what there is so far, which the model also keeps.
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
            with the model, the disk has no room for the checkpoints, or a loss is not a finite number.
    """
    job = Job(model, tokenizer, train, validation, profile, seed, Path(out_dir))
    _check(job, resume)
    if not environment.is_spread(profile) and job.checkpoint is None:
        _start_fresh(model)
    model.was_trained = True
    interrupted = False
    with speed.fast(model, profile, math.ceil(_steps_an_epoch(job) * profile.epochs)) as job.speed:
        trainer = _trainer(job, [_bookkeeping(job, on_log), *callbacks])
        try:
            with environment.tracked(profile.track, out_dir):
                trainer.train(resume_from_checkpoint=str(job.checkpoint) if job.checkpoint else None)
        except KeyboardInterrupt:
            if environment.is_spread(profile):  # the other processes may be at another step: weights cannot be gathered
                raise KeyboardInterrupt("interrupted: --resume continues from the last complete checkpoint") from None
            interrupted = True
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
            _log.warning(
                "interrupted at step %d: the current adapter is saved; resume to continue", trainer.state.global_step
            )
    weights = environment.trained_weights(trainer.model) if environment.is_spread(profile) else None
    if progress.first_process():
        (job.out_dir / "run.json").unlink(missing_ok=True)  # an earlier run's record, whose adapter is replaced
        checkpoints.save_adapter(trainer.model, job.out_dir / "adapter", profile, weights)
    return _result(job, trainer, interrupted)


def _check(job: Job, resume: bool) -> None:
    """Check all settings before anything is written, and find the checkpoint to resume from."""
    environment.check_environment(job.profile)
    optimizer = job.profile.optimizer
    if job.model.device.type == "mps" and ("bit" in optimizer or "paged" in optimizer):
        raise SummkitError(f"optimizer {optimizer!r} does not run on Apple's GPU: use 'adamw_torch'")
    loading.check_positions(job.model, job.profile.max_length, job.profile.max_new_tokens)
    job.train = loading.writable_rows(job.train, job.model)
    job.validation = loading.writable_rows(job.validation, job.model)
    job.made_with = checkpoints.fingerprint(job.profile, job.seed, job.train, job.validation)
    manifest = {}
    if resume and (checkpoint := checkpoints.last_whole_checkpoint(job.out_dir)):
        manifest = checkpoints.check_same(checkpoint, job.made_with)
        job.checkpoint = checkpoint
    job.counts |= manifest.get("counts", {})
    job.order = _same_order(_rows_in_a_step(job.profile), list(job.train["length"]), manifest.get("order"))
    if progress.first_process():  # others save only after the first steps, which wait for this process
        checkpoints.clear_after(job.out_dir, job.checkpoint)
        checkpoints.check_room(job.out_dir, job.model, optimizer)


def _start_fresh(model: PreTrainedModel | PeftModel) -> None:
    """Put an adapter that was trained before back to its first weights, so that a cell run twice gives one result."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    first = getattr(model, "first_weights", None)
    if first is not None and first.keys() == trained.keys():
        _log.warning("this adapter was trained before: it starts again from its first weights")
        for name, weight in trained.items():
            weight.data.copy_(first[name])
    elif hasattr(model, "peft_config"):
        model.first_weights = {name: weight.detach().cpu().clone() for name, weight in trained.items()}
    elif getattr(model, "was_trained", False):
        _log.warning("this model was trained before and continues from there: load it again for a fresh start")


def _trainer(job: Job, callbacks: list[TrainerCallback]) -> Trainer:
    from accelerate.utils import AutocastKwargs
    from transformers import EarlyStoppingCallback, PrinterCallback

    if hasattr(job.model, "peft_config"):  # as in `save_adapter`: no checkpoint asks the Hub
        job.model.save_pretrained = functools.partial(job.model.save_pretrained, save_embedding_layers=False)
    lengths: dict[str, Any] = {"pad_to_multiple_of": job.profile.pad_to_multiple_of, "longest": job.profile.max_length}
    job.collate = Collator(job.tokenizer, **loading.padding(job.model), **lengths)
    job.collate.packed = speed.is_on(job.speed, "packing")
    trainer = _summary_trainer(
        job,
        model=job.model,
        args=training_arguments(job),
        train_dataset=job.train,
        eval_dataset=job.validation,
        data_collator=job.collate,
        processing_class=job.tokenizer,
        callbacks=[EarlyStoppingCallback(job.profile.patience), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)  # prints each log as a dict; the progress bar shows it
    loading.text_config(trainer.model).use_cache = False
    if speed.is_on(job.speed, "pure_compute_dtype"):  # and fp16 keeps its GradScaler
        trainer.accelerator.autocast_handler = AutocastKwargs(enabled=False)
    return trainer


def training_arguments(job: Job) -> TrainingArguments:
    """Return the Trainer's settings: those of arguments.yaml, and those computed from the job."""
    from transformers import TrainingArguments

    profile = job.profile
    table = files.read_mapping(Path(__file__).with_name("arguments.yaml"), "arguments")
    options = {argument: getattr(profile, option) for argument, option in table["profile"].items()}
    between = max(1, math.ceil(_steps_an_epoch(job) / profile.evaluations_per_epoch))
    on_cuda = job.model.device.type == "cuda"
    arguments = TrainingArguments(
        output_dir=str(job.out_dir),
        fp16=profile.compute_dtype == "float16",
        bf16=profile.compute_dtype == "bfloat16",
        eval_steps=between,
        save_steps=between,
        seed=job.seed,
        data_seed=job.seed,
        report_to=profile.track or "none",
        project=environment.PROJECT,
        deepspeed=profile.deepspeed or None,
        # Batches are copied while the GPU computes.
        dataloader_pin_memory=on_cuda,
        accelerator_config={"non_blocking": on_cuda},
        use_cpu=job.model.device.type == "cpu",  # else a Mac's GPU would be used although the weights are on the CPU
        **options,
        **table["always"],
    )
    # One process uses one GPU: with Kaggle's two, Trainer would use DataParallel, which breaks 4-bit weights. No
    # public argument prevents this.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _steps_an_epoch(job: Job) -> int:
    return math.ceil(len(job.train) / _rows_in_a_step(job.profile))


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
        speed=job.speed,
        compile_seconds=job.compile_seconds,
        history=state.log_history,
    )


def _summary_trainer(job: Job, **arguments: Any) -> Trainer:
    """Make a Trainer with `summary_loss` and `mean_loss` that draws the job's order and counts its tokens."""
    from transformers import Trainer

    class SummaryTrainer(Trainer):
        control: Any

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> torch.Tensor:
            if model.training:
                counted = self.accelerator.reduce(_count(inputs, loading.is_encoder_decoder(model)), "sum")
                job.counted = counted if job.counted is None else job.counted + counted
            # The loss is divided by the tokens of all processes, but gradients are averaged: multiply to get their sum.
            return summary_loss(model, inputs, num_items_in_batch) * self.accelerator.num_processes

        def training_step(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> torch.Tensor:
            with speed.within_rows(self.model, inputs):
                return super().training_step(model, inputs, *rest, **options)

        def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
            return job.order  # no public hook: overriding `get_train_dataloader` means building the loader too

        def _run_epoch(self, **arguments: Any) -> None:
            # Resumed from the last checkpoint of a run that stopped early, transformers would continue to train.
            if not self.control.should_training_stop:
                super()._run_epoch(**arguments)

        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            with speed.uncompiled(self.model):
                loss = mean_loss(self.model, job.validation, job.tokenizer, self.args.eval_batch_size)
                metrics = {"eval_loss": loss}
                _check_finite(metrics, job)  # before a checkpoint of this step is written
                # Callbacks run before logging, since they may add scores.
                self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            self.log(metrics)
            return metrics

    trainer = SummaryTrainer(**arguments)
    trainer.model_accepts_loss_kwargs = True  # for all models: `summary_loss` divides by all tokens
    return trainer


def _count(inputs: Any, is_encoder_decoder: bool) -> torch.Tensor:
    """Return the tokens and the positions of a batch as a tensor on its device, which nothing waits for."""
    import torch

    if "kept" in inputs:  # packed: the last row is padding
        tokens, positions = inputs["cu_seq_lens_q"][-2], inputs["input_ids"].numel()
    else:
        mask = inputs["attention_mask"]  # (rows, tokens)
        if is_encoder_decoder:  # count the decoder's tokens and positions too
            mask = torch.cat([mask.flatten(), (inputs["labels"] != IGNORE).flatten()])
        tokens, positions = mask.sum(), mask.numel()
    return torch.stack([tokens.long(), tokens.new_full((), positions, dtype=torch.long)])


def _prepare_speed(job: Job) -> None:
    """Check and warm up what can be checked on the model only as it trains."""
    order = length_sorted_batches(list(job.train["length"]), job.profile.batch_size)
    longest, shortest = ([job.train[row] for row in batch] for batch in (order[0], order[-1]))
    if speed.is_on(job.speed, "packing"):
        exact = job.profile.compute_dtype == "float32" and job.profile.precision not in ("fp16", "bf16")
        speed.check_packing(job.model, [longest[0], shortest[-1]], job.collate, exact, job.speed)
    if speed.is_on(job.speed, "compile_from_steps"):
        job.compile_seconds = speed.warm_up(job.model, [longest, shortest], job.collate, job.speed)


def _check_finite(logs: dict[str, float], job: Job) -> None:
    for name, kind in (("loss", "training"), ("eval_loss", "validation")):
        loss = logs.get(name, 0.0)
        if not math.isfinite(loss):
            dtype = job.profile.compute_dtype
            other = "" if dtype == "float32" else f", or compute in 'float32' in place of {dtype!r}"
            raise SummkitError(
                f"the {kind} loss is {loss}, so the training stops, and nothing of this step is saved: lower "
                f"learning_rate={job.profile.learning_rate:g}{other}. If the first loss is not finite, the model itself"
                " is broken"
            )


def _same_order(batch_size: int, lengths: list[int], again: str | None = None) -> Any:
    """Make a sampler that groups rows of similar length, in the order drawn by the first process.

    So N processes with batches of B see the same rows in each step as one process with batches of N × B.

    Args:
        batch_size: Rows in an optimizer step.
        lengths: Tokens of each row.
        again: `drawn_from` of an earlier sampler, to draw its last order again; None: draw a new order.

    Returns:
        The sampler. Its `drawn_from` is the state of torch's random numbers before the last draw, in hex.
    """
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class SameOrder(LengthGroupedSampler):
        again: str | None
        drawn_from: str | None = None

        def __iter__(self) -> Iterator[int]:
            if self.again:
                torch.set_rng_state(torch.tensor(list(bytes.fromhex(self.again)), dtype=torch.uint8))
            self.again = None
            self.drawn_from = torch.get_rng_state().numpy().tobytes().hex()
            order = [list(super().__iter__())]
            if torch.distributed.is_initialized():
                torch.distributed.broadcast_object_list(order)
            return iter(order[0])

    sampler = SameOrder(batch_size, lengths=lengths)
    sampler.again = again
    return sampler


def _bookkeeping(job: Job, on_log: Callable[[list[dict]], None] | None) -> TrainerCallback:
    """Make the callback that counts seconds, completes checkpoints, draws the bar and gives `on_log` the history."""
    from transformers import TrainerCallback

    class Bookkeeping(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            _prepare_speed(job)
            self.started = time.monotonic() - job.counts["seconds"]
            if state.best_global_step:  # the run's folder may have been moved
                state.best_model_checkpoint = str(job.out_dir / f"checkpoint-{state.best_global_step}")
            control.should_training_stop = state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]
            disabled = {} if state.is_world_process_zero else {"disable": True}
            steps = {"total": state.max_steps, "initial": state.global_step}
            self.bar = progress.bar(**steps, desc="training", unit="step", **disabled)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.update(state.global_step - self.bar.n)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            _check_finite(logs, job)
            self.bar.set_postfix({key: f"{value:.3f}" for key, value in logs.items() if key in ("loss", "eval_loss")})
            if on_log:
                on_log(state.log_history)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            args.distributed_state.wait_for_everyone()  # each process writes its own files into the checkpoint
            job.count()
            job.counts["seconds"] = time.monotonic() - self.started
            if state.is_world_process_zero:
                folder = job.out_dir / f"checkpoint-{state.global_step}"
                at_end = state.epoch.is_integer()  # the next epoch draws a new order
                order = None if at_end else job.order.drawn_from
                checkpoints.write_manifest(folder, job.counts, job.made_with, order)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            job.count()
            job.counts["seconds"] = time.monotonic() - self.started
            self.bar.close()

    return Bookkeeping()
