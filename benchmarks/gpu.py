"""QLoRA on a GPU with a model of phi-2's shape: footprint, peak memory at 512 tokens, tokens a second.

The weights are random, because neither time nor memory depends on them, so nothing is downloaded. The tokenizer reads
bytes. Without a GPU nothing is measured; `--smoke` shows that it runs, with a tiny model of the same kind.
"""

import dataclasses
import tempfile
from pathlib import Path

from benchmarks import harness, training, workload
from benchmarks.harness import Contestant
from summkit.config import Profile, choose_profile, detect_hardware

CLAIMED_BYTES = 5.67e9  # what the course says is enough for 512 tokens (task 2)
TRIAL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
TRIAL |= {"num_attention_heads": 4, "num_key_value_heads": 4}
SETTINGS = {
    # As on the card with little memory, where rows are recomputed in the backward pass.
    "memory": {"rows": 16, "batch_size": 4, "gradient_checkpointing": True},
    "speed": {"rows": 256, "batch_size": 16, "gradient_checkpointing": False},
}


def prepare(work: dict) -> dict:
    """The model as a folder in bf16, with random weights, and its tokenizer."""
    import torch

    from summkit.models import loading
    from summkit.resources import memory

    config = memory.known_config("microsoft/phi-2")
    config.update(work["shape"])
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = loading.auto_class(config).from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(work["profile"]["model"])
    loading.tiny_tokenizer().save_pretrained(work["profile"]["model"])
    return workload.sizes(model)


def unsloth(work: dict) -> dict:
    """Unsloth's own loading and adapters, under the same SFTTrainer."""
    from unsloth import FastLanguageModel  # before transformers, which it changes

    from summkit.models import loading, methods

    profile = Profile(**work["profile"])
    dtype = "bfloat16" if profile.compute_dtype == "bfloat16" else "float16"
    model, _ = FastLanguageModel.from_pretrained(
        profile.model, max_seq_length=profile.max_length, load_in_4bit=True, dtype=dtype
    )
    sizes = workload.sizes(model) | {"footprint_bytes": sum(loading.footprint(model).values())}
    model = FastLanguageModel.get_peft_model(
        model,
        r=profile.rank,
        lora_alpha=profile.alpha,
        lora_dropout=0.0,
        target_modules=methods.target_layers(model, profile.targets),
        random_state=0,
        use_gradient_checkpointing="unsloth" if profile.gradient_checkpointing else False,
    )
    tokenizer = loading.load_tokenizer(profile.model)
    prepared = (profile, tokenizer, model, sizes, training.Seen(model, tokenizer))
    return training.trl(work, prepared, gradient_checkpointing=profile.gradient_checkpointing)


CONTESTANTS = {
    "summkit": Contestant(training.summkit, "this library: logits for the summary only"),
    "trl": Contestant(training.trl_best, "SFTTrainer, the same checkpointing, similar lengths together", "trl"),
    "trl padding-free": Contestant(training.trl_padding_free, "SFTTrainer without padding", "trl"),
    "unsloth": Contestant(unsloth, "SFTTrainer under Unsloth's kernels", "unsloth"),
}


def run(setting: str, options) -> dict:
    """The record of one of SETTINGS. `options`: smoke, rounds, threads."""
    settings = dict(SETTINGS[setting])
    rows = 4 if options.smoke else settings.pop("rows")
    settings.pop("rows", None)
    with tempfile.TemporaryDirectory() as folder:
        chosen = _profile(folder, options.smoke, settings)
        called = "random weights in phi-2's shape" + (", made tiny" if options.smoke else "")
        work = made_up(chosen, rows) | {"shape": TRIAL if options.smoke else {}, "called": called}
        harness.start("gpu", "prepare", work, options.threads)
        record = training.compete(work, CONTESTANTS, "gpu", options)
    record["stage"] = f"benchmarks/gpu-{setting}"
    return record | {"details": record["details"] | {"claimed_bytes": CLAIMED_BYTES}}


def _profile(folder: str, smoke: bool, settings: dict) -> Profile:
    compute = "float32" if smoke else "bfloat16" if detect_hardware().bf16 else "float16"
    settings |= {"model": str(Path(folder) / "model"), "compute_dtype": compute, "dropout": 0.0}
    settings |= {"optimizer": "adamw_torch", "evaluations_per_epoch": 1, "max_length": 512, "max_new_tokens": 64}
    return choose_profile("gpu", **settings)


def made_up(chosen: Profile, count: int) -> dict:
    """Return the work of `count` rows of exactly `max_length` tokens: random letters, one token each."""
    import random

    from summkit.data import templates, tokenisation
    from summkit.models import loading

    tokenizer = loading.tiny_tokenizer()
    template = templates.summary_template(chosen, tokenizer)
    limits = (chosen.max_length, chosen.max_new_tokens)
    room = tokenisation.window(template, tokenizer, *limits)
    # The answer's first token may be a space, and EOS is its last.
    written = chosen.max_new_tokens - 1 - len(template.gap)
    draw, encoded = random.Random(0), []
    for _ in range(count):
        texts = ("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=size)) for size in (room, written))
        row = dict(zip(("document", "summary"), texts, strict=True))
        encoded.append((row, tokenisation.encode(template, tokenizer, row["document"], row["summary"], *limits)))
    return workload.described(dataclasses.replace(chosen, dataset="made up"), template, encoded)
