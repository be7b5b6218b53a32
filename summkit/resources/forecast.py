"""Floor 6. What a training will take, before it begins: its time from a few measured steps, its memory computed.

Not counted: loading the model, and writing checkpoints.
"""

from dataclasses import dataclass, replace

from summkit.data import templates, tokenisation
from summkit.models import loading
from summkit.resources import memory, trials

STEPS = 3  # optimizer steps that are measured, after one that is not
FORWARD = 1 / 3  # of a training step's work is the forward pass alone, which evaluating takes


@dataclass(frozen=True)
class Forecast:
    """`seconds` of the training with its evaluations; `peak_bytes` of the process (of the GPU where there is one), an
    upper bound; `tokens` that it reads and writes in all; `trial` is what was measured for it.
    """

    seconds: float
    peak_bytes: int
    tokens: int
    trial: trials.Trial


def forecast_training(profile, train, validation, seed: int = 0) -> Forecast:
    """What `training.fit` with `profile` will take on the rows `train` (id, document, summary) and `validation`.

    A fresh model is trained for STEPS of the training's own steps, rows of like length together, spread over all
    lengths: short rows alone are dear by the token, and rows of unlike length are padded. A process pays for some
    things once: make a first forecast and forget it. Raises SummkitError as `models.load_model`, `methods.apply` and
    `planner.plan` do.
    """
    tokenizer = loading.load_tokenizer(profile.model)
    template = templates.build_template(profile.template, tokenizer, templates.get_wording(profile.wording))
    meta = memory.on_meta(profile.model)
    limits = (profile.max_length, profile.max_new_tokens, loading.is_encoder_decoder(meta))
    rows, held = (list(tokenisation.encode_rows(part, template, tokenizer, *limits)) for part in (train, validation))
    size = profile.batch_size * profile.gradient_accumulation
    some = _of_all_lengths(rows, size)
    warm_up = (some[0] * size)[:size]  # a whole step, even of fewer rows
    tried = [row for step in [warm_up, *some] for row in step]
    trial = trials.measure_steps(profile.model, tokenizer, tried, held[:2], profile, seed, warm_up=1)
    tokens = _tokens(rows) * profile.epochs
    evaluating = _tokens(held) * max(1, profile.epochs * profile.evaluations_per_epoch) * FORWARD
    seconds = trial.seconds / sum(map(_tokens, some)) * (tokens + evaluating)
    return Forecast(seconds, _memory(meta, profile, rows), round(tokens), trial)


def _of_all_lengths(rows: list[dict], size: int) -> list[list[dict]]:
    """STEPS steps of `size` rows each: in order of length, the middle one of each equal part of all of them."""
    steps = tokenisation.length_sorted_batches([row["length"] for row in rows], size)
    part = max(1, len(steps) / STEPS)
    middle = [steps[int((place + 0.5) * part)] for place in range(min(STEPS, len(steps)))]
    return [[rows[number] for number in step] for step in middle]


def _memory(meta, profile, rows: list[dict]) -> int:
    """Bytes of a step on rows as long as the longest."""
    import torch

    answer = max(sum(label != tokenisation.IGNORE for label in row["labels"]) for row in rows)
    longest = {"sequence_length": max(len(row["input_ids"]) for row in rows), "logits_tokens": answer}
    method = "lora" if profile.method == "qlora" else profile.method  # the precision says the rest
    longest["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    return memory.plan_training(meta, **memory.plan_settings(replace(profile, method=method), **longest)).total


def _tokens(rows: list[dict]) -> int:
    return sum(row["length"] for row in rows)
