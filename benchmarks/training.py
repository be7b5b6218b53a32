"""LoRA on the same rows, weights and steps: this library, the tutorial recipe, TRL's SFTTrainer.

Only training is measured, not imports, loading or tokenisation. This library also evaluates on one row and saves a
checkpoint, because it does so in every training; the others do neither.
"""

import dataclasses
import hashlib
from pathlib import Path

from benchmarks import harness, workload
from benchmarks.harness import Contestant
from summkit.config import Profile

ROWS = {"smoke": 8, "real": 16}


class Seen:
    """Count what the model's embedding receives while it trains: positions, and how often each token occurs."""

    def __init__(self, model, tokenizer):
        import torch

        self.positions, self.left_out = 0, {tokenizer.pad_token_id, tokenizer.eos_token_id}
        embedding = model.get_input_embeddings()
        self.counts = torch.zeros(embedding.num_embeddings, dtype=torch.long)
        embedding.register_forward_pre_hook(self._look)

    def _look(self, module, inputs):
        if module.training:
            self.positions += inputs[0].numel()
            self.counts += inputs[0].flatten().bincount(minlength=len(self.counts)).cpu()

    def digest(self) -> str:
        """Return a digest that is equal for equal tokens, whatever their order and padding."""
        kept = [count for token, count in enumerate(self.counts.tolist()) if token not in self.left_out]
        return hashlib.sha256(str(kept).encode()).hexdigest()[:12]


def _prepared(work: dict):
    """(profile, tokenizer, model with its adapters, sizes, Seen): the same weights for every contestant."""
    from transformers import set_seed

    from summkit.models import loading, methods

    harness.quiet()
    profile = Profile(**work["profile"])
    tokenizer = loading.load_tokenizer(profile.model)
    model = loading.load_model(profile.model, profile.precision, profile.compute_dtype)
    sizes = workload.sizes(model) | {"footprint_bytes": sum(loading.footprint(model).values())}
    set_seed(0)
    model = methods.apply_method(model, profile)
    return profile, tokenizer, model, sizes, Seen(model, tokenizer)


def _measured(train, seen: Seen, sizes: dict, history) -> dict:
    """What `train()` took; it returns the number of optimizer steps. `history()` is Trainer's log."""
    steps, taken = harness.measure(train)
    losses = [entry["loss"] for entry in history() if "loss" in entry]
    loss = sum(losses) / len(losses)
    return taken | {"steps": steps, "loss": loss, "positions": seen.positions, "tokens_seen": seen.digest()} | sizes


def summkit(work: dict, **settings) -> dict:
    """Train as `python -m summkit train` does: output layer on the summary's tokens only."""
    import datasets

    from summkit.data import templates, tokenisation
    from summkit.training.trainer import fit

    profile, tokenizer, model, sizes, seen = _prepared(work)
    profile = dataclasses.replace(profile, **settings)
    template = templates.summary_template(profile, tokenizer)
    rows = datasets.Dataset.from_list(work["rows"])
    encoded = tokenisation.encode_rows(rows, template, tokenizer, profile.max_length, profile.max_new_tokens)
    found = []

    def train():
        one = encoded.select([0])
        found.append(fit(model, tokenizer, encoded, one, profile, seed=0, out_dir=Path(work["folder"]) / "t"))
        return found[0].steps

    return _measured(train, seen, sizes, lambda: found[0].history)


def summkit_together(work: dict) -> dict:
    """Train with all rows of a step in one batch."""
    return summkit(work, batch_size=_rows_in_a_step(work), gradient_accumulation=1)


def _rows_in_a_step(work: dict) -> int:
    return work["profile"]["batch_size"] * work["profile"]["gradient_accumulation"]


def tutorial(work: dict) -> dict:
    """Train as most tutorials do: every row padded to the limit, one row at a time, logits at every position."""
    from transformers import Trainer, TrainingArguments, default_data_collator

    profile, tokenizer, model, sizes, seen = _prepared(work)
    rows = [_padded(tokenizer, row, profile.max_length) for row in work["rows"]]
    settings = _common(work, profile, model) | _a_row_at_a_time(work)
    trainer = Trainer(
        model=model, args=TrainingArguments(**settings), train_dataset=rows, data_collator=default_data_collator
    )
    return _measured(lambda: trainer.train().global_step, seen, sizes, lambda: trainer.state.log_history)


def _padded(tokenizer, row: dict, length: int) -> dict:
    text = row["prompt"] + row["completion"] + tokenizer.eos_token
    found = tokenizer(text, truncation=True, max_length=length, padding="max_length", padding_side="right")
    prompt, used = len(tokenizer(row["prompt"])["input_ids"]), sum(found["attention_mask"])
    ids = found["input_ids"]
    labels = [-100] * prompt + ids[prompt:used] + [-100] * (length - used)
    return {"input_ids": ids, "attention_mask": found["attention_mask"], "labels": labels}


def trl(work: dict, prepared=None, **settings) -> dict:
    """TRL's SFTTrainer on rows of prompt and completion; `prepared`: what `_prepared` returns, loaded elsewhere."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    profile, tokenizer, model, sizes, seen = prepared or _prepared(work)
    rows = datasets.Dataset.from_list([{key: row[key] for key in ("prompt", "completion")} for row in work["rows"]])
    settings = _common(work, profile, model) | {"per_device_train_batch_size": _rows_in_a_step(work)} | settings
    trainer = SFTTrainer(model=model, args=SFTConfig(**settings), train_dataset=rows, processing_class=tokenizer)
    return _measured(lambda: trainer.train().global_step, seen, sizes, lambda: trainer.state.log_history)


def trl_defaults(work: dict) -> dict:
    """Run SFTTrainer with its defaults, including gradient checkpointing; set only what all contestants share."""
    return trl(work)


def trl_best(work: dict) -> dict:
    """Run SFTTrainer without checkpointing, with rows of similar length together."""
    checkpointing = work["profile"]["gradient_checkpointing"]
    return trl(work, gradient_checkpointing=checkpointing, train_sampling_strategy="group_by_length")


def trl_row_by_row(work: dict) -> dict:
    """Run SFTTrainer without checkpointing, rows one by one: no padding."""
    return trl(work, gradient_checkpointing=work["profile"]["gradient_checkpointing"], **_a_row_at_a_time(work))


def trl_padding_free(work: dict) -> dict:
    """Run SFTTrainer without checkpointing, with the rows of a batch packed without padding."""
    checkpointing = work["profile"]["gradient_checkpointing"]
    return trl(work, gradient_checkpointing=checkpointing, padding_free=True, max_length=None)


def _a_row_at_a_time(work: dict) -> dict:
    return {"per_device_train_batch_size": 1, "gradient_accumulation_steps": _rows_in_a_step(work)}


def _common(work: dict, profile: Profile, model) -> dict:
    """Return the arguments of Trainer that all contestants share."""
    return {
        "output_dir": work["folder"],
        "num_train_epochs": profile.epochs,
        "learning_rate": profile.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "optim": profile.optimizer,
        "bf16": profile.compute_dtype == "bfloat16",
        "fp16": profile.compute_dtype == "float16",
        "use_cpu": model.device.type == "cpu",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 0,
    }


CONTESTANTS = {
    "summkit": Contestant(summkit, "this library: a step's rows one by one, logits for the summary only"),
    "summkit, rows together": Contestant(summkit_together, "the same with all rows of a step in one batch, by length"),
    "tutorial": Contestant(tutorial, "padded to the limit, logits everywhere, rows one by one and accumulated"),
    "trl defaults": Contestant(trl_defaults, "SFTTrainer as it comes: gradient checkpointing", "trl"),
    "trl padding-free": Contestant(trl_padding_free, "SFTTrainer without checkpointing and padding", "trl"),
    "trl row by row": Contestant(trl_row_by_row, "SFTTrainer without checkpointing, rows one by one", "trl"),
}


def needed_flop(work: dict, sizes: dict) -> float:
    """Return the FLOP that every way of training adapters needs: forward and backward through frozen weights.

    That is 4 for each weight and token; the output layer counts for the summary's tokens only. Attention between tokens
    and the adapters are left out.
    """
    return 4.0 * (sizes["body"] * work["tokens"] + sizes["head"] * work["answer_tokens"])


def run(options) -> dict:
    """The record of this benchmark. `options`: smoke, rounds, threads."""
    work = workload.make(workload.profile(options.smoke), "train", ROWS["smoke" if options.smoke else "real"])
    return compete(work, CONTESTANTS, "training", options)


def compete(work: dict, contestants: dict, benchmark: str, options) -> dict:
    """The record of `contestants` training on `work`."""
    found = harness.compete(benchmark, contestants, work, options.rounds, options.threads)
    for entry in found["contestants"].values():
        if entry["rounds"]:
            last = entry["rounds"][-1]
            entry |= {key: last[key] for key in ("steps", "loss", "positions", "tokens_seen", "footprint_bytes")}
            entry |= speed(entry, work["tokens"], needed_flop(work, last), found["ceiling"])
    return harness.record(benchmark, work["profile"]["name"], options.threads, work=workload.summary(work), **found)


def speed(entry: dict, tokens: int, flop: float, ceiling: dict) -> dict:
    """Tokens a second and the share of the ceiling: of the GPU's clock and bf16 rate, or of CPU seconds and sgemm."""
    on_gpu = entry["device_seconds"] is not None
    seconds = entry["device_seconds" if on_gpu else "cpu_seconds"]["median"]
    rate = ceiling["bf16_flop_per_second" if on_gpu else "sgemm_flop_per_second"]["median"]
    found = {"tokens_per_second": tokens / seconds, "share_of_ceiling": flop / seconds / rate}
    if entry.get("positions"):
        found["positions_per_second"] = entry["positions"] / seconds
    return found
