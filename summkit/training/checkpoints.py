"""The files of a training: checkpoints, and the adapter with its settings.

After a kill at any moment, either the old or the new files are there. Incomplete checkpoints are ignored. No pickles.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from summkit import files
from summkit.config import Profile, choose_profile
from summkit.errors import SummkitError
from summkit.models import loading
from summkit.training import environment

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

MANIFEST = "complete.json"  # the last file of a checkpoint to be written
SETTINGS = "summkit.json"  # beside an adapter: the settings for generation
ASKING = (
    *("model", "precision", "compute_dtype", "template", "wording", "instruction"),
    *("max_length", "max_new_tokens", "task", "kind", "method", "document_column", "summary_column"),
)
ADAPTER_WEIGHTS = "adapter_model.safetensors"
OWN_WEIGHTS = "trained_weights.safetensors"  # the trained weights of a method without an adapter
# Options that may differ when a run is resumed, since they change no training step.
_FREE = {
    *("name", "reason", "task", "track", "logging_steps", "generation_batch_size", "teacher", "teacher_precision"),
    *("document_column", "summary_column", "label_column", "second_column"),
    *("dataset", "train_rows", "validation_rows", "test_rows", "min_words", "max_words"),  # the rows are compared
}
_log = logging.getLogger(__name__)


def save_adapter(
    model: PreTrainedModel | PeftModel,
    folder: str | Path,
    profile: Profile | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Save the adapter, or without one the trained weights, as safetensors; the Hub is not contacted.

    Args:
        model: The trained model.
        folder: The folder of the adapter; an existing one is replaced at the end.
        profile: The profile whose settings are saved with the adapter; None: no settings.
        weights: The result of `environment.trained_weights`, if the weights are spread over processes.

    Returns:
        The folder.

    Raises:
        SummkitError: A trained weight is not a finite number.
    """
    trained = environment.trained_weights(model) if weights is None else weights
    if not _all_finite(trained):
        raise SummkitError(f"the trained weights hold NaN or infinity, so {folder} is not saved: lower learning_rate")
    with files.whole_folder(folder) as part:
        if hasattr(model, "peft_config"):  # else peft checks on the Hub for a larger vocabulary
            if profile:  # by default peft writes the path of the folder from which the base was loaded
                base = loading.own_folder(profile.model) or loading.public_name(profile.model)
                model.peft_config["default"].base_model_name_or_path = str(base)
            model.save_pretrained(part, state_dict=weights, save_embedding_layers=False)
            (part / "README.md").unlink(missing_ok=True)  # an empty form; `reporting.write_card` writes a card
        else:
            from safetensors.torch import save_file

            save_file(trained, part / OWN_WEIGHTS)
        if profile:
            save_settings(part, profile)
    return Path(folder)


def save_settings(folder: str | Path, profile: Profile) -> Path:
    """Write the settings for generation with the adapter in `folder`: base model, precision, template, limits.

    A base model in a folder has its absolute path, and the path from the adapter, if both are moved together. Of any
    other it is written that it is no folder, so that a folder of its name is not taken for it later.
    """
    settings = {key: getattr(profile, key) for key in ASKING}
    base = loading.own_folder(profile.model)
    settings["model_is_folder"] = base is not None
    if base:
        settings["model"] = str(base)
        if base.drive == Path(folder).absolute().drive:  # on Windows no path leads from one drive to another
            settings["model_from_here"] = os.path.relpath(base.resolve(), Path(folder).resolve())
    return _write_json(Path(folder) / SETTINGS, settings)


def read_settings(folder: str | Path, kind: str = "summarisation") -> dict[str, Any]:
    """Read the settings beside an adapter.

    Args:
        folder: The adapter's folder.
        kind: "summarisation" or "classification": the kind of task. An adapter for the other kind would see another
            template than in training and answer nonsense.

    Returns:
        The options of ASKING.

    Raises:
        SummkitError: `folder` is not a complete adapter of this library, or it is for another kind of task.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(folder)
    if not folder.is_dir():
        raise SummkitError(f"adapter {folder}: no such folder; a training writes it as adapter in its run's folder")
    own = (folder / OWN_WEIGHTS).is_file()
    names = (OWN_WEIGHTS,) if own else ("adapter_config.json", ADAPTER_WEIGHTS)
    for name in (*names, SETTINGS):
        if not (folder / name).is_file():
            raise SummkitError(f"{folder} is not an adapter that this library saved: {name} is missing")
    try:
        with safe_open(folder / names[-1], framework="pt"):  # checks the header against the file's length
            pass
    except (SafetensorError, OSError) as error:
        reason = f"is truncated or not a safetensors file ({error}): train or copy it again"
        raise SummkitError(f"{folder / names[-1]} {reason}") from None
    settings = settings_in(folder, kind)
    written = files.read_mapping(folder / SETTINGS, "settings")
    beside = written.get("model_from_here")
    if loading.own_folder(settings["model"]) and written.get("model_is_folder") is False:
        settings["model"] = loading.hub_folder(settings["model"])
    elif beside and (folder / beside).is_dir() and not Path(settings["model"]).is_dir():
        _log.warning("the base model of %s is not in %s, and is read from %s", folder, settings["model"], beside)
        settings["model"] = str((folder / beside).resolve())
    return settings


def settings_in(folder: Path, kind: str = "summarisation") -> dict[str, Any]:
    """Read SETTINGS in `folder` without checking the weights.

    Raises:
        SummkitError: The file is broken, or is for another kind of task.
    """
    try:
        written = files.read_mapping(folder / SETTINGS, "settings")
        settings = {key: _completed(written)[key] for key in ASKING}
        choose_profile("smoke").replace(**settings)  # checks the values
    except (SummkitError, KeyError) as error:
        raise SummkitError(f"{folder / SETTINGS} is missing or broken ({error}): save the adapter again") from None
    if settings["kind"] != kind:
        raise SummkitError(
            f"{folder} was trained for the task {settings['task']!r}, which is {settings['kind']}, not {kind}: use an "
            "adapter that was trained for it"
        )
    return settings


def _completed(written: dict[str, Any]) -> dict[str, Any]:
    """Add options that older files lack."""
    labels = written.get("task") in ("agnews", "goemotions", "mnli")
    options = Profile.__pydantic_fields__  # type: ignore[attr-defined]
    defaults = {name: option.default for name, option in options.items() if not option.is_required()}
    return defaults | {"kind": "classification" if labels else "summarisation", "fsdp": False} | written


def load_adapter(base: PreTrainedModel, folder: str | Path, name: str) -> PreTrainedModel | PeftModel:
    """Load a saved adapter, or saved weights, into a fresh copy of its base model.

    Args:
        base: The model from `load_model(name)`. It is changed.
        folder: The folder that `save_adapter` wrote.
        name: The model's name, for the message.

    Raises:
        SummkitError: The adapter was trained with another base model, or holds NaN.
    """
    from peft import PeftModel
    from safetensors.torch import load_file

    own = (Path(folder) / OWN_WEIGHTS).is_file()
    saved = load_file(Path(folder) / (OWN_WEIGHTS if own else ADAPTER_WEIGHTS))
    if not _all_finite(saved):
        raise SummkitError(f"the adapter in {folder} holds NaN or infinity: train it again, with a lower learning_rate")
    try:
        if not own:
            return PeftModel.from_pretrained(base, str(folder))
        weights = dict(base.named_parameters())
        for key, tensor in saved.items():
            weights[key].data.copy_(tensor)
        base.was_trained = True
        return base
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SummkitError(f"the adapter in {folder} does not fit {name}: {reason}") from None


def _all_finite(weights: dict[str, torch.Tensor]) -> bool:
    return all(bool(weight.isfinite().all()) for weight in weights.values())


def last_whole_checkpoint(out_dir: str | Path) -> Path | None:
    """Find the newest complete checkpoint, whose files all have their saved sizes; warn about newer ones."""
    for path in sorted(Path(out_dir).glob("checkpoint-*"), key=_step, reverse=True):
        if _is_whole(path):
            return path
        _log.warning("%s is incomplete and is ignored", path.name)
    return None


def clear_after(out_dir: str | Path, checkpoint: Path | None) -> None:
    """Remove the checkpoints after `checkpoint` (None: all), so that old ones are not mistaken for new ones."""
    for path in Path(out_dir).glob("checkpoint-*"):
        if checkpoint is None or _step(path) > _step(checkpoint):
            shutil.rmtree(path)


def check_room(out_dir: str | Path, model: PreTrainedModel | PeftModel, optimizer: str) -> None:
    """Check that the disk has room for a training's checkpoints: two, and a third during writing.

    Each contains the saved weights, and the optimizer's two moments of all trained weights.

    Raises:
        SummkitError: It does not have enough room.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    saved = trained if hasattr(model, "peft_config") else list(model.parameters())
    moments = 2 * (1 if "8bit" in optimizer else 4) * sum(weight.numel() for weight in trained)
    needed = 3 * (sum(weight.nbytes for weight in saved) + moments)
    folder = Path(out_dir).absolute()
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    if free < needed:
        raise SummkitError(
            f"no space in {out_dir}: three checkpoints take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; free "
            "some space, choose an out on another disk, or a method that trains fewer weights, such as LoRA"
        )


def write_manifest(checkpoint: Path, counts: dict, made_with: dict, order: str | None = None) -> None:
    """Write the last file of a checkpoint, which marks the others as complete.

    Args:
        checkpoint: The folder.
        counts: Tokens, positions and seconds so far.
        made_with: The training's `fingerprint`.
        order: During an epoch, the state of the random numbers from which the rows' order was drawn.
    """
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in checkpoint.rglob("*") if path.is_file()}
    _write_json(checkpoint / MANIFEST, {"files": sizes, "counts": counts, "made_with": made_with, "order": order})


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Read {"files", "counts", "made_with", "order"} of a complete checkpoint; older ones lack "order"."""
    return json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))


def fingerprint(profile: Profile, seed: int, train: Iterable[Mapping], validation: Iterable[Mapping]) -> dict[str, Any]:
    """Collect everything that determines a training's steps; encoded rows by their hash."""
    settings = {key: value for key, value in asdict(profile).items() if key not in _FREE}
    settings |= {"processes": int(os.environ.get("WORLD_SIZE", 1)), "fsdp": environment.under_fsdp()}
    return settings | {"seed": seed, "training rows": _rows_hash(train), "validation rows": _rows_hash(validation)}


def check_same(checkpoint: Path, now: dict[str, Any]) -> dict[str, Any]:
    """Check that a checkpoint belongs to a training with the fingerprint `now`, and return its manifest.

    Raises:
        SummkitError: It does not; the message names each setting that differs.
    """
    manifest = read_manifest(checkpoint)
    before = _completed(manifest.get("made_with", {}))
    different = [f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in now if before.get(key) != now[key]]
    if different:
        raise SummkitError(
            f"{checkpoint.name} was made with other settings: {'; '.join(different)}. "
            "Resume with the same settings, or start again without resume"
        )
    return manifest


def _rows_hash(rows: Iterable[Mapping]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row["input_ids"], row["labels"]]).encode())
    return digest.hexdigest()[:12]


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _is_whole(checkpoint: Path) -> bool:
    try:
        sizes = read_manifest(checkpoint)["files"]
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _write_json(path: Path, value: dict[str, Any]) -> Path:
    return files.write_text(path, json.dumps(value, indent=1))
