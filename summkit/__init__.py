"""summkit: fine-tune a small language model to summarise, and see what it learned and what it cost.

`import summkit as sk` is fast: a package is imported when it is first used, as in `sk.models.load_model`, and libraries
such as torch and transformers are imported inside the functions that need them. `sk.start` starts a run; `sk.data`,
`sk.models`, `sk.training`, `sk.inference` and `sk.evaluation` have its steps.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from summkit.run import Run, start

__version__ = "0.3.0"

# When it is imported, bitsandbytes logs that a kernel from the Hub is missing; nothing here uses that kernel.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit" not in record.getMessage())


def __getattr__(name: str) -> Any:
    """Import a package or a module of summkit when it is first used."""
    if name in ("Run", "start"):
        return getattr(importlib.import_module(f"{__name__}.run"), name)
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    modules = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted({*globals(), *modules, "Run", "start"})
