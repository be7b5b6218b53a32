"""Floor 8. The stages and studies, run unattended: papermill runs each notebook, and what it leaves is cleaned."""

import ast
import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from summkit import progress
from summkit.config import Profile, choose_profile
from summkit.errors import SummkitError, check_known
from summkit.recipes import finetune
from summkit.reporting import records

WIDGET = "application/vnd.jupyter.widget-view+json"
STOP_SECONDS = 240  # for an interrupted cell to finish its step and save: twice what the slowest step should take


@dataclass(frozen=True)
class Stage:
    """A notebook that can be run by name. Minutes by profile, measured where the profile could be, else estimated."""

    name: str
    notebook: Path
    title: str
    goal: str
    minutes: dict[str, float]
    parameters: frozenset[str]


class RunFailed(Exception):
    """A run that began and did not end well: exit code 1. The message says where to look."""


def repository_root() -> Path:
    """The repository: SUMMKIT_ROOT, else the folder of the stages that this was called in, else the package's own.

    Raises SummkitError where there is none: the package was installed without it.
    """
    given = [Path(os.environ["SUMMKIT_ROOT"]).absolute()] if os.environ.get("SUMMKIT_ROOT") else []
    for folder in given or (Path.cwd(), *Path.cwd().parents, Path(__file__).parents[2]):
        if (folder / "summkit").is_dir() and any(folder.glob("task*")):
            return folder
    raise SummkitError("the notebooks are not here: clone the repository and call this inside it (or set SUMMKIT_ROOT)")


def stages() -> dict[str, Stage]:
    """Every stage and study by name, in reading order: the notebooks that say in their metadata what they are."""
    course = [*repository_root().glob("task*/NOTEBOOK/*.ipynb"), *repository_root().glob("task*/*/NOTEBOOK/*.ipynb")]
    found = [_stage(path) for path in [*sorted(course), *sorted(repository_root().glob("notebooks/*.ipynb"))]]
    return {stage.name: stage for stage in found if stage}


def _stage(path: Path) -> Stage | None:
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        about = notebook["metadata"].get("summkit")
        keys = ("title", "goal", "minutes")
        return about and Stage(about["stage"], path, *(about[key] for key in keys), _parameters(notebook["cells"]))
    except (ValueError, KeyError, TypeError, SyntaxError) as error:
        raise SummkitError(
            f"{path.relative_to(repository_root())} is not a whole notebook of this project: {error!r}"
        ) from None


def _parameters(cells: list[dict]) -> frozenset[str]:
    sources = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    found = set()
    for line in ast.parse("\n".join(sources)).body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(found)


def run_notebooks(names, profile="auto", out=None, parameters: dict | None = None, resume=False, data_dir=None) -> Path:
    """Run stages one after the other and return the folder that holds their notebooks, records, figures and adapters.

    Each executed notebook is kept, also that of a run that failed. `parameters` go to every stage that has them; one
    that no stage has is an error before anything runs. `resume` goes on in `out`: a stage with a record is left alone.
    Raises SummkitError for a wrong call, RunFailed for a cell that failed, KeyboardInterrupt with the way to go on.
    """
    if resume and not (out and Path(out).is_dir()):
        raise SummkitError("--resume needs --out: the folder of the run to go on with")
    known, parameters = stages(), dict(parameters or {})
    for name in names:
        check_known("stage", name, known)
    chosen = [known[name] for name in dict.fromkeys(names)]
    for name in parameters:  # papermill only warns of an unknown one; a typo must not run for hours
        check_known("parameter", name, sorted(frozenset().union(*(stage.parameters for stage in chosen))))
    profile = parameters.pop("PROFILE", None) or profile
    dial = choose_profile(profile)
    data_dir = finetune.data_folder(parameters.pop("DATA_DIR", None) or data_dir)
    folder = Path(out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{dial.name}").absolute()
    todo = [stage for stage in chosen if not (resume and _is_done(folder, stage, dial))]
    if todo:
        finetune.ask_for_hub(dial, data_dir)
    print(dial.line())
    for number, stage in enumerate(chosen, 1):
        at = f"[{number}/{len(chosen)}] {stage.name}"
        if stage not in todo:
            print(f"{at}: has its record, left as it is")
            continue
        minutes = f", about {stage.minutes[dial.name]:g} min" if dial.name in stage.minutes else ""
        print(f"{at}: {stage.title}{minutes}", flush=True)
        wanted = parameters | ({"RESUME": True} if resume else {})
        given = {key: value for key, value in wanted.items() if key in stage.parameters}
        _execute(stage, folder, profile, given, data_dir)
    return folder


def _is_done(folder: Path, stage: Stage, dial: Profile) -> bool:
    if not (folder / stage.name / "run.json").is_file():
        return False
    made_with = records.read_record(folder / stage.name / "run.json")["profile"]
    if made_with != dial.name:
        raise SummkitError(f"{stage.name} was run here with profile {made_with!r}: resume with the same one")
    return True


def clean(path: Path) -> None:
    """Take out of a notebook what only its run knew: standard error, bars, papermill's paths and times."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    about = {key: notebook.metadata[key] for key in ("summkit",) if key in notebook.metadata}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict(about | {"kernelspec": kernel, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs = _merged([output for output in cell.outputs if _stays(output)])
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    os.replace(part, path)


def _stays(output) -> bool:
    shown = set(output.get("data", {}))
    bar = WIDGET in shown and shown <= {WIDGET, "text/plain"}  # means nothing without a kernel
    return output.get("name") != "stderr" and not bar


def _merged(outputs: list) -> list:
    """Outputs with neighbouring pieces of one stream joined, so that what one cell prints is one output."""
    merged: list = []
    for output in outputs:
        if merged and output.output_type == merged[-1].output_type == "stream":
            merged[-1].text += output.text
            continue
        if "data" in output:
            output.data.pop(WIDGET, None)
            output.metadata.clear()
        merged.append(output)
    return merged


def _execute(stage: Stage, folder: Path, profile: str, parameters: dict, data_dir: str | None) -> None:
    """Run one notebook into `folder`, with its progress on stderr, and leave the executed notebook there, cleaned."""
    place = folder / stage.name
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / "run.json").unlink(missing_ok=True)  # an earlier run's must not pass for this one's
    except OSError as error:
        raise SummkitError(f"cannot make the run folder {place}: {error.strerror}; choose another with --out") from None
    target, started = place / stage.notebook.name, time.monotonic()
    where = {"SUMMKIT_DATA_DIR": data_dir} if data_dir else {}
    # With auto the notebook picks for itself, and says in its own words why.
    where |= {"SUMMKIT_PROFILE": profile} if profile != "auto" else {}
    here = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    line = progress.Line(stage.name)
    bars = {"TQDM_NCOLS": os.environ.get("TQDM_NCOLS", str(line.room())), "TQDM_NROWS": "20"}
    quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "PYTHONPATH": here} | bars
    with _environment(SUMMKIT_RUN_DIR=str(folder), SUMMKIT_HEADLESS="1", **quiet, **where):
        try:
            _papermill(stage, target, parameters, line)
        except KeyboardInterrupt:
            way = f"--out {progress.near(folder)} --profile {profile} --resume"
            raise KeyboardInterrupt(f"interrupted in {stage.name}; `run STAGE… {way}` goes on from there") from None
        finally:
            if target.is_file():
                clean(target)
    print(f"    done in {(time.monotonic() - started) / 60:.1f} min", flush=True)


def _papermill(stage: Stage, target: Path, parameters: dict, line: progress.Line) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    patient = Config({"KernelManager": {"shutdown_wait_time": STOP_SECONDS}})
    hushed = ["--log-level=50"]  # the kernel's own notes: it shows a traceback of itself for every Ctrl-C
    kept = f"\nthe notebook up to there: {progress.near(target)}"
    try:
        papermill.execute_notebook(
            str(stage.notebook), str(target), parameters, kernel_name="python3", language="python",
            cwd=str(stage.notebook.parent), config=patient, extra_arguments=hushed, stderr_file=line,
            progress_bar={"file": line.cells, "bar_format": "{n_fmt}/{total_fmt}"},
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        cell = f"cell [{error.exec_count}] ({_cell_id(target, error.exec_count)})"
        raise RunFailed(f"{stage.name} failed in {cell}: {error.ename}: {error.evalue}{kept}") from None
    except DeadKernelError:
        raise RunFailed(f"{stage.name}: its process was killed, most often for want of memory{kept}") from None
    finally:
        line.close()


def _cell_id(notebook: Path, count: int) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return next((cell.get("id", "") for cell in cells if cell.get("execution_count") == count), "")


@contextmanager
def _environment(**values: str):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
