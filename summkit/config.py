"""Floor 1. The one dial: from the hardware at hand to everything that a run is set to, with the reason in words.

A profile's values may be overridden one by one (a notebook's literal parameters do that); an unknown name is an error.
"""

import dataclasses
import os
from dataclasses import dataclass

from summkit.errors import SummkitError, check_known

TRACKERS = ("trackio", "wandb", "mlflow")


@dataclass(frozen=True)
class Hardware:
    """What this machine computes with. Memory in bytes; capability is CUDA's (major, minor), None without a GPU."""

    device: str
    name: str
    memory_bytes: int | None
    capability: tuple[int, int] | None = None

    @property
    def bf16(self) -> bool:
        # torch.cuda.is_bf16_supported() says True on a T4, which only emulates it.
        return self.capability is not None and self.capability >= (8, 0)


@dataclass(frozen=True)
class Profile:
    """Everything a run is set to. Lengths in tokens unless the name says words; rates per optimizer step.

    `teacher` writes the answers that `model` learns from; "" is the model itself, and its own precision.
    `track` names an experiment tracker: "trackio", "wandb" or "mlflow"; "" is none. `deepspeed` names a DeepSpeed file,
    JSON with "auto" for what stands here; "" is none.
    """

    name: str
    model: str
    dataset: str
    precision: str
    compute_dtype: str
    template: str
    max_length: int
    max_new_tokens: int
    min_words: int
    max_words: int | None
    train_rows: int | None
    validation_rows: int
    test_rows: int
    method: str = "lora"
    targets: str = "attention"
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    virtual_tokens: int = 70
    learning_rate: float = 2e-4
    epochs: float = 1
    batch_size: int = 8
    gradient_accumulation: int = 1
    generation_batch_size: int = 16
    optimizer: str = "paged_adamw_8bit"
    gradient_checkpointing: bool = False
    evaluations_per_epoch: int = 4
    patience: int = 3
    wording: str = "news"
    teacher: str = ""
    teacher_precision: str = ""
    track: str = ""
    deepspeed: str = ""
    task: str = "summary"
    reason: str = ""

    def line(self) -> str:
        """One line for people: what was picked, why, and on which numbers it computes."""
        weights = self.precision.upper() if self.precision == "nf4" else self.precision
        return f"profile {self.name} ({self.reason}): {self.model}, {weights} weights, {self.compute_dtype} compute"


_SMOKE = Profile(
    name="smoke", model="tiny-llama", dataset="examples", precision="nf4", compute_dtype="float32",
    template="instruction", max_length=320, max_new_tokens=24, min_words=0, max_words=None, train_rows=24,
    validation_rows=8, test_rows=8, targets="all-linear", batch_size=4, generation_batch_size=8, learning_rate=1e-3,
)  # fmt: skip
# Chosen on validation rows (of a narrower cut of the sample: task3/README.md says what that means for the test rows).
# No dropout: drawing its masks takes a tenth of a step. Batches of four: half the memory of eight, and twice the steps.
# Articles are cut, to train on more of them in the same minutes.
_CPU = Profile(
    name="cpu", model="smollm2-135m-instruct", dataset="xsum-sample", precision="nf4", compute_dtype="float32",
    template="chat", max_length=256, max_new_tokens=48, min_words=40, max_words=250, train_rows=270,
    validation_rows=32, test_rows=64, targets="all-linear", learning_rate=1e-3, dropout=0.0, batch_size=4,
    evaluations_per_epoch=3, patience=2,
)  # fmt: skip
_T4 = Profile(
    name="t4", model="microsoft/phi-2", dataset="EdinburghNLP/xsum", precision="nf4", compute_dtype="float16",
    template="instruction", max_length=512, max_new_tokens=64, min_words=10, max_words=None, train_rows=5000,
    validation_rows=200, test_rows=500, batch_size=4, gradient_accumulation=4, gradient_checkpointing=True,
)  # fmt: skip
_GPU = dataclasses.replace(
    _T4, name="gpu", compute_dtype="bfloat16", train_rows=None, validation_rows=1000, test_rows=1000,
    batch_size=16, gradient_accumulation=1, generation_batch_size=64,
)  # fmt: skip
PROFILES = {p.name: p for p in (_SMOKE, _CPU, _T4, _GPU)}

# What the dial turns besides where the answer is a label (`labelled` says what the tasks are), and in the studies whose
# task stays "summary", to write a text about a text: the one that compares methods, the one that distils.
_SHORT = {"min_words": 0, "max_words": None, "max_new_tokens": 8, "template": "instruction"}
_HUB = {"train_rows": 8000, "validation_rows": 1000, "test_rows": 2000, "max_length": 256, **_SHORT}
_WHOLE = _HUB | {"train_rows": None, "test_rows": 5000}
# The trial model's tokens are bytes: an answer has to have room for the longest label word, and its end.
_TRIAL = {"max_length": 224, "train_rows": 24, "validation_rows": 10, "test_rows": 16, **_SHORT, "max_new_tokens": 16}
# As in the comparison that this one repeats: 21,000/3,000/6,000 rows, 10 epochs, 64 rows a step. GPT-2 has 1,024
# positions, and prompt tuning's virtual tokens take 70 of them.
_CNN = {
    "model": "openai-community/gpt2", "dataset": "abisee/cnn_dailymail", "precision": "fp32", "max_length": 954,
    "max_new_tokens": 128, "train_rows": 21_000, "validation_rows": 3000, "test_rows": 6000, "rank": 8, "alpha": 32,
    "dropout": 0.1, "targets": "c_attn,c_proj", "learning_rate": 1e-4, "epochs": 10, "batch_size": 8,
    "gradient_accumulation": 8, "evaluations_per_epoch": 1, "optimizer": "adamw_torch",
}  # fmt: skip
# Topics of scientific papers. On a GPU as in the distillation that this one repeats: 15,000 rows, three epochs.
_TOPICS = {
    "task": "summary", "wording": "topics", "template": "chat", "model": "meta-llama/Meta-Llama-3-8B-Instruct",
    "teacher": "meta-llama/Meta-Llama-3-70B-Instruct", "teacher_precision": "nf4",
    "dataset": "CShorten/ML-ArXiv-Papers", "min_words": 40, "max_length": 512, "max_new_tokens": 48,
    "train_rows": 14_500, "validation_rows": 500, "test_rows": 1000,
}  # fmt: skip
# Whole papers and their abstracts, with an encoder-decoder. The sample has 102 papers. On a GPU the window takes most
# of one, so rows are long: few at a time.
_PAPERS = {
    "task": "summary", "wording": "paper", "template": "prefix", "model": "allenai/led-base-16384",
    "dataset": "ccdv/arxiv-summarization", "max_length": 8192, "max_new_tokens": 256, "batch_size": 1,
    "gradient_accumulation": 16, "generation_batch_size": 4, "gradient_checkpointing": True,
}  # fmt: skip
# Conversations, with an encoder-decoder, on equal terms for all strategies: what each of them takes is to be compared.
_CHATS = {
    "task": "summary", "wording": "dialogue", "template": "prefix", "model": "facebook/bart-base",
    "dataset": "knkarthick/samsum", "precision": "fp32", "optimizer": "adamw_torch", "min_words": 0,
    "train_rows": 4000, "max_length": 512, "batch_size": 8, "gradient_accumulation": 2, "generation_batch_size": 32,
    "gradient_checkpointing": False, "evaluations_per_epoch": 2,
}  # fmt: skip
TASKS = {
    "summary": {},
    "costs": {
        "smoke": {"task": "summary", "wording": "dialogue", "template": "prefix", "model": "tiny-t5",
                  "precision": "fp32", "optimizer": "adamw_torch", "train_rows": 12, "validation_rows": 4,
                  "test_rows": 4},
        "cpu": {"task": "summary", "wording": "dialogue", "template": "prefix", "model": "flan-t5-small",
                "precision": "fp32", "dataset": "mts-dialog", "max_length": 512, "max_new_tokens": 96, "min_words": 0,
                "max_words": None, "train_rows": 40, "validation_rows": 12, "test_rows": 48, "epochs": 2,
                "batch_size": 2, "evaluations_per_epoch": 1, "optimizer": "adamw_torch"},
        "t4": _CHATS, "gpu": _CHATS | {"train_rows": None, "validation_rows": 500, "test_rows": 800, "batch_size": 32,
                                       "gradient_accumulation": 1, "generation_batch_size": 128},
    },
    "long": {
        "smoke": {"task": "summary", "wording": "paper", "template": "prefix", "model": "tiny-t5", "precision": "fp32",
                  "method": "frozen-embeddings", "max_length": 180, "train_rows": 6, "validation_rows": 2,
                  "test_rows": 4, "epochs": 1},
        "cpu": {"task": "summary", "wording": "paper", "template": "prefix", "model": "flan-t5-small",
                "precision": "fp32", "dataset": "plos-papers", "method": "frozen-embeddings", "max_length": 512,
                "max_new_tokens": 256, "min_words": 0, "max_words": None, "train_rows": 40, "validation_rows": 6,
                "test_rows": 12, "epochs": 1, "evaluations_per_epoch": 2, "optimizer": "adamw_torch"},
        "t4": _PAPERS, "gpu": _PAPERS | {"batch_size": 4, "gradient_accumulation": 4, "generation_batch_size": 16},
    },
    "topics": {
        "smoke": {"task": "summary", "wording": "topics", "train_rows": 12, "validation_rows": 4, "test_rows": 4},
        "cpu": {"task": "summary", "wording": "topics", "dataset": "arxiv-abstracts", "precision": "fp32",
                "max_words": 130, "max_new_tokens": 24, "train_rows": 96, "validation_rows": 12, "test_rows": 40,
                "batch_size": 2, "epochs": 1.5, "evaluations_per_epoch": 2},
        "t4": _TOPICS, "gpu": _TOPICS | {"epochs": 3},
    },
    "methods": {
        "smoke": {"task": "summary", "precision": "fp32", "train_rows": 8, "validation_rows": 4, "test_rows": 4,
                  "rank": 8, "dropout": 0.1, "virtual_tokens": 12, "max_new_tokens": 8},
        "cpu": {"task": "summary", "precision": "fp32", "max_words": 200, "max_length": 160, "train_rows": 24,
                "validation_rows": 12, "test_rows": 32, "rank": 8, "alpha": 32, "dropout": 0.1, "batch_size": 2,
                "evaluations_per_epoch": 2, "optimizer": "adamw_torch"},
        "t4": {"task": "summary", **_CNN}, "gpu": {"task": "summary", **_CNN},
    },
    "agnews": {
        "smoke": {"dataset": "topics-sample", **_TRIAL},
        "cpu": {"dataset": "bbc-topics", "max_length": 160, "train_rows": 144, "validation_rows": 40,
                "test_rows": 150, **_SHORT},
        "t4": {"dataset": "fancyzhx/ag_news", **_HUB}, "gpu": {"dataset": "fancyzhx/ag_news", **_WHOLE},
    },
    "goemotions": {
        "smoke": {"dataset": "emotions-sample", **_TRIAL},
        "cpu": {"dataset": "emotions-sample", "max_length": 128, "train_rows": 220, "validation_rows": 60,
                "test_rows": 100, **_SHORT},
        "t4": {"dataset": "google-research-datasets/go_emotions", **_HUB},
        "gpu": {"dataset": "google-research-datasets/go_emotions", **_WHOLE},
    },
    "mnli": {
        "smoke": {"dataset": "pairs-sample", **_TRIAL, "max_length": 320},
        "cpu": {"dataset": "rte-and-cb", "max_length": 192, "train_rows": 180, "validation_rows": 50,
                "learning_rate": 5e-4, "epochs": 1.5, "test_rows": 100, **_SHORT},
        "t4": {"dataset": "nyu-mll/multi_nli", **_HUB}, "gpu": {"dataset": "nyu-mll/multi_nli", **_WHOLE},
    },
}  # fmt: skip


def detect_hardware() -> Hardware:
    """Look at the machine. Imports torch only where an NVIDIA driver is present."""
    import psutil

    if os.name == "nt" or any(map(os.path.exists, ("/proc/driver/nvidia", "/dev/nvidia0", "/dev/dxg"))):  # dxg: WSL
        import torch

        if torch.cuda.is_available():
            gpu = torch.cuda.get_device_properties(0)
            return Hardware("cuda", gpu.name, gpu.total_memory, (gpu.major, gpu.minor))
    return Hardware("cpu", f"{os.cpu_count()} CPU cores", psutil.virtual_memory().total)


def choose_profile(name: str = "auto", task: str = "summary", **overrides) -> Profile:
    """The profile `name` as it is for `task`, with every override that is not None put in its place.

    `auto` looks at the environment variable SUMMKIT_PROFILE, then at the hardware.
    Raises SummkitError for an unknown profile, task or option, listing the known ones.
    """
    reason = "asked for by name"
    if name == "auto" and os.environ.get("SUMMKIT_PROFILE"):
        name, reason = os.environ["SUMMKIT_PROFILE"], "set by SUMMKIT_PROFILE"
    if name == "auto":
        name, reason = _from_hardware(detect_hardware())
    check_known("profile", name, [*PROFILES, "auto"])
    check_known("task", task, TASKS)
    given = {key: value for key, value in overrides.items() if value is not None}
    for key in given:
        check_known("option", key, {f.name for f in dataclasses.fields(Profile)} - {"name", "task", "reason"})
    settings = {"task": task, "reason": reason} | TASKS[task].get(name, {}) | given
    return _checked(dataclasses.replace(PROFILES[name], **settings))


def _from_hardware(machine: Hardware) -> tuple[str, str]:
    if machine.device != "cuda":
        return "cpu", f"no GPU here, {machine.name}"
    kind = f"{machine.name}, {machine.memory_bytes / 2**30:.0f} GiB"
    if machine.bf16:
        return "gpu", f"{kind}, computes in bf16"
    return "t4", f"{kind}, older than compute capability 8.0: no bf16"


def _checked(profile: Profile) -> Profile:
    for field in dataclasses.fields(Profile):
        value = getattr(profile, field.name)
        kind = (float, int) if field.type is float else field.type
        if not isinstance(value, kind) or (isinstance(value, bool) and field.type is not bool):
            name = getattr(field.type, "__name__", field.type)
            raise SummkitError(f"option {field.name}={value!r}: {name} is needed, not {type(value).__name__}")
    for key in ("max_length", "max_new_tokens", "validation_rows", "test_rows", "rank", "batch_size", "virtual_tokens"):
        value = getattr(profile, key)
        if not isinstance(value, int) or value < 1:
            raise SummkitError(f"option {key}={value!r}: a whole number of at least 1 is needed")
    for key in ("learning_rate", "epochs"):
        if not 0 < getattr(profile, key) < float("inf"):
            raise SummkitError(f"option {key}={getattr(profile, key)!r}: a number above 0 is needed")
    if profile.train_rows is not None and profile.train_rows < 1:
        raise SummkitError(f"option train_rows={profile.train_rows!r}: at least 1, or None for every row")
    if profile.track:
        check_known("tracker", profile.track, TRACKERS)
    return profile
