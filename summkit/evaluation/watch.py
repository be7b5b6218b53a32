"""Score a model's answers during training, since the loss does not show their quality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from summkit.errors import SummkitError
from summkit.evaluation import metrics
from summkit.inference import generation
from summkit.training import environment

Scores = Callable[[list[str], list[str]], dict[str, float]]  # of texts and references

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from summkit.config import Profile
    from summkit.data.templates import Template


def rouge1_bleu3(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return {"rouge1", "bleu3"}, 0 to 100: the mean of the rows' ROUGE-1, and BLEU-3 of the corpus."""
    scores = metrics.overlap().compute(predictions=list(texts), references=list(references))
    return {name: scores[name] for name in ("rouge1", "bleu3")}


def generation_scores(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    rows: Dataset,
    profile: Profile,
    scores: Scores = rouge1_bleu3,
    limit: int = 8,
) -> TrainerCallback:
    """Return a callback for `training.fit` that scores the model's answers to a few rows at each evaluation.

    A few rows show only a trend. Evaluations take longer, and this counts as training time. Decoding is greedy. The
    training itself is bit for bit the same as without the callback. With several processes the first one answers,
    or all of them if the model is spread over them.

    Args:
        tokenizer: The model's tokenizer.
        template: The prompt template.
        rows: A data set with document and summary, not tokens.
        profile: Sets the lengths and the batch size.
        scores: A function (texts, references) → {name: number}; the training's history has each number as eval_NAME.
        limit: The largest number of rows to answer.

    Raises:
        SummkitError: There is no row to answer.
    """
    import torch
    from transformers import TrainerCallback

    rows = rows.select(range(min(limit, len(rows))))
    if not len(rows):
        raise SummkitError(f"watch: no rows to answer, {limit} asked for; leave it out or ask for more")
    limits = profile.limits | {"batch_size": profile.generation_batch_size}

    class GenerationScores(TrainerCallback):
        def on_evaluate(self, args, state, control, model=None, metrics=None, **_) -> None:  # noqa: ANN001, ANN003
            if not (state.is_world_process_zero or environment.is_spread(profile)):
                return
            # Answering may seed torch and draw random numbers, which must not change dropout or the order of rows.
            with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
                answers = generation.summarize(model, tokenizer, template, list(rows["document"]), **limits)
                values = scores([answer.text for answer in answers], list(rows["summary"]))
            metrics |= {f"eval_{name}": float(value) for name, value in values.items()}

    return GenerationScores()


def watched_scores(history: list[dict]) -> list[dict]:
    """Return the scores of `generation_scores` from a training's history: [{"step", "eval_rouge1", …}]."""
    watched = []
    for entry in history:
        scores = {name: value for name, value in entry.items() if name.startswith("eval_") and name != "eval_loss"}
        if scores:
            watched.append({"step": entry["step"]} | scores)
    return watched
