"""Floor 4. What a training leaves on the disk: checkpoints whole or left out, and the adapter with its settings.

Everything is written so that a kill at any moment leaves the old thing or the new one. Nothing here trains or loads a
model, and no pickle is read.
"""

import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from summkit.config import Profile
from summkit.errors import SummkitError
from summkit.training import sharding

MANIFEST = "complete.json"  # written into a checkpoint when everything else in it is on the disk
SETTINGS = "summkit.json"  # beside an adapter: what is needed to ask it again
ASKING = (
    "model", "precision", "compute_dtype", "template", "wording", "max_length", "max_new_tokens", "task", "kind", "method",
)  # fmt: skip
OWN_WEIGHTS = "trained_weights.safetensors"  # of a method that trains the model's own weights: those that did
# What may differ between a run and its resumption: it changes no step of the training.
_FREE = {
    "name", "reason", "task", "dataset", "min_words", "max_words", "train_rows", "validation_rows", "test_rows",
    "generation_batch_size", "teacher", "teacher_precision", "track",
}  # fmt: skip


def save_adapter(model, folder, profile: Profile | None = None, weights: dict | None = None) -> Path:
    """Save the adapter as safetensors, whole or not at all, with the profile's settings; asks nothing of the Hub.

    Of a model without one, the weights that train are saved. `weights` (`sharding.trained_weights`) are needed where
    the model's own are spread over processes.
    """
    folder = Path(folder)
    part, old = (folder.with_name(f"{folder.name}.{end}") for end in ("part", "old"))
    for rest in (part, old):
        shutil.rmtree(rest, ignore_errors=True)
    with no_hub():
        if hasattr(model, "peft_config"):
            model.save_pretrained(part, state_dict=weights)
        else:
            _save_own_weights(sharding.trained_weights(model) if weights is None else weights, part)
    if profile:
        save_settings(part, profile)
    if folder.exists():
        os.replace(folder, old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def save_settings(folder, profile: Profile) -> Path:
    """Write what is needed to ask the adapter in `folder` again: base model, numbers, template, limits in tokens."""
    return _write_json(Path(folder) / SETTINGS, {key: getattr(profile, key) for key in ASKING})


def read_settings(folder, kind: str = "summarisation") -> dict:
    """The settings beside an adapter.

    Raises SummkitError where `folder` holds no whole adapter of this library, or one that was trained for another kind of task:
    asked with another template than in training, it would answer nonsense.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SummkitError(f"adapter {folder}: no such folder; a training leaves one in its run's folder, as adapter")
    own = (folder / OWN_WEIGHTS).is_file()
    files = (OWN_WEIGHTS,) if own else ("adapter_config.json", "adapter_model.safetensors")
    for name in (*files, SETTINGS):
        if not (folder / name).is_file():
            raise SummkitError(f"{folder} is not an adapter that this library saved: {name} is missing")
    _check_weights(folder / files[-1])
    return settings_in(folder, kind)


def settings_in(folder: Path, kind: str = "summarisation") -> dict:
    """What SETTINGS in `folder` says. Raises SummkitError where it is broken, or the kind of task is another one."""
    try:
        written = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        settings = {"task": "summary", "method": "lora", "wording": "news"} | written
        settings = {"kind": _kind_of(settings["task"])} | settings
        settings = {key: settings[key] for key in ASKING}
    except (ValueError, KeyError, TypeError) as error:
        raise SummkitError(f"{folder / SETTINGS} is broken ({error}): save the adapter again") from None
    if settings["kind"] != kind:
        raise SummkitError(
            f"{folder} was trained for the task {settings['task']!r}, which is {settings['kind']}, not {kind}: use an "
            "adapter that was trained for it"
        )
    return settings


def _kind_of(task: str) -> str:
    """The kind of a task that was saved before kinds were."""
    return "classification" if task in ("agnews", "goemotions", "mnli") else "summarisation"


def _save_own_weights(weights: dict, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(weights, folder / OWN_WEIGHTS)


def load_adapter(base, folder, name: str):
    """`base`, a fresh copy of the model `name`, with the adapter in `folder`, or with the weights kept there.

    Raises SummkitError where they are another model's.
    """
    from peft import PeftModel

    own = (Path(folder) / OWN_WEIGHTS).is_file()
    try:
        return load_own_weights(base, folder) if own else PeftModel.from_pretrained(base, str(folder))
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SummkitError(f"the adapter in {folder} does not fit {name}: {reason}") from None


def load_own_weights(model, folder):
    """Put what `save_adapter` kept of the model's own weights into a fresh `model`. KeyError: not of this model."""
    from safetensors.torch import load_file

    weights = dict(model.named_parameters())
    for name, tensor in load_file(Path(folder) / OWN_WEIGHTS).items():
        weights[name].data.copy_(tensor)
    return model


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):  # checks the header against the file's length
            pass
    except (SafetensorError, OSError) as error:
        raise SummkitError(f"{path} is cut off or no safetensors file ({error}): train or copy it again") from None


def last_whole_checkpoint(out_dir) -> Path | None:
    """The newest checkpoint whose files are all there at the size they were saved with; says which ones are not."""
    for path in sorted(Path(out_dir).glob("checkpoint-*"), key=lambda path: -_step(path)):
        if _is_whole(path):
            return path
        print(f"{path.name} was cut off while it was saved: it is left out")
    return None


def clear_after(out_dir, checkpoint: Path | None) -> None:
    """Remove the checkpoints after `checkpoint` (all where None): they are made again and must not pass for new."""
    for path in Path(out_dir).glob("checkpoint-*"):
        if checkpoint is None or _step(path) > _step(checkpoint):
            shutil.rmtree(path)


def check_room(out_dir, model, optimizer: str) -> None:
    """Raise SummkitError where the disk has no room for what a training keeps there: two checkpoints, and a third one
    while it is written, each with its weights and with the optimizer's two moments of all that trains.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    saved = trained if hasattr(model, "peft_config") else list(model.parameters())
    moments = 2 * (1 if "8bit" in optimizer else 4) * sum(weight.numel() for weight in trained)
    needed = 3 * (sum(weight.numel() * weight.element_size() for weight in saved) + moments)
    folder = next(path for path in (Path(out_dir).absolute(), *Path(out_dir).absolute().parents) if path.exists())
    if (free := shutil.disk_usage(folder).free) < needed:
        raise SummkitError(
            f"no space in {out_dir}: three checkpoints take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make "
            "room, choose an out on another disk, or a method that trains less, such as LoRA"
        )


def write_manifest(checkpoint: Path, counts: dict, made_with: dict, order: str | None = None) -> None:
    """Last into a checkpoint, and all at once: its presence says that the rest is there.

    `order` is what the rows' order was drawn from, in an epoch that is not over (`training.fit` draws the same again).
    """
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in checkpoint.rglob("*") if path.is_file()}
    _write_json(checkpoint / MANIFEST, {"files": sizes, "counts": counts, "made_with": made_with, "order": order})


def read_manifest(checkpoint: Path) -> dict:
    """{"files", "counts", "made_with", "order"} of a whole checkpoint; an older one has no "order"."""
    return json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))


def fingerprint(profile: Profile, seed: int, train, validation) -> dict:
    """Everything that decides a training's steps; rows, which are encoded ones, by their hash."""
    settings = {key: value for key, value in asdict(profile).items() if key not in _FREE}
    settings |= {"processes": int(os.environ.get("WORLD_SIZE", 1)), "fsdp": sharding.under_fsdp()}
    return settings | {"seed": seed, "training rows": _rows_hash(train), "validation rows": _rows_hash(validation)}


def check_same(checkpoint: Path, now: dict) -> dict:
    """The checkpoint's manifest. Raises SummkitError, naming each setting that differs, where it was made with others
    than `now`.
    """
    manifest = read_manifest(checkpoint)
    made_with = manifest.get("made_with", {})
    before = {
        "wording": "news",
        "deepspeed": "",
        "fsdp": False,
        "kind": _kind_of(made_with.get("task", "")),
    } | made_with
    different = [f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in now if before.get(key) != now[key]]
    if different:
        raise SummkitError(
            f"{checkpoint.name} was made with other settings: {'; '.join(different)}. "
            "Resume with the same ones, or start anew without resume"
        )
    return manifest


@contextmanager
def no_hub():
    """Peft asks the Hub for the base's config whenever it saves an adapter, and without a network waits for it."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        os.environ.pop("HF_HUB_OFFLINE") if before is None else os.environ.update(HF_HUB_OFFLINE=before)


def _rows_hash(rows) -> str:
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


def _write_json(path: Path, value: dict) -> Path:
    part = path.with_name(f".{path.name}")
    part.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(part, path)
    return path
