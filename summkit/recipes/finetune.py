"""Train from a configuration file, without a notebook; and what is checked before any run begins."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass

from summkit import files, progress
from summkit.config import Profile, choose_profile
from summkit.data import TEMPLATES, WORDINGS, find_dataset, own_data
from summkit.errors import SummkitError, build, descriptions
from summkit.models import METHODS, tiny
from summkit.offline import assets, hub
from summkit.run import Run
from summkit.training import sharding, trackers

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from summkit.data import Splits, Template
    from summkit.training import FitResult


@dataclass(frozen=True, config=pydantic.ConfigDict(strict=True, extra="forbid"))
class Settings:
    """What a configuration may hold beside the profile's own options."""

    profile: Annotated[str, Field(description="smoke, cpu, t4, gpu or auto")] = "auto"
    task: Annotated[str, Field(description="the preset: summary, topics, long, methods, costs, agnews, …")] = "summary"
    out: Annotated[str, Field(min_length=1, description="the run's folder")] = "runs/train"
    seed: Annotated[int, Field(ge=0, lt=2**32, description="of first weights, rows and the bootstrap")] = 0
    split_seed: Annotated[int | None, Field(ge=0, lt=2**32, description="of the splits; null: seed")] = None
    data: Annotated[str | None, Field(description="your own rows: a file, or a folder")] = None
    score: Annotated[
        list[Literal["train", "validation", "test"]],
        Field(description="splits to summarise and score after training; of train, as many rows as test has"),
    ] = dataclasses.field(default_factory=list)
    watch: Annotated[int, Field(ge=0, description="validation rows to summarise and score at each evaluation")] = 0


def options() -> dict[str, str]:
    """Return what a configuration may hold beside the profile's options, {key: what it is}."""
    return descriptions(Settings)


def train(config: str | Path, resume: bool = False, changes: dict[str, Any] | None = None) -> Path:
    """Train as a configuration says.

    Args:
        config: A JSON or YAML file of `Settings` and of the profile's options, by name.
        resume: Continue from the last whole checkpoint in the run's folder, if there is one.
        changes: Values that take the place of the file's.

    Returns:
        The run's folder, with the adapter and run.json.

    Raises:
        SummkitError: The configuration, the data or the machine does not allow it.
        KeyboardInterrupt: It was interrupted; the message says how to continue. The adapter so far is saved.
    """
    settings, profile = read_configuration(Path(config), changes or {})
    trackers.check_tracker(profile.track)
    sharding.check_sharding(profile)
    rows = own_data(settings.data)
    ask_for_hub(profile, rows)
    if progress.first_process():
        print(profile.line(), flush=True)
    result = _train(settings, profile, rows, resume)
    if result.interrupted:
        raise KeyboardInterrupt(
            f"interrupted: the adapter so far is in {settings.out}/adapter; --resume continues from there"
        )
    return Path(settings.out)


def read_configuration(path: Path, changes: dict[str, Any]) -> tuple[Settings, Profile]:
    """Read and check a configuration.

    Raises:
        SummkitError: The file cannot be read, or it holds an unknown or impossible value: the message names the file,
            the key and what is allowed.
    """
    values = files.read_mapping(path, "configuration") | changes
    own = {key: values.pop(key) for key in options() if key in values}
    settings = build(Settings, own, f"configuration {path}:")
    try:
        profile = choose_profile(settings.profile, settings.task, **values)
        for registry, name in ((WORDINGS, profile.wording), (TEMPLATES, profile.template), (METHODS, profile.method)):
            registry.find(name)
    except SummkitError as error:
        raise SummkitError(f"configuration {path}: {error}") from None
    for key, value in (("watch", settings.watch), ("score", settings.score)):
        if value and profile.kind != "summarisation":
            reason = f"only a model that writes summaries can be asked, and the task {profile.task!r} is for labels"
            raise SummkitError(f"configuration {path}: {key}={value}: {reason}")
    return settings, profile


def _train(settings: Settings, profile: Profile, own_rows: Path | None, resume: bool) -> FitResult:
    from transformers import set_seed

    from summkit import data, evaluation, models, resources, training

    progress.quiet_libraries()
    run = Run("train", profile, settings.seed, settings.out)
    tokenizer = models.load_tokenizer(profile.model)
    split_seed = settings.seed if settings.split_seed is None else settings.split_seed
    splits, template, rows = _load(profile, tokenizer, split_seed, own_rows)
    model = models.load_model(profile.model, profile.precision, profile.compute_dtype)
    kind = {"seq2seq": models.is_encoder_decoder(model)}
    train, validation = (data.encode_rows(part, template, tokenizer, **profile.limits, **kind) for part in rows)
    facts = {"footprint_bytes": sum(models.footprint(model).values())}
    set_seed(settings.seed)  # of the adapter's first weights
    model = models.apply_method(model, profile)
    facts |= models.parameter_report(model)
    callbacks = []
    if settings.watch:
        watch = evaluation.generation_scores(tokenizer, template, rows[1], profile, limit=settings.watch)
        callbacks.append(watch)
    resources.release_memory()
    with resources.Meter() as meter:
        how: dict[str, Any] = {"seed": settings.seed, "out_dir": settings.out, "resume": resume, "callbacks": callbacks}
        result = training.fit(model, tokenizer, train, validation, profile, **how)
    run.lap("training")
    details: dict[str, Any] = _details(settings, profile, result) | {
        "training_kwh": meter.energy_kwh,
        "training_added_bytes": meter.added_bytes,
        "country": run.meter.country,
    }
    scores = {}
    if (progress.first_process() or sharding.is_spread(profile)) and not result.interrupted:
        for split in settings.score:
            part: Dataset = getattr(splits, split)
            part = part.select(range(min(len(part), len(splits.test))))
            name = "fine_tuned" if split == "test" else f"fine_tuned_{split}"
            scores[name], by_row = _score(part, model, tokenizer, template, profile, settings.seed)
            details.setdefault("rows", {})[split] = by_row
    run.lap("summaries")
    if progress.first_process():
        run.finish(model=facts, data=splits, training=result, scores=scores, **details)
    return result


def _load(
    profile: Profile, tokenizer: PreTrainedTokenizerBase, seed: int, own_rows: Path | None
) -> tuple[Splits, Template, tuple[Dataset, Dataset]]:
    """Splits, template, and the rows of document and summary to train and to validate on."""
    from summkit import data

    if profile.kind == "summarisation":
        splits = data.load_summaries(profile, seed, own_rows)
        template = data.summary_template(profile, tokenizer)
        return splits, template, (splits.train, splits.validation)
    splits = data.load_labels(profile, seed, own_rows)
    train, validation = (data.labels_as_text(part, splits.schema) for part in (splits.train, splits.validation))
    return splits, data.label_template(profile, tokenizer, splits.schema), (train, validation)


def _details(settings: Settings, profile: Profile, result: FitResult) -> dict[str, Any]:
    from summkit.evaluation.watch import watched_scores

    adapter = Path(settings.out) / "adapter"
    evaluated = [row for row in result.history if "eval_loss" in row]
    details = {
        "learning_rate": profile.learning_rate,
        "batch_size": profile.batch_size,
        "saved_bytes": sum(file.stat().st_size for file in adapter.glob("*") if file.is_file()),
        "validation_loss": [{key: row[key] for key in ("step", "eval_loss")} for row in evaluated],
    }
    return details | ({"watched": watched_scores(result.history)} if settings.watch else {})


def _score(
    rows: Dataset,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    profile: Profile,
    seed: int,
) -> tuple[dict, dict]:
    """The scores of the model's summaries, and each row's ROUGE, so that runs can be compared row by row."""
    from summkit import evaluation, inference

    documents, references = list(rows["document"]), list(rows["summary"])
    limits = profile.limits | {"batch_size": profile.generation_batch_size}
    answers = inference.summarize(model, tokenizer, template, documents, **limits)
    texts = [answer.text for answer in answers]
    entry = evaluation.score_summaries(texts, references, documents, [answer.ended for answer in answers], seed=seed)
    rouge = evaluation.rouge_rows(texts, references)
    return entry, {kind: [round(float(value), 3) for value in values] for kind, values in rouge.items()}


def ask_for_hub(profile: Profile, own_rows: Path | None) -> None:
    """Where the profile needs the Hub and it cannot be reached, say so now and not after half a minute of imports."""
    if profile.model not in {*assets.ASSETS, *tiny.TINY} and not Path(profile.model).is_dir():
        hub.require_hub(f"model {profile.model}")
    if find_dataset(profile.dataset).source == "hub" and not own_rows:
        hub.require_hub(f"data set {profile.dataset}")
