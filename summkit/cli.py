"""The command line. Exit 0: done; 1: a run failed; 2: a call or an input is wrong. Messages, never tracebacks."""

from __future__ import annotations

import argparse
import ast
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from summkit.errors import SummkitError, check_known

COMMANDS: list[tuple[str, str, Callable[[Namespace], None], Callable[[ArgumentParser], None]]] = []


def command(help_text: str, arguments: Callable[[ArgumentParser], None] = lambda parser: None) -> Callable:
    """Make the function below a command; its name is the function's without the underscore."""

    def register(function: Callable[[Namespace], None]) -> Callable[[Namespace], None]:
        COMMANDS.append((function.__name__.strip("_"), help_text, function, arguments))
        return function

    return register


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows the program's name; None: the process's own.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # no answer is lost to a terminal that cannot print a character
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
        sys.stdout.flush()
        return 0
    except SummkitError as error:
        print(f"summkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"\nsummkit: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="summkit", description="Fine-tune a small language model to summarise.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, help_text, function, arguments in COMMANDS:
        formatter = argparse.RawDescriptionHelpFormatter
        subparser = commands.add_parser(name, help=help_text, description=help_text, formatter_class=formatter)
        subparser.set_defaults(command=function)
        arguments(subparser)
    return parser


def _values(texts: list[str]) -> dict[str, Any]:
    """{name: value} of NAME=VALUE texts; a value is a Python or JSON literal, else text."""
    values = {}
    words = {"true": True, "false": False, "none": None, "null": None}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise SummkitError(f"-p {text}: NAME=VALUE is needed, such as -p SEED=1")
        try:
            values[name] = words[value.lower()] if value.lower() in words else ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[name] = value
    return values


@command("what this machine is, the profile and why, what will fit in its memory")
def _doctor(options: Namespace) -> None:
    from summkit import resources
    from summkit.config import PROFILES, choose_profile, detect_hardware
    from summkit.offline import assets

    machine = detect_hardware()
    memory = machine.memory_bytes or 0
    print(f"machine: {machine.name}, {memory / 1e9:.1f} GB of memory to compute in")
    print(choose_profile().line())
    for name, asset in assets.ASSETS.items():
        state = "in the cache" if assets.is_cached(name) else f"not fetched yet ({asset.bytes / 1e6:.0f} MB)"
        print(f"{name}: {state}", flush=True)
    print("training would take, by plan:")
    for profile in map(choose_profile, PROFILES):
        if profile.model in resources.KNOWN_CONFIGS:
            need = resources.plan_training(profile.model, **resources.plan_settings(profile)).total
            fits = "fits" if need <= memory else "does not fit"
            print(f"  {profile.name:5} {profile.model}, batches of {profile.batch_size}: {need / 1e9:.1f} GB, {fits}")


@command("the stages and studies, with minutes by profile")
def _list(options: Namespace) -> None:
    from summkit.recipes import notebooks

    for stage in notebooks.stages().values():
        minutes = ", ".join(f"{name} {value:g}" for name, value in stage.minutes.items())
        print(f"{stage.name:12} {stage.title}\n{'':12} {stage.goal}\n{'':12} minutes: {minutes}")


def _run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("stages", nargs="+", metavar="STAGE", help="a name that `list` shows")
    parser.add_argument("--profile", default="auto", help="smoke, cpu, t4, gpu or auto (default: what the machine is)")
    parser.add_argument("--out", metavar="DIR", help="where the run goes (default: runs/TIME-PROFILE)")
    parser.add_argument("--data-dir", metavar="DIR", help="a folder of JSON lines in place of the profile's data")
    _parameter_argument(parser, "a notebook's parameter, such as -p SEED=1")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")


def _parameter_argument(parser: ArgumentParser, help_text: str) -> None:
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help=help_text)


@command("run notebooks unattended", _run_arguments)
def _run(options: Namespace) -> None:
    from summkit import recipes
    from summkit.reporting import closing_lines

    names = list(dict.fromkeys(options.stages))
    parameters = _values(options.parameters)
    try:
        folder = recipes.run_notebooks(
            names, options.profile, options.out, parameters, options.resume, options.data_dir
        )
    except recipes.RunFailedError as error:
        print(f"summkit: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(closing_lines(folder, names))


class _Options(argparse.Action):
    """`--options`: what a configuration may hold, made from the options' own model."""

    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        from summkit import config
        from summkit.recipes import finetune

        for name, text in (finetune.options() | config.options()).items():
            print(f"{name:24}{text}")
        parser.exit()


def _train_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="JSON or YAML file of options, by name")
    _parameter_argument(parser, "an option in place of what CONFIG says, such as -p out=runs/mine")
    parser.add_argument(
        "--resume", action="store_true", help="continue from the last whole checkpoint, if there is one"
    )
    parser.add_argument("--options", nargs=0, action=_Options, help="list the options that CONFIG may hold")


@command("train without a notebook, also under torchrun", _train_arguments)
def _train(options: Namespace) -> None:
    from summkit import progress, recipes

    folder = recipes.train(options.config, options.resume, _values(options.parameters))
    if progress.first_process():
        print(f"adapter and record: {folder}")
        print(f"next: python -m summkit summarize FILE --adapter {folder}/adapter")


def _sweep_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("plan", metavar="PLAN", help='JSON: {"base": {…}, "vary": {"method": […], "seed": […]}}')
    parser.add_argument("--out", metavar="DIR", help="where the runs go (default: the plan's out, else runs/sweep)")


@command("many trainings from one plan, each once; a stopped sweep continues", _sweep_arguments)
def _sweep(options: Namespace) -> None:
    from summkit import recipes, reporting

    print(reporting.comparison_table(recipes.run_sweep(options.plan, options.out)))


def _summarize_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="text, .jsonl or .pdf (default: standard input)")
    parser.add_argument("--adapter", required=True, metavar="DIR", help="adapter folder of a run, or an exported one")
    strategies = "for texts longer than the window: first (the default), lead-and-end, chunks, extract, whole"
    parser.add_argument("--strategy", default="first", metavar="NAME", help=strategies)
    budget = "with chunks: their joined summaries are the answer once they have so few tokens"
    parser.add_argument("--budget", type=int, metavar="TOKENS", help=budget)
    parser.add_argument("--decoding", default="greedy", help="greedy, no-repeat, beam or nucleus")
    parser.add_argument("--base", action="store_true", help="the model without the adapter, for comparison")


@command("one summary a line", _summarize_arguments)
def _summarize(options: Namespace) -> None:
    from summkit import inference, progress, training
    from summkit.data import text_files
    from summkit.inference import export

    check_known("decoding", options.decoding, inference.DECODINGS)
    check_known("strategy", options.strategy, inference.STRATEGIES)
    names, texts = zip(*text_files.read_texts(options.files), strict=True)
    asking = {"decoding": options.decoding, "base": options.base}
    summarizer: inference.Exported | inference.Summarizer
    if export.is_exported(options.adapter):
        if options.decoding != "greedy" or options.base:
            raise SummkitError(f"{options.adapter} is an exported model: it has no base, and decodes greedily")
        asking = {}
        summarizer = inference.Exported.load(options.adapter)
    else:
        training.read_settings(options.adapter)  # what is wrong with it is said before half a minute of imports
        progress.quiet_libraries()
        summarizer = inference.Summarizer.load(options.adapter)
    answers = inference.summarize_long(summarizer, texts, options.strategy, budget=options.budget, **asking)
    for name, answer in zip(names, answers, strict=True):
        if not answer.fitted:
            print(f"{name}: too long for the model, {answer.how}", file=sys.stderr)
        print(answer.text)


def _label_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="JSON lines with id and document (or abstract, article, text)")
    parser.add_argument("--out", required=True, metavar="FILE", help="where the labels go, one JSON line a row")
    teacher = parser.add_mutually_exclusive_group()
    teacher.add_argument("--teacher", metavar="MODEL", help="a model that is loaded here (default: the profile's)")
    teacher.add_argument("--url", help="an OpenAI-compatible server; its key, if any, in SUMMKIT_TEACHER_KEY")
    parser.add_argument("--model", metavar="NAME", help="the model's name at --url")
    parser.add_argument("--wording", default="topics", help="what is asked for: topics, title or news")
    parser.add_argument("--examples", metavar="FILE", help="JSON lines of document and topics, shown to the teacher")
    parser.add_argument("--profile", default="auto", help="limits and precision (default: what the machine is)")


@command("a teacher's topics for a file of texts; a stopped job continues", _label_arguments)
def _label(options: Namespace) -> None:
    from summkit import distillation

    labels = distillation.label_file(
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


def _export_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--adapter", required=True, metavar="DIR", help="adapter folder of a run")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--format", default="hf", help="hf (Hugging Face) or ctranslate2 (fast on a CPU)")
    parser.add_argument("--quantization", default="float32", help="of ctranslate2's weights: float32 or int8")


@command("the trained model as a folder that other programs serve", _export_arguments)
def _export(options: Namespace) -> None:
    from summkit import inference, progress, training

    check_known("format", options.format, ("hf", "ctranslate2"))
    if options.format == "hf" and options.quantization != "float32":
        raise SummkitError(f"--quantization {options.quantization}: only the format ctranslate2 is quantised here")
    training.read_settings(options.adapter)
    progress.quiet_libraries()
    if options.format == "hf":
        folder = inference.merge_adapter(options.adapter, options.out)
    else:
        folder = inference.to_ctranslate2(options.adapter, options.out, options.quantization)
    print(progress.near(folder))


def _report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or a run.json")
    parser.add_argument("--publish", action="store_true", help="into the repository: executed notebook and REPORT/")


@command("REPORT/README.md from a run's record, or a table of several runs", _report_arguments)
def _report(options: Namespace) -> None:
    from summkit import progress, recipes, reporting

    runs = [Path(name).parent if name.endswith(".json") else Path(name) for name in options.runs]
    for run in runs:  # all are looked at before anything is written
        reporting.read_record(run / "run.json")
    for run in runs:
        if options.publish:
            page = reporting.publish(run, recipes.repository_root())
        else:
            page = reporting.write_report(run, run / "REPORT")
        print(progress.near(page))
    if len(runs) > 1:
        print(reporting.comparison_table(runs))
