"""Floor 8. Reports from run records: what a stage came to, as Markdown and text. Nothing in them is typed."""

import re
import shutil
import textwrap
from itertools import zip_longest
from pathlib import Path

from summkit.data import find_dataset
from summkit.errors import SummkitError
from summkit.evaluation import summarisation
from summkit.progress import near
from summkit.reporting import costs, markup, records

# Measure of a difference → factor, and what a difference is counted in.
UNITS = {
    "rouge1": (1, "ROUGE-1 points"),
    "rouge2": (1, "ROUGE-2 points"),
    "rougeL": (1, "ROUGE-L points"),
    "rougeLsum": (1, "ROUGE-Lsum points"),
    "bleu3": (1, "BLEU-3 points"),
    "similarity": (1, "points of similarity"),
    "topic_f1": (1, "points of topic F1"),
    "support": (100, "percentage points of names and numbers that the article supports"),
    "words": (1, "words"),
    "accuracy": (100, "points of accuracy"),
    "micro_f1": (100, "points of micro F1"),
    "macro_f1": (100, "points of macro F1"),
    "matthews": (1, "of Matthews' correlation"),
    "subset_accuracy": (100, "points of rows with all labels right"),
}
ELSEWHERE = ("differences", "examples", "scored_on")  # details that have a place of their own


def publish(run: Path, repository: Path) -> Path:
    """Put a run's executed notebook and report where the repository keeps them: what is committed comes from here.

    A stage keeps them in its folder, a study beside the others (notebooks/NAME.ipynb, notebooks/REPORT/NAME/). The
    stage that the README's mark names also fills the README between its two marks.
    """
    record = records.read_record(run / "run.json")
    place = repository / record["stage"]
    study = place.parent == repository / "notebooks"
    books = place.parent if study else place / "NOTEBOOK"
    report = books / "REPORT" / place.name if study else place / "REPORT"
    pairs = [(path, books / path.name) for path in run.glob(f"{place.name}.ipynb" if study else "*.ipynb")]
    if not pairs or not all(kept.is_file() for _, kept in pairs):
        raise SummkitError(f"{near(run)}: a run of {record['stage']!r}, of which the repository keeps no such notebook")
    page = write_report(run, report)
    for notebook, kept in pairs:
        shutil.copy(notebook, kept)
    readme = repository / "README.md"
    if record["scores"] and readme.is_file():
        made = f"{_score_section(record)}\n\n{_took_line([record])}\n"
        marks = re.compile(rf"(<!-- result of {record['stage']}: [^\n]*-->\n).*?(<!-- end of result -->)", re.DOTALL)
        page_with = marks.sub(lambda found: found[1] + made + found[2], readme.read_text(encoding="utf-8"))
        readme.write_text(page_with, encoding="utf-8")
    return page


def write_report(run: Path, report: Path) -> Path:
    """REPORT/README.md, its figures and the record itself, from the run folder of one stage."""
    record, page = records.read_record(run / "run.json"), _page(run)
    for name in record["figures"]:
        if not (run / name).resolve().is_relative_to(run.resolve()) or not (run / name).is_file():
            raise SummkitError(f"{near(run / 'run.json')}: its figure {name} is not in the run's folder")
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir(parents=True)
    for name in ("run.json", *record["figures"]):
        (report / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(run / name, report / name)
    (report / "README.md").write_text(page, encoding="utf-8")
    return report / "README.md"


def _page(run: Path, folder: str = "") -> str:
    record = records.read_record(run / "run.json")
    try:
        return markdown(record, folder)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration) as error:
        raise SummkitError(f"{near(run / 'run.json')} is broken: {type(error).__name__}: {error}") from None


def markdown(record: dict, folder: str = "") -> str:
    """One record as a page: what ran, the scores, what was compared, the figures, time and memory.

    `folder` goes before the links, where the page stands above the run's folder.
    """
    parts = [f"# {markup.plain_text(record['stage'])}: report of a run", _about(record)]
    if record["scores"]:
        parts += ["## Scores", _score_section(record)]
    parts += _differences(record["details"].get("differences") or {})
    parts += _examples(record)
    if record["figures"]:
        parts += ["## Figures"]
        parts += [
            f"![{markup.plain_text(Path(name).stem.replace('_', ' '))}]({folder}{name})" for name in record["figures"]
        ]
    parts += _details({key: value for key, value in record["details"].items() if key not in ELSEWHERE})
    parts += ["## What it took", markup.facts_table(took(record))]
    parts += [f"Made by `python -m summkit report` from [run.json]({folder}run.json)."]
    return "\n\n".join(part for part in parts if part) + "\n"


def took(record: dict) -> dict[str, str]:
    """Time, memory, energy and training in words, without what the record does not know."""
    resources, training, model = (record[section] for section in ("resources", "training", "model"))
    rows = {
        "time": _with(record["wall_seconds"], _time),
        "peak memory": _with(resources["peak_rss_bytes"], lambda b: f"{b / 1e9:.1f} GB"),
        "peak GPU memory": _with(resources["peak_device_bytes"], lambda b: f"{b / 1e9:.1f} GB"),
        "energy": _with(resources["energy_kwh"], lambda e: _energy(e, resources["energy_is_estimate"])),
        "carbon": _with(resources["co2_kg"], lambda kg: f"{1000 * kg:.2g} g of CO₂"),
        "price": _with(resources["cost_usd"], lambda usd: f"{usd:.2f} USD"),
        "training": _with(training["steps"], lambda _: _training(training)),
        "tokens that were padding": _with(training["padding_fraction"], lambda f: f"{f:.1%}"),
        "weights in memory": _with(model["footprint_bytes"], lambda b: f"{b / 1e6:,.1f} MB"),
        "trained": _with(model["trainable"], lambda n: f"{n:,} of {model['parameters']:,} parameters"),
        "computed on": _with(record["environment"]["device"], markup.plain_text),
    }
    return {key: value for key, value in rows.items() if value}


def comparison_table(runs: list[Path]) -> str:
    """Several runs as Markdown tables: a row for each system of each run, with its number of rows; and what their
    trainings cost, those that failed with the reason.
    """
    found, trained = {}, {}
    for run in runs:
        record = records.read_record(run / "run.json")
        about = f"{near(run)}: {record['stage']}, {record['profile']}, seed {record['seed']}"
        found |= {f"{about}, {markup.display_name(system)}": entry for system, entry in record["scores"].items()}
        trained |= {about: record} if record["training"]["steps"] or record["details"].get("failed") else {}
    tables = []
    if found:
        tables += [summarisation.score_table(found)]
        tables[0].insert(0, "n", [entry["n"] for entry in found.values()])
    if trained:
        tables += [costs.cost_table(trained).map(markup.cell_text)]
    return "\n\n".join(map(summarisation.markdown_table, tables)) or "none of these runs has scores to compare"


def closing_lines(folder: Path, names: list[str]) -> str:
    """Write folder/README.md from the stages' records, and return what `run` prints at the end.

    The table, three summaries side by side, what it took, and where everything is.
    """
    found = {name: records.read_record(folder / name / "run.json") for name in names}
    pages = [_page(folder / name, f"{name}/") for name in names]
    (folder / "README.md").write_text("\n".join(pages), encoding="utf-8")
    tables = [_final_table(record) for record in found.values() if "fine_tuned" in record["scores"]]
    took_line = _took_line(list(found.values()))
    return "\n".join(["", *tables, took_line, f"run folder: {near(folder)}", f"report: {near(folder / 'README.md')}"])


def _took_line(found: list[dict]) -> str:
    energies = [record["resources"]["energy_kwh"] for record in found]
    estimate = any(record["resources"]["energy_is_estimate"] for record in found)
    peak = max(record["resources"]["peak_rss_bytes"] or 0 for record in found)
    total = [f"Time {_time(sum(record['wall_seconds'] or 0 for record in found))}", f"peak memory {peak / 1e9:.1f} GB"]
    total += [f"energy {_energy(sum(filter(None, energies)), estimate)}"] if any(energies) else []
    return ", ".join(total) + "."


def _final_table(record: dict) -> str:
    table = summarisation.score_table(
        {markup.display_name(system): entry for system, entry in record["scores"].items()}
    ).iloc[:, :4]
    lines = [table.to_string(), _scores_note(record), ""]
    columns = ("reference", "zero_shot", "fine_tuned")
    width = max(16, (min(shutil.get_terminal_size((100, 24)).columns, 160) - 4) // 3)
    lines += ["  ".join(markup.display_name(key).ljust(width) for key in columns).rstrip()]
    for example in record["details"].get("examples", []):
        texts = ["".join(c if c.isprintable() else " " for c in example.get(key) or "–") for key in columns]
        rows = zip_longest(*(textwrap.wrap(text, width) for text in texts), fillvalue="")
        lines += ["  ".join(cell.ljust(width) for cell in row).rstrip() for row in rows] + [""]
    return "\n".join(lines)


def _about(record: dict) -> str:
    model, data = record["model"], record["data"]
    words = [f"Profile `{record['profile']}`, seed {record['seed']}, {record['started'][:10]}."]
    words += (
        [f"Model {markup.plain_text(model['id'])} ({model['quantization'] or 'not quantised'})."] if model["id"] else []
    )
    if data["id"]:
        rows = ", ".join(f"{data[split]:,} {split}" for split in ("train", "validation", "test") if data[split])
        words += [f"Data {markup.plain_text(data['id'])} ({data['source']})" + (f", rows: {rows}." if rows else ".")]
    dropped = ", ".join(f"{markup.plain_text(reason)} {count:,}" for reason, count in (data["dropped"] or {}).items())
    return " ".join([*words, f"Rows dropped: {dropped}." if dropped else ""]).strip()


def _score_section(record: dict) -> str:
    return f"{markup.scores_table(record['scores'])}\n\n{_scores_note(record)}"


def _scores_note(record: dict) -> str:
    rows = record["details"].get("scored_on", "test")
    sizes = sorted({entry["n"] for entry in record["scores"].values() if entry["n"]})
    n = " to ".join(f"{size:,}" for size in sizes[:1] + sizes[1:][-1:])
    note = f"n = {n} {rows} rows; in brackets 95 % intervals (bootstrap over rows)."
    summaries = any(entry["rouge1"] is not None for entry in record["scores"].values())
    return f"{note} ROUGE goes from 0 to 100." if summaries else note


def _differences(found: dict) -> list[str]:
    lines = [_sentence(pair, measure, d) for pair, all_ in found.items() for measure, d in all_.items()]
    note = "Both systems on the same rows, paired bootstrap; in brackets the 95 % interval."
    return ["## Differences", note, "\n".join(line for line in lines if line)] if any(lines) else []


def _sentence(pair: str, measure: str, d: dict) -> str:
    if d["difference"] is None:
        return ""
    a, b = (markup.display_name(part) for part in pair.split("_minus_"))
    factor, unit = UNITS.get(measure, (1, markup.display_name(measure)))
    digits = max(1, summarisation.COLUMNS.get(measure, ("", 1, 1))[2])  # as many as in the table of scores
    value, low, high = (factor * d[key] for key in ("difference", "low", "high"))
    if low <= 0 <= high:
        around = f"[{low:+.{digits}f}, {high:+.{digits}f}]"
        return f"- {a} and {b}, {unit}: these rows cannot tell, {value:+.{digits}f} {around}"
    side = ("longer than", "shorter than") if measure == "words" else ("above", "below")
    near_end, far_end = sorted((abs(low), abs(high)))
    around = f"[{near_end:.{digits}f}, {far_end:.{digits}f}]"
    return f"- {a} is **{side[value < 0]}** {b} by {abs(value):.{digits}f} {around} {unit}"


def _examples(record: dict) -> list[str]:
    found = record["details"].get("examples") or []
    credit = find_dataset(str(record["data"]["id"])).credit
    title = "## Rows side by side" if "classes" in record["details"] else "## Summaries side by side"
    return [title, markup.rows_table(found, "row"), credit] if found else []


def _details(details: dict) -> list[str]:
    """A stage's own facts, whatever their shape: single values in one table, rows of values each in a table."""
    single = {key: markup.cell_text(value) for key, value in details.items() if markup.is_single(value)}
    parts = ["## Facts of this run", markup.facts_table(single)] if single else []
    for key, value in details.items():
        if not markup.is_single(value):
            title = markup.display_name(key)
            parts += [f"## {title[:1].upper()}{title[1:]}", markup.rows_table(value)]
    return parts


def _with(value, words) -> str | None:
    return None if value is None else words(value)


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _energy(kwh: float, estimate: bool) -> str:
    return f"{1000 * kwh:.2g} Wh" + (" (an estimate: this machine has no meter)" if estimate else " (measured)")


def _training(training: dict) -> str:
    words = f"{training['steps']:,} steps in {_time(training['seconds'] or 0)}, {training['tokens'] or 0:,} tokens"
    return words + (f", best validation loss {training['eval_loss']:.3f}" if training["eval_loss"] is not None else "")
