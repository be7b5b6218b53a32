"""summkit: fine-tune a small language model to summarise, and see what it learned and what it cost.

Its packages are imported when they are first used, as in `summkit.models.load_model`, and torch, transformers and
evaluate where a function needs them: `import summkit` answers at once.
"""

import importlib
from types import ModuleType

__version__ = "0.2.0"

_PACKAGES = (
    "config",
    "data",
    "distillation",
    "evaluation",
    "inference",
    "models",
    "offline",
    "progress",
    "recipes",
    "reporting",
    "resources",
    "training",
)


def __getattr__(name: str) -> ModuleType:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PACKAGES])
