"""Run many trainings from one plan, each combination once. A stopped sweep can be resumed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass

from summkit import files
from summkit.config import choose_profile, detect_hardware
from summkit.errors import SummkitError, build
from summkit.recipes import finetune
from summkit.reporting import fill_record, new_record, write_record
from summkit.training import checkpoints


@dataclass(frozen=True, config=pydantic.ConfigDict(strict=True, extra="forbid"))
class Plan:
    """The trainings of a sweep.

    Attributes:
        base: The configuration that all trainings share.
        vary: {option: values}; every combination is trained.
        only: Further combinations, each with all its options and an optional "name".
        out: The sweep's folder; each training has a folder in it.
        subprocess: Run each training in a separate process, with its own memory peak and its output in log.txt. A
            failed training leaves a record with the reason ("failed" in its details), and is tried again next time.
        keep: "records" removes a training's checkpoints and weights after its record is written; if all weights train,
            they take some gigabytes per training.
    """

    base: dict[str, Any] = dataclasses.field(default_factory=dict)
    vary: dict[str, Annotated[list[Any], Field(min_length=1)]] = dataclasses.field(default_factory=dict)
    only: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    out: str = "runs/sweep"
    subprocess: bool = False
    keep: Literal["all", "records"] = "all"

    def combinations(self) -> dict[str, dict[str, Any]]:
        """Return {name: configuration}; a name contains the varied options, as in "method-lora,seed-0".

        Raises:
            SummkitError: Two combinations have the same name, or there are no combinations.
        """
        products = itertools.product(*self.vary.values()) if self.vary else []
        varied = [dict(zip(self.vary, values, strict=True)) for values in products]
        configurations: dict[str, dict[str, Any]] = {}
        for changes in [*varied, *self.only]:
            described = ",".join(f"{option}-{value}" for option, value in changes.items())
            name = re.sub(r'[<>:"/\\|?*]', "_", str(changes.get("name", described)))  # not allowed in names on Windows
            if not name.strip(". "):
                raise SummkitError(f"the plan's name {name!r} is not the name of a folder: choose another")
            if name in configurations:
                raise SummkitError(f"the plan has two combinations called {name!r}: give one of them another name")
            configurations[name] = {key: value for key, value in (self.base | changes).items() if key != "name"}
        if not configurations:
            raise SummkitError('the plan is empty: it needs "vary": {option: [values]} or "only": [{option: value}]')
        return configurations


def run_sweep(plan: str | Path | dict[str, Any], out: str | Path | None = None) -> list[Path]:
    """Train every combination of a plan.

    A training that has a record is skipped; a stopped one continues from its last complete checkpoint. Each
    configuration is written to the folder of its training, which can also be run separately.

    Args:
        plan: The keys of `Plan`, or the path of a JSON or YAML file of them.
        out: The sweep's folder, in place of the plan's.

    Returns:
        The trainings' folders, in the plan's order.

    Raises:
        SummkitError: The plan is wrong, or a folder contains a training with other settings. Nothing is trained then.
    """
    values = plan if isinstance(plan, dict) else files.read_mapping(plan, "plan")
    chosen = build(Plan, values, "the plan's")
    folder = Path(out or chosen.out)
    for name, values in (combinations := chosen.combinations()).items():
        finetune.check_configuration(dict(values), f"the plan's {name}")
    paths = {name: _write_configuration(folder / name, values) for name, values in combinations.items()}
    for number, (name, path) in enumerate(paths.items(), 1):
        title = f"[{number}/{len(paths)}] {name}"
        if _has_record(path.parent):
            print(f"{title}: has its record, left as it is", flush=True)
            continue
        print(title, flush=True)
        resume = checkpoints.last_whole_checkpoint(path.parent) is not None
        if chosen.subprocess:
            _train_in_subprocess(path, resume)
        else:
            finetune.train(path, resume=resume, overwrite=True)
        if chosen.keep == "records" and _has_record(path.parent):
            checkpoints.clear_after(path.parent, None)
            shutil.rmtree(path.parent / "adapter", ignore_errors=True)
    return [path.parent for path in paths.values()]


def _train_in_subprocess(configuration: Path, resume: bool) -> None:
    command = [sys.executable, "-m", "summkit", "train", str(configuration)]
    command.append("--resume" if resume else "--overwrite")
    log = configuration.with_name("log.txt")
    with open(log, "w", encoding="utf-8") as file:
        ended = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT)
    if not ended.returncode:
        return
    settings = json.loads(configuration.read_text(encoding="utf-8"))
    profile = choose_profile(settings.get("profile", "auto"), task=settings.get("task", "summary"))
    record = new_record("train", profile, settings.get("seed", 0), device=detect_hardware().name)
    reason = _reason_failed(log.read_text(encoding="utf-8", errors="replace"), ended.returncode)
    write_record(fill_record(record, "details", failed=reason), configuration.with_name("run.json"))
    print(f"  failed: {reason}", flush=True)


def _reason_failed(log: str, code: int) -> str:
    """Return in one line why a training failed: its own message, or else the last error in its log."""
    if code in (-9, 137):
        return "killed by the system, most often because memory was short"
    lines = [line.strip() for line in log.splitlines()]
    own = [line.removeprefix("summkit: ") for line in lines if line.startswith("summkit: ")]
    errors = [line for line in lines if "Error: " in line]
    message = (own or errors or [f"exit code {code}"])[-1]
    return " ".join(message.split())[:300].replace(str(Path.home()), "~")  # records have no local paths


def _has_record(folder: Path) -> bool:
    """Whether the training in `folder` is finished, and neither interrupted nor failed."""
    path = folder / "run.json"
    if not path.is_file():
        return False
    record = files.read_mapping(path, "record")
    return not record.get("training", {}).get("interrupted") and not record.get("details", {}).get("failed")


def _write_configuration(folder: Path, settings: dict[str, Any]) -> Path:
    path = folder / "config.json"
    settings = {"baselines": False} | settings | {"out": str(folder)}  # the same for every training
    if path.is_file() and files.read_mapping(path, "configuration") != json.loads(json.dumps(settings)):
        raise SummkitError(f"{path} has other settings than this plan: choose another out, or remove that folder")
    return files.write_text(path, json.dumps(settings, indent=1))
