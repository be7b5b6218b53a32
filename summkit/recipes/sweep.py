"""Floor 8. Many trainings from one plan: every combination once, goes on where it was stopped, nothing is run twice."""

import itertools
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from summkit.config import choose_profile, detect_hardware
from summkit.errors import SummkitError, check_known
from summkit.recipes import finetune
from summkit.reporting import records
from summkit.training import checkpoints

KEYS = ("base", "vary", "only", "out", "apart", "keep")
KEEP = ("all", "records")


def combinations(plan: dict) -> dict[str, dict]:
    """{name: configuration} of a plan {"base": {…}, "vary": {option: [values]}, "only": [{…}]}.

    "vary" makes every combination of its values; each entry of "only" is one more combination, written out. The name
    says what varies, "method-lora,seed-0", or is the entry's "name".
    """
    vary = plan.get("vary", {})
    for option, values in vary.items():
        if not isinstance(values, list) or not values:
            raise SummkitError(f"the plan's vary.{option}: a list of one or more values is needed, not {values!r}")
    made = [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())] if vary else []
    found = {}
    for varied in [*made, *plan.get("only", [])]:
        said = ",".join(f"{option}-{value}" for option, value in varied.items() if option != "launch")
        name = varied.get("name", said).replace("/", "_")
        if name in found:
            raise SummkitError(f"the plan has two combinations called {name!r}: give one of them another name")
        found[name] = {key: value for key, value in (plan.get("base", {}) | varied).items() if key != "name"}
    if not found:
        raise SummkitError(
            'the plan asks for nothing: "vary": {option: [values]} or "only": [{option: value}] is needed'
        )
    return found


def run_sweep(plan: str | Path | dict, out=None) -> list[Path]:
    """Train every combination of the plan (a JSON file, or what it holds) and return the runs' folders, in order.

    A run with its record is left alone, one that was stopped goes on from its last whole checkpoint; a folder that
    holds a run of other settings is an error before anything runs. Configurations lie beside the runs, so that each
    can be trained again alone.

    With "apart": true each runs in a process of its own: its peak of memory is its own, what it prints is in log.txt,
    and one that fails does not end the sweep but leaves a record whose details say why ("failed"); it is tried again
    next time. Then "launch" may start several processes: it is what stands between `python` and
    `-m summkit train CONFIG`, as in "-m torch.distributed.run --standalone --nproc_per_node=2".
    With "keep": "records" a run's checkpoints and weights are removed as soon as its record is there: where all
    weights train, they take some gigabytes a run.
    """
    plan = plan if isinstance(plan, dict) else finetune.read_json(Path(plan), "plan")
    unknown = set(plan) - set(KEYS)
    if unknown:
        raise SummkitError(f"the plan has {', '.join(sorted(unknown))}; known: {', '.join(KEYS)}")
    out, found, apart = Path(out or plan.get("out", "runs/sweep")), combinations(plan), plan.get("apart", False)
    keep = plan.get("keep", "all")
    check_known("the plan's keep", keep, KEEP)
    launches = {name: settings.pop("launch", "") for name, settings in found.items()}
    if any(launches.values()) and not apart:
        raise SummkitError('the plan has "launch", which starts other processes: say "apart": true in it too')
    configs = {name: _write_config(out / name, settings) for name, settings in found.items()}
    for number, (name, config) in enumerate(configs.items(), 1):
        if _is_done(out / name):
            print(f"[{number}/{len(configs)}] {name}: has its record, left as it is", flush=True)
            continue
        print(f"[{number}/{len(configs)}] {name}", flush=True)
        resume = checkpoints.last_whole_checkpoint(out / name) is not None
        if apart:
            _run_apart(config, launches[name], resume)
        else:
            finetune.train(config, resume=resume)
        if keep == "records" and _is_done(out / name):
            _keep_records(out / name)
    return [out / name for name in configs]


def _keep_records(folder: Path) -> None:
    checkpoints.clear_after(folder, None)
    shutil.rmtree(folder / "adapter", ignore_errors=True)


def _run_apart(config: Path, launch: str, resume: bool) -> None:
    command = [sys.executable, *shlex.split(launch), "-m", "summkit", "train", str(config)]
    log = config.with_name("log.txt")
    with open(log, "w", encoding="utf-8") as file:
        ended = subprocess.run([*command, *(["--resume"] if resume else [])], stdout=file, stderr=subprocess.STDOUT)
    if not ended.returncode:
        return
    settings = json.loads(config.read_text(encoding="utf-8"))
    profile = choose_profile(settings.get("profile", "auto"), task=settings.get("task", "summary"))
    record = records.new_record("train", profile, settings.get("seed", 0), device=detect_hardware().name)
    reason = _reason(log.read_text(encoding="utf-8", errors="replace"), ended.returncode)
    records.write_record(records.fill_record(record, "details", failed=reason), config.with_name("run.json"))
    print(f"  failed: {reason}", flush=True)


def _reason(log: str, code: int) -> str:
    """Why a training ended with exit code `code`, in one line: its own error, else the last one in its log."""
    if code in (-9, 137):
        return "killed by the system, as a rule because memory was short"
    lines = [line.strip() for line in log.splitlines()]
    own = [line.removeprefix("summkit: ") for line in lines if line.startswith("summkit: ")]
    errors = [line for line in lines if "Error: " in line]
    said = " ".join((own or errors or [f"exit code {code}"])[-1].split())[:300]
    return said.replace(str(Path.home()), "~")  # a record holds no machine's path


def _is_done(folder: Path) -> bool:
    path = folder / "run.json"
    record = finetune.read_json(path, "record") if path.is_file() else {"details": {"failed": True}}
    return not record.get("training", {}).get("interrupted") and not record.get("details", {}).get("failed")


def _write_config(folder: Path, settings: dict) -> Path:
    path = folder / "config.json"
    text = json.dumps(settings | {"out": str(folder)}, indent=1)
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != json.loads(text):
        raise SummkitError(f"{path} is of other settings than this plan: choose another out, or remove that folder")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
