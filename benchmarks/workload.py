"""The rows that all contestants get. All of them fit into the limit, so that no contestant cuts any."""

import dataclasses

from summkit.config import Profile, choose_profile
from summkit.data import summarisation, templates, tokenisation
from summkit.errors import SummkitError
from summkit.models import loading

# Of the profile that is measured in earnest, and of the one that only shows that the benchmarks run. All in fp32 and
# with the same adapters. Tiny models read bytes: their rows are longer.
SAME = {"precision": "fp32", "dropout": 0.0, "optimizer": "adamw_torch", "evaluations_per_epoch": 1}
REAL = SAME | {"max_length": 512, "epochs": 1, "batch_size": 1, "gradient_accumulation": 4}
SMOKE = SAME | {"max_length": 704, "epochs": 1, "batch_size": 1, "gradient_accumulation": 4, "generation_batch_size": 4}


def profile(smoke: bool) -> Profile:
    """Return the profile whose settings every contestant gets, where it has such a setting."""
    return choose_profile("smoke", **SMOKE) if smoke else choose_profile("cpu", **REAL)


def make(chosen: Profile, split: str, rows: int) -> dict:
    """{"profile", "rows": [{"document", "summary", "prompt", "completion"}], "tokens", "answer_tokens"}.

    These are the first `rows` of the split that fit into `max_length`. Raises SummkitError if there are fewer.
    """
    tokenizer = loading.load_tokenizer(chosen.model)
    template = templates.summary_template(chosen, tokenizer)
    limits = (chosen.max_length, chosen.max_new_tokens)
    encoded = []
    for row in getattr(summarisation.load_summaries(chosen), split):
        pair = tokenisation.encode(template, tokenizer, row["document"], row["summary"], *limits)
        if not pair["cut"] and len(encoded) < rows:
            encoded.append((row, pair))
    if len(encoded) < rows:
        raise SummkitError(f"{split}: {len(encoded)} rows fit into {chosen.max_length} tokens, but {rows} are needed")
    return described(chosen, template, encoded)


def described(chosen: Profile, template, encoded: list[tuple[dict, dict]]) -> dict:
    """The work of (row, `features.encode` of it) pairs; lengths in tokens, EOS counted with the answer."""
    answers = [sum(label != tokenisation.IGNORE for label in pair["labels"]) for _, pair in encoded]
    texts = [{key: row[key] for key in ("document", "summary")} for row, _ in encoded]
    for row in texts:
        row |= {"prompt": template.prompt(row["document"]), "completion": template.answer(row["summary"])}
    tokens = sum(pair["length"] for _, pair in encoded)
    about = {"tokens": tokens, "answer_tokens": sum(answers), "prompt_tokens": tokens - sum(answers)}
    return {"profile": dataclasses.asdict(chosen), "rows": texts} | about


def summary(work: dict) -> dict:
    """Return what a record keeps of the work: settings and counts, no text."""
    kept = ("model", "dataset", "precision", "compute_dtype", "max_length", "max_new_tokens", "targets", "rank")
    kept += ("batch_size", "gradient_accumulation", "generation_batch_size", "optimizer", "gradient_checkpointing")
    counts = {key: work[key] for key in ("tokens", "answer_tokens", "prompt_tokens")}
    about = {key: work["profile"][key] for key in kept} | {"rows": len(work["rows"])} | counts
    return about | {"model": work.get("called", about["model"])}  # one that was made up lies in a folder


def sizes(model) -> dict:
    """{"body", "head"}: weights that a token is multiplied with, and those for a token that is predicted from."""
    head = model.get_output_embeddings().weight.numel()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    return {"body": loading.parameter_report(model)["parameters"] - head * (1 if tied else 2), "head": head}
