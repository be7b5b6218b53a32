"""The command line. Exit codes: 0 success, 1 a run failed, 2 wrong arguments or input. Prints no tracebacks."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import sys
import tempfile
import traceback
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from summkit import __version__
from summkit.errors import RunFailedError, SummkitError, check_known
from summkit.files import log_event, read_mapping
from summkit.registry import load_plugins

# Parameters and options whose value is a text, even if it looks like a number: a folder may be called 2024.
TEXTS = re.compile(r"(?i)model|data|dataset|out|teacher|instruction|\w+_column")
# Advice on errors of libraries, by a pattern of their text.
ADVICE = {
    r"No space left|File too large|quota exceeded|StreamWriter failed": (
        "the disk is full, or a limit on files is reached; make room, then call again (`train --resume` continues)"
    ),
    r"(?i)out ?of ?memory|MemoryError|bad_alloc|not enough memory": (
        "memory is short; a smaller batch_size, max_length or model helps, and `doctor CONFIG` says what fits"
    ),
    r"PermissionError|Read-only file system|File name too long|(Not|Is)ADirectoryError|FileExistsError": (
        "a file or folder cannot be used under this name; choose another, or change its rights"
    ),
    r"index out of range in self": "the tokenizer has tokens that the model lacks; use the one that came with it",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command-line arguments without the program's name; None: `sys.argv[1:]`.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # what the terminal cannot show is printed as \u6865
    arguments = sys.argv[1:] if arguments is None else arguments
    code = 0
    message = ""
    try:
        _find_home()
        options = _parser(wanted=arguments[0] if arguments else "").parse_args(arguments)
        if getattr(options, "resume", False) and getattr(options, "overwrite", False):
            raise SummkitError("--resume continues an earlier run and --overwrite replaces it: choose one of them")
        log_event("started", command=arguments)
        load_plugins()
        options.command(options)
        sys.stdout.flush()
    except (SummkitError, RunFailedError) as error:
        code = 2 if isinstance(error, SummkitError) else 1
        message = str(error)
    except KeyboardInterrupt as stop:
        code = 130
        message = str(stop) or "interrupted"
        print(file=sys.stderr)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        code = 1
        message = _reason_failed(error)
    if message:
        print(f"summkit: {message}", file=sys.stderr)
    with contextlib.suppress(SummkitError):
        log_event("ended", exit_code=code, message=message)
    return code


def _find_home() -> None:
    """Give a user whom the system does not know, as in many containers, a name and a home folder for libraries."""
    import getpass

    try:
        Path.home()
        getpass.getuser()
    except (KeyError, OSError, RuntimeError):
        os.environ.setdefault("USER", "summkit")
        os.environ.setdefault("HOME", tempfile.gettempdir())


def _reason_failed(error: Exception) -> str:
    """Return in one line what failed, what helps, and where the traceback is."""
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("summkit"):
        return (
            f"this Python ({sys.executable}) has no package {error.name!r}: install it with pip, or use the Python of "
            "the environment that summkit was installed into (after `make install`: .venv/bin/python)"
        )
    text = " ".join(f"{type(error).__name__}: {error}".split())
    advice = next((advice for pattern, advice in ADVICE.items() if re.search(pattern, text)), "")
    reason = f"{advice or 'an error that was not foreseen'}: {text[:300]}"
    try:
        log = Path(tempfile.mkstemp(prefix="summkit-", suffix=".log")[1])
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
    except OSError:  # no folder for it, or the disk is full
        return reason
    return f"{reason} (traceback: {log})"


def _parser(wanted: str) -> ArgumentParser:
    """Build the parser from commands.yaml; the help of `train` lists its options if `train` is the `wanted` command."""
    import yaml

    described = yaml.safe_load(Path(__file__).with_name("commands.yaml").read_text(encoding="utf-8"))
    if wanted and not wanted.startswith("-"):
        check_known("command", wanted, described)
    parser = ArgumentParser(prog="summkit", description="Fine-tune a small language model to summarise.")
    parser.add_argument("--version", action="version", version=f"summkit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, about in described.items():
        epilog = f"example:\n  summkit {about['example']}"
        subparser = commands.add_parser(
            name,
            help=about["help"],
            description=about["help"],
            epilog=f"{epilog}\n\n{_options_text()}" if name == wanted == "train" else epilog,
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


def _values(texts: list[str], option: str = "-p") -> dict[str, Any]:
    """Parse NAME=VALUE texts of an option into {name: value}; a value is a Python or JSON literal, or else text."""
    values = {}
    words = {"true": True, "false": False, "none": None, "null": None}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise SummkitError(f"{option} {text}: NAME=VALUE is needed, such as {option} seed=1")
        try:
            values[name] = words[value.lower()] if value.lower() in words else ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError):
            with contextlib.suppress(ValueError):
                value = json.loads(value)
            values[name] = value
        if TEXTS.fullmatch(name) and not isinstance(values[name], str | None):
            values[name] = text.partition("=")[2]
    return values


def _doctor(options: Namespace) -> None:
    import platform
    import shutil
    from importlib.metadata import version

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    print(f"summkit {__version__}, Python {platform.python_version()}, {packages}", flush=True)

    from summkit import progress, recipes, resources
    from summkit.config import PROFILES, choose_profile, detect_hardware
    from summkit.offline import assets, hub

    machine = detect_hardware()
    memory = machine.memory_bytes or 0
    print(f"machine: {machine.name}, {memory / 1e9:.1f} GB of memory")
    for use, folder in (("runs", Path("runs").absolute()), ("the cache", assets.cache_dir())):
        there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
        print(f"disk: {shutil.disk_usage(there).free / 1e9:.1f} GB free for {use}, {folder}")
    print(f"Hugging Face Hub: {hub.state()}", flush=True)
    progress.quiet_libraries()
    if options.config:
        print(recipes.plan(options.config, _values(options.parameters)))
        return
    print(choose_profile().line())
    for name, asset in assets.ASSETS.items():
        state = "in the cache" if assets.is_cached(name) else f"not downloaded yet ({asset.bytes / 1e6:.0f} MB)"
        print(f"{name}: {state}", flush=True)
    print("memory for training in task3:")
    for profile in map(choose_profile, PROFILES):
        settings = resources.plan_settings(profile)
        plan = resources.plan_training(profile.model, **settings)
        fits = "fits" if plan.fits(memory) else "does not fit"
        if settings["device"] == "cuda" != machine.device:
            fits = "needs a GPU"
        title = f"  {profile.name:5} {profile.model}, batches of {profile.batch_size}"
        print(f"{title}: {plan.total / 1e9:.1f} GB planned, {fits}", flush=True)


def _list(options: Namespace) -> None:
    import textwrap

    from summkit.recipes import notebooks

    for stage in notebooks.stages().values():
        minutes = ", ".join(f"{name} {value:g}" for name, value in stage.minutes.items())
        print(stage.name)
        for text in (stage.title, stage.goal, f"minutes: {minutes}"):
            print(textwrap.fill(text, 80, initial_indent="    ", subsequent_indent="    "))


def _copy(options: Namespace) -> None:
    from summkit import recipes

    folder = recipes.copy_chapters(options.folder)
    print(f"the chapters are in {folder}: open them in JupyterLab, or call `summkit run` inside that folder")


def _run(options: Namespace) -> None:
    from summkit import recipes
    from summkit.reporting import closing_lines

    names = list(dict.fromkeys(options.stages))
    given = read_mapping(options.parameter_file, "parameters") if options.parameter_file else {}
    parameters = given | _values(options.parameters)
    folder = recipes.run_notebooks(
        names, options.profile, options.out, parameters, options.resume, options.data, options.overwrite
    )
    print(closing_lines(folder, names))
    _print_next([folder / name / "adapter" for name in names])


def _train(options: Namespace) -> None:
    from summkit import progress, recipes, reporting

    folder = recipes.train(options.config, options.resume, _values(options.parameters), options.overwrite)
    if progress.first_process():
        record = reporting.read_record(folder / "run.json")
        loss = f"best validation loss: {record['training']['eval_loss']:.3f} nats a token"
        print(reporting.result_lines(record) or loss)
        print(f"adapter and record: {folder}")
        _print_next([folder / "adapter"])


def _print_next(adapters: list[Path]) -> None:
    """Print the commands that ask these adapters, with the interpreter that has the packages."""
    from summkit import progress
    from summkit.training import read_settings

    for adapter in adapters:
        with contextlib.suppress(SummkitError):  # no adapter here, or one for labels
            read_settings(adapter)
            print("ask it:", progress.command("summarize", "article.txt", "--adapter", progress.near(adapter)))


def _sweep(options: Namespace) -> None:
    from summkit import recipes, reporting

    print(reporting.comparison_table(recipes.run_sweep(options.plan, options.out)))


def _summarize(options: Namespace) -> None:
    from summkit import inference, progress
    from summkit.data import checks
    from summkit.inference import export
    from summkit.recipes import text_files
    from summkit.training import checkpoints

    check_known("decoding", options.decoding, inference.DECODINGS)
    check_known("strategy", options.strategy, inference.STRATEGIES)
    is_exported = bool(options.url) or export.is_exported(options.adapter)
    # A broken adapter is reported before half a minute of imports.
    settings = (checkpoints.settings_in if is_exported else checkpoints.read_settings)(Path(options.adapter))
    named = options.document_column or settings["document_column"]
    usual = tuple(name for name in checks.DOCUMENT_COLUMNS if name != str(settings["summary_column"]).lower())
    names, texts = zip(*text_files.read_texts(options.files, (named,) if named else usual), strict=True)
    asking = {"decoding": options.decoding, "base": options.base, "engine": options.engine}
    summarizer: inference.Exported | inference.Served | inference.Summarizer
    if is_exported:
        if asking != {"decoding": "greedy", "base": False, "engine": "batches"}:
            raise SummkitError(f"{options.adapter} is an exported model: no --decoding, --base or --engine")
        asking = {}
        if options.url:
            summarizer = inference.Served.load(options.adapter, options.url)
        else:
            summarizer = inference.Exported.load(options.adapter)
    else:
        progress.quiet_libraries()
        summarizer = inference.Summarizer.load(options.adapter)
    answers = inference.summarize_long(summarizer, texts, options.strategy, budget=options.budget, **asking)
    for name, answer in zip(names, answers, strict=True):
        if not answer.fitted:
            print(f"{name}: too long for the model, {answer.how}", file=sys.stderr)
        print(answer.text)
    if empty := [name for name, answer in zip(names, answers, strict=True) if not answer.text]:
        advice = "try --decoding beam, a longer training, or for a model that thinks a larger max_new_tokens"
        raise RunFailedError(f"no summary, and an empty line, for {', '.join(empty)}: {advice}")


def _label(options: Namespace) -> None:
    from summkit import distillation

    asked = {name: getattr(options, name) for name in ("teacher", "url", "model", "wording", "examples", "profile")}
    changes: dict[str, Any] = {name: _values(getattr(options, name), f"--{name}") for name in ("rename", "extra")}
    labels = distillation.label_file(options.file, options.out, without=options.without, **asked, **changes)
    counts = ", ".join(f"{reason} {rows}" for reason, rows in labels.counts().items())
    print(f"{options.out}: {counts}; rows asked now: {labels.asked}, before: {labels.reused}; {labels.seconds:.0f} s")
    if not labels.labels or distillation.NOT_ASKED in labels.set_aside.values():
        raise RunFailedError("rows are without a label; the same command asks again where the server failed")


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
    from summkit import progress, reporting

    runs = [path.parent if path.name == "run.json" else path for path in map(Path, options.runs)]
    for run in runs:  # check all records before anything is written
        reporting.read_record(run / "run.json")
    for run in runs:
        print(progress.near(reporting.write_report(run, run / "REPORT")))
    if len(runs) > 1:
        print(reporting.comparison_table(runs))
