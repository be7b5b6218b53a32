"""The command line. Exit codes: 0 success, 1 a run failed, 2 wrong arguments or input. Prints no tracebacks."""

from __future__ import annotations

import ast
import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from summkit.errors import SummkitError, check_known
from summkit.registry import load_plugins


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command-line arguments without the program's name; None: `sys.argv[1:]`.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # print "?" for a character that the terminal cannot show
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(wanted=arguments[0] if arguments else "").parse_args(arguments)
    try:
        load_plugins()
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


def _parser(wanted: str) -> ArgumentParser:
    """Build the parser from commands.yaml; the help of `train` lists its options if `train` is the `wanted` command."""
    import yaml

    described = yaml.safe_load(Path(__file__).with_name("commands.yaml").read_text(encoding="utf-8"))
    parser = ArgumentParser(prog="summkit", description="Fine-tune a small language model to summarise.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, about in described.items():
        epilog = _options_text() if name == wanted == "train" else None
        subparser = commands.add_parser(
            name,
            help=about["help"],
            description=about["help"],
            epilog=epilog,
            formatter_class=RawDescriptionHelpFormatter,
        )
        subparser.set_defaults(command=globals()[f"_{name}"])
        for argument, settings in about.get("arguments", {}).items():
            kind: dict[str, Any] = {"type": int} if settings.pop("type", None) == "int" else {}
            subparser.add_argument(argument, **kind, **settings)
    return parser


def _options_text() -> str:
    """List the options of a configuration file, for the help of `train`."""
    from summkit import config
    from summkit.recipes import finetune

    options = finetune.options() | config.options()
    return "options of CONFIG:\n" + "\n".join(f"  {name:24}{text}" for name, text in options.items())


def _values(texts: list[str]) -> dict[str, Any]:
    """Parse NAME=VALUE texts into {name: value}; a value is a Python or JSON literal, or else text."""
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


def _doctor(options: Namespace) -> None:
    from summkit import resources
    from summkit.config import PROFILES, choose_profile, detect_hardware
    from summkit.offline import assets

    machine = detect_hardware()
    memory = machine.memory_bytes or 0
    print(f"machine: {machine.name}, {memory / 1e9:.1f} GB of memory")
    print(choose_profile().line())
    for name, asset in assets.ASSETS.items():
        state = "in the cache" if assets.is_cached(name) else f"not downloaded yet ({asset.bytes / 1e6:.0f} MB)"
        print(f"{name}: {state}", flush=True)
    print("planned memory for training:")
    for profile in map(choose_profile, PROFILES):
        if profile.model in resources.KNOWN_CONFIGS:
            need = resources.plan_training(profile.model, **resources.plan_settings(profile)).total
            fits = "fits" if need <= memory else "does not fit"
            print(f"  {profile.name:5} {profile.model}, batches of {profile.batch_size}: {need / 1e9:.1f} GB, {fits}")


def _list(options: Namespace) -> None:
    from summkit.recipes import notebooks

    for stage in notebooks.stages().values():
        minutes = ", ".join(f"{name} {value:g}" for name, value in stage.minutes.items())
        print(f"{stage.name}\n    {stage.title}\n    {stage.goal}\n    minutes: {minutes}")


def _run(options: Namespace) -> None:
    from summkit import recipes
    from summkit.reporting import closing_lines

    names = list(dict.fromkeys(options.stages))
    parameters = _values(options.parameters)
    try:
        folder = recipes.run_notebooks(names, options.profile, options.out, parameters, options.resume, options.data)
    except recipes.RunFailedError as error:
        print(f"summkit: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(closing_lines(folder, names))


def _train(options: Namespace) -> None:
    from summkit import progress, recipes

    folder = recipes.train(options.config, options.resume, _values(options.parameters))
    if progress.first_process():
        print(f"adapter and record: {folder}")
        print(f"next: python -m summkit summarize FILE --adapter {folder}/adapter")


def _sweep(options: Namespace) -> None:
    from summkit import recipes, reporting

    print(reporting.comparison_table(recipes.run_sweep(options.plan, options.out)))


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
        training.read_settings(options.adapter)  # report a broken adapter before half a minute of imports
        progress.quiet_libraries()
        summarizer = inference.Summarizer.load(options.adapter)
    answers = inference.summarize_long(summarizer, texts, options.strategy, budget=options.budget, **asking)
    for name, answer in zip(names, answers, strict=True):
        if not answer.fitted:
            print(f"{name}: too long for the model, {answer.how}", file=sys.stderr)
        print(answer.text)


def _label(options: Namespace) -> None:
    from summkit import distillation

    asked = {name: getattr(options, name) for name in ("teacher", "url", "model", "wording", "examples", "profile")}
    labels = distillation.label_file(options.file, options.out, **asked)
    counts = ", ".join(f"{reason} {rows}" for reason, rows in labels.counts().items())
    print(f"{options.out}: {counts}; {labels.asked} rows asked now, {labels.reused} before, {labels.seconds:.0f} s")


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


def _report(options: Namespace) -> None:
    from summkit import progress, recipes, reporting

    runs = [Path(name).parent if name.endswith(".json") else Path(name) for name in options.runs]
    for run in runs:  # check all records before anything is written
        reporting.read_record(run / "run.json")
    for run in runs:
        if options.publish:
            page = reporting.publish(run, recipes.repository_root())
        else:
            page = reporting.write_report(run, run / "REPORT")
        print(progress.near(page))
    if len(runs) > 1:
        print(reporting.comparison_table(runs))
