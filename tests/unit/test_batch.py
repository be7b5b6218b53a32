"""Notebooks run unattended: what is refused before anything runs, what is kept, cleaned and said, what goes on."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
import types
from datetime import datetime
from pathlib import Path

import nbformat
import pytest

from summkit import cli
from summkit.errors import RunFailedError, SummkitError
from summkit.recipes import notebooks
from summkit.reporting import records
from tests.conftest import hear_ctrl_c

PACKAGE = Path(__file__).parents[2]
PARAMETERS = 'PROFILE = "auto"\nSEED = 0  # a comment with two == in it\nSIZE: int = 3\nRESUME = False'
WORK = """
import sys, warnings
from IPython.display import HTML, display
from tqdm import tqdm
from summkit import config
from summkit.reporting import records
print("one")
for _ in tqdm(range(2)):
    print("two")
print("a note", file=sys.stderr)
display({"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "bar"}, raw=True)
display(HTML("<b>kept</b>"))
"""
WRITE = """
record = records.new_record(STAGE, config.choose_profile(PROFILE), SEED)
records.fill_record(record, "run", wall_seconds=1.5)
records.fill_record(record, "details", resumed=RESUME, size=SIZE)
records.write_record(record, records.run_folder(STAGE) / "run.json")
print("recorded")
"""


def notebook(path: Path, stage: str, cells, parameters: str = PARAMETERS) -> Path:
    """A notebook in this project's form: metadata, a parameters cell, then `cells` with ids cell-0, cell-1, …"""
    made = nbformat.v4.new_notebook()
    about = {"stage": stage, "title": f"Title of {stage}", "goal": "A goal", "minutes": {"smoke": 0.1, "cpu": 2}}
    made.metadata = {"summkit": about, "kernelspec": {"name": "python3", "display_name": "Python 3"}}
    made.cells = [nbformat.v4.new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]})]
    made.cells += [nbformat.v4.new_code_cell(source.strip(), id=f"cell-{n}") for n, source in enumerate(cells)]
    path.parent.mkdir(parents=True)
    nbformat.write(made, path)
    return path


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of two stages, task8 and task9/deep, with the caller in an empty folder beside it."""
    place = tmp_path / "repository"
    (place / "summkit").mkdir(parents=True)
    for name in ("task9/deep", "task8"):
        stage = f"STAGE = {name!r}"
        notebook(place / name / "NOTEBOOK" / f"{name[:5]}.ipynb", name, [WORK, stage, WRITE])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("SUMMKIT_ROOT", str(place))
    for key in ("SUMMKIT_PROFILE", "SUMMKIT_RUN_DIR", "SUMMKIT_DATA_DIR"):
        monkeypatch.delenv(key, raising=False)
    return place


def start(*arguments: str, **settings):
    """`python -m summkit …` as a process of its own group."""
    given = os.environ | {"PYTHONPATH": str(PACKAGE)}
    return subprocess.Popen(
        [sys.executable, "-m", "summkit", *arguments],
        env=given,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
        **settings,
    )


def test_the_stages_are_found_from_any_folder_inside(repository, monkeypatch):
    monkeypatch.delenv("SUMMKIT_ROOT")
    monkeypatch.chdir(repository / "task9" / "deep")
    assert notebooks.repository_root() == repository
    assert list(notebooks.stages()) == ["task8", "task9/deep"]
    assert notebooks.stages()["task8"].parameters == {"PROFILE", "SEED", "SIZE", "RESUME"}
    (repository / "task8" / "NOTEBOOK" / "task8.ipynb").write_text("{")
    with pytest.raises(SummkitError, match="task8.ipynb is not a whole notebook"):
        notebooks.stages()


def test_an_installed_package_brings_the_chapters_and_copies_them(repository, monkeypatch):
    course = repository.rename(repository.with_name("course"))
    shutil.rmtree(course / "summkit")
    monkeypatch.delenv("SUMMKIT_ROOT")
    with pytest.raises(SummkitError, match="runs from its repository: the chapters are in "):
        notebooks.copy_chapters("mine")
    monkeypatch.setattr(notebooks, "COURSE", course)
    monkeypatch.setattr(notebooks, "__file__", str(course.parent / "lib" / "summkit" / "recipes" / "notebooks.py"))
    assert notebooks.repository_root() == course
    notebooks.copy_chapters("mine")
    with pytest.raises(SummkitError, match="mine already exists"):
        notebooks.copy_chapters("mine")
    monkeypatch.chdir("mine/task8")
    assert notebooks.repository_root() == Path.cwd().parent and list(notebooks.stages()) == ["task8", "task9/deep"]
    monkeypatch.setenv("SUMMKIT_ROOT", str(course.parent))
    with pytest.raises(SummkitError, match="there are no chapters in .*: set SUMMKIT_ROOT"):
        notebooks.repository_root()


def test_parameters_come_from_a_file_and_a_log_has_lines_of_json(repository, monkeypatch, capsys):
    monkeypatch.setenv("SUMMKIT_LOG", "log.jsonl")
    Path("mine.yaml").write_text("SEED: 4\nSIZE: 7\n")
    call = ["run", "task8", "--profile", "smoke", "--out", "out", "--parameters", "mine.yaml"]
    assert cli.main([*call, "-p", "SEED=5"]) == 0
    record = records.read_record("out/task8/run.json")
    assert record["seed"] == 5 and record["details"]["size"] == 7
    Path("mine.yaml").write_text("SIZES: 7\n")
    assert cli.main(call) == 2
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "stage started", "stage done", "ended", "started", "ended"]
    assert lines[3]["exit_code"] == 0 and lines[1]["folder"] == str(Path("out/task8").absolute())
    assert lines[5]["exit_code"] == 2 and lines[5]["message"].startswith("unknown parameter 'SIZES'")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"names": ["task8", "task7"]}, "unknown stage 'task7'; known: task8, task9/deep"),
        ({"names": ["task8"], "profile": "big"}, "unknown profile 'big'; known: auto, cpu, gpu, smoke, t4"),
        (
            {"names": ["task8"], "parameters": {"SIZES": 1}},
            "unknown parameter 'SIZES'; known: PROFILE, RESUME, SEED, SI",
        ),
        ({"names": ["task8"], "resume": True}, "--resume needs --out"),
        ({"names": ["task8"], "resume": True, "out": "nothing"}, "--resume needs --out"),
        ({"names": ["task8"], "profile": "smoke", "data": "nothing"}, "data nothing: no such file or folder"),
        ({"names": ["task8"], "profile": "smoke", "out": "file/in"}, "cannot make the run folder"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_runs(repository, call, said):
    Path("file").write_text("")
    with pytest.raises(SummkitError, match=said.replace("(", r"\(")):
        notebooks.run_notebooks(**call)
    assert os.listdir() == ["file"]


def test_two_stages_run_are_cleaned_and_resumed(repository, capsys):
    before = dict(os.environ)
    folder = notebooks.run_notebooks(["task8", "task9/deep"], "smoke", "out", {"SIZE": 7, "SEED": 4})
    assert folder == Path("out").absolute() and dict(os.environ) == before
    record = records.read_record("out/task9/deep/run.json")
    assert (record["profile"], record["seed"], record["details"]) == ("smoke", 4, {"resumed": False, "size": 7})
    said = capsys.readouterr()
    assert "[1/2] task8: Title of task8, about 0.1 min" in said.out and "[2/2] task9/deep" in said.out
    assert "a note" in said.err and "frozen" not in said.err and "Warning" not in said.err

    made = nbformat.read("out/task8/task8.ipynb", as_version=4)
    text = Path("out/task8/task8.ipynb").read_text(encoding="utf-8")
    assert str(repository.parent) not in text and "papermill" not in text.replace("injected-parameters", "")
    assert set(made.metadata) == {"summkit", "kernelspec", "language_info"}
    work = next(cell for cell in made.cells if cell.id == "cell-0")
    assert [output.get("name", output.output_type) for output in work.outputs] == ["stdout", "display_data"]
    assert work.outputs[0].text == "one\ntwo\ntwo\n" and work.outputs[1].data["text/html"] == "<b>kept</b>"

    Path("out/task9/deep/run.json").unlink()
    kept = Path("out/task8/run.json").stat().st_mtime_ns
    with pytest.raises(SummkitError, match="task8 was run here with the profile 'smoke'"):
        notebooks.run_notebooks(["task8"], "cpu", "out", resume=True)
    notebooks.run_notebooks(["task8", "task9/deep"], "smoke", "out", resume=True)
    assert Path("out/task8/run.json").stat().st_mtime_ns == kept
    assert records.read_record("out/task9/deep/run.json")["details"]["resumed"] is True
    assert "task8: has its record, left as it is" in capsys.readouterr().out


def test_a_cell_that_fails(repository, capsys):
    path = repository / "task8" / "NOTEBOOK" / "task8.ipynb"
    made = nbformat.read(path, as_version=4)
    made.cells[2].source = "raise ValueError('no <b>room</b>')"
    nbformat.write(made, path)
    place = Path("out/task8")
    place.mkdir(parents=True)
    (place / "run.json").write_text("of an earlier run")
    with pytest.raises(SummkitError, match=r"out/task8 has an earlier run \(run.json\), which is not overwritten"):
        notebooks.run_notebooks(["task8", "task9/deep"], "smoke", "out")
    with pytest.raises(RunFailedError) as failed:
        notebooks.run_notebooks(["task8", "task9/deep"], "smoke", "out", overwrite=True)
    assert str(failed.value) == (
        "task8 failed in cell [3] (cell-1): ValueError: no <b>room</b>\nthe notebook up to there: out/task8/task8.ipynb"
    )
    kept = nbformat.read(place / "task8.ipynb", as_version=4)
    assert any(cell.get("outputs") and cell.outputs[0].output_type == "error" for cell in kept.cells)
    assert not (place / "run.json").exists() and not Path("out/task9").exists()


OPTIONS = """PROFILE = "auto"
SEED = 0
OPTIONS = {}"""
SHOW = "print(OPTIONS)"


def test_an_option_of_the_profile_goes_into_the_parameter_options(repository):
    notebook(repository / "task7" / "NOTEBOOK" / "task7.ipynb", "task7", [SHOW], OPTIONS)
    given = {"max_words": None, "dropout": 0, "OPTIONS": {"rank": 4, "dropout": 0.5}}
    folder = notebooks.run_notebooks(["task7"], "smoke", "out", given)
    text = (folder / "task7" / "task7.ipynb").read_text(encoding="utf-8")
    assert "{'rank': 4, 'dropout': 0, 'max_words': None}" in text
    Path("models/mine").mkdir(parents=True)
    folder = notebooks.run_notebooks(["task7"], "smoke", "out1", {"model": "models/mine"})
    text = (folder / "task7" / "task7.ipynb").read_text(encoding="utf-8")
    assert str({"model": str(Path("models/mine").absolute())}) in text, "a notebook runs in its own folder"
    with pytest.raises(SummkitError, match="option dropout=2: input should be less than 1"):
        notebooks.run_notebooks(["task7"], "smoke", "out2", {"dropout": 2})
    with pytest.raises(SummkitError, match="unknown option 'droput'; .*; did you mean 'dropout'?"):
        notebooks.run_notebooks(["task7"], "smoke", "out2", {"droput": 0})
    with pytest.raises(SummkitError, match="task8 has no parameter OPTIONS, and cannot take -p dropout="):
        notebooks.run_notebooks(["task7", "task8"], "smoke", "out2", {"dropout": 0})
    with pytest.raises(SummkitError, match="OPTIONS=3: a mapping is needed"):
        notebooks.run_notebooks(["task7"], "smoke", "out2", {"dropout": 0, "OPTIONS": 3})
    with pytest.raises(SummkitError, match="OPTIONS=3: a mapping is needed"):
        notebooks.run_notebooks(["task7"], "smoke", "out2", {"OPTIONS": 3})
    with pytest.raises(SummkitError, match="option rank=-1: input should be greater"):
        notebooks.run_notebooks(["task7"], "smoke", "out2", {"OPTIONS": {"rank": -1}})
    notebook(repository / "task5" / "NOTEBOOK" / "task5.ipynb", "task5", [SHOW], f"{OPTIONS}\nTRAIN_ROWS = None")
    for name, value in (("SEED", -1), ("SEED", "abc"), ("SEED", 1.5), ("TRAIN_ROWS", -3)):
        with pytest.raises(SummkitError, match=f"{name.lower()}={value!r}: input should be"):
            notebooks.run_notebooks(["task5"], "smoke", "out2", {name: value})
    assert not Path("out2").exists()


def test_two_runs_of_one_second_do_not_share_a_folder(repository, monkeypatch):
    """`for seed in 0 1; do summkit run … & done` starts both at once, and both name their folder by the time."""
    notebook(repository / "task7" / "NOTEBOOK" / "task7.ipynb", "task7", [SHOW], OPTIONS)
    monkeypatch.setattr(notebooks, "datetime", types.SimpleNamespace(now=lambda: datetime(2026, 1, 2)))
    folder = notebooks.run_notebooks(["task7"], "smoke")
    assert folder.name == "20260102-000000-smoke"
    before = (folder / "task7" / "task7.ipynb").read_bytes()
    with pytest.raises(FileExistsError):
        notebooks.run_notebooks(["task7"], "smoke", parameters={"SEED": 1})
    assert (folder / "task7" / "task7.ipynb").read_bytes() == before


@pytest.mark.parametrize("out", ["runs {v1}", "a b/ü #1%20 [x] {}"])
def test_the_run_folder_may_have_any_name(repository, out):
    notebook(repository / "task7" / "NOTEBOOK" / "task7.ipynb", "task7", [SHOW], OPTIONS)
    notebooks.run_notebooks(["task7"], "smoke", out)
    assert Path(out, "task7", "task7.ipynb").is_file()


@pytest.mark.parametrize("interpreter", ["/nonexistent/python", "/bin/false"])
def test_another_kernel_of_the_name_python3_is_not_used(repository, monkeypatch, interpreter):
    notebook(repository / "task7" / "NOTEBOOK" / "task7.ipynb", "task7", [SHOW], OPTIONS)
    kernel = repository.parent / "share" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    about = {"argv": [interpreter, "-f", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(about))
    monkeypatch.setenv("JUPYTER_PATH", str(repository.parent / "share"))
    notebooks.run_notebooks(["task7"], "smoke", "out")
    assert Path("out/task7/task7.ipynb").is_file()


def test_a_kernel_that_does_not_start_is_one_line(repository, monkeypatch):
    notebook(repository / "task7" / "NOTEBOOK" / "task7.ipynb", "task7", [SHOW], OPTIONS)
    monkeypatch.setattr("ipykernel.kernelspec.make_ipkernel_cmd", lambda *_, **__: ["/bin/false"])
    with pytest.raises(RunFailedError, match="task7: the notebook's kernel did not start: .*ipykernel --version"):
        notebooks.run_notebooks(["task7"], "smoke", "out")


SLOW = """
import time
import types
from datetime import datetime
from pathlib import Path
from tqdm import tqdm
try:
    for step in tqdm(range(2000), desc="training"):
        time.sleep(0.02)
except KeyboardInterrupt:
    time.sleep(4)  # the step that was begun, and saving
    Path(PLACE).write_text("adapter")
"""


def test_progress_is_seen_while_a_cell_runs_and_ctrl_c_lets_it_save(repository, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    saved = repository.parent / "adapter"
    notebook(repository / "task1" / "NOTEBOOK" / "slow.ipynb", "task1", [f"PLACE = {str(saved)!r}", SLOW])
    ours, theirs = pty.openpty()
    process = start("run", "task1", "--profile", "smoke", "--out", "out", stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        seen = _read_until(ours, "training:  ", seconds=300)  # the bar of a cell that is not over
        assert process.poll() is None and "task1 1/3 · training: " in seen
        assert "\n" not in seen[seen.rindex("task1 0/3") :], "the bars share one line"
        os.killpg(process.pid, signal.SIGINT)
        seen += _read_until(ours, None, seconds=300)
        assert process.wait(30) == 130
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert "summkit: interrupted in task1; `run STAGE… --out out --profile smoke --resume` continues" in seen
    assert "s/it]" in seen or "it/s]" in seen, "the bar fits into the line with its rate"
    assert "Traceback" not in seen and "Task " not in seen
    assert saved.read_text() == "adapter", "the cell was given the time to save"
    assert Path("out/task1/slow.ipynb").is_file()


def _read_until(terminal: int, text: str | None, seconds: float) -> str:
    """What a terminal shows until `text` is there, or until its program ends (None)."""
    seen, end = "", time.monotonic() + seconds
    while time.monotonic() < end and (text is None or text not in seen):
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                seen += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # Linux' way to say that the other end is closed
                break
    return seen


def test_clean_leaves_a_committed_notebook_as_it_is(tmp_path):
    for path in PACKAGE.glob("task*/**/NOTEBOOK/*.ipynb"):
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        notebooks.clean(copy)
        assert set(json.loads(copy.read_text())["metadata"]) == {"summkit", "kernelspec", "language_info"}
        assert not list(tmp_path.glob("*.part"))


def test_clean_keeps_the_text_of_a_figure_and_nothing_else_of_an_outputs_metadata(tmp_path):
    data, said = {"image/png": "AAAA", notebooks.WIDGET: {}}, {"image/png": {"alt": "Two bars."}, "execution": 1}
    output = nbformat.v4.new_output("display_data", data=data, metadata=said)
    path = tmp_path / "one.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])]), path)
    notebooks.clean(path)
    (cell,) = nbformat.read(path, as_version=4).cells
    assert cell.outputs[0].metadata == {"image/png": {"alt": "Two bars."}} and set(cell.outputs[0].data) == {
        "image/png"
    }
