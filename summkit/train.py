"""Floor 7. Training from a configuration file, without a notebook, and what is checked before any run begins."""

import json
import os
from pathlib import Path

from summkit import assets, hub, labelled, profiles, progress, records
from summkit.errors import SummkitError

# What a configuration may hold beside the profile's own options: default, and what kind of value it is.
SETTINGS = {
    "profile": ("auto", str), "task": ("summary", str), "out": ("runs/train", str), "seed": (0, int),
    "data_dir": (None, str | None),
}  # fmt: skip


def run(config: str | Path, resume: bool = False) -> Path:
    """Train as the JSON file `config` says and return the run's folder, which holds the adapter and run.json.

    {"profile": "cpu", "task": "summary", "seed": 0, "out": "runs/mine", "data_dir": null, and any of the profile's
    options by name}.
    Raises SummkitError for what is wrong in it, and KeyboardInterrupt, with what to do, once the adapter is saved.
    """
    settings = _read_config(Path(config))
    out, seed, data_dir = (settings.pop(key) for key in ("out", "seed", "data_dir"))
    profile = profiles.choose(settings.pop("profile"), **settings)
    data_dir = data_folder(data_dir)
    ask_for_hub(profile, data_dir)
    print(profile.line(), flush=True)
    record = records.new_record("train", profile.name, seed, device=profiles.hardware().name)
    result = _fit(record, profile, seed, data_dir, Path(out), resume)
    records.write_record(record, Path(out) / "run.json")
    if result.interrupted:
        raise KeyboardInterrupt(f"interrupted: the adapter so far is in {out}/adapter; --resume goes on from there")
    return Path(out)


def _fit(record: dict, profile: profiles.Profile, seed: int, data_dir, out: Path, resume: bool):
    from transformers import set_seed

    from summkit import features, meters, methods, models, training

    progress.quiet_libraries()
    with meters.Meter() as meter:
        tokenizer = models.load_tokenizer(profile.model)
        splits, template, rows = _rows(profile, tokenizer, seed, data_dir)
        limits = (template, tokenizer, profile.max_length, profile.max_new_tokens)
        encoded = [features.encode_rows(part, *limits) for part in rows]
        model = models.load_model(profile.model, profile.precision, profile.compute_dtype)
        size = sum(models.footprint(model).values())
        set_seed(seed)  # of the adapter's first weights
        model = methods.apply(model, profile)
        result = training.fit(model, tokenizer, *encoded, profile, seed=seed, out_dir=out, resume=resume)
    name = Path(profile.model).name if Path(profile.model).is_dir() else profile.model
    about = models.parameter_report(model) | {"quantization": profile.precision, "footprint_bytes": size}
    records.fill(record, "run", wall_seconds=meter.wall_seconds)
    records.fill(record, "model", id=name, **about)
    records.fill(record, "data", id="local" if data_dir else profile.dataset, source=splits.source, **splits.counts())
    records.fill(record, "training", **result.record())
    records.fill(record, "resources", **meter.resources())
    return result


def _rows(profile: profiles.Profile, tokenizer, seed: int, data_dir):
    """Splits, template, and the rows of document and summary to train and to validate on, for the profile's task."""
    from summkit import data, templates

    if profile.task == "summary":
        splits = data.for_profile(profile, seed, data_dir)
        return splits, templates.build(profile.template, tokenizer), (splits.train, splits.validation)
    splits = labelled.for_profile(profile, seed, data_dir)
    rows = tuple(labelled.as_text(part, splits.schema) for part in (splits.train, splits.validation))
    return splits, labelled.template(profile, tokenizer, splits.schema), rows


def data_folder(name: str | None) -> str | None:
    """The folder that stands in for the profile's data, or SUMMKIT_DATA_DIR's, as a whole path. It has to be there."""
    name = name or os.environ.get("SUMMKIT_DATA_DIR")
    if name and not Path(name).is_dir():
        raise SummkitError(f"data folder {name}: no such folder")
    return str(Path(name).absolute()) if name else None


def ask_for_hub(profile: profiles.Profile, data_dir: str | None) -> None:
    """Where the profile needs the Hub and it is not there, say so at once, not after half a minute of imports."""
    local = {*assets.ASSETS, *labelled.WITHOUT_HUB, "tiny-llama", "examples"}
    for kind, name in (("model", profile.model), ("data set", profile.dataset)):
        there = name in local or (Path(name).is_dir() if kind == "model" else data_dir)
        if not there:
            hub.require(f"{kind} {name}")


def _read_config(path: Path) -> dict:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SummkitError(f"configuration {path}: {error.strerror}") from None
    except ValueError as error:
        raise SummkitError(f"configuration {path} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise SummkitError(f'configuration {path}: a JSON object is needed, such as {{"profile": "cpu", "seed": 0}}')
    settings = {key: default for key, (default, _) in SETTINGS.items()} | settings
    for key, (_, kind) in SETTINGS.items():
        if not isinstance(settings[key], kind) or isinstance(settings[key], bool):
            raise SummkitError(f"configuration {path}: {key}={settings[key]!r} is of the wrong kind")
    return settings
