"""Make the tables and figures of README.md from the records in results/."""

import os
from pathlib import Path

from summkit.errors import SummkitError
from summkit.reporting import records

HERE = Path(__file__).parent
USUAL = {"training": "tutorial", "generation": "one by one"}  # what the others are held against
DRAWN = {"training": "Seconds and memory", "generation": "Seconds and memory", "growth": "How memory grows"}
BEGIN, END = "<!-- from here on made by `python -m benchmarks` -->\n", "<!-- until here -->\n"
TITLES = {
    "training": "Training",
    "generation": "Generation",
    "growth": "How time and memory grow",
    "startup": "Until it starts",
    "gpu": "On a GPU: QLoRA and its answers at 512 tokens",
}


def publish(results: Path = HERE / "results", page: Path = HERE / "README.md") -> Path:
    """Write the tables of all records in `results` between the page's two marks, and draw their figures.

    SummkitError where the marks are missing.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SummkitError(f"{page.name}: the two marks around the tables are missing; put the two lines back")
    part = page.with_name(f".{page.name}.part")
    part.write_text(before + begin + "\n" + tables(results) + end + after, encoding="utf-8")
    os.replace(part, page)
    for path in sorted(Path(results).glob("*.json")):
        draw(records.read_record(path), path.with_suffix(".png"))
    return page


def cards(profile: str, results: Path = HERE / "results") -> str:
    """Return the GPUs that records of the GPU benchmark name for a profile, as the table of profiles has them."""
    found = [records.read_record(path) for path in sorted(Path(results).glob("gpu-*.json"))]
    names = [one["environment"]["device"] for one in found if one["profile"] == profile]
    return ", ".join(dict.fromkeys(names)) or "no card yet: `make gpu`"


def draw(record: dict, path: Path) -> None:
    """The figure of a record, where there is one: seconds and peak memory as bars, or how memory grows."""
    name = record["stage"].removeprefix("benchmarks/")
    if name not in DRAWN:
        return
    import matplotlib.pyplot as plt

    from summkit.reporting import figures

    figures.style()
    entries = {name: e for name, e in record["details"]["contestants"].items() if "absent" not in e}
    fig = _growth(entries) if name == "growth" else _bars(entries)
    fig.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(fig)


def _bars(entries: dict):
    """Draw each contestant's median, with the lowest and the highest of the rounds."""
    import matplotlib.pyplot as plt

    fig, panels = plt.subplots(1, 2, figsize=(10, 0.6 + 0.4 * len(entries)), sharey=True, layout="constrained")
    for ax, key, unit, label in zip(panels, ("cpu_seconds", "peak_rss_bytes"), (1, 1e9), AXES, strict=True):
        middle, low, high = ([e[key][part] / unit for e in entries.values()] for part in ("median", "low", "high"))
        ends = [
            [m - one for m, one in zip(middle, low, strict=True)],
            [h - m for m, h in zip(middle, high, strict=True)],
        ]
        colors = ["C0" if name.startswith("summkit") else "C7" for name in entries]
        ax.barh(list(entries), middle, xerr=ends, color=colors, ecolor="black", capsize=3)
        ax.set(xlabel=label)
    panels[0].invert_yaxis()
    return fig


def _growth(entries: dict):
    """What memory grows by: with rows, beside their file; with the tokens of a step, as one row or as a batch."""
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    grown = {name: e["grown_bytes"]["median"] for name, e in entries.items()}
    rows = {name: e for name, e in entries.items() if name.endswith(" rows")}
    lines = {"file": ([e["file_bytes"] for e in rows.values()], ":")}
    lines["process, with pages of the file"] = ([grown[name] for name in rows], "s--")
    lines["process"] = ([e.get("own_bytes") or float("nan") for e in rows.values()], "o-")  # unknown but on Linux
    for label, (sizes, look) in lines.items():
        left.plot([e["rows"] for e in rows.values()], [size / 1e6 for size in sizes], look, label=label)
    left.set(xscale="log", yscale="log", xlabel="rows, from a file to tokens", ylabel="grown by, MB")
    for mark, label in ((" tokens", "one row, longer"), ("batch of", "more rows of 256 tokens")):
        steps = [name for name in entries if mark in name]
        right.plot([entries[n]["tokens"] for n in steps], [grown[n] / 1e9 for n in steps], "o-", label=label)
    right.set(xlabel="tokens of one training step", ylabel="grown by, GB", ylim=(0, None))
    for ax in (left, right):
        ax.legend()
    return fig


def tables(results: Path) -> str:
    """A section for each benchmark, with a table for each machine that it was measured on."""
    found = {path: records.read_record(path) for path in sorted(Path(results).glob("*.json"))}
    parts = []
    for name, title in TITLES.items():
        here = {path: record for path, record in found.items() if record["stage"] == f"benchmarks/{name}"}
        parts.append(f"## {title}")
        for path, record in here.items():
            parts += _section(name, record)
            parts += [f"![{DRAWN[name]}]({path.parent.name}/{path.stem}.png)"] if name in DRAWN else []
        if not here:
            command = " On a machine with a GPU, `make gpu` or `python -m benchmarks gpu` measures it."
            parts.append(f"Not measured yet.{command if name == 'gpu' else ''}")
    return "\n\n".join(parts) + "\n\n"


def _section(name: str, record: dict) -> list[str]:
    details, environment = record["details"], record["environment"]
    machine, ceiling = details["machine"], details["ceiling"]
    where = f"{environment['device']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)} each"
    rates = [f"sgemm {_giga(ceiling['sgemm_flop_per_second'])} GFLOP/s"]
    rates.append(f"reading memory {_giga(ceiling['read_bytes_per_second'])} GB/s")
    if ceiling["bf16_flop_per_second"]:
        rates.append(f"bf16 on the GPU {_giga(ceiling['bf16_flop_per_second'])} GFLOP/s")
    versions = {key: environment[key] for key in ("python", "torch", "transformers")} | details["peers"]
    made_with = ", ".join(f"{key} {value}" for key, value in versions.items() if value)
    lines = [f"{where}, {record['started'][:10]}. The ceiling in the same run: {'; '.join(rates)}. With {made_with}."]
    if "work" in details:
        lines.append(_work(details["work"]))
    return [*lines, *_tables(name, details)]


def _work(work: dict) -> str:
    rows = f"{work['rows']} rows of {work['dataset']}, {work['tokens']:,} tokens"
    step = work["batch_size"] * work["gradient_accumulation"]
    batches = f"{step} rows in a step of training, batches of {work['generation_batch_size']} to answer"
    return f"{rows}; {work['model']}, {work['precision']}, {batches}."


def _tables(name: str, details: dict) -> list[str]:
    entries = details["contestants"]
    if name == "growth":
        groups = {" rows": GROWN_ROWS, " tokens": GROWN, "batch of": GROWN, " at once": GROWN}
        parts = [{key: e for key, e in entries.items() if mark in key} for mark in groups]
        return [table(part, columns) for part, columns in zip(parts, groups.values(), strict=True) if part]
    if name == "startup":
        return [table(entries, STARTED), _clone(details["from_clone"])]
    if name == "gpu":
        return _gpu_tables(details)
    usual, columns = USUAL[name], TRAINED if name == "training" else ANSWERED
    first = {"CPU s": CPU, f"times as fast as {usual}": _times_as_fast(entries[usual])}
    return [table(entries, first | columns)]


def _gpu_tables(details: dict) -> list[str]:
    """For each shape a table of training and one of answering: a row for each contestant and way."""
    parts = []
    for shape, work in details["works"].items():
        counts = f"{details['warm_up']} steps of warm-up left out, then {details['repeats']} times {details['steps']}"
        parts.append(f"**{work['model']}**, {work['precision']}, {work['compute_dtype']}; {counts}.")
        rows: dict[bool, dict] = {False: {}, True: {}}
        for key, entry in details["contestants"].items():
            of, _, name = key.partition(": ")
            for way, result in entry.get("results", {"": {"absent": entry.get("absent")}}).items():
                row = f"{name}, {way}" if way else name
                rows[name.startswith("answer")].update({row: {"about": entry["about"]} | result} if of == shape else {})
        parts += [table(rows[answers], columns) for answers, columns in ((False, GPU), (True, GPU_ANSWERED))]
    return parts


def _clone(parts: dict) -> str:
    steps = {key: part for key, part in parts.items() if key != "absent"}
    done = [f"{key} {part['wall_seconds']:.0f} s" for key, part in steps.items()]
    total = f" = {sum(part['wall_seconds'] for part in steps.values()):.0f} s" if "absent" not in parts else ""
    missing = [f"not measured ({parts['absent']})"] if "absent" in parts else []
    return f"From clone to first summary, empty caches, wall time: {', '.join([*done, *missing])}{total}."


def table(entries: dict, columns: dict) -> str:
    """Markdown: a row for each contestant; one that was absent says why in place of its figures."""
    lines = ["| | what it does | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, entry in entries.items():
        cells = [column(entry) for column in columns.values()] if "absent" not in entry else []
        cells = cells or [f"not measured: {entry['absent']}", *[""] * (len(columns) - 1)]
        lines.append("| " + " | ".join([name, entry["about"], *cells]).replace("\n", " ") + " |")
    return "\n".join(lines)


def _spread(key: str, unit: float = 1.0, digits: int = 1):
    """A cell "median (low to high)" of the rounds; a number alone where there was one round."""

    def cell(entry: dict) -> str:
        value = entry.get(key)
        if not value:
            return "–"
        median, low, high = (f"{value[name] / unit:.{digits}f}" for name in ("median", "low", "high"))
        return median if low == high else f"{median} ({low} to {high})"

    return cell


def _number(key: str, digits: int = 0, unit: float = 1.0, percent: bool = False):
    def cell(entry: dict) -> str:
        value = entry.get(key)
        if value is None or isinstance(value, str):
            return value or "–"
        return f"{100 * value:.0f} %" if percent else f"{value / unit:,.{digits}f}"

    return cell


def _times_as_fast(usual: dict):
    """A cell: how many times as fast as `usual`, of the medians; with the extremes of both, at worst and at best."""

    def cell(entry: dict) -> str:
        if entry is usual:
            return "1"
        ours, theirs = entry["cpu_seconds"], usual["cpu_seconds"]
        pairs = (("median", "median"), ("low", "high"), ("high", "low"))
        middle, low, high = (f"{theirs[above] / ours[below]:.1f}" for above, below in pairs)
        return middle if low == high else f"{middle} ({low} to {high})"

    return cell


def _giga(value: dict) -> str:
    return _spread("rate", 1e9, 0)({"rate": value})


AXES = ("CPU seconds", "peak memory, GB")
CPU, PEAK = _spread("cpu_seconds"), _spread("peak_rss_bytes", 1e9, 2)
SPEED = {"tokens/s": _number("tokens_per_second"), "share of ceiling": _number("share_of_ceiling", percent=True)}
LEARNED = {"steps": _number("steps"), "mean loss": _number("loss", 3), "tokens seen (digest)": _number("tokens_seen")}
TRAINED = {
    **SPEED,
    "with padding/s": _number("positions_per_second"),
    "peak GB": PEAK,
    **LEARNED,
}
ANSWERED = {
    "new tokens/s": _number("tokens_per_second", 1),
    "share of ceiling": SPEED["share of ceiling"],
    "share of memory speed": _number("share_of_memory_speed", percent=True),
    "peak GB": PEAK,
    "new tokens": _number("new_tokens"),
    "same answers as one by one": _number("same_answers"),
}
GROWN = {
    "tokens": _number("tokens"),
    "CPU s": CPU,
    "share of ceiling": SPEED["share of ceiling"],
    "peak GB": PEAK,
    "of which the work's GB": _spread("grown_bytes", 1e9, 2),
}
GROWN_ROWS = {
    "file MB": _number("file_bytes", 1, 1e6),
    "CPU s": CPU,
    "peak GB": PEAK,
    "grown by, MB": _spread("grown_bytes", 1e6, 0),
    "of which not the files' pages, MB": _number("own_bytes", 0, 1e6),
}
STARTED = {"wall s": _spread("wall_seconds", digits=2), "CPU s": _spread("cpu_seconds", digits=2), "peak GB": PEAK}
GPU = {
    "ms a step": _spread("step_seconds", 1e-3),
    **SPEED,
    "first step, s": _number("cold_seconds", 1),
    "of it compiling, s": _number("compile_seconds", 1),
    "peak GB": _number("peak_device_bytes", 2, 1e9),
    "planned GB": _number("planned_bytes", 2, 1e9),
    "mean loss": _number("loss", 3),
}
GPU_ANSWERED = {
    "new tokens/s": _number("tokens_per_second"),
    "seconds": _spread("step_seconds", digits=2),
    "first time, s": _number("cold_seconds", 1),
    "peak GB": GPU["peak GB"],
}
