"""Floor 6. What a loss does not say: the answers that a model gives while it is trained, and their scores."""

from summkit.config import Profile
from summkit.errors import SummkitError
from summkit.evaluation import metrics
from summkit.inference import generation
from summkit.training import sharding


def rouge1_bleu3(texts: list[str], references: list[str]) -> dict[str, float]:
    """{"rouge1", "bleu3"} of all texts together, 0 to 100: the mean of the rows' ROUGE-1, and BLEU-3 of the corpus."""
    mean = float(metrics.rouge_rows(texts, references)["rouge1"].mean())
    return {"rouge1": mean} | metrics.bleu3().compute(predictions=texts, references=references)


def generation_scores(tokenizer, template, rows, profile: Profile, scores=rouge1_bleu3, limit: int = 8):
    """A callback for `training.fit` that has the model answer the first `limit` of `rows` at every evaluation.

    `rows` have document and summary, not tokens. `scores(texts, references)` → {name: number}; each number stands in
    the training's history as eval_NAME, beside the evaluation's loss. The answers are greedy. A few rows show a trend,
    and no more: every evaluation pays for them, and its seconds count as the training's.
    The training is to the last bit what it would have been unwatched. Of several processes the first one asks, or all
    where none of them holds the whole model.
    Raises SummkitError where there is no row to answer.
    """
    from transformers import TrainerCallback

    rows = rows.select(range(min(limit, len(rows))))
    if not len(rows):
        raise SummkitError(f"watch: no rows to answer, {limit} asked for; leave it out or ask for more")
    limits = {"max_length": profile.max_length, "max_new_tokens": profile.max_new_tokens}
    limits["batch_size"] = profile.generation_batch_size

    class GenerationScores(TrainerCallback):
        def on_evaluate(self, args, state, control, model=None, metrics=None, **_):
            if not (state.is_world_process_zero or sharding.is_spread(profile)):
                return
            with _same_random_numbers(model):
                found = generation.summarize(model, tokenizer, template, list(rows["document"]), **limits)
                values = scores([answer.text for answer in found], list(rows["summary"]))
            metrics |= {f"eval_{name}": float(value) for name, value in values.items()}

    return GenerationScores()


def watched_scores(history: list[dict]) -> list[dict]:
    """The watched scores out of `FitResult.history`: [{"step", "eval_rouge1", …}], one entry an evaluation."""
    watched = [
        {
            key: value
            for key, value in entry.items()
            if key == "step" or (key.startswith("eval_") and key != "eval_loss")
        }
        for entry in history
    ]
    return [entry for entry in watched if len(entry) > 1]


def _same_random_numbers(model):
    """Inside it torch may be seeded and drawn from; after it, dropout and the rows' order go on as if it had not."""
    import torch

    return torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else [])
