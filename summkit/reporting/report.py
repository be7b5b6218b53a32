"""The report of a run: a Markdown page made from run.json, and the lines printed at the end of a run."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from summkit.data import find_dataset
from summkit.errors import SummkitError
from summkit.evaluation import METRICS, Metric, score_table
from summkit.evaluation.languages import CHARACTERS, WORDS
from summkit.files import whole_folder, write_text
from summkit.models import public_name
from summkit.offline import ASSETS
from summkit.progress import near
from summkit.reporting import records, tables

if TYPE_CHECKING:
    from jinja2 import Environment

    from summkit.config import Profile

FEW = 30  # rows; below, the note under a table says that they are few
_ELSEWHERE = ("differences", "examples", "scored_on", "energy_kwh")  # details with a separate place on the page
_EXAMPLES = 3  # on a terminal
_SHOWN = ("reference", "zero_shot", "fine_tuned")  # texts of an example on a terminal


def write_report(run: Path, report: Path) -> Path:
    """Write a run's report: the page as README.md, its figures, and the record itself.

    Args:
        run: The run's folder.
        report: The folder to write; an existing one is replaced.

    Returns:
        The page.

    Raises:
        SummkitError: The record is broken, or a figure is missing. The report is then unchanged.
    """
    record = records.read_record(run / "run.json")
    page = _page(run, record)
    for name in record["figures"]:
        if not (run / name).resolve().is_relative_to(run.resolve()) or not (run / name).is_file():
            raise SummkitError(f"{near(run / 'run.json')}: its figure {name} is not in the run's folder")
    with whole_folder(report) as part:
        for name in ("run.json", *record["figures"]):
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(run / name, part / name)
        write_text(part / "README.md", page)
    return report / "README.md"


def _page(run: Path, record: dict, folder: str = "") -> str:
    """Return a run's page, or raise a SummkitError that names a record with wrong values."""
    from jinja2 import TemplateError

    try:
        return report_page(record, folder)
    except (TemplateError, KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration) as error:
        raise SummkitError(f"{near(run / 'run.json')} is broken: {type(error).__name__}: {error}") from None


def report_page(record: dict, folder: str = "") -> str:
    """Return a record as a Markdown page: scores, differences, figures, details, time and memory.

    Args:
        record: A run record.
        folder: The path from the page to the run's folder, for its links.
    """
    details = {key: value for key, value in record["details"].items() if key not in _ELSEWHERE and value is not None}
    if isinstance(details.get("rows"), dict):
        del details["rows"]  # the scores of each row, to compare runs row by row
    if "laps" in details:
        details["laps"] = {part: round(seconds, 1) for part, seconds in details["laps"].items() if seconds >= 0.05}
    return (
        _page_environment()
        .get_template("report.md.j2")
        .render(
            record=record,
            folder=folder,
            differences=_differences(record["details"].get("differences") or {}),
            credit=find_dataset(str(record["data"]["id"])).credit,
            facts={key: value for key, value in details.items() if tables.is_single(value)},
            parts={key: value for key, value in details.items() if not tables.is_single(value)},
        )
    )


def write_card(adapter: str | Path, record: dict, profile: Profile) -> Path:
    """Write an adapter's README.md: its base, what it was trained on and how, its scores, and how to ask it.

    Args:
        adapter: The adapter's folder.
        record: The record of the run.
        profile: The settings of the training.

    Returns:
        The file.
    """
    base = public_name(profile.model)
    is_public = record["model"]["source"] == "hub" or base != profile.model
    asset = ASSETS.get(profile.model)
    page = _page_environment().get_template("adapter.md.j2")
    text = page.render(
        record=record,
        profile=profile,
        base=base if is_public else record["model"]["id"],
        is_public=is_public,
        is_adapter=(Path(adapter) / "adapter_config.json").is_file(),
        about=asset.about if asset else "",
        credit=find_dataset(str(record["data"]["id"])).credit,
    )
    return write_text(Path(adapter) / "README.md", text)


@cache
def _page_environment() -> Environment:
    """Return the environment of the templates, which escapes every printed value unless it is marked safe."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("summkit.reporting"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(tables.cell_text(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"name": lambda key: Markup(tables.display_name(key)), "duration": _time, "energy": _energy}
    environment.filters["chapter"] = lambda stage: Markup(tables.chapter_name(stage))
    for function in (tables.scores_table, tables.rows_table, scores_note):
        environment.globals[function.__name__] = function
    return environment


def closing_lines(folder: Path, names: list[str]) -> str:
    """Write the page of several chapters' runs, folder/README.md, and return the lines that `run` prints at the end.

    Args:
        folder: The folder of the runs.
        names: The chapters, each a folder in it.

    Returns:
        Scores, three examples, time and memory, and the paths of run folder and report.
    """
    runs = {name: records.read_record(folder / name / "run.json") for name in names}
    write_text(folder / "README.md", "\n".join(_page(folder / name, runs[name], f"{name}/") for name in names))
    results = [result_lines(record) for record in runs.values() if "fine_tuned" in record["scores"]]
    places = [f"run folder: {near(folder)}", f"report: {near(folder / 'README.md')}"]
    return "\n".join(["", *results, cost_line(list(runs.values())), *places])


def cost_line(runs: list[dict]) -> str:
    """Return time, peak memory and energy of several records in one line."""
    kwh = sum(run["resources"]["energy_kwh"] or 0 for run in runs)
    is_estimate = any(run["resources"]["energy_is_estimate"] for run in runs)
    peak = max(run["resources"]["peak_rss_bytes"] or 0 for run in runs)
    parts = [f"Time {_time(sum(run['wall_seconds'] or 0 for run in runs))}", f"peak memory {peak / 1e9:.1f} GB"]
    if kwh:
        parts.append(f"energy {_energy(kwh, is_estimate)}")
    return ", ".join(parts) + "."


def scores_note(record: dict) -> str:
    """Return the note below a table of scores: the number of rows, and the meaning of the brackets."""
    rows = tables.plain_text(record["details"].get("scored_on", "test"))
    sizes = sorted({entry["n"] for entry in record["scores"].values() if entry["n"]})
    n = " to ".join(f"{size:,}" for size in dict.fromkeys(sizes[:1] + sizes[-1:]))
    note = f"n = {n} {rows} rows; in brackets 95 % intervals (bootstrap over rows)."
    if sizes and sizes[0] < FEW:
        note += " So few rows show only large differences."
    if any(entry["rouge1"] is not None for entry in record["scores"].values()):
        note += " ROUGE goes from 0 to 100."
    for tokenizer in {entry["tokenizer"]: None for entry in record["scores"].values() if "tokenizer" in entry}:
        missing = [metric.heading for metric in METRICS.values() if metric.heading and not metric.applies(tokenizer)]
        unit = {WORDS: "words by the rules of Unicode", CHARACTERS: "single characters"}.get(tokenizer, "other words")
        note += f" The texts are not English: scores count {unit}, without stemming; not measured (n/a): "
        note += f"{'; '.join(missing)}."
    return note


def result_lines(record: dict) -> str:
    """Return a run's scores and a few examples as text for a terminal.

    Args:
        record: A run record. Its `details.examples` are dicts with any of reference, zero_shot and fine_tuned.

    Returns:
        The table of scores with its note, and the examples' texts below each other; "" for a record without scores.
    """
    if not record["scores"]:
        return ""
    table = score_table({tables.display_name(system): entry for system, entry in record["scores"].items()})
    lines = [table.iloc[:, :4].to_string(), scores_note(record)]
    for example in record["details"].get("examples", [])[:_EXAMPLES]:
        texts = {tables.display_name(key): example[key] for key in _SHOWN if key in example}
        lines += ["", *(f"{name}: {_one_line(text)}" for name, text in texts.items())]
    return "\n".join(lines)


def _one_line(text: str | None) -> str:
    """Return a text without what a terminal would act on."""
    if text is None:
        return "–"
    return "".join(character if character.isprintable() else " " for character in text) or "(empty)"


def _differences(pairs: dict[str, dict]) -> list[dict]:
    """Return the known differences as rows of the template: the two systems, the numbers, and how to show them."""
    rows = []
    for pair, measures in pairs.items():
        a, b = pair.split("_minus_")
        for measure, difference in measures.items():
            if difference["difference"] is not None:
                metric = METRICS.get(measure) or Metric(measure)
                unit = metric.unit or Markup(tables.display_name(measure))
                digits = max(1, metric.decimals)  # as many as in the table of scores
                numbers = {key: metric.factor * number for key, number in difference.items()}
                is_clear = numbers["low"] > 0 or numbers["high"] < 0
                rows.append({"a": a, "b": b, "unit": unit, "digits": digits, "is_clear": is_clear, **numbers})
    return rows


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _energy(kwh: float, is_estimate: bool) -> str:
    return f"{1000 * kwh:.2g} Wh" + (" (an estimate: this machine has no meter)" if is_estimate else " (measured)")
