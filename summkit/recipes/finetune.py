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
from summkit.models import METHODS, loading
from summkit.offline import hub
from summkit.run import Run
from summkit.training import environment

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from summkit.data import Splits, Template
    from summkit.inference import Summary
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
    baselines: Annotated[
        bool, Field(description="score the untrained model and the first sentences too, for comparison")
    ] = True
    watch: Annotated[int, Field(ge=0, description="validation rows to summarise and score at each evaluation")] = 0

    @property
    def rows_seed(self) -> int:
        """The seed of the splits."""
        return self.seed if self.split_seed is None else self.split_seed


def options() -> dict[str, str]:
    """Return what a configuration may hold beside the profile's options, {key: what it is}."""
    return descriptions(Settings)


def train(
    config: str | Path, resume: bool = False, changes: dict[str, Any] | None = None, overwrite: bool = False
) -> Path:
    """Train as a configuration says.

    Args:
        config: A JSON or YAML file of `Settings` and of the profile's options, by name.
        resume: Continue from the last whole checkpoint in the run's folder, if there is one.
        changes: Values that take the place of the file's.
        overwrite: Replace an earlier run in the run's folder.

    Returns:
        The run's folder, with the adapter and run.json.

    Raises:
        SummkitError: The configuration, the data or the machine does not allow it.
        KeyboardInterrupt: It was interrupted; the message says how to continue. The adapter so far is saved.
    """
    settings, profile = read_configuration(Path(config), changes or {})
    environment.check_environment(profile)
    rows = own_data(settings.data)
    if not (resume or overwrite):
        files.check_unused(settings.out)
    ask_for_hub(profile, rows)
    files.make_folder(settings.out, "out")
    if progress.first_process():
        print(profile.line(), flush=True)
    result = _train(settings, profile, rows, resume)
    if result.interrupted:
        raise KeyboardInterrupt(
            f"interrupted: the adapter so far is in {settings.out}/adapter; --resume continues from there"
        )
    return Path(settings.out)


def plan(config: str | Path, changes: dict[str, Any] | None = None) -> str:
    """Return what a configuration will take on this machine, as text: memory with its parts, time, and disk.

    Args:
        config: The file, as for `train`.
        changes: Values that take the place of the file's.

    Raises:
        SummkitError: As for `train`.
    """
    from summkit import models, resources

    settings, profile = read_configuration(Path(config), changes or {})
    rows = own_data(settings.data)
    ask_for_hub(profile, rows)
    print(profile.line(), flush=True)
    progress.quiet_libraries()
    splits = _load(profile, models.load_tokenizer(profile.model), settings.rows_seed, rows)[0]
    return resources.plan_lines(profile, splits, settings.seed)


def read_configuration(path: Path, changes: dict[str, Any]) -> tuple[Settings, Profile]:
    """Read and check a configuration.

    Raises:
        SummkitError: The file cannot be read, or it holds an unknown or impossible value: the message names the file,
            the key and what is allowed.
    """
    return check_configuration(files.read_mapping(path, "configuration") | changes, f"configuration {path}")


def check_configuration(values: dict[str, Any], location: str) -> tuple[Settings, Profile]:
    """Check the values of a configuration, which is emptied; `location` begins its errors."""
    own = {key: values.pop(key) for key in options() if key in values}
    settings = build(Settings, own, f"{location}:")
    try:
        profile = choose_profile(settings.profile, settings.task, **values)
        for registry, name in ((WORDINGS, profile.wording), (TEMPLATES, profile.template), (METHODS, profile.method)):
            registry.find(name)
    except SummkitError as error:
        raise SummkitError(f"{location}: {error}") from None
    for key, value in (("watch", settings.watch), ("score", settings.score)):
        if value and profile.kind != "summarisation":
            reason = f"only a model that writes summaries can be asked, and the task {profile.task!r} is for labels"
            raise SummkitError(f"{location}: {key}={value}: {reason}")
    return settings, profile


def _train(settings: Settings, profile: Profile, own_rows: Path | None, resume: bool) -> FitResult:
    from transformers import set_seed

    from summkit import data, evaluation, models, resources, training

    progress.quiet_libraries()
    models.check_model(profile)
    run = Run("train", profile, settings.seed, settings.out)
    tokenizer = models.load_tokenizer(profile.model)
    splits, template, rows = _load(profile, tokenizer, settings.rows_seed, own_rows)
    model = models.load_model(profile.model, profile.precision, profile.compute_dtype)
    kind = {"seq2seq": models.is_encoder_decoder(model)}
    train, validation = (data.encode_rows(part, template, tokenizer, **profile.limits, **kind) for part in rows)
    facts = {"footprint_bytes": sum(models.footprint(model).values())}
    parts: dict[str, Dataset] = {split: getattr(splits, split) for split in settings.score}
    asked = {split: part.select(range(min(len(part), len(splits.test)))) for split, part in parts.items()}
    is_spread = environment.is_spread(profile)
    run.lap("set up")
    untrained = {}
    if settings.baselines and progress.first_process() and not is_spread:
        untrained = _answers(asked, model, tokenizer, template, profile)
    run.lap("zero-shot")
    set_seed(settings.seed)  # of the adapter's first weights
    model = models.apply_method(model, profile)
    facts |= models.parameter_report(model)
    watched = (tokenizer, template, rows[1], profile)
    callbacks = [evaluation.generation_scores(*watched, limit=settings.watch)] if settings.watch else []
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
    trained = {}
    if (progress.first_process() or is_spread) and not result.interrupted:
        trained = _answers(asked, model, tokenizer, template, profile)
    run.lap("summaries")
    if progress.first_process():
        scores, answers = _scores(settings, asked, untrained, trained)
        run.finish(model=facts, data=splits, training=result, scores=scores, **details, **answers)
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


def _answers(
    asked: dict[str, Dataset],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    profile: Profile,
) -> dict[str, list[Summary]]:
    """The model's summaries of each split's rows."""
    from summkit import inference

    limits = profile.limits | {"batch_size": profile.generation_batch_size}
    return {
        split: inference.summarize(model, tokenizer, template, list(rows["document"]), **limits)
        for split, rows in asked.items()
    }


def _scores(
    settings: Settings,
    asked: dict[str, Dataset],
    untrained: dict[str, list[Summary]],
    trained: dict[str, list[Summary]],
) -> tuple[dict[str, dict], dict[str, Any]]:
    """The scores of all systems; and for the details each row's ROUGE, to compare runs row by row, and examples."""
    from summkit import evaluation

    scores: dict[str, dict] = {}
    details: dict[str, Any] = {}
    for split in trained:
        documents, references = list(asked[split]["document"]), list(asked[split]["summary"])
        answers = {"zero_shot": untrained.get(split), "fine_tuned": trained[split]}
        ended = {name: [one.ended for one in found] for name, found in answers.items() if found}
        texts = evaluation.lead_baselines(asked[split]) if settings.baselines else {}
        texts |= {name: [one.text for one in found] for name, found in answers.items() if found}
        for name, written in texts.items():
            key = name if split == "test" else f"{name}_{split}"
            scores[key] = evaluation.score_summaries(
                written, references, documents, ended.get(name), seed=settings.seed
            )
        rouge = evaluation.rouge_rows(texts["fine_tuned"], references)
        rounded = {kind: [round(float(value), 3) for value in values] for kind, values in rouge.items()}
        details.setdefault("rows", {})[split] = rounded
        shown = {"id": list(asked[split]["id"]), "reference": references} | {name: texts[name] for name in ended}
        examples = [dict(zip(shown, values, strict=True)) for values in zip(*shown.values(), strict=True)]
        details.setdefault("examples", examples[:3])
    return scores, details


def ask_for_hub(profile: Profile, own_rows: Path | None) -> None:
    """Where the profile needs the Hub and it cannot be reached, say so now and not after half a minute of imports."""
    loading.check_there(profile.model)
    if find_dataset(profile.dataset).source == "hub" and not own_rows:
        hub.require_hub(f"data set {profile.dataset}")
