"""A few measured steps, and what they say about a whole training."""

from typing import get_args

import pytest
import torch

from summkit.config import Hardware, Optimizer, choose_profile
from summkit.data import Splits, batching, classification, summarisation, templates, tokenisation
from summkit.errors import SummkitError
from summkit.models import loading
from summkit.resources import forecast, memory
from summkit.training import losses

pytestmark = pytest.mark.usefixtures("one_thread")
PROFILE = choose_profile("smoke", task="costs", method="full", epochs=2)


@pytest.fixture(scope="module")
def rows():
    splits = summarisation.load_summaries(PROFILE)
    return splits.train, splits.validation


def measured(monkeypatch, seconds: float) -> list:
    """Trials that took so long, and what they were asked."""
    asked = []

    def steps(model, tokenizer, some, held, profile, seed, warm_up):
        asked.append((model, len(some), len(held), profile, seed, warm_up))
        return forecast.Trial(seconds, 1, 2, 3.0)

    monkeypatch.setattr(forecast, "measure_steps", steps)
    return asked


def test_time_is_that_of_the_trial_for_all_tokens_and_the_evaluations(rows, monkeypatch):
    asked = measured(monkeypatch, 2.0)
    found = forecast.forecast_training(PROFILE, *rows, seed=5)
    assert asked == [("tiny-t5", (1 + forecast.STEPS) * PROFILE.batch_size, 2, PROFILE, 5, 1)]
    twice = forecast.forecast_training(PROFILE.replace(epochs=4), *rows, seed=5)
    assert twice == pytest.approx(2 * found)
    measured(monkeypatch, 4.0)
    assert forecast.forecast_training(PROFILE, *rows) == pytest.approx(2 * found)
    share = forecast.STEPS * PROFILE.batch_size / len(rows[0])  # of all rows those that were tried; all are cut alike
    trained, evaluated = PROFILE.epochs / share, PROFILE.epochs * PROFILE.evaluations_per_epoch * forecast.FORWARD
    assert found == pytest.approx(2.0 * (trained + evaluated * len(rows[1]) / len(rows[0]) / share), rel=0.1)


def test_steps_of_all_lengths_are_tried():
    """Mistaken twice: the first rows were short, and dear by the token; rows of all lengths in one step were padded."""
    rows = [{"length": length} for length in (10, 500, 20, 30, 400, 25, 15, 300, 45, 40, 35, 600)]
    lengths = [[row["length"] for row in step] for step in forecast._of_all_lengths(rows, 2)]
    assert lengths == [[400, 300], [35, 30], [15, 10]]
    assert [len(step) for step in forecast._of_all_lengths(rows, 12)] == [12]
    assert [len(step) for step in forecast._of_all_lengths(rows, 8)] == [8, 4]


def test_fewer_rows_than_a_step_has_are_tried_too(rows):
    few = rows[0].select(range(2))
    assert forecast.forecast_training(PROFILE.replace(batch_size=8), few, rows[1]) > 0


def test_a_real_trial_says_seconds(rows):
    assert forecast.forecast_training(PROFILE, *rows) > 0


def test_what_cannot_train_is_an_error_before_anything_is_tried(rows):
    with pytest.raises(SummkitError, match="needs an encoder-decoder"):
        forecast.forecast_training(
            PROFILE.replace(model="tiny-llama", method="frozen-encoder", template="instruction"), *rows
        )


STEPPING = choose_profile(
    "smoke", task="long", method="full", batch_size=4, optimizer="adamw_torch", learning_rate=1e-2
)
TOKENIZER = loading.load_tokenizer("tiny-t5")
TEMPLATE = templates.build_template("prefix", TOKENIZER, templates.get_wording("paper"))
ROWS = [
    tokenisation.encode(
        TEMPLATE, TOKENIZER, "Rain fell. " * n, "It rained. " * n, max_length=200, max_new_tokens=60, seq2seq=True
    )
    for n in (1, 4, 2, 5)
]


def trial(**changes):
    return forecast.measure_steps("tiny-t5", TOKENIZER, ROWS, ROWS[:2], STEPPING.replace(**changes))


def test_a_trial_trains_and_says_what_it_took():
    before = losses.mean_loss(loading.load_model("tiny-t5"), ROWS[:2], TOKENIZER)
    found = trial()
    assert found.loss < before and found.seconds > 0 and found.peak_bytes > found.added_bytes > 0
    assert found.trained == sum(p.numel() for p in loading.load_model("tiny-t5").parameters())
    assert trial(method="lora", targets="attention").trained < found.trained / 2


@pytest.mark.parametrize("warm_up", [0, 1])
def test_the_first_steps_are_trained_and_not_counted(monkeypatch, warm_up):
    """Mistaken once: the optimizer's state is made in the first step, and predicted times were too long by a third."""
    seen, accumulate = [], forecast.accumulate_gradients
    monkeypatch.setattr(forecast, "accumulate_gradients", lambda *given: (seen.append("step"), accumulate(*given)))
    monkeypatch.setattr(forecast, "_now", lambda model: (seen.append("clock"), float(len(seen)))[1])
    profile, steps = STEPPING.replace(batch_size=1), len(ROWS)
    found = forecast.measure_steps("tiny-t5", TOKENIZER, ROWS, ROWS[:2], profile, warm_up=warm_up)
    assert seen == ["step"] * warm_up + ["clock"] + ["step"] * (steps - warm_up) + ["clock"]
    assert found.seconds == steps - warm_up + 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_accumulated_gradients_are_those_of_the_large_batch(size):
    """Not those of the pieces' means: answers differ in length."""
    model = loading.load_model("tiny-t5").eval()
    collate = batching.Collator(TOKENIZER, **loading.padding(model))

    def gradient(batches):
        model.zero_grad()
        forecast.accumulate_gradients(model, collate, batches)
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole, pieces = gradient([ROWS]), gradient([ROWS[at : at + size] for at in range(0, len(ROWS), size)])
    assert (pieces - whole).norm() < 1e-5 * whole.norm()
    model.zero_grad()
    for row in ROWS:
        forecast.accumulate_gradients(model, collate, [[row]])
    means = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]) / len(ROWS)
    assert (means - whole).norm() > 1e-3 * whole.norm()


def test_checkpointing_changes_no_number(monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *_, **__: x)
    assert trial(gradient_checkpointing=True).loss == pytest.approx(trial().loss, rel=1e-5)


def test_an_eight_bit_optimizer_lowers_the_loss_too():
    before = losses.mean_loss(loading.load_model("tiny-t5"), ROWS[:2], TOKENIZER)
    assert trial(optimizer="adamw_8bit").loss < before


@pytest.mark.parametrize("warm_up", [4, 5])
def test_too_few_rows_are_refused_before_a_model_is_loaded(warm_up):
    """The seconds were once taken from a variable that had no value yet."""
    profile = STEPPING.replace(batch_size=1)
    with pytest.raises(SummkitError, match="4 rows are too few to measure"):
        forecast.measure_steps("no-such-model", TOKENIZER, ROWS, ROWS[:2], profile, warm_up=warm_up)


def machine(monkeypatch, gigabytes: float) -> None:
    monkeypatch.setattr(forecast, "detect_hardware", lambda: Hardware("cpu", "2 CPU cores", round(gigabytes * 1e9)))


def test_a_plan_says_memory_time_and_disk(monkeypatch):
    asked = measured(monkeypatch, 6.0)
    machine(monkeypatch, 8)
    text = forecast.plan_lines(PROFILE, summarisation.load_summaries(PROFILE))
    splits = summarisation.load_summaries(PROFILE)
    assert len(asked) == 1 and f"rows: {len(splits.train)} train, {len(splits.validation)} validation" in text
    assert f"activations: {PROFILE.batch_size} × {PROFILE.max_length} tokens" in text
    assert "total: the sum of the parts" in text
    assert "this machine (2 CPU cores) has 8.0 GB: it fits" in text
    steps = PROFILE.epochs * len(splits.train) / PROFILE.batch_size
    assert f"; {steps:.0f} steps take about" in text and "\ndisk: about " in text


def test_a_plan_of_labels_is_measured_with_their_prompt(monkeypatch):
    asked = measured(monkeypatch, 1.0)
    machine(monkeypatch, 8)
    profile = choose_profile("smoke", task="agnews")
    assert "it fits" in forecast.plan_lines(profile, classification.load_labels(profile)) and len(asked) == 1


@pytest.mark.parametrize(
    ("gigabytes", "way_out"),
    [
        (2.2, "these settings would fit: -p gradient_checkpointing=true"),
        (1.0, "-p gradient_checkpointing=true -p batch_size=2 -p gradient_accumulation=2 -p precision=nf4"),
        (0.3, "choose a smaller model"),
    ],
)
def test_a_plan_that_does_not_fit_loads_nothing_and_says_what_would(monkeypatch, rows, gigabytes, way_out):
    monkeypatch.setattr(forecast, "forecast_training", None)
    machine(monkeypatch, gigabytes)
    text = forecast.plan_lines(choose_profile("cpu", precision="fp32"), Splits(*rows, rows[1], "code"))
    assert (
        text.endswith(way_out) and f"(2 CPU cores) has {memory.size_text(round(gigabytes * 1e9))}: too little" in text
    )


def test_every_optimizer_of_a_profile_can_be_planned():
    assert set(memory.OPTIMIZERS) == set(get_args(Optimizer))
