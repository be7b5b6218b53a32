"""Floor 7. Training from a configuration file, without a notebook, and what is checked before any run begins."""

import json
import os
from pathlib import Path

from summkit import progress
from summkit.config import Profile, choose_profile, detect_hardware
from summkit.data import classification, find_dataset
from summkit.errors import SummkitError, check_known
from summkit.models import tiny
from summkit.offline import assets, hub
from summkit.reporting import records
from summkit.training import sharding, trackers

# What a configuration may hold beside the profile's own options: default, and what kind of value it is.
SETTINGS = {
    "profile": ("auto", str), "task": ("summary", str), "out": ("runs/train", str), "seed": (0, int),
    "data_dir": (None, str | None),
    "split_seed": (None, int | None),  # deals the rows to the splits; None: seed does that too
    "score": ([], list),  # splits whose rows the trained model answers, and is scored on
    "watch": (0, int),  # validation rows that the model answers at each evaluation; 0: none
}  # fmt: skip


def train(config: str | Path, resume: bool = False, changes: dict | None = None) -> Path:
    """Train as the JSON file `config` says and return the run's folder, which holds the adapter and run.json.

    `changes` stand in place of what the file says of the same names.

    With "score": ["test", …] the model then writes summaries of these splits; of train, as many as test has. With
    "split_seed" runs of several seeds have the same rows in the same splits. With "watch": 8 the model answers eight
    validation rows at each evaluation; the record has their scores, and the tracker if "track" names one.
    {"profile": "cpu", "task": "summary", "seed": 0, "out": "runs/mine", "data_dir": null, and any of the profile's
    options by name}.
    Raises SummkitError for what is wrong in it, and KeyboardInterrupt, with what to do, once the adapter is saved.
    """
    settings = _read_config(Path(config), changes or {})
    out, seed, data_dir, score, watched = (settings.pop(key) for key in ("out", "seed", "data_dir", "score", "watch"))
    split_seed = settings.pop("split_seed")
    split_seed = seed if split_seed is None else split_seed
    for split in score:
        check_known("split to score", split, ("train", "validation", "test"))
    if watched < 0:
        raise SummkitError(f"configuration {config}: watch={watched}: a number of rows, 0 for none")
    profile = choose_profile(settings.pop("profile"), **settings)
    if watched and profile.task != "summary":
        raise SummkitError(f"configuration {config}: watch={watched}: only a model that writes texts can be watched")
    trackers.check_tracker(profile.track)
    sharding.check_sharding(profile)
    data_dir = data_folder(data_dir)
    ask_for_hub(profile, data_dir)
    if progress.first_process():
        print(profile.line(), flush=True)
    record = records.new_record("train", profile.name, seed, device=detect_hardware().name)
    result = _fit(record, profile, (seed, split_seed), data_dir, Path(out), resume, score, watched)
    if progress.first_process():
        records.write_record(record, Path(out) / "run.json")
    if result.interrupted:
        raise KeyboardInterrupt(f"interrupted: the adapter so far is in {out}/adapter; --resume goes on from there")
    return Path(out)


def _fit(record: dict, profile: Profile, seeds: tuple, data_dir, out: Path, resume: bool, score, watched):
    from transformers import set_seed

    from summkit.data import tokenisation
    from summkit.evaluation import watch
    from summkit.models import loading, methods
    from summkit.resources import metering
    from summkit.training.trainer import fit

    progress.quiet_libraries()
    seed, split_seed = seeds
    with metering.Meter() as meter:
        tokenizer = loading.load_tokenizer(profile.model)
        splits, template, rows = _rows(profile, tokenizer, split_seed, data_dir)
        model = loading.load_model(profile.model, profile.precision, profile.compute_dtype)
        limits = (template, tokenizer, profile.max_length, profile.max_new_tokens)
        encoded = [tokenisation.encode_rows(part, *limits, loading.is_encoder_decoder(model)) for part in rows]
        size = sum(loading.footprint(model).values())
        set_seed(seed)  # of the adapter's first weights
        model = methods.apply_method(model, profile)
        counted = loading.parameter_report(model)
        ask = (tokenizer, template, rows[1], profile)
        callbacks = [watch.generation_scores(*ask, limit=watched)] if watched else []
        settings = {"seed": seed, "out_dir": out, "resume": resume, "callbacks": callbacks}
        metering.release_memory()
        with metering.Meter() as fitting:
            result = fit(model, tokenizer, *encoded, profile, **settings)
        meter.lap("training")
        if (progress.first_process() or sharding.is_spread(profile)) and not result.interrupted:
            for split in score:
                _score(record, split, splits, (model, tokenizer, template), profile, seed)
        meter.lap("summaries")
    name = Path(profile.model).name if Path(profile.model).is_dir() else profile.model
    about = counted | {"quantization": profile.precision, "footprint_bytes": size}
    records.fill_record(record, "run", wall_seconds=meter.wall_seconds)
    records.fill_record(record, "model", id=name, **about)
    records.fill_record(
        record, "data", id="local" if data_dir else profile.dataset, source=splits.source, **splits.counts()
    )
    records.fill_record(record, "training", **result.record())
    records.fill_record(record, "resources", **meter.resources())
    saved = sum(file.stat().st_size for file in (out / "adapter").glob("*") if file.is_file())
    curve = [{key: row[key] for key in ("step", "eval_loss")} for row in result.history if "eval_loss" in row]
    about = {"learning_rate": profile.learning_rate, "batch_size": profile.batch_size, "saved_bytes": saved}
    about |= {"training_kwh": fitting.energy_kwh, "training_added_bytes": fitting.added_bytes, "country": meter.country}
    records.fill_record(
        record, "details", **about, cpu_seconds=meter.cpu_seconds, laps=meter.laps, validation_loss=curve
    )
    if watched:
        records.fill_record(record, "details", watched=watch.watched_scores(result.history))
    return result


def _score(record: dict, split: str, splits, asked: tuple, profile: Profile, seed: int) -> None:
    """Into the record: the split's scores, and each row's ROUGE, so that runs can be compared row by row."""
    from summkit.evaluation import metrics, summarisation
    from summkit.inference import generation

    rows = getattr(splits, split)
    rows = rows.select(range(min(len(rows), len(splits.test))))
    limits = {"max_length": profile.max_length, "max_new_tokens": profile.max_new_tokens}
    found = generation.summarize(*asked, list(rows["document"]), batch_size=profile.generation_batch_size, **limits)
    texts, references = [answer.text for answer in found], list(rows["summary"])
    entry = summarisation.score_summaries(
        texts, references, list(rows["document"]), [a.ended for a in found], seed=seed
    )
    records.fill_record(record, "scores", **{"fine_tuned" if split == "test" else f"fine_tuned_{split}": entry})
    by_row = {
        key: [round(float(v), 3) for v in values] for key, values in metrics.rouge_rows(texts, references).items()
    }
    record["details"].setdefault("rows", {})[split] = by_row


def _rows(profile: Profile, tokenizer, seed: int, data_dir):
    """Splits, template, and the rows of document and summary to train and to validate on, for the profile's task."""
    from summkit.data import summarisation, templates

    if profile.task == "summary":
        splits = summarisation.load_summaries(profile, seed, data_dir)
        template = templates.build_template(profile.template, tokenizer, templates.get_wording(profile.wording))
        return splits, template, (splits.train, splits.validation)
    splits = classification.load_labels(profile, seed, data_dir)
    rows = tuple(classification.labels_as_text(part, splits.schema) for part in (splits.train, splits.validation))
    return splits, classification.label_template(profile, tokenizer, splits.schema), rows


def data_folder(name: str | None) -> str | None:
    """The folder that stands in for the profile's data, or SUMMKIT_DATA_DIR's, as a whole path. It has to be there."""
    name = name or os.environ.get("SUMMKIT_DATA_DIR")
    if name and not Path(name).is_dir():
        raise SummkitError(f"data folder {name}: no such folder")
    return str(Path(name).absolute()) if name else None


def ask_for_hub(profile: Profile, data_dir: str | None) -> None:
    """Where the profile needs the Hub and it is not there, say so at once, not after half a minute of imports."""
    if profile.model not in {*assets.ASSETS, *tiny.TINY} and not Path(profile.model).is_dir():
        hub.require_hub(f"model {profile.model}")
    if find_dataset(profile.dataset).source == "hub" and not data_dir:
        hub.require_hub(f"data set {profile.dataset}")


def read_json(path: Path, kind: str) -> dict:
    """The JSON object in `path`. Raises SummkitError, calling it `kind`, where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SummkitError(f"{kind} {path}: {error.strerror}") from None
    except ValueError as error:
        raise SummkitError(f"{kind} {path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise SummkitError(f'{kind} {path}: a JSON object is needed, such as {{"profile": "cpu", "seed": 0}}')
    return found


def _read_config(path: Path, changes: dict) -> dict:
    settings = read_json(path, "configuration") | changes
    settings = {key: default for key, (default, _) in SETTINGS.items()} | settings
    for key, (_, kind) in SETTINGS.items():
        if not isinstance(settings[key], kind) or isinstance(settings[key], bool):
            raise SummkitError(f"configuration {path}: {key}={settings[key]!r} is of the wrong kind")
    return settings
