"""What a training will take, before it begins."""

from dataclasses import replace

import pytest

from summkit.config import choose_profile
from summkit.data import summarisation, templates, tokenisation
from summkit.errors import SummkitError
from summkit.models import loading
from summkit.resources import forecast, memory, trials

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
        return trials.Trial(seconds, 1, 2, 3.0)

    monkeypatch.setattr(trials, "measure_steps", steps)
    return asked


def test_time_is_that_of_the_trial_for_all_tokens_and_the_evaluations(rows, monkeypatch):
    asked = measured(monkeypatch, 2.0)
    found = forecast.forecast_training(PROFILE, *rows, seed=5)
    assert asked == [("tiny-t5", (1 + forecast.STEPS) * PROFILE.batch_size, 2, PROFILE, 5, 1)]
    twice = forecast.forecast_training(replace(PROFILE, epochs=4), *rows, seed=5)
    assert twice.tokens == 2 * found.tokens and twice.seconds == pytest.approx(2 * found.seconds)
    measured(monkeypatch, 4.0)
    assert forecast.forecast_training(PROFILE, *rows).seconds == pytest.approx(2 * found.seconds)
    share = forecast.STEPS * PROFILE.batch_size / len(rows[0])  # of all rows those that were tried; all are cut alike
    trained, evaluated = PROFILE.epochs / share, PROFILE.epochs * PROFILE.evaluations_per_epoch * forecast.FORWARD
    assert found.seconds == pytest.approx(2.0 * (trained + evaluated * len(rows[1]) / len(rows[0]) / share), rel=0.1)


def test_steps_of_all_lengths_are_tried():
    """Mistaken twice: the first rows were short, and dear by the token; rows of all lengths in one step were padded."""
    rows = [{"length": length} for length in (10, 500, 20, 30, 400, 25, 15, 300, 45, 40, 35, 600)]
    lengths = [[row["length"] for row in step] for step in forecast._of_all_lengths(rows, 2)]
    assert lengths == [[400, 300], [35, 30], [15, 10]]
    assert [len(step) for step in forecast._of_all_lengths(rows, 12)] == [12]
    assert [len(step) for step in forecast._of_all_lengths(rows, 8)] == [8, 4]


def test_fewer_rows_than_a_step_has_are_tried_too(rows):
    few = rows[0].select(range(2))
    assert forecast.forecast_training(replace(PROFILE, batch_size=8), few, rows[1]).seconds > 0


def test_memory_is_the_planners_for_the_longest_row(rows, monkeypatch):
    measured(monkeypatch, 1.0)
    small, large = (forecast.forecast_training(replace(PROFILE, batch_size=size), *rows).peak_bytes for size in (1, 8))
    assert memory.FRAMEWORK["cpu"] < small < large
    quantised = replace(PROFILE, method="qlora", precision="nf4")
    assert forecast.forecast_training(quantised, *rows).peak_bytes > memory.FRAMEWORK["cpu"]


def test_a_real_trial_says_seconds_and_tokens(rows):
    found = forecast.forecast_training(PROFILE, *rows)
    assert found.seconds > found.trial.seconds > 0
    encoded = sum(row["length"] for row in tokenisation.encode_rows(rows[0], *_reading()))
    assert found.tokens == PROFILE.epochs * encoded


def test_what_cannot_train_is_an_error_before_anything_is_tried(rows):
    with pytest.raises(SummkitError, match="needs an encoder-decoder"):
        forecast.forecast_training(
            replace(PROFILE, model="tiny-llama", method="frozen-encoder", template="instruction"), *rows
        )


def _reading() -> tuple:
    tokenizer = loading.load_tokenizer(PROFILE.model)
    template = templates.build_template(PROFILE.template, tokenizer, templates.get_wording(PROFILE.wording))
    return template, tokenizer, PROFILE.max_length, PROFILE.max_new_tokens, True
