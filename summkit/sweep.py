"""Floor 8. Many trainings from one plan: every combination once, goes on where it was stopped, nothing is run twice."""

import itertools
import json
from pathlib import Path

from summkit import checkpoints, train
from summkit.errors import SummkitError


def combinations(plan: dict) -> dict[str, dict]:
    """{name: configuration} of a plan {"base": {…}, "vary": {option: [values]}, "only": [{…}]}.

    "vary" makes every combination of its values; each entry of "only" is one more combination, written out. The name
    says what varies: "method-lora,seed-0".
    """
    vary = plan.get("vary", {})
    for option, values in vary.items():
        if not isinstance(values, list) or not values:
            raise SummkitError(f"the plan's vary.{option}: a list of one or more values is needed, not {values!r}")
    made = [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())] if vary else []
    found = {}
    for varied in [*made, *plan.get("only", [])]:
        name = ",".join(f"{option}-{value}" for option, value in varied.items()).replace("/", "_")
        found[name] = plan.get("base", {}) | varied
    if not found:
        raise SummkitError(
            'the plan asks for nothing: "vary": {option: [values]} or "only": [{option: value}] is needed'
        )
    return found


def run(plan: str | Path | dict, out=None) -> list[Path]:
    """Train every combination of the plan (a JSON file, or what it holds) and return the runs' folders, in order.

    A run with its record is left alone, one that was stopped goes on from its last whole checkpoint; a folder that
    holds a run of other settings is an error before anything runs. Configurations lie beside the runs, so that each
    can be trained again alone.
    """
    plan = plan if isinstance(plan, dict) else train.read_json(Path(plan), "plan")
    unknown = set(plan) - {"base", "vary", "only", "out"}
    if unknown:
        raise SummkitError(f"the plan has {', '.join(sorted(unknown))}; known: base, vary, only, out")
    out, found = Path(out or plan.get("out", "runs/sweep")), combinations(plan)
    configs = {name: _write_config(out / name, settings) for name, settings in found.items()}
    for number, (name, config) in enumerate(configs.items(), 1):
        if _is_done(out / name):
            print(f"[{number}/{len(configs)}] {name}: has its record, left as it is", flush=True)
            continue
        print(f"[{number}/{len(configs)}] {name}", flush=True)
        train.run(config, resume=checkpoints.last_whole_checkpoint(out / name) is not None)
    return [out / name for name in configs]


def _is_done(folder: Path) -> bool:
    record = folder / "run.json"  # that of a training that was interrupted says so
    return record.is_file() and not train.read_json(record, "record").get("training", {}).get("interrupted")


def _write_config(folder: Path, settings: dict) -> Path:
    path = folder / "config.json"
    text = json.dumps(settings | {"out": str(folder)}, indent=1)
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != json.loads(text):
        raise SummkitError(f"{path} is of other settings than this plan: choose another out, or remove that folder")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
