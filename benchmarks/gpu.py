"""QLoRA and its answers on a GPU, in eight minutes: each lever of this library, TRL, Unsloth; two shapes of models.

The weights are random, because neither time nor memory depends on them, so nothing is downloaded. The tokenizer reads
bytes. The models are made once, the libraries are imported once, and each contestant has a process of its own, forked
from that. It warms up, and is then measured three times. The record is written after each contestant: what is stopped,
or out of time, goes on with the next call. What matters most comes first (`_order`); after eight minutes of an H100,
single levers and the slowest ways to answer are left for the next call. Without a GPU nothing is measured; `--smoke`
shows that it runs.
"""

import dataclasses
import importlib.util
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from benchmarks import harness, training, workload
from benchmarks.harness import Contestant
from summkit.config import Profile, choose_profile
from summkit.config import options as known_options
from summkit.errors import SummkitError
from summkit.reporting import records

TRIAL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TRIAL |= {"num_key_value_heads": 4, "head_dim": 16}
LLAMA = {
    "class": "LlamaConfig",
    "vocab_size": 128_256,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
SHAPES = {"phi-2": None, "llama-3.2-3b": LLAMA}  # None: summkit knows it
WARM_UP, STEPS, REPEATS = 2, 2, 3
PATIENCE = 15.0  # seconds after which an answer that was repeated once is not repeated again
# The profiles' ways to train: rows of a step, whether activations are computed again, the part of the window that rows
# fill (all of it, or from a quarter to all).
WAYS = {
    "16 rows": {"batch_size": 16, "gradient_checkpointing": False},
    "16 rows, checkpointing": {"batch_size": 16, "gradient_checkpointing": True},
    "4 rows, checkpointing": {"batch_size": 4, "gradient_checkpointing": True},
    "16 rows of all lengths, checkpointing": {"batch_size": 16, "gradient_checkpointing": True, "mixed": True},
}
ALL, ONE = tuple(WAYS), tuple(WAYS)[1:2]
# What each lever sets. An option that this version of the library does not have is left out, and said.
LEVERS = {
    "fewer waits": {"optimizer": "adamw_torch_fused", "logging_steps": 5},
    "no autocast": {"pure_compute_dtype": True},
    "fused kernels": {"fused_kernels": True},
    "packing": {"packing": True},
    "compiled": {"compile_from_steps": 1, "pad_to_multiple_of": 128},
}
_ALL = {name: value for lever in LEVERS.values() for name, value in lever.items()}
_OURS = {name: value for name, value in _ALL.items() if name != "compile_from_steps"}
# Whatever the profile sets by now.
_BEFORE = {name: Profile.__pydantic_fields__[name].default for name in _ALL}
TOGETHER, TEXTS = 64, 1  # texts that are answered at once, and one by one


def prepare(work: dict) -> dict:
    """The model as a folder in bf16, with random weights, and its tokenizer."""
    import torch
    import transformers

    from summkit.models import loading
    from summkit.resources import memory

    values = dict(SHAPES[work["shape"]] or {})
    made = values.pop("class", "")
    config = getattr(transformers, made)(**values) if made else memory.known_config(f"microsoft/{work['shape']}")
    if work["smoke"]:
        config.update({key: value for key, value in TRIAL.items() if hasattr(config, key)})
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = loading.auto_class(config).from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(work["profile"]["model"])
    loading.tiny_tokenizer().save_pretrained(work["profile"]["model"])
    return workload.sizes(model)


def _clock(profile_step: bool = False):
    """A TrainerCallback that notes the end of each step, on the GPU's own clock, and profiles the last step."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self):
            self.marks, self.table, self.cold, self.started = [], [], None, time.perf_counter()

        def on_step_begin(self, args, state, control, **_):
            self.profiler = None
            if profile_step and state.global_step == state.max_steps - 1:
                kinds = [torch.profiler.ProfilerActivity.CPU]
                kinds += [torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_available() else []
                self.profiler = torch.profiler.profile(activities=kinds)
                self.profiler.__enter__()

        def on_step_end(self, args, state, control, **_):
            if self.profiler:
                _wait()
                self.profiler.__exit__(None, None, None)
                self.table = _operators(self.profiler)
            if self.cold is None:
                _wait()
                self.cold = time.perf_counter() - self.started
            self.marks.append(_mark())

        def seconds(self) -> list[float]:
            """The steps after the warm-up, in REPEATS parts: seconds of a step in each."""
            _wait()
            ends = [self.marks[WARM_UP + STEPS * part - 1] for part in range(REPEATS + 1)]
            return [_between(one, other) / STEPS for one, other in pairwise(ends)]

    return Clock()


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _mark():
    import torch

    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(one, other) -> float:
    return other - one if isinstance(one, float) else one.elapsed_time(other) / 1000


def _operators(profiler, most: int = 12) -> list[list]:
    """[operator, calls, milliseconds on the device] of those that take longest."""
    rows = []
    for event in profiler.key_averages():
        took = getattr(event, "self_device_time_total", 0) or event.self_cpu_time_total
        rows.append([event.key[:60], event.count, round(took / 1000, 2)])
    return sorted(rows, key=lambda row: -row[2])[:most]


def _peak(reset: bool = False) -> int | None:
    import torch

    if not torch.cuda.is_available():
        return None
    if reset:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated()


def _trained(work: dict, ways, run) -> dict:
    """{way: results} of `run(way's work, profile, clock)`, which trains and returns {"loss", …}."""
    found = {}
    for way in ways:
        settings = {key: value for key, value in WAYS[way].items() if key != "mixed"}
        part = work | work["rows_of"]["mixed" if "mixed" in WAYS[way] else "full"]
        settings |= {"batch_size": 2} if work["smoke"] else {}
        profile = dataclasses.replace(Profile(**work["profile"]), **settings)
        steps = WARM_UP + STEPS * REPEATS + ("profiled" in work)  # the last step is profiled
        rows = profile.batch_size * steps
        part |= {"rows": part["rows"][:rows], "profile": dataclasses.asdict(profile)}
        clock = _clock(profile_step="profiled" in work)
        _peak(reset=True)
        with tempfile.TemporaryDirectory() as folder:
            result = run(part | {"folder": folder}, profile, clock)
        tokens = part["tokens"] * profile.batch_size / part["count"]
        answers = part["answer_tokens"] * profile.batch_size / part["count"]
        result |= {"tokens": tokens, "answer_tokens": answers, "cold_seconds": clock.cold, "operators": clock.table}
        found[way] = result | {"seconds": clock.seconds(), "peak_device_bytes": _peak()}
    return found


def summkit(work: dict, ways, **changes) -> dict:
    """Train by `fit`, with some options changed."""
    import datasets
    from transformers import set_seed

    from summkit.data import templates, tokenisation
    from summkit.models import loading, methods
    from summkit.resources import memory
    from summkit.training.trainer import fit

    missing = sorted(set(changes) - set(known_options()))
    if missing:
        raise SummkitError(f"this version has no option {', '.join(missing)}")
    harness.quiet()
    first = Profile(**work["profile"])
    tokenizer = loading.load_tokenizer(first.model)
    base = loading.load_model(first.model, first.precision, first.compute_dtype)
    config = base.config

    def train(part: dict, profile: Profile, clock) -> dict:
        profile = dataclasses.replace(profile, **_BEFORE | changes)
        set_seed(0)
        base.gradient_checkpointing_disable()
        model = methods.apply_method(base, profile)
        rows = datasets.Dataset.from_list(part["rows"])
        template = templates.summary_template(profile, tokenizer)
        encoded = tokenisation.encode_rows(rows, template, tokenizer, profile.max_length, profile.max_new_tokens)
        clock.started = time.perf_counter()
        made = fit(
            model, tokenizer, encoded, encoded.select([0]), profile, seed=0, out_dir=part["folder"], callbacks=[clock]
        )
        planned = memory.plan_training(config, **memory.plan_settings(profile, device="cuda")).total
        about = {"loss": made.train_loss, "planned_bytes": planned}
        return about | {key: getattr(made, key, None) for key in ("compile_seconds", "speed")}

    return _trained(work, ways, train)


def _trl(work: dict, ways, model, tokenizer, **settings) -> dict:
    import datasets
    from trl import SFTConfig, SFTTrainer

    def train(part: dict, profile: Profile, clock) -> dict:
        rows = datasets.Dataset.from_list([{key: row[key] for key in ("prompt", "completion")} for row in part["rows"]])
        common = training._common(part, profile, model) | {"per_device_train_batch_size": profile.batch_size}
        common |= LEVERS["fewer waits"] | {"gradient_checkpointing": profile.gradient_checkpointing} | settings
        common["optim"] = common.pop("optimizer")
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**common),
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=[clock],
        )
        clock.started = time.perf_counter()
        return {"loss": trainer.train().training_loss}

    return _trained(work, ways, train)


def trl(work: dict, ways, **settings) -> dict:
    """SFTTrainer on the same model and adapters, rows of similar length together."""
    _, tokenizer, model, _, _ = training._prepared(work | {"profile": work["profile"] | {"batch_size": 1}})
    return _trl(work, ways, model, tokenizer, **{"train_sampling_strategy": "group_by_length"} | settings)


def trl_padding_free(work: dict, ways, **settings) -> dict:
    """SFTTrainer with the rows of a batch packed without padding."""
    return trl(work, ways, padding_free=True, max_length=None, **settings)


def unsloth(work: dict, ways) -> dict:
    """Unsloth's own loading and adapters, under the SFTTrainer of its Python."""
    from unsloth import FastLanguageModel  # before transformers, which it changes

    from summkit.models import loading, methods

    profile = Profile(**work["profile"])
    dtype = "bfloat16" if profile.compute_dtype == "bfloat16" else "float16"
    model, _ = FastLanguageModel.from_pretrained(
        profile.model, max_seq_length=profile.max_length, load_in_4bit=True, dtype=dtype
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=profile.rank,
        lora_alpha=profile.alpha,
        lora_dropout=0.0,
        target_modules=methods.target_layers(model, profile.targets),
        random_state=0,
        use_gradient_checkpointing="unsloth" if WAYS[ways[0]]["gradient_checkpointing"] else False,
    )
    return _trl(work, ways, model, loading.load_tokenizer(profile.model))


def answer(work: dict, ways, engine: str = "batches", merge: bool = True) -> dict:
    """{how many at once: results} of writing max_new_tokens after prompts that fill the window; the adapter is on."""
    from summkit.data import templates
    from summkit.inference import Summarizer
    from summkit.models import loading, methods

    harness.quiet()
    profile = Profile(**work["profile"])
    tokenizer = loading.load_tokenizer(profile.model)
    model = loading.load_model(profile.model, profile.precision, profile.compute_dtype)
    model = methods.apply_method(model, profile)
    template = templates.summary_template(profile, tokenizer)
    documents = [row["document"] for row in work["rows_of"]["full"]["rows"]]
    found = {}
    for size, count in ((work["together"], work["together"]), (1, TEXTS)):
        if size == 1 and engine == "continuous":
            continue  # it is made for many texts
        texts = documents[:count]
        # No token ends an answer: all contestants write as many.
        limits = (profile.max_length, profile.max_new_tokens, size, [-1])
        asked = Summarizer(model, tokenizer, template, *limits)
        _peak(reset=True)
        seconds, answers = [], []
        while len(seconds) < 2 or (len(seconds) <= REPEATS and sum(seconds) < PATIENCE):
            _wait()
            started = time.perf_counter()
            answers = [one.tokens for one in asked.summarize(texts, engine=engine, merge=merge)]
            _wait()
            seconds.append(time.perf_counter() - started)
        about = {"cold_seconds": seconds[0], "seconds": seconds[1:], "new_tokens": sum(answers)}
        about["peak_device_bytes"] = _peak()
        found[f"{size} at once" if size > 1 else "one by one"] = about
    return found


def _training(about: str, run, ways=ONE, needs: str = "", **changes) -> Contestant:
    """The first shape trains in all `ways`, the others in the profiles' three ways at most."""

    def started(work: dict) -> dict:
        return run(work, ways if work["shape"] == next(iter(SHAPES)) else ways[:3], **changes)

    return Contestant(started, about, needs)


TRAINING = {
    "summkit before": _training("this library, all levers off", summkit, ALL),
    "summkit": _training("this library, all levers but compiling", summkit, ALL, **_OURS),
    "summkit, compiled": _training("this library, all levers that go with compiling", summkit, ALL[:3], **_ALL),
    "trl": _training("SFTTrainer, similar lengths together", trl, ALL[::3], "trl"),
    "trl padding-free": _training("SFTTrainer without padding", trl_padding_free, ALL, "trl"),
    "unsloth": _training("SFTTrainer under Unsloth's kernels", unsloth, ONE, "unsloth"),
    **{f"before + {lever}": _training("one lever", summkit, **changes) for lever, changes in LEVERS.items()},
    "trl with liger": _training("SFTTrainer, Liger's kernels", trl_padding_free, ONE, "trl", use_liger_kernel=True),
}
ANSWERING = {
    "packed": Contestant(lambda work: answer(work, None, merge=False), "NF4 with the adapter beside it"),
    "merged": Contestant(lambda work: answer(work, None), "a plain copy, the adapter merged"),
    "merged, graphs": Contestant(lambda work: answer(work, None, "graphs"), "the copy, a step recorded"),
    "merged, continuous": Contestant(lambda work: answer(work, None, "continuous"), "the copy, continuous batching"),
    "merged, compiled": Contestant(lambda work: answer(work, None, "compiled"), "the copy, compiled"),
}
CONTESTANTS = TRAINING | {f"answer: {name}": one for name, one in ANSWERING.items()}
PROFILED = ("summkit before", "summkit", "summkit, compiled")


def _order() -> list[tuple[str, str]]:
    """(shape, contestant), what matters most first: what the goals compare, for phi-2 and then for Llama."""
    phi, llama = SHAPES
    goals = [(phi, name) for name in ("summkit before", "summkit", "trl padding-free", "summkit, compiled")]
    goals += [(phi, f"answer: merged{how}") for how in (", graphs", "", ", continuous")]
    goals += [(llama, name) for name in ("summkit before", "summkit", "unsloth", "trl padding-free", "trl with liger")]
    goals += [(llama, "answer: merged, graphs"), (phi, "answer: packed"), (llama, "summkit, compiled"), (phi, "trl")]
    others = [(shape, name) for name in CONTESTANTS for shape in SHAPES if (shape, name) not in goals]
    return goals + sorted(others, key=lambda one: one[1].startswith("before +"))


def run(options) -> dict:
    """The record of this benchmark, as far as its minutes went. `options`: those of the command line."""
    ends = time.monotonic() + 60 * options.minutes
    _import_once()
    with tempfile.TemporaryDirectory() as folder:
        works = {shape: _work(shape, Path(folder) / shape, options) for shape in SHAPES}
        record = _begun(works, options)
        details = record["details"]
        entries, made = details["contestants"], {}
        failed = [key for key, entry in entries.items() if entry.get("absent") not in (None, harness.OUT_OF_TIME)]
        for shape, name in sorted(_order(), key=lambda one: ": ".join(one) in failed):  # what failed comes last now
            key, one = f"{shape}: {name}", CONTESTANTS[name]
            if "results" in entries.get(key, {}) or not any(part in key for part in options.only or [""]):
                continue
            entries[key] = {"about": one.about, "absent": harness.OUT_OF_TIME}
            if time.monotonic() > ends:
                continue
            harness.progress_line(f"gpu, {key}")
            if shape not in made:
                made[shape] = details["sizes"][shape] = _own("prepare", works[shape], options, ends)
            profiled = {"profiled": True} if name in PROFILED else {}
            entries[key] |= _result(name, works[shape] | profiled, options, ends)
            if "results" in entries[key]:
                del entries[key]["absent"]
                _figures(entries[key]["results"], details["sizes"][shape], details["ceiling"])
            records.write_record(record, _path(record, options))
    return record


def unfinished(record: dict) -> int:
    """Return how many contestants had no time."""
    return sum(entry.get("absent") == harness.OUT_OF_TIME for entry in record["details"]["contestants"].values())


def _path(record: dict, options) -> Path:
    return Path(options.out) / harness.file_name("gpu", record["environment"]["device"])


def _begun(works: dict, options) -> dict:
    """The record that an earlier call began on this machine with this version, or a new one."""
    ceiling = harness.own("ceiling", "ceiling", {}, options.threads)
    rates = {rate: harness.spread([ceiling.get(rate)]) for rate in harness.RATES}
    about = {"warm_up": WARM_UP, "steps": STEPS, "repeats": REPEATS, "sizes": {}, "ceiling": rates, "contestants": {}}
    work = {shape: workload.summary(work | work["rows_of"]["full"]) for shape, work in works.items()}
    record = harness.record("gpu", next(iter(works.values()))["profile"]["name"], options.threads, works=work, **about)
    if _path(record, options).is_file():
        earlier = records.read_record(_path(record, options))
        if earlier["environment"] == record["environment"] and earlier["details"]["works"] == work:
            return earlier
    return record


def _own(name: str, work: dict, options, ends: float, python: str = "") -> dict:
    seconds = max(30.0, ends - time.monotonic())
    if python:
        return harness.start("gpu", name, work, options.threads, python=python, timeout=seconds)
    return harness.own("gpu", name, work, options.threads, timeout=seconds)


def _result(name: str, work: dict, options, ends: float) -> dict:
    """{"results": …}, or {"absent": reason}. This library has to run, except where an option is missing."""
    needs = CONTESTANTS[name].needs
    if needs and not (options.python and needs == "unsloth") and importlib.util.find_spec(needs) is None:
        return {"absent": f"not installed here: {needs}"}
    try:
        # Unsloth has to be imported before transformers, so never in a forked process.
        python = (options.python or sys.executable) if needs == "unsloth" else ""
        return {"results": _own(name, work, options, ends, python)}
    except SummkitError as error:
        return {"absent": str(error)}


def _figures(results: dict, sizes: dict, ceiling: dict) -> None:
    """Add to each result: seconds as a spread, tokens a second, and in training the share of the chip's rate."""
    rate = (ceiling["bf16_flop_per_second"] or ceiling["sgemm_flop_per_second"])["median"]
    for result in results.values():
        result["step_seconds"] = harness.spread(result.pop("seconds"))
        seconds = result["step_seconds"]["median"]
        result["tokens_per_second"] = result.get("tokens", result.get("new_tokens")) / seconds
        if "tokens" in result:
            result["share_of_ceiling"] = training.needed_flop(result, sizes) / seconds / rate


def _import_once() -> None:
    """Import what contestants need, before they are forked: without this each of them would import it again.

    Not bitsandbytes, which starts CUDA when it is imported, and so neither peft nor the Trainer, which import it.
    """
    # torch asks NVML whether there is a GPU. Otherwise it would start CUDA, and no forked process could use it.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    os.environ |= harness.QUIET
    models = [f"transformers.models.{kind}.modeling_{kind}" for kind in ("phi", "llama")]
    for name in ("torch", "accelerate", "datasets", "transformers.generation.utils", *models):
        importlib.import_module(name)


def _work(shape: str, folder: Path, options) -> dict:
    chosen = _profile(folder, options.smoke)
    count = (2 if options.smoke else 16) * (WARM_UP + STEPS * REPEATS + 1)
    called = f"random weights in the shape of {shape}" + (", made tiny" if options.smoke else "")
    rows = {kind: made_up(chosen, count, mixed=kind == "mixed") for kind in ("full", "mixed")}
    keys = ("rows", "tokens", "answer_tokens", "prompt_tokens")
    work = {"shape": shape, "smoke": options.smoke, "called": called, "together": 4 if options.smoke else TOGETHER}
    work |= {"profile": dataclasses.asdict(chosen)}
    return work | {"rows_of": {kind: {key: one[key] for key in keys} | {"count": count} for kind, one in rows.items()}}


def _profile(folder: Path, smoke: bool) -> Profile:
    card = "gpu" if smoke or harness.bf16() else "t4"
    compute = {"gpu": "bfloat16", "t4": "float16"}[card]
    settings = {"model": str(folder), "dropout": 0.0, "evaluations_per_epoch": 1, "gradient_accumulation": 1}
    settings |= {"compute_dtype": "float32" if smoke else compute}
    lengths = {"max_length": 320, "max_new_tokens": 8} if smoke else {"max_length": 512, "max_new_tokens": 64}
    return choose_profile(card, **settings | lengths)


def made_up(chosen: Profile, count: int, mixed: bool = False) -> dict:
    """Return the work of `count` rows of `max_length` tokens: random letters, one token each.

    With `mixed`, documents have from a quarter to all of the room.
    """
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
        length = draw.randint(room // 4, room) if mixed else room
        texts = ("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=size)) for size in (length, written))
        row = dict(zip(("document", "summary"), texts, strict=True))
        encoded.append((row, tokenisation.encode(template, tokenizer, row["document"], row["summary"], *limits)))
    return workload.described(dataclasses.replace(chosen, dataset="made up"), template, encoded)
