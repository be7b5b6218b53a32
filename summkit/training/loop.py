"""Extensions of transformers' Trainer: loss, evaluation, order of the rows, checkpoint manifests, progress bar.

A function makes each class, since its base class is imported only when a training starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from summkit import progress
from summkit.data.tokenisation import IGNORE
from summkit.models import loading
from summkit.training import checkpoints
from summkit.training.losses import mean_loss, summary_loss

if TYPE_CHECKING:
    import torch
    from torch.utils.data import Sampler
    from transformers import Trainer, TrainerCallback

    from summkit.training.trainer import Job


def summary_trainer(job: Job, **arguments: Any) -> Trainer:
    """Make a Trainer with `summary_loss` and `mean_loss` that draws the job's order and counts its tokens."""
    import torch
    from transformers import Trainer

    class SummaryTrainer(Trainer):
        control: Any

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> torch.Tensor:
            if model.training:
                mask = inputs["attention_mask"]  # (rows, tokens)
                if loading.is_encoder_decoder(model):  # count the decoder's tokens and positions too
                    mask = torch.cat([mask.flatten(), (inputs["labels"] != IGNORE).flatten()])
                counted = mask.new_tensor([int(mask.sum()), mask.numel()])
                tokens, computed = self.accelerator.reduce(counted, "sum").tolist()
                job.counts["tokens"] += tokens
                job.counts["positions"] += computed
            # The loss is divided by the tokens of all processes, but gradients are averaged: multiply to get their sum.
            return summary_loss(model, inputs, num_items_in_batch) * self.accelerator.num_processes

        def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
            return job.order  # no public hook: overriding `get_train_dataloader` means building the loader too

        def _run_epoch(self, **arguments: Any) -> None:
            # Resumed from the last checkpoint of a run that stopped early, transformers would continue to train.
            if not self.control.should_training_stop:
                super()._run_epoch(**arguments)

        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            metrics = {"eval_loss": mean_loss(self.model, job.validation, job.tokenizer, self.args.eval_batch_size)}
            # Callbacks run before logging, since they may add scores.
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            self.log(metrics)
            return metrics

    trainer = SummaryTrainer(**arguments)
    trainer.model_accepts_loss_kwargs = True  # for all models: `summary_loss` divides by all tokens
    return trainer


def same_order(batch_size: int, lengths: list[int], again: str | None = None) -> Any:
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


def bookkeeping(job: Job, on_log: Callable[[list[dict]], None] | None) -> TrainerCallback:
    """Make the callback that counts seconds, completes checkpoints, draws the bar and gives `on_log` the history."""
    from transformers import TrainerCallback

    class Bookkeeping(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started = time.monotonic() - job.counts["seconds"]
            control.should_training_stop = state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]
            disabled = {} if state.is_world_process_zero else {"disable": True}
            steps = {"total": state.max_steps, "initial": state.global_step}
            self.bar = progress.bar(**steps, desc="training", unit="step", **disabled)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.update(state.global_step - self.bar.n)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            self.bar.set_postfix({key: f"{value:.3f}" for key, value in logs.items() if key in ("loss", "eval_loss")})
            if on_log:
                on_log(state.log_history)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            args.distributed_state.wait_for_everyone()  # each process writes its own files into the checkpoint
            job.counts["seconds"] = time.monotonic() - self.started
            if state.is_world_process_zero:
                folder = job.out_dir / f"checkpoint-{state.global_step}"
                at_end = state.epoch.is_integer()  # the next epoch draws a new order
                order = None if at_end else job.order.drawn_from
                checkpoints.write_manifest(folder, job.counts, job.made_with, order)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            job.counts["seconds"] = time.monotonic() - self.started
            self.bar.close()

    return Bookkeeping()
