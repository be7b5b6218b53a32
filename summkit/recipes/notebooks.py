"""Run chapters unattended: papermill runs each notebook, and what only that run knew is taken out of the result."""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from summkit import files, progress
from summkit.config import Profile, choose_profile
from summkit.config import options as profile_options
from summkit.data import own_data
from summkit.errors import RunFailedError, SummkitError, build, check_known
from summkit.recipes import finetune
from summkit.reporting import read_record

if TYPE_CHECKING:
    from nbformat import NotebookNode

COURSE = Path(__file__).parents[1] / "course"  # in a wheel: the chapters without their outputs, and jobs/
FIRST = ("notebooks/00_how_a_language_model_writes", "task1/xsum", "task2", "task3")  # the primer and the core
WIDGET = "application/vnd.jupyter.widget-view+json"
STOP_SECONDS = 240  # for an interrupted cell to finish its step and save: twice what the slowest step should take


@dataclass(frozen=True)
class Stage:
    """A notebook that can be run by name.

    Attributes:
        minutes: By profile: measured where the profile could be run, else estimated.
        parameters: Names in the cell that is tagged "parameters".
    """

    name: str
    notebook: Path
    title: str
    goal: str
    minutes: dict[str, float]
    parameters: frozenset[str]


def repository_root() -> Path:
    """Return the folder of the chapters and of jobs/: the repository, a copy of the chapters, or what the wheel has.

    SUMMKIT_ROOT names it. Otherwise it is the folder around the working folder, or else the package's own.

    Raises:
        SummkitError: SUMMKIT_ROOT has no chapters.
    """
    named = os.environ.get("SUMMKIT_ROOT")
    own = (Path(__file__).parents[2], COURSE)
    for folder in [Path(named).absolute()] if named else [Path.cwd(), *Path.cwd().parents, *own]:
        if any(folder.glob("task*/NOTEBOOK/*.ipynb")):
            return folder
    raise SummkitError(f"there are no chapters in {named or own[0]}: set SUMMKIT_ROOT to a folder that has them")


def copy_chapters(folder: str | Path) -> Path:
    """Copy the chapters of this version, without outputs, and the files of jobs/ into a new folder.

    Raises:
        SummkitError: The folder has files, it cannot be written, or this package is not an installed one.
    """
    if not COURSE.is_dir():
        raise SummkitError(f"this summkit runs from its repository: the chapters are in {repository_root()}")
    with files.new_folder(folder) as part:
        shutil.copytree(COURSE, part, dirs_exist_ok=True)
    return Path(folder)


def stages() -> dict[str, Stage]:
    """Return every stage and study by name, in reading order: the notebooks whose metadata say what they are."""
    root = repository_root()
    course = sorted([*root.glob("task*/NOTEBOOK/*.ipynb"), *root.glob("task*/*/NOTEBOOK/*.ipynb")])
    found = [_stage(path, root) for path in [*course, *sorted(root.glob("notebooks/*.ipynb"))]]
    chapters = {stage.name: stage for stage in found if stage}
    return {name: chapters[name] for name in (*filter(chapters.get, FIRST), *chapters)}


def _stage(path: Path, root: Path) -> Stage | None:
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        chapter = notebook["metadata"].get("summkit")
        if not chapter:
            return None
        parameters = _parameters(notebook["cells"])
        return Stage(chapter["stage"], path, chapter["title"], chapter["goal"], chapter["minutes"], parameters)
    except (ValueError, KeyError, TypeError, SyntaxError) as error:
        raise SummkitError(f"{path.relative_to(root)} is not a whole notebook of this project: {error!r}") from None


def _parameters(cells: list[dict]) -> frozenset[str]:
    sources = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    names = set()
    for line in ast.parse("\n".join(sources)).body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(names)


def run_notebooks(
    names: Iterable[str],
    profile: str = "auto",
    out: str | Path | None = None,
    parameters: dict[str, Any] | None = None,
    resume: bool = False,
    data: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Run stages one after the other.

    Args:
        names: Stages, by the names that `stages` gives.
        profile: "smoke", "cpu", "t4", "gpu" or "auto".
        out: The run's folder; None: runs/TIME-PROFILE.
        parameters: Parameters of the notebooks, and options of the profile, by name. A parameter goes to every stage
            that has it. A name that is neither is an error before anything runs.
        resume: Continue the run in `out`: a stage with a record is left as it is.
        data: A file or a folder of rows in place of the profile's.
        overwrite: Replace an earlier run in `out`.

    Returns:
        The folder of the notebooks, records, figures and adapters. An executed notebook is kept even if it failed.

    Raises:
        SummkitError: The call is wrong.
        RunFailedError: A cell failed.
        KeyboardInterrupt: It was interrupted; the message says how to continue.
    """
    if find_spec("papermill") is None:
        raise SummkitError("notebooks are run by papermill, which is not installed: pip install 'summkit[notebooks]'")
    if resume and not (out and Path(out).is_dir()):
        raise SummkitError("--resume needs --out: the folder of the run to continue")
    known = stages()
    for name in names:
        check_known("stage", name, known)
    chosen = [known[name] for name in dict.fromkeys(names)]
    # A notebook runs in its own folder: a folder that is named from here needs its whole path.
    given: dict[str, Any] = {
        name: str(Path(value).absolute()) if name.lower() == "model" and value and Path(str(value)).is_dir() else value
        for name, value in (parameters or {}).items()
    }
    profile = given.pop("PROFILE", None) or profile
    rows = own_data(given.pop("DATA", None) or data)
    own = given.pop("OPTIONS", None) or {}
    if not isinstance(own, dict):
        raise SummkitError(f"-p OPTIONS={own}: a mapping is needed, such as {{rank: 8}}, or -p rank=8 alone")
    options = own | {name: given.pop(name) for name in profile_options() if name in given}
    settings = _check_parameters(chosen, given, options, profile)
    if resume:
        given["RESUME"] = True
    if options:
        given["OPTIONS"] = options
    folder = Path(out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{settings.name}").absolute()
    if not (resume or overwrite):
        for stage in chosen:
            files.check_unused(folder / stage.name)
    remaining = [stage for stage in chosen if not (resume and _has_record(folder, stage, settings))]
    if remaining:
        finetune.ask_for_hub(settings, rows)
    if not out:
        folder.mkdir(parents=True)  # raises an error if another run was started in the same second
    print(settings.line())
    for number, stage in enumerate(chosen, 1):
        title = f"[{number}/{len(chosen)}] {stage.name}"
        if stage not in remaining:
            print(f"{title}: has its record, left as it is")
            continue
        minutes = f", about {stage.minutes[settings.name]:g} min" if settings.name in stage.minutes else ""
        print(f"{title}: {stage.title}{minutes}", flush=True)
        own = {name: value for name, value in given.items() if name in stage.parameters}
        files.log_event("stage started", stage=stage.name, folder=str(folder / stage.name))
        _execute(stage, folder, profile, own, rows)
    return folder


def _check_parameters(chosen: list[Stage], given: dict[str, Any], options: dict[str, Any], profile: str) -> Profile:
    """Check names and values before anything runs, and return the profile that they make."""
    parameters = frozenset().union(*(stage.parameters for stage in chosen))
    for name in given:  # papermill only warns of an unknown one
        is_option = name.islower()
        check_known("option" if is_option else "parameter", name, profile_options() if is_option else parameters)
    for stage in chosen:
        if options and "OPTIONS" not in stage.parameters:
            raise SummkitError(f"{stage.name} has no parameter OPTIONS, and cannot take -p {next(iter(options))}=…")
    build(finetune.Settings, {"seed": given.get("SEED", 0)}, "parameter")
    own = {name.lower(): given[name] for name in given if name.lower() in profile_options() and given[name]}
    # The limits on words are a stage's own: they are checked when it starts.
    return choose_profile(profile, **{"min_words": 0, "max_words": None} | own | options)


def _has_record(folder: Path, stage: Stage, profile: Profile) -> bool:
    path = folder / stage.name / "run.json"
    if not path.is_file():
        return False
    earlier = read_record(path)["profile"]
    if earlier != profile.name:
        raise SummkitError(f"{stage.name} was run here with the profile {earlier!r}: resume with the same one")
    return True


def clean(path: Path) -> None:
    """Take out of a notebook what only its run knew: standard error, bars, papermill's paths and times."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    metadata = {key: notebook.metadata[key] for key in ("summkit",) if key in notebook.metadata}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict(metadata | {"kernelspec": kernel, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs = _merged([output for output in cell.outputs if not _is_noise(output)])
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    os.replace(part, path)


def _is_noise(output: NotebookNode) -> bool:
    shown = set(output.get("data", {}))
    bar = WIDGET in shown and shown <= {WIDGET, "text/plain"}  # a widget means nothing without its kernel
    return output.get("name") == "stderr" or bar


def _merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream, so that what a cell prints is one output."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if merged and output.output_type == merged[-1].output_type == "stream":
            merged[-1].text += output.text
            continue
        if "data" in output:
            output.data.pop(WIDGET, None)
            output.metadata = {kind: said for kind, said in output.metadata.items() if kind == "image/png"}  # alt text
        merged.append(output)
    return merged


def _execute(stage: Stage, folder: Path, profile: str, parameters: dict[str, Any], rows: Path | None) -> None:
    """Run one notebook into `folder`, with its progress on stderr, and leave the executed notebook there, cleaned."""
    place = files.make_folder(folder / stage.name, "--out")
    (place / "run.json").unlink(missing_ok=True)  # an earlier run's must not pass for this one's
    target = place / stage.notebook.name
    started = time.monotonic()
    line = progress.Line(stage.name.rpartition("/")[2])
    with tempfile.TemporaryDirectory() as kernels:
        environment = _kernel_environment(folder, profile, rows, line, Path(kernels))
        with patch.dict(os.environ, environment):  # the kernel inherits them
            try:
                _papermill(stage, target, parameters, line)
            except KeyboardInterrupt:
                options = f"--out {progress.near(folder)} --profile {profile} --resume"
                raise KeyboardInterrupt(
                    f"interrupted in {stage.name}; `run STAGE… {options}` continues from there"
                ) from None
            finally:
                if target.is_file():
                    clean(target)
    seconds = time.monotonic() - started
    files.log_event("stage done", stage=stage.name, seconds=round(seconds))
    print(f"    done in {seconds / 60:.1f} min", flush=True)


def _kernel_environment(
    folder: Path, profile: str, rows: Path | None, line: progress.Line, kernels: Path
) -> dict[str, str]:
    from ipykernel.kernelspec import write_kernel_spec

    # The kernel is this Python, whatever other kernel of the name python3 is installed.
    write_kernel_spec(kernels / "kernels" / "python3")
    package = str(Path(__file__).parents[2])
    variables = {
        "SUMMKIT_RUN_DIR": str(folder),
        "SUMMKIT_HEADLESS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
        "JUPYTER_PATH": os.pathsep.join(filter(None, (str(kernels), os.environ.get("JUPYTER_PATH")))),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "TQDM_NCOLS": os.environ.get("TQDM_NCOLS", str(line.room())),
        "TQDM_NROWS": "20",
    }
    if rows:
        variables["SUMMKIT_DATA_DIR"] = str(rows)
    if profile != "auto":  # with auto the notebook chooses for itself, and says why
        variables["SUMMKIT_PROFILE"] = profile
    return variables


def _papermill(stage: Stage, target: Path, parameters: dict[str, Any], line: progress.Line) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    kept = f"\nthe notebook up to there: {progress.near(target)}"
    try:
        papermill.execute_notebook(
            _literal(stage.notebook),
            _literal(target),
            parameters,
            kernel_name="python3",
            language="python",
            cwd=str(stage.notebook.parent),
            config=Config({"KernelManager": {"shutdown_wait_time": STOP_SECONDS}}),
            extra_arguments=["--log-level=50"],  # the kernel shows a traceback of itself for every Ctrl-C
            stderr_file=line,
            stdout_file=line.printed,
            progress_bar={"file": line.cells, "bar_format": "{n_fmt}/{total_fmt}"},
        )
    except papermill.PapermillExecutionError as error:
        cell = f"cell [{error.exec_count}] ({_cell_id(target, error.exec_count)})"
        raise RunFailedError(f"{stage.name} failed in {cell}: {error.ename}: {error.evalue}{kept}") from None
    except DeadKernelError:
        raise RunFailedError(
            f"{stage.name}: its process was killed, most often because memory was short{kept}"
        ) from None
    except RuntimeError as error:  # of jupyter_client, where the kernel does not come up
        raise RunFailedError(
            f"{stage.name}: the notebook's kernel did not start: {error}; try `{sys.executable} -m ipykernel --version`"
        ) from None
    finally:
        line.close()


def _literal(path: Path) -> str:
    """Return a path for papermill, which would take braces for its parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _cell_id(notebook: Path, count: int) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return next((cell.get("id", "") for cell in cells if cell.get("execution_count") == count), "")
