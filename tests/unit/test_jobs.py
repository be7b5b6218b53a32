"""jobs/azureml as azure-ai-ml reads it, without an account, and what jobs/kaggle makes of the notebooks."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from summkit.recipes import notebooks

ROOT = Path(__file__).parents[2]
AZURE = ROOT / "jobs" / "azureml"
pytestmark = pytest.mark.filterwarnings("ignore:The `context` parameter is deprecated")  # azure-ai-ml's own


@pytest.fixture(scope="module")
def kaggle():
    spec = importlib.util.spec_from_file_location("make_metadata", ROOT / "jobs" / "kaggle" / "make_metadata.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def azure():
    return pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed: pip install 'summkit[test]'")


@pytest.mark.parametrize("path", sorted(AZURE.glob("*.yml")), ids=lambda path: path.stem)
def test_azure_takes_every_file(azure, path):
    if path.name == "environment.yml":
        environment = azure.load_environment(path)
        assert environment.build.dockerfile_path == "jobs/azureml/Dockerfile"
        assert Path(environment.path).resolve() == ROOT
        return
    if path.name == "schedule.yml":
        from azure.ai.ml.entities._load_functions import load_schedule  # `az ml` uses it; no public name has it

        schedule = load_schedule(path)
        assert schedule.trigger.expression == "0 3 * * 1"
        return
    job = azure.load_job(path)
    if job.type == "command":
        assert job._validate().passed, str(job._validate())
    else:
        assert job._to_rest_object().properties.objective.primary_metric == "eval_loss"


def test_azure_refuses_what_is_wrong(azure, tmp_path):
    (tmp_path / "jobs").mkdir()
    folder = shutil.copytree(AZURE, tmp_path / "jobs" / "azureml")
    for name, right, wrong in (
        ("train.yml", "instance_count: 1", "instance_count: many"),
        ("train.yml", "type: pytorch", "type: torch"),
        ("sweep.yml", "goal: minimize", "goal: down"),
        ("sweep.yml", "type: loguniform", "type: lognorm"),
    ):
        path = folder / name
        before = path.read_text(encoding="utf-8")
        assert right in before
        path.write_text(before.replace(right, wrong), encoding="utf-8")
        with pytest.raises(Exception, match="(?i)valid"):
            azure.load_job(path)
        path.write_text(before, encoding="utf-8")


@pytest.mark.parametrize("stage", list(notebooks.stages()))
def test_kaggle_gets_every_stage(kaggle, tmp_path, stage):
    folder = kaggle.write(stage, "someone", out=str(tmp_path / "out"))
    found = json.loads((folder / "kernel-metadata.json").read_text())
    notebook = notebooks.stages()[stage].notebook
    assert (folder / found["code_file"]).read_bytes() == notebook.read_bytes()
    assert found["id"] == "someone/" + found["title"].replace(" ", "-") and 5 <= len(found["title"]) <= 50
    assert found["enable_gpu"] is found["enable_internet"] is found["is_private"] is True
    assert (found["language"], found["kernel_type"]) == ("python", "notebook")


def test_kaggle_titles_differ(kaggle):
    assert len({kaggle.metadata(stage, "a.ipynb", "me")["id"] for stage in notebooks.stages()}) == len(
        notebooks.stages()
    )


def test_kaggle_data_reaches_the_notebook(kaggle, tmp_path):
    folder = kaggle.write("task3", "someone", out=str(tmp_path), data="someone/my-news", cpu=True)
    found = json.loads((folder / "kernel-metadata.json").read_text())
    assert found["dataset_sources"] == ["someone/my-news"] and not found["enable_gpu"] and not found["machine_shape"]
    cells = json.loads((folder / "task_3.ipynb").read_text())["cells"]
    source = next("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    assert 'DATA = "/kaggle/input/my-news"  #' in source
    changed = [cell for cell, other in zip(cells, notebook_cells("task3"), strict=True) if cell != other]
    assert len(changed) == 1


def notebook_cells(stage):
    return json.loads(notebooks.stages()[stage].notebook.read_text(encoding="utf-8"))["cells"]


def test_kaggle_says_what_is_wrong(kaggle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments, said in (
        (["task9", "--user", "me"], "unknown stage 'task9'"),
        (["task3", "--user", "me@home"], "user 'me@home': write it as in its address"),
        (["task3", "--user", "me", "--data", "news"], "on Kaggle, such as owner/name"),
    ):
        assert kaggle.main(arguments) == 2 and said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert kaggle.main(["task3", "--user", "me"]) == 0
    assert "kaggle kernels push -p runs/kaggle/task3" in capsys.readouterr().out
