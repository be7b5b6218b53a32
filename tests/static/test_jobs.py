"""The files in jobs/, read without the services they are for: keys, names, references, commands. Needs no torch."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "jobs"
AZURE = sorted(
    path for path in (JOBS / "azureml").glob("*.yml") if path.name not in ("environment.yml", "schedule.yml")
)
# What azure-ai-ml 1.35 takes at the top of a file, by its type; a trial's own keys stand under trial.
COMMON = {
    "$schema",
    "type",
    "name",
    "display_name",
    "experiment_name",
    "description",
    "tags",
    "compute",
    "identity",
    "inputs",
    "outputs",
    "limits",
    "resources",
    "queue_settings",
    "services",
    "properties",
}
COMMAND = {"code", "command", "environment", "environment_variables", "distribution"}
KNOWN = {
    "command": COMMON | COMMAND,
    "sweep": COMMON | {"trial", "search_space", "sampling_algorithm", "objective", "early_termination"},
}
TRIAL = COMMAND | {"resources"}
# The least that azure-ai-ml does not forgive, or that the service needs.
NEEDED = {"type", "compute", "inputs", "outputs", "experiment_name"}


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def command_of(job: dict) -> str:
    return (job.get("trial") or job)["command"]


def problems(job: dict, folder: Path) -> list[str]:
    """What is wrong with an Azure ML job whose file lies in `folder`."""
    found = [f"unknown key {key}" for key in set(job) - KNOWN[job["type"]]]
    found += [f"unknown key trial.{key}" for key in set(job.get("trial", {})) - TRIAL]
    found += [f"{key} is missing" for key in NEEDED - set(job)]
    command = command_of(job)
    used = re.findall(r"\$\{\{\s*([\w.]*)\s*\}\}", command)
    there = {f"{kind}.{name}" for kind in ("inputs", "outputs", "search_space") for name in job.get(kind, {})}
    found += [f"{name} is named in the command and nowhere else" for name in set(used) - there]
    found += [f"{name} is never used" for name in there - set(used)]
    found += [f"not an expression: {part}" for part in re.findall(r"\$\{\{[^}]*\}(?!\})|\$\{[^{]", command)]
    if not re.match(r"python -m summkit (train|run) ", command):
        found.append("the command is not `python -m summkit train` or `run`")
    paths = [value.get("path", "") for value in job["inputs"].values() if isinstance(value, dict)]
    paths.append((job.get("trial") or job)["code"])
    found += [f"{path}: no such file" for path in paths if ":" not in path and not (folder / path).exists()]
    return found


@pytest.mark.parametrize("path", AZURE, ids=lambda path: path.stem)
def test_an_azure_job_holds_together(path):
    assert problems(load(path), path.parent) == []


def test_the_kinds_of_azure_jobs_are_there():
    jobs = {path.stem: load(path) for path in AZURE}
    assert {job["type"] for job in jobs.values()} == {"command", "sweep"}
    for name in ("train", "deepspeed"):
        distribution = jobs[name]["distribution"]
        assert distribution["type"] == "pytorch" and distribution["process_count_per_instance"] > 1
        assert "--resume" in command_of(jobs[name])  # a preempted job starts again with the same output
    assert jobs["sweep"]["objective"]["primary_metric"] == "eval_loss" and "track=mlflow" in command_of(jobs["sweep"])


def test_these_checks_see_what_they_look_for():
    good = load(JOBS / "azureml" / "train.yml")
    folder = JOBS / "azureml"
    for broken, said in (
        (good | {"instances": 2}, "unknown key instances"),
        ({key: value for key, value in good.items() if key != "compute"}, "compute is missing"),
        (good | {"command": good["command"].replace("inputs.data", "inputs.dta")}, "inputs.dta is named"),
        (good | {"command": good["command"].replace("inputs.data", "inputs.dta")}, "inputs.data is never used"),
        (good | {"command": good["command"].replace("run}}", "run}")}, "not an expression"),
        (good | {"command": "python train.py ${{inputs.config}}"}, "not `python -m summkit"),
        (good | {"inputs": {"config": {"path": "gone.json"}}}, "gone.json: no such file"),
    ):
        assert any(said in problem for problem in problems(broken, folder)), said


def test_the_azure_environment_is_built_from_what_is_there():
    build = load(JOBS / "azureml" / "environment.yml")["build"]
    context = JOBS / "azureml" / build["path"]
    dockerfile = (context / build["dockerfile_path"]).read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (\S+) ", dockerfile, flags=re.MULTILINE)
    assert copied and all((context / name).exists() for name in copied)
    assert re.search(r"^FROM \S+:3\.\d+\S*$", dockerfile, flags=re.MULTILINE)


def test_what_git_ignores_is_not_uploaded():
    ignored, left_out = (
        {line.strip("/") for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")}
        for name in (".gitignore", ".amlignore")
    )
    assert ignored | {".git"} <= left_out


@pytest.mark.parametrize("path", sorted(JOBS.rglob("*.json")), ids=lambda path: path.name)
def test_json_is_json(path):
    assert isinstance(json.loads(path.read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_takes_all_that_the_profile_says_from_the_profile(stage):
    found = json.loads((JOBS / "deepspeed" / f"zero{stage}.json").read_text(encoding="utf-8"))
    assert found["zero_optimization"]["stage"] == stage
    said_elsewhere = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert {found[key] for key in (*said_elsewhere, "gradient_clipping")} == {"auto"}
    assert found["bf16"]["enabled"] == found["fp16"]["enabled"] == "auto"
    assert "optimizer" not in found and "scheduler" not in found  # the Trainer's own: the same as without DeepSpeed


@pytest.mark.skipif(sys.platform == "win32", reason="bash may be one that starts no Linux")
def test_the_slurm_script_is_bash_and_says_what_it_needs():
    script = JOBS / "slurm" / "train.sbatch"
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True).stderr == ""
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert asked["ntasks-per-node"] == "1" and asked["signal"] == "B:USR1@120" and "requeue" in asked
    assert asked["open-mode"] == "append" and int(asked["nodes"]) > 1


def test_every_folder_says_what_it_is_for_and_what_was_tried():
    folders = sorted(path for path in JOBS.iterdir() if path.is_dir() and path.name != "__pycache__")
    assert [path.name for path in folders] == ["accelerate", "azureml", "deepspeed", "kaggle", "slurm"]
    table = (JOBS / "README.md").read_text(encoding="utf-8")
    for folder in folders:
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert f"[{folder.name}/]({folder.name}/README.md)" in table
        assert "**Tested:**" in text and "**Not tested:**" in text
        for command in re.findall(r"^python (\S+\.py) ", text, flags=re.MULTILINE):
            assert (ROOT / command).is_file(), command
        for named in re.findall(r"jobs/[\w/]+\.(?:yml|yaml|json|sbatch|py)", text):
            assert (ROOT / named).is_file() or named == "jobs/mine.json", named


def test_every_file_that_the_readme_names_exists_and_its_parameters_are_yaml():
    text = (JOBS / "README.md").read_text(encoding="utf-8")
    for named in re.findall(r"(?<![\w/])jobs/[\w/]+\.(?:yml|py|sbatch|sh)", text):
        assert (ROOT / named).is_file(), named
    block = text.split("```yaml\n")[1].split("```")[0]
    assert set(yaml.safe_load(block)) == {"SEED", "TRAIN_ROWS", "DATA", "dropout"}
    assert "SUMMKIT_LOG=" in text and "summkit run task3 --parameters" in text
    cron = re.search(r"^\| cron \| `(\S+ \S+ \S+ \S+ \S+) (.+?)`", text, flags=re.MULTILINE)
    assert cron[1] == "0 3 * * 1" and "%" not in cron[2]  # cron reads it as the end of the line
    for folder in re.findall(r"summkit run .*--out (\S+) --resume", text):  # --resume wants the folder to be there
        assert f"mkdir -p {folder} && " in text


def test_azure_reads_what_the_schedule_has():
    schedule = load(JOBS / "azureml" / "schedule.yml")
    assert schedule["trigger"]["type"] == "cron" and len(schedule["trigger"]["expression"].split()) == 5
    assert (JOBS / "azureml" / schedule["create_job"]).is_file()


def test_the_readme_lists_them():
    assert "(jobs/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
