"""summkit: fine-tune a small language model to summarise, and see what it learned and what it cost.

`import summkit as sk` answers at once: a package is imported when it is first used, as in `sk.models.load_model`, and
torch, transformers and the like where a function needs them. `sk.start` begins a run, `sk.data`, `sk.models`,
`sk.training`, `sk.inference` and `sk.evaluation` follow it.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from summkit.run import Run, start

__version__ = "0.2.0"

_PACKAGES = frozenset(
    "config data distillation evaluation inference models offline progress recipes reporting resources training".split()
)

# bitsandbytes says at its import that a kernel of the Hub is missing, which nothing here uses.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit" not in record.getMessage())


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in ("Run", "start"):
        return getattr(importlib.import_module(f"{__name__}.run"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PACKAGES, "Run", "start"})
