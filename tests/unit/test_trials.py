"""A few measured steps: the same rows in each way, accumulation with the gradient of the large batch."""

import dataclasses

import pytest
import torch

from summkit.config import choose_profile
from summkit.data import templates, tokenisation
from summkit.models import loading
from summkit.resources import trials
from summkit.training import losses

pytestmark = pytest.mark.usefixtures("one_thread")
PROFILE = dataclasses.replace(
    choose_profile("smoke", task="long"), method="full", batch_size=4, optimizer="adamw_torch", learning_rate=1e-2
)
TOKENIZER = loading.load_tokenizer("tiny-t5")
TEMPLATE = templates.build_template("prefix", TOKENIZER, templates.get_wording("paper"))
ROWS = [
    tokenisation.encode(
        TEMPLATE, TOKENIZER, "Rain fell. " * n, "It rained. " * n, max_length=200, max_new_tokens=60, seq2seq=True
    )
    for n in (1, 4, 2, 5)
]


def run(**changes):
    return trials.measure_steps("tiny-t5", TOKENIZER, ROWS, ROWS[:2], trials.profile_variant(PROFILE, **changes))


def test_a_trial_trains_and_says_what_it_took():
    before = losses.mean_loss(loading.load_model("tiny-t5"), ROWS[:2], TOKENIZER)
    found = run()
    assert found.loss < before and found.seconds > 0 and found.added_bytes > 0
    assert found.trained == sum(p.numel() for p in loading.load_model("tiny-t5").parameters())
    assert run(method="lora", targets="attention").trained < found.trained / 2


@pytest.mark.parametrize("warm_up", [0, 1])
def test_the_first_steps_are_trained_and_not_counted(monkeypatch, warm_up):
    """Mistaken once: the optimizer's state is made in the first step, and predicted times were too long by a third."""
    seen, accumulate = [], trials.accumulate_gradients
    monkeypatch.setattr(trials, "accumulate_gradients", lambda *given: (seen.append("step"), accumulate(*given)))
    monkeypatch.setattr(trials, "_now", lambda model: (seen.append("clock"), float(len(seen)))[1])
    profile, steps = dataclasses.replace(PROFILE, batch_size=1), len(ROWS)
    found = trials.measure_steps("tiny-t5", TOKENIZER, ROWS, ROWS[:2], profile, warm_up=warm_up)
    assert seen == ["step"] * warm_up + ["clock"] + ["step"] * (steps - warm_up) + ["clock"]
    assert found.seconds == steps - warm_up + 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_accumulated_gradients_are_those_of_the_large_batch(size):
    """Not those of the pieces' means: answers differ in length."""
    model = loading.load_model("tiny-t5").eval()
    collate = tokenisation.Collator(TOKENIZER, **loading.padding(model))

    def gradient(batches):
        model.zero_grad()
        trials.accumulate_gradients(model, collate, batches)
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole, pieces = gradient([ROWS]), gradient([ROWS[at : at + size] for at in range(0, len(ROWS), size)])
    assert (pieces - whole).norm() < 1e-5 * whole.norm()
    model.zero_grad()
    for row in ROWS:
        trials.accumulate_gradients(model, collate, [[row]])
    means = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]) / len(ROWS)
    assert (means - whole).norm() > 1e-3 * whole.norm()


def test_checkpointing_changes_no_number(monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *_, **__: x)
    assert run(gradient_checkpointing=True).loss == pytest.approx(run().loss, rel=1e-5)


def test_pieces_keep_the_rows_of_a_step():
    cut = trials.profile_variant(PROFILE, pieces=2)
    assert (cut.batch_size, cut.gradient_accumulation) == (2, 2)


def test_an_eight_bit_optimizer_lowers_the_loss_too():
    before = losses.mean_loss(loading.load_model("tiny-t5"), ROWS[:2], TOKENIZER)
    assert run(optimizer="adamw_8bit").loss < before
