"""Answers during a training: bounded, in the history, and without a trace in the training itself."""

import dataclasses
from types import SimpleNamespace

import datasets
import pytest
import torch

from summkit.data import tokenisation
from summkit.errors import SummkitError
from summkit.evaluation import watch
from summkit.inference import generation
from summkit.models.tiny import tiny_llama
from tests.unit.test_trainer import SMOKE, TEMPLATE, TOKENIZER, losses, run

pytestmark = pytest.mark.usefixtures("one_thread")

PROFILE = dataclasses.replace(SMOKE, max_new_tokens=6, max_length=200, epochs=1)
PAIRS = datasets.Dataset.from_list([{"document": "x" * n, "summary": "ab c"} for n in (5, 40, 21, 9, 30)])
LIMITS = {"max_length": 200, "max_new_tokens": 6}
FIRST = SimpleNamespace(is_world_process_zero=True)


def watched(limit=2, **settings):
    return watch.generation_scores(TOKENIZER, TEMPLATE, PAIRS, PROFILE, limit=limit, **settings)


def counted(texts, references):
    return {"rows": len(texts), "characters": sum(map(len, texts))}


def test_a_watched_training_is_to_the_bit_the_unwatched_one(tmp_path):
    """With dropout and shuffled rows: one number drawn, or one mode left on, and all that follows is another run."""
    rows = tokenisation.encode_rows(PAIRS.select([0, 1, 2, 3, 4] * 4), TEMPLATE, TOKENIZER, **LIMITS)
    plain, weights = run(tmp_path / "plain", PROFILE, rows)
    seen = []
    fit, same = run(
        tmp_path / "watched",
        PROFILE,
        rows,
        callbacks=[watched()],
        on_log=lambda history: seen.append(dict(history[-1])),
    )
    assert PROFILE.dropout and losses(fit) == losses(plain) and same == weights
    evaluations = [entry for entry in fit.history if "eval_loss" in entry]
    assert len(evaluations) == 3 and all({"eval_rouge1", "eval_bleu3"} <= set(entry) for entry in evaluations)
    assert [e["eval_rouge1"] for e in seen if "eval_loss" in e] == [e["eval_rouge1"] for e in evaluations]
    assert watch.watched_scores(fit.history) == [
        {key: entry[key] for key in ("step", "eval_rouge1", "eval_bleu3")} for entry in evaluations
    ]
    assert watch.watched_scores(plain.history) == []


def test_the_answers_are_the_models_and_no_more_than_asked_for():
    model, metrics = tiny_llama().train(), {"eval_loss": 1.0}
    heard = []
    callback = watched(limit=3, scores=lambda texts, references: heard.append((texts, references)) or {"n": len(texts)})
    state = torch.get_rng_state()
    callback.on_evaluate(None, FIRST, None, model=model, metrics=metrics)
    assert metrics == {"eval_loss": 1.0, "eval_n": 3.0}
    assert model.training and torch.equal(torch.get_rng_state(), state)
    found = generation.summarize(model, TOKENIZER, TEMPLATE, PAIRS["document"][:3], **LIMITS)
    assert heard == [([answer.text for answer in found], PAIRS["summary"][:3])]


def test_another_process_asks_nothing():
    metrics = {"eval_loss": 1.0}
    watched().on_evaluate(None, SimpleNamespace(is_world_process_zero=False), None, model=None, metrics=metrics)
    assert metrics == {"eval_loss": 1.0}


def test_fewer_rows_than_asked_for_are_all_there_are():
    metrics = {}
    watched(limit=99, scores=counted).on_evaluate(None, FIRST, None, model=tiny_llama(), metrics=metrics)
    assert metrics["eval_rows"] == len(PAIRS)
    with pytest.raises(SummkitError, match="no rows to answer"):
        watched(limit=0)


def test_scores_of_equal_and_of_other_texts():
    texts = ["the bridge is open again", "rain fell on the town"]
    assert watch.rouge1_bleu3(texts, texts) == pytest.approx({"rouge1": 100, "bleu3": 100})
    assert watch.rouge1_bleu3(texts, ["a b c d", "e f g h"]) == pytest.approx({"rouge1": 0, "bleu3": 0})
