"""Profiles: every setting of a run, from a preset, the detected hardware and the user's overrides.

A preset is a YAML file in `presets/`: one per task, with a section for each profile. `choose_profile` merges the values
and checks them; an unknown option or an impossible value raises an error that states what is allowed.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass

from summkit.errors import SummkitError, build, check_known, descriptions

PRESETS = Path(__file__).with_name("presets")
TASKS = tuple(sorted(path.stem for path in PRESETS.glob("*.yaml")))
PROFILES = ("smoke", "cpu", "t4", "gpu")

Count = Annotated[int, Field(ge=1)]
Column = Annotated[str, Field(min_length=1)] | None
Dtype = Literal["float32", "float16", "bfloat16"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "nf4", "nf4-single"]
# The supported optimizers, by their names in transformers; a test compares them with transformers' own list.
Optimizer = Literal[
    "adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit",
    "adafactor", "lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop", "sgd",
]  # fmt: off


@dataclasses.dataclass(frozen=True)
class Hardware:
    """The hardware that a run computes on.

    Attributes:
        device: "cpu", "cuda" (also AMD's GPUs, with ROCm) or "mps" (a Mac's GPU).
        name: The GPU's name, or the number of CPU cores as text.
        memory_bytes: Memory of the GPU, or of the machine without a GPU, in bytes.
        capability: CUDA's compute capability (major, minor); None without a GPU.
    """

    device: str
    name: str
    memory_bytes: int | None
    capability: tuple[int, int] | None = None

    @property
    def bf16(self) -> bool:
        """Whether it supports bf16; `torch.cuda.is_bf16_supported()` is also true on a T4, which emulates it."""
        return self.capability is not None and self.capability >= (8, 0)


@dataclass(frozen=True, config=pydantic.ConfigDict(strict=True, extra="forbid"))
class Profile:
    """Every setting of a run. Lengths are in tokens unless the name says words; rates are per optimizer step."""

    name: str
    model: str = Field(min_length=1, description="Hub id, folder, or an embedded model's name")
    dataset: str = Field(min_length=1, description="a data set of summkit/data/sets, or a Hub id")
    precision: Precision = Field(description="number format of the weights")
    compute_dtype: Dtype = Field(description="number format of the computation")
    template: str = Field(description="form of the prompt: instruction, chat or prefix")
    max_length: Count = Field(description="tokens of a row, prompt and summary together")
    max_new_tokens: Count = Field(description="tokens of a summary")
    min_words: int = Field(ge=0, description="shorter documents are dropped")
    max_words: Count | None = Field(description="longer documents are dropped; null: no limit")
    train_rows: Count | None = Field(description="rows to train on; null: all")
    validation_rows: Count = Field(description="rows to validate on")
    test_rows: Count = Field(description="rows to test on")
    document_column: Column = Field(None, description="column of the texts; null: found by its name")
    summary_column: Column = Field(None, description="column of the summaries; null: found by its name")
    label_column: Column = Field(None, description="column of the labels; null: found by its name")
    second_column: Column = Field(None, description="of a pair's second texts; null: found by its name")
    instruction: Column = Field(None, description="what the prompt asks for; null: the wording's own")
    method: str = Field("lora", description="fine-tuning method: lora, full, … (see `summkit.models.METHODS`)")
    targets: str = Field("attention", description="layers with adapters: attention, all-linear, or names")
    rank: Count = Field(16, description="LoRA's rank")
    alpha: Count = Field(32, description="LoRA's scale is alpha over rank")
    dropout: float = Field(0.05, ge=0, lt=1, description="share of an adapter's inputs that is dropped")
    virtual_tokens: Count = Field(70, description="tokens that prompt tuning puts before the input")
    learning_rate: float = Field(2e-4, gt=0, allow_inf_nan=False, description="highest rate, after warm-up")
    epochs: float = Field(1, gt=0, allow_inf_nan=False, description="passes over the training rows")
    batch_size: Count = Field(8, description="rows per batch")
    gradient_accumulation: Count = Field(1, description="batches per optimizer step")
    generation_batch_size: Count = Field(16, description="documents per batch in generation")
    optimizer: Optimizer = Field("paged_adamw_8bit", description="one of transformers' optimizers")
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, more time")
    pure_compute_dtype: bool = Field(False, description="no autocast: adapters and all else in compute_dtype")
    packing: bool = Field(False, description="train on rows laid end to end, without padding")
    pad_to_multiple_of: Count = Field(1, description="round lengths of training batches up to a multiple")
    compile_from_steps: Count | None = Field(
        None, description="compile the blocks if a training has so many steps; null: never"
    )
    fused_kernels: bool = Field(False, description="train with Liger's kernels, where it has some")
    logging_steps: Count = Field(1, description="steps per logged loss, for which a GPU has to wait")
    evaluations_per_epoch: Count = Field(4, description="evaluations and checkpoints per epoch")
    patience: Count = Field(3, description="evaluations without a better loss before training stops")
    wording: str = Field("news", description="wording of the prompt: news, topics, …; words of your own: instruction")
    teacher: str = Field("", description="model that writes the labels; empty: the model itself")
    teacher_precision: Literal[Precision, ""] = Field("", description="the teacher's; empty: the model's")
    track: Literal["", "trackio", "wandb", "mlflow"] = Field("", description="experiment tracker")
    deepspeed: str = Field("", description="DeepSpeed's JSON file; empty: none")
    kind: Literal["summarisation", "classification"] = "summarisation"
    task: str = "summary"
    reason: str = ""

    def line(self) -> str:
        """Describe the profile in one line: its name, the reason for it, the model and the number formats."""
        weights = self.precision.upper() if self.precision == "nf4" else self.precision
        return f"profile {self.name} ({self.reason}): {self.model}, {weights} weights, {self.compute_dtype} compute"

    @property
    def limits(self) -> dict[str, Any]:
        """`max_length` and `max_new_tokens`, as `encode` and `summarize` take them."""
        return {"max_length": self.max_length, "max_new_tokens": self.max_new_tokens}

    def replace(self, **changes: Any) -> Profile:
        """Return a copy with other values.

        Raises:
            SummkitError: An option is unknown, or its value is impossible.
        """
        return _checked(dataclasses.asdict(self) | changes)


def options() -> dict[str, str]:
    """Return the options that a user may set, {option: description}, in the order of the profile."""
    return {name: text for name, text in descriptions(Profile).items() if text}


def detect_hardware() -> Hardware:
    """Detect the hardware of this machine. Torch is imported only if there may be a GPU that it can use.

    An empty CUDA_VISIBLE_DEVICES hides a Mac's GPU too: in a virtual machine, torch reports one that holds nothing.
    """
    import psutil

    drivers = ("/proc/driver/nvidia", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")  # the last two are WSL's and ROCm's
    if os.name == "nt" or sys.platform == "darwin" or any(map(os.path.exists, drivers)):
        import torch

        if torch.backends.mps.is_available() and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
            return Hardware("mps", "Apple's GPU", psutil.virtual_memory().total)
        if torch.cuda.is_available():  # also on ROCm
            gpu = torch.cuda.get_device_properties(0)
            return Hardware("cuda", gpu.name, gpu.total_memory, (gpu.major, gpu.minor))
    return Hardware("cpu", f"{os.cpu_count()} CPU cores", psutil.virtual_memory().total)


def choose_profile(name: str = "auto", /, task: str = "summary", **overrides: Any) -> Profile:
    """Build a profile: the task's preset with the overrides applied.

    Args:
        name: "smoke", "cpu", "t4", "gpu", or "auto": the environment variable SUMMKIT_PROFILE if it is set, or else
            chosen from the hardware.
        task: A preset: "summary", "topics", "long", "methods", "costs", "agnews", "goemotions" or "mnli".
        **overrides: Options of the profile by name. None is a value like any other: `max_words=None` is no limit.

    Returns:
        The checked profile.

    Raises:
        SummkitError: The profile, the task or an option is unknown, or a value is impossible.

    Example:
        >>> choose_profile("cpu", batch_size=2).batch_size
        2
        >>> choose_profile("cpu", dropout=1.5)
        Traceback (most recent call last):
        summkit.errors.SummkitError: option dropout=1.5: input should be less than 1
    """
    reason = "asked for by name"
    if name == "auto" and os.environ.get("SUMMKIT_PROFILE"):
        name, reason = os.environ["SUMMKIT_PROFILE"], "set by SUMMKIT_PROFILE"
        check_known("SUMMKIT_PROFILE", name, (*PROFILES, "auto"))
    if name == "auto":
        machine = detect_hardware()
        name, reason = _from_hardware(machine)
        if machine.device == "mps":  # bitsandbytes has no optimizers for it
            overrides = {"precision": "fp32", "optimizer": "adamw_torch"} | overrides
    check_known("profile", name, (*PROFILES, "auto"))
    check_known("task", task, TASKS)
    for option in overrides:
        check_known("option", option, options())
    return _checked(_preset(task)[name] | {"name": name, "task": task, "reason": reason} | overrides)


@cache
def _preset(task: str) -> dict[str, dict]:
    """Return the preset's values by profile, merged over those of the task "summary"."""
    import yaml

    sections = yaml.safe_load((PRESETS / f"{task}.yaml").read_text(encoding="utf-8"))
    shared = sections.get("all", {})
    base = {name: {} for name in PROFILES} if task == "summary" else _preset("summary")
    return {name: base[name] | shared | sections[name] for name in PROFILES}


def _from_hardware(machine: Hardware) -> tuple[str, str]:
    if machine.device == "mps":
        return "cpu", f"{machine.name}, with fp32 weights"
    if machine.device != "cuda" or machine.memory_bytes is None:
        return "cpu", f"no GPU here, {machine.name}"
    gpu = f"{machine.name}, {machine.memory_bytes / 2**30:.0f} GiB"
    if machine.bf16:
        return "gpu", f"{gpu}, computes in bf16"
    return "t4", f"{gpu}, older than compute capability 8.0: no bf16"


def _checked(values: dict[str, Any]) -> Profile:
    profile = build(Profile, values, "option")
    if profile.max_words is not None and profile.max_words < profile.min_words:
        least = f"min_words, which is {profile.min_words}"
        raise SummkitError(f"option max_words={profile.max_words}: must be at least {least}")
    named = (profile.document_column, profile.summary_column, profile.second_column)
    columns = [name.lower() for name in named if name]
    if len(set(columns)) < len(columns):
        raise SummkitError(f"options document_column, summary_column and second_column: {columns[0]!r} is named twice")
    return profile
