"""Floor 5. `fit`: transformers' Trainer, with the loss on the summary's positions only and the head applied only there.

It resumes from the last whole checkpoint, keeps the best one, stops early, and saves the adapter so far on Ctrl-C.
Under torchrun every process trains on its share of each batch; one of them writes.
"""

import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from summkit import progress
from summkit.config import Profile
from summkit.data import tokenisation
from summkit.models import loading, positions
from summkit.training import checkpoints, sharding, trackers
from summkit.training.checkpoints import last_whole_checkpoint, save_adapter
from summkit.training.losses import mean_loss, summary_loss

__all__ = ["FitResult", "fit", "last_whole_checkpoint", "mean_loss", "save_adapter", "summary_loss"]


@dataclass
class FitResult:
    """What a training came to. Losses are means over summary tokens, in nats; seconds are wall time, all parts of a
    resumed run together; `padding_fraction` is the share of computed positions that were padding.
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

    def record(self) -> dict:
        """The record's `training` section: everything but the history and where the adapter lies."""
        return {key: value for key, value in asdict(self).items() if key not in ("history", "adapter")}


def fit(
    model, tokenizer, train, validation, profile: Profile, *, seed: int, out_dir, resume=False, on_log=None,
    callbacks=(),
) -> FitResult:  # fmt: skip
    """Train `model` on encoded rows (`features.encode_rows`) and leave the best adapter in out_dir/adapter.

    `resume` goes on from the newest whole checkpoint in `out_dir`: in any epoch, and on a CPU to the last bit, what the
    run would have been without the break. Checkpoints of other settings are refused with a SummkitError. Without it, an
    earlier run's checkpoints there are removed. `on_log` is called with the history, a list of
    {"step", "loss" | "eval_loss", …}, after each new entry. `callbacks` are further ones of transformers', such as
    `watch.generation_scores`; what their on_evaluate puts into its `metrics` stands in the history too.
    Where the profile names a tracker, the history goes there as well (`trackers.tracked`). Where it names a DeepSpeed
    file, or accelerate launches FSDP, that trains; what cannot go with it is a SummkitError (`sharding.check`).
    Rows whose summary is longer than an encoder-decoder's decoder can write are left out, and said to be.
    A disk without room for the checkpoints is a SummkitError before the first step.
    """
    trackers.check_tracker(profile.track)
    sharding.check_sharding(profile)
    positions.check_positions(model, profile.max_length, profile.max_new_tokens)
    train, validation = (positions.writable(rows, model) for rows in (train, validation))
    out_dir = Path(out_dir)
    made_with = checkpoints.fingerprint(profile, seed, train, validation)
    checkpoint = last_whole_checkpoint(out_dir) if resume else None
    before = checkpoints.check_same(checkpoint, made_with) if checkpoint else {}
    counts = {"tokens": 0, "positions": 0, "seconds": 0.0} | before.get("counts", {})
    order = _sampler_class()(_rows_in_a_step(profile), list(train["length"]), before.get("order"))
    if progress.first_process():  # no other process saves before the first steps, which wait for this one
        checkpoints.clear_after(out_dir, checkpoint)
        checkpoints.check_room(out_dir, model, profile.optimizer)
    callbacks = [*_callbacks(counts, made_with, order, on_log), *callbacks]
    trainer = _trainer(model, tokenizer, train, validation, profile, seed, out_dir, counts, order, callbacks)
    interrupted = False
    try:
        with checkpoints.no_hub(), trackers.tracked(profile.track, out_dir):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt:
        if sharding.is_spread(profile):  # the other processes may be elsewhere: nothing can be put together
            raise KeyboardInterrupt("interrupted: --resume goes on from the last whole checkpoint") from None
        interrupted = True
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
        print(f"interrupted at step {trainer.state.global_step}: the adapter so far is saved; resume will go on")
    weights = sharding.trained_weights(trainer.model) if sharding.is_spread(profile) else None
    if progress.first_process():
        save_adapter(trainer.model, out_dir / "adapter", profile, weights)
    return _result(trainer, profile, counts, checkpoint, interrupted, out_dir)


def _trainer(model, tokenizer, train, validation, profile, seed, out_dir, counts, order, callbacks):
    from transformers import EarlyStoppingCallback, PrinterCallback

    trainer = _trainer_class()(
        counts=counts, order=order, model=model,
        args=_arguments(profile, len(train), seed, out_dir, model.device.type == "cpu"),
        train_dataset=train, eval_dataset=validation,
        data_collator=tokenisation.Collator(tokenizer, **loading.padding(model)), processing_class=tokenizer,
        callbacks=[EarlyStoppingCallback(profile.patience), *callbacks],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # prints each log as a dict; the progress bar shows it
    trainer.model.config.use_cache = False
    return trainer


def _trainer_class():
    # Made here because a class statement at the module's top would import transformers and torch with it.
    import torch
    from transformers import Trainer

    class SummaryTrainer(Trainer):
        """Trainer with `summary_loss` and `mean_loss` and the sampler `order`; counts tokens and computed positions."""

        def __init__(self, counts, order, **arguments):
            super().__init__(**arguments)
            self.counts, self.order = counts, order
            self.model_accepts_loss_kwargs = True  # whatever the model says: `summary_loss` divides by all tokens

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            if model.training:
                mask = inputs["attention_mask"]
                if loading.is_encoder_decoder(model):  # its decoder's tokens and positions come beside the encoder's
                    mask = torch.cat([mask.flatten(), (inputs["labels"] != tokenisation.IGNORE).flatten()])
                here = mask.new_tensor([int(mask.sum()), mask.numel()])
                tokens, computed = self.accelerator.reduce(here, "sum").tolist()
                self.counts["tokens"] += tokens
                self.counts["positions"] += computed
            # Divided by all processes' tokens; their gradients are averaged afterwards, so it is the sum that is right.
            return summary_loss(model, inputs, num_items_in_batch) * self.accelerator.num_processes

        def _get_train_sampler(self, train_dataset=None):
            return self.order

        def _run_epoch(self, **arguments):
            # From the last checkpoint of a run that was over before its last epoch's end, transformers would train on.
            if not self.control.should_training_stop:
                super()._run_epoch(**arguments)

        def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
            rows = eval_dataset or self.eval_dataset
            loss = mean_loss(self.model, rows, self.processing_class, self.args.eval_batch_size)
            metrics = {f"{metric_key_prefix}_loss": loss}
            # Before it is logged: a callback may add scores of its own.
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            self.log(metrics)
            return metrics

    return SummaryTrainer


def _sampler_class():
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class SameOrder(LengthGroupedSampler):
        """Rows of similar length together, as the first process has drawn them: N processes with batches of B see the
        same rows in the same steps as one with batches of N × B.

        `drawn_from` is the state of torch's random numbers, in hex, before the last draw; given as `again`, the first
        order is that one once more.
        """

        def __init__(self, batch_size: int, lengths: list[int], again: str | None):
            super().__init__(batch_size, lengths=lengths)
            self.again, self.drawn_from = again, None

        def __iter__(self):
            if self.again:
                torch.set_rng_state(torch.tensor(list(bytes.fromhex(self.again)), dtype=torch.uint8))
            self.again, self.drawn_from = None, torch.get_rng_state().numpy().tobytes().hex()
            order = [list(super().__iter__())]
            if torch.distributed.is_initialized():
                torch.distributed.broadcast_object_list(order)
            return iter(order[0])

    return SameOrder


def _arguments(profile: Profile, rows: int, seed: int, out_dir: Path, on_cpu: bool):
    from transformers import TrainingArguments

    steps = math.ceil(rows / _rows_in_a_step(profile))
    between = max(1, math.ceil(steps / profile.evaluations_per_epoch))
    arguments = TrainingArguments(
        output_dir=str(out_dir), num_train_epochs=profile.epochs, learning_rate=profile.learning_rate,
        per_device_train_batch_size=profile.batch_size, per_device_eval_batch_size=profile.batch_size,
        gradient_accumulation_steps=profile.gradient_accumulation, optim=profile.optimizer,
        gradient_checkpointing=profile.gradient_checkpointing, lr_scheduler_type="cosine", warmup_steps=0.1,
        fp16=profile.compute_dtype == "float16", bf16=profile.compute_dtype == "bfloat16",
        train_sampling_strategy="group_by_length", remove_unused_columns=False, label_names=["labels"],
        eval_strategy="steps", eval_steps=between, save_strategy="steps", save_steps=between, save_total_limit=2,
        load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=False, logging_steps=1,
        restore_callback_states_from_checkpoint=True,  # how often in a row early stopping has seen no better loss
        seed=seed, data_seed=seed, report_to=profile.track or "none", project=trackers.PROJECT,
        disable_tqdm=True, dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,  # all that trains is used in every step
        use_cpu=on_cpu,  # a Mac's GPU would be taken otherwise, for weights that lie on the CPU
        deepspeed=profile.deepspeed or None,
    )  # fmt: skip
    # One process, one GPU: of Kaggle's two, Trainer would take both by DataParallel, which breaks 4-bit weights.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _rows_in_a_step(profile: Profile) -> int:
    return profile.batch_size * profile.gradient_accumulation * int(os.environ.get("WORLD_SIZE", 1))


def _callbacks(counts: dict, made_with: dict, order, on_log) -> list:
    from transformers import TrainerCallback

    class Manifest(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            self.started = time.monotonic() - counts["seconds"]
            control.should_training_stop = state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]

        def on_save(self, args, state, control, **_):
            args.distributed_state.wait_for_everyone()  # each process writes files of its own into the checkpoint
            counts["seconds"] = time.monotonic() - self.started
            if state.is_world_process_zero:
                folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                at_end = state.epoch.is_integer()  # the next epoch draws an order of its own
                checkpoints.write_manifest(folder, counts, made_with, None if at_end else order.drawn_from)

        def on_train_end(self, args, state, control, **_):
            counts["seconds"] = time.monotonic() - self.started

    class Progress(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            shown = {} if state.is_world_process_zero else {"disable": True}
            at = {"total": state.max_steps, "initial": state.global_step}
            self.bar = progress.bar(**at, desc="training", unit="step", **shown)

        def on_log(self, args, state, control, logs=None, **_):
            self.bar.set_postfix({key: f"{value:.3f}" for key, value in logs.items() if key in ("loss", "eval_loss")})
            if on_log:
                on_log(state.log_history)

        def on_step_end(self, args, state, control, **_):
            self.bar.update(state.global_step - self.bar.n)

        def on_train_end(self, args, state, control, **_):
            self.bar.close()

    return [Manifest(), Progress()]


def _result(trainer, profile: Profile, counts: dict, checkpoint, interrupted: bool, out_dir: Path) -> FitResult:
    state = trainer.state
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return FitResult(
        method=profile.method, steps=state.global_step, epochs=round(state.epoch or 0, 4), seconds=counts["seconds"],
        tokens=counts["tokens"], padding_fraction=1 - counts["tokens"] / max(1, counts["positions"]),
        train_loss=sum(losses) / len(losses) if losses else None, eval_loss=state.best_metric,
        resumed_from=checkpoint.name if checkpoint else None, best_step=state.best_global_step,
        stopped_early=not interrupted and state.global_step < state.max_steps, interrupted=interrupted,
        adapter=str(out_dir / "adapter"), history=state.log_history,
    )  # fmt: skip
