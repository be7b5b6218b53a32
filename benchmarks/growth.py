"""How time and memory grow with the number of rows, with length and batch size, and with answers at once.

The rows are synthetic. Each contestant has one size.
"""

import json
import random
import threading
from functools import partial
from pathlib import Path

from benchmarks import harness, workload
from benchmarks.harness import Contestant
from summkit.config import Profile

ROWS = (100, 1000, 10_000, 100_000, 1_000_000)
LENGTHS = (128, 256, 512, 1024)
BATCHES = (1, 2, 4, 8)
TOGETHER = (1, 4, 16, 32)
STEP_LENGTH = 256  # tokens of each row where the batch grows
WORDS = [
    "the",
    "a",
    "of",
    "bridge",
    "river",
    "town",
    "council",
    "opened",
    "closed",
    "after",
    "year",
    "work",
    "train",
    "boat",
    "old",
    "new",
    "said",
    "on",
    "in",
]


def rows(work: dict, count: int) -> dict:
    """`data.for_profile` from a folder of JSON lines, then `features.encode_rows`: seconds and peak of each.

    Rows are on disk. Pages of their files count in the peak of a process, though the system takes them back when memory
    is short. `own_bytes` is the growth of the process without them.
    """
    from summkit.config import choose_profile
    from summkit.data import summarisation, templates, tokenisation
    from summkit.models import loading

    harness.quiet()
    folder = Path(work["folder"]) / "rows"
    size = write_rows(folder, count)
    most = max(2, count // 20)
    chosen = choose_profile(
        work["profile"]["name"], train_rows=count, validation_rows=most, test_rows=most, max_words=None
    )
    tokenizer = loading.load_tokenizer(chosen.model)
    template = templates.summary_template(chosen, tokenizer)
    limits = (chosen.max_length, chosen.max_new_tokens)
    with OwnMemory() as own:
        splits, reading = harness.measure(lambda: summarisation.load_summaries(chosen, data=folder))
        encoded, encoding = harness.measure(
            lambda: tokenisation.encode_rows(splits.train, template, tokenizer, *limits)
        )
    whole = {"rows": count, "file_bytes": size, "train": len(encoded), "own_bytes": own.grown_bytes}
    whole |= {f"reading_{key}": reading[key] for key in ("cpu_seconds", "grown_bytes")}
    whole |= {f"encoding_{key}": encoding[key] for key in ("cpu_seconds", "grown_bytes")}
    grown = encoding["peak_rss_bytes"] - (reading["peak_rss_bytes"] - reading["grown_bytes"])
    whole |= {key: reading[key] + encoding[key] for key in ("cpu_seconds", "wall_seconds")}
    return whole | {"grown_bytes": max(reading["grown_bytes"], grown)} | _peaks(reading, encoding)


class OwnMemory:
    """`grown_bytes`: the most by which the process grew inside a `with` block, without the files that it has mapped.

    Sampled fifty times a second. None where the system does not tell files apart (all but Linux).
    """

    def __enter__(self):
        self._begin, self._over = self._now(), threading.Event()
        self._most = self._begin
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()
        return self

    def __exit__(self, *exception):
        self._over.set()
        self._looking.join()
        self.grown_bytes = None if self._begin is None else self._most - self._begin

    def _look(self):
        while self._begin is not None and not self._over.wait(0.02):
            self._most = max(self._most, self._now())

    def _now(self) -> int | None:
        import psutil

        memory = psutil.Process().memory_info()
        return memory.rss - memory.shared if hasattr(memory, "shared") else None


def _peaks(*parts: dict) -> dict:
    peaks = [part["peak_rss_bytes"] for part in parts]
    return {"peak_rss_bytes": max(peaks), "peak_device_bytes": None, "device_seconds": None}


def write_rows(folder: Path, count: int) -> int:
    """Write synthetic rows, all different, as JSON lines; return the file's size in bytes."""
    folder.mkdir()
    draw = random.Random(0)
    with open(folder / "all.jsonl", "w", encoding="utf-8") as file:
        for number in range(count):
            text = " ".join(draw.choices(WORDS, k=60))
            row = {"id": str(number), "document": f"{number}. {text}.", "summary": " ".join(draw.choices(WORDS, k=12))}
            file.write(json.dumps(row) + "\n")
    return (folder / "all.jsonl").stat().st_size


def step(work: dict, batch: int, length: int) -> dict:
    """Forward and backward of one training step on `batch` rows of `length` tokens, an eighth of them the summary."""
    import torch

    from summkit.models import loading, methods
    from summkit.training import losses

    harness.quiet()
    profile = Profile(**work["profile"])
    model = methods.apply_method(loading.load_model(profile.model, profile.precision), profile).train()
    ids = torch.randint(5, 250, (batch, length), device=model.device)
    labels = ids.masked_fill(torch.arange(length, device=model.device) < length - length // 8, -100)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    _, taken = harness.measure(lambda: losses.summary_loss(model, inputs).backward())
    flop = 4.0 * batch * (sizes := workload.sizes(model.get_base_model()))["body"] * length
    return taken | {"tokens": batch * length, "flop": flop + 4.0 * batch * sizes["head"] * (length // 8)}


def together(work: dict, batch: int) -> dict:
    """The benchmark generation's documents, so many answered at once."""
    from summkit.data import templates
    from summkit.inference import generation
    from summkit.models import loading

    harness.quiet()
    profile = Profile(**work["profile"])
    tokenizer, model = loading.load_tokenizer(profile.model), loading.load_model(profile.model)
    template = templates.summary_template(profile, tokenizer)
    documents = [row["document"] for row in work["rows"]]
    limits = {"max_length": profile.max_length, "max_new_tokens": profile.max_new_tokens, "batch_size": batch}
    found, taken = harness.measure(lambda: generation.summarize(model, tokenizer, template, documents, **limits))
    return taken | {"tokens": sum(answer.tokens for answer in found)}


CONTESTANTS = {
    f"summkit, {count:,} rows": Contestant(partial(rows, count=count), "file to tokens", once=count > 100_000)
    for count in ROWS
}
CONTESTANTS |= {
    f"summkit, {length} tokens": Contestant(partial(step, batch=1, length=length), "one step, one row")
    for length in LENGTHS
}
CONTESTANTS |= {
    f"summkit, batch of {batch}": Contestant(
        partial(step, batch=batch, length=STEP_LENGTH), f"one step, rows of {STEP_LENGTH} tokens"
    )
    for batch in BATCHES
}
CONTESTANTS |= {
    f"summkit, {batch} answers at once": Contestant(partial(together, batch=batch), "all documents", once=True)
    for batch in TOGETHER
}


def run(options) -> dict:
    """The record of this benchmark. `options`: smoke, million, rounds, threads."""
    from benchmarks import generation

    documents = generation.DOCUMENTS["smoke" if options.smoke else "real"]
    work = workload.make(workload.profile(options.smoke), "test", documents)
    left_out = _left_out(options)
    chosen = {name: one for name, one in CONTESTANTS.items() if name not in left_out}
    found = harness.compete("growth", chosen, work, options.rounds, options.threads)
    for entry in found["contestants"].values():
        last = entry["rounds"][-1]
        more = {key: last[key] for key in ("rows", "file_bytes", "own_bytes", "tokens") if key in last}
        seconds = entry["cpu_seconds" if entry["device_seconds"] is None else "device_seconds"]["median"]
        if "flop" in last and entry["device_seconds"] is None:
            more["share_of_ceiling"] = last["flop"] / seconds / found["ceiling"]["sgemm_flop_per_second"]["median"]
        entry |= more
    return harness.record("growth", work["profile"]["name"], options.threads, work=workload.summary(work), **found)


def _left_out(options) -> set[str]:
    """Names to leave out: the largest without --million, and all but the small ones with --smoke."""
    small, large = f"summkit, {ROWS[0]:,} rows", f"summkit, {ROWS[-1]:,} rows"
    if options.smoke:
        return set(CONTESTANTS) - {small, "summkit, 128 tokens", "summkit, batch of 2", "summkit, 4 answers at once"}
    return {small} if options.million else {small, large}
