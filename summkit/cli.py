"""The command line. Exit 0: done; 1: a run failed; 2: a call or an input is wrong. Messages, never tracebacks."""

import argparse
import ast
import os
import sys
from pathlib import Path

from summkit.errors import SummkitError, check_known


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    from summkit.recipes.notebooks import RunFailed

    try:
        options.command(options)
        sys.stdout.flush()
        return 0
    except SummkitError as error:
        print(f"summkit: {error}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"summkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"\nsummkit: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m summkit", description="Fine-tune a small language model to summarise."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, function, about):
        found = commands.add_parser(name, help=about, description=about)
        found.set_defaults(command=function)
        return found

    command("doctor", _doctor, "what this machine is, the profile and why, what will fit in its memory")
    command("list", _list, "the stages and studies, with minutes by profile")
    _run_options(command("run", _run, "run notebooks unattended, by the names that `list` shows"))
    train = command("train", _train, "the training of a stage without a notebook")
    train.add_argument(
        "config", metavar="CONFIG", help="JSON file: profile, seed, out, and the profile's options by name"
    )
    about = "in place of what CONFIG says of it, such as -p out=runs/mine"
    train.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help=about)
    train.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint, if there is one")
    sweep = command("sweep", _sweep, "many trainings from one plan, each once; goes on where it was stopped")
    sweep.add_argument("plan", metavar="PLAN", help='JSON file: {"base": {…}, "vary": {"method": […], "seed": […]}}')
    sweep.add_argument("--out", metavar="DIR", help="where the runs go (default: the plan's out, else runs/sweep)")
    _summarize_options(command("summarize", _summarize, "one summary a line"))
    export = command("export", _export, "the trained model as a folder that other programs serve")
    export.add_argument("--adapter", required=True, metavar="DIR", help="adapter folder of a run")
    export.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    export.add_argument("--format", default="hf", help="hf (Hugging Face) or ctranslate2 (quick on a CPU)")
    export.add_argument("--quantization", default="float32", help="of ctranslate2's weights: float32 or int8")
    _label_options(command("label", _label, "a teacher's topics for a file of texts; goes on where it was stopped"))
    report = command("report", _report, "REPORT/README.md from a run's record, or a table of several runs")
    report.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or a run.json")
    report.add_argument("--publish", action="store_true", help="into the repository: executed notebook and REPORT/")
    return parser


def _run_options(parser) -> None:
    parser.add_argument("stages", nargs="+", metavar="STAGE")
    parser.add_argument("--profile", default="auto", help="smoke, cpu, t4, gpu or auto (default: what the machine is)")
    parser.add_argument("--out", metavar="DIR", help="where the run goes (default: runs/TIME-PROFILE)")
    parser.add_argument("--data-dir", metavar="DIR", help="a folder of JSON lines in place of the profile's data")
    parser.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="a notebook's parameter"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")


def _summarize_options(parser) -> None:
    about = "texts, .jsonl with a text a row, .pdf (default: standard input)"
    parser.add_argument("files", nargs="*", metavar="FILE", help=about)
    parser.add_argument("--adapter", required=True, metavar="DIR", help="adapter folder of a run, or an exported one")
    about = "of texts longer than the model's window: first (the default), lead-and-end, chunks, extract, whole"
    parser.add_argument("--strategy", default="first", metavar="NAME", help=about)
    about = "with chunks: their joined summaries are the answer once they have so few tokens (default: one summary)"
    parser.add_argument("--budget", type=int, metavar="TOKENS", help=about)
    parser.add_argument("--decoding", default="greedy", help="greedy, no-repeat, beam or nucleus")
    parser.add_argument("--base", action="store_true", help="the model without the adapter, for comparison")


def _label_options(parser) -> None:
    parser.add_argument("file", metavar="FILE", help="JSON lines with id and document (or abstract, article, text)")
    parser.add_argument("--out", required=True, metavar="FILE", help="where the labels go, one JSON line a row")
    teacher = parser.add_mutually_exclusive_group()
    teacher.add_argument("--teacher", metavar="MODEL", help="a model that is loaded here (default: the profile's)")
    teacher.add_argument("--url", help="an OpenAI-compatible server; its key, if any, in SUMMKIT_TEACHER_KEY")
    parser.add_argument("--model", metavar="NAME", help="the model's name at --url")
    parser.add_argument("--wording", default="topics", help="what is asked for: topics, title or news")
    parser.add_argument("--examples", metavar="FILE", help="JSON lines of document and topics, shown to the teacher")
    parser.add_argument("--profile", default="auto", help="limits and precision (default: what the machine is)")


def _doctor(options) -> None:
    from summkit.config import PROFILES, choose_profile, detect_hardware
    from summkit.offline import assets
    from summkit.resources import memory, shapes

    machine, profile = detect_hardware(), choose_profile()
    print(f"machine: {machine.name}, {(machine.memory_bytes or 0) / 1e9:.1f} GB of memory to compute in")
    print(profile.line())
    for name, asset in assets.ASSETS.items():
        state = "in the cache" if assets.is_cached(name) else f"not fetched yet ({asset.bytes / 1e6:.0f} MB)"
        print(f"{name}: {state}", flush=True)
    print("training would take, by plan:")
    for known in PROFILES.values():
        if known.model in shapes.KNOWN_CONFIGS:
            need = memory.plan_training(shapes.known_config(known.model), **memory.plan_settings(known)).total
            fits = "fits" if need <= (machine.memory_bytes or 0) else "does not fit"
            print(f"  {known.name:5} {known.model}, batches of {known.batch_size}: {need / 1e9:.1f} GB, {fits}")


def _list(options) -> None:
    from summkit.recipes import notebooks

    for stage in notebooks.stages().values():
        minutes = ", ".join(f"{name} {value:g}" for name, value in stage.minutes.items())
        print(f"{stage.name:12} {stage.title}\n{'':12} {stage.goal}\n{'':12} minutes: {minutes}")


def _run(options) -> None:
    from summkit.recipes import notebooks
    from summkit.reporting import reports

    parameters = dict(_parameter(text) for text in options.parameters)
    folder = notebooks.run_notebooks(
        options.stages, options.profile, options.out, parameters, options.resume, options.data_dir
    )
    print(reports.closing_lines(folder, list(dict.fromkeys(options.stages))))


def _parameter(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise SummkitError(f"-p {text}: NAME=VALUE is needed, such as -p SEED=1")
    words = {"true": True, "false": False, "none": None, "null": None}
    try:
        return name, words[value.lower()] if value.lower() in words else ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _train(options) -> None:
    from summkit import progress
    from summkit.recipes import finetune

    folder = finetune.train(options.config, options.resume, dict(_parameter(text) for text in options.parameters))
    if progress.first_process():
        print(f"adapter and record: {folder}")


def _sweep(options) -> None:
    from summkit.recipes import sweep
    from summkit.reporting import reports

    runs = sweep.run_sweep(options.plan, options.out)
    print(reports.comparison_table(runs))


def _summarize(options) -> None:
    from summkit import progress
    from summkit.data import text_files
    from summkit.inference import export, generation, long_documents
    from summkit.training import checkpoints

    check_known("decoding", options.decoding, generation.DECODINGS)
    check_known("strategy", options.strategy, long_documents.STRATEGIES)
    names, texts = zip(*text_files.read_texts(options.files), strict=True)
    asking = {"decoding": options.decoding, "base": options.base}
    if export.is_exported(options.adapter):
        if asking != {"decoding": "greedy", "base": False}:
            raise SummkitError(f"{options.adapter} is an exported model: it answers by itself, and greedily")
        asking, summarizer = {}, export.Exported.load(options.adapter)
    else:
        checkpoints.read_settings(options.adapter)  # what is wrong with it is said before half a minute of imports
        progress.quiet_libraries()
        summarizer = generation.Summarizer.load(options.adapter)
    answers = long_documents.summarize_long(summarizer, texts, options.strategy, budget=options.budget, **asking)
    for name, answer in zip(names, answers, strict=True):
        if not answer.fitted:
            print(f"{name}: too long for the model, {answer.how}", file=sys.stderr)
        print(answer.text)


def _export(options) -> None:
    from summkit import progress
    from summkit.inference import export
    from summkit.training import checkpoints

    check_known("format", options.format, ("hf", "ctranslate2"))
    if options.format == "hf" and options.quantization != "float32":
        raise SummkitError(f"--quantization {options.quantization}: only the format ctranslate2 is quantised here")
    checkpoints.read_settings(options.adapter)
    progress.quiet_libraries()
    if options.format == "hf":
        folder = export.merge_adapter(options.adapter, options.out)
    else:
        folder = export.to_ctranslate2(options.adapter, options.out, options.quantization)
    print(progress.near(folder))


def _label(options) -> None:
    from summkit.distillation import labelling

    labels = labelling.label_file(
        options.file,
        options.out,
        teacher=options.teacher,
        url=options.url,
        model=options.model,
        wording=options.wording,
        examples=options.examples,
        profile=options.profile,
    )
    counts = ", ".join(f"{reason} {rows}" for reason, rows in labels.counts().items())
    print(f"{options.out}: {counts}; {labels.asked} rows asked now, {labels.reused} before, {labels.seconds:.0f} s")


def _report(options) -> None:
    from summkit import progress
    from summkit.recipes import notebooks
    from summkit.reporting import reports

    runs = [Path(name).parent if name.endswith(".json") else Path(name) for name in options.runs]
    for run in runs:  # all are looked at before anything is written
        reports.records.read_record(run / "run.json")
    for run in runs:
        page = (
            reports.publish(run, notebooks.repository_root())
            if options.publish
            else reports.write_report(run, run / "REPORT")
        )
        print(progress.near(page))
    if len(runs) > 1:
        print(reports.comparison_table(runs))
