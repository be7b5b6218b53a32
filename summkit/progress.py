"""What a run shows while it works: progress bars, a widget in a notebook that someone watches, plain text elsewhere."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm


def headless() -> bool:
    """Whether nobody can use a widget here: `summkit run` and the notebook checks say so with SUMMKIT_HEADLESS=1."""
    return bool(os.environ.get("SUMMKIT_HEADLESS"))


def first_process() -> bool:
    """Whether this process is the one that prints and writes: under torchrun the first, else the only one."""
    return os.environ.get("RANK", "0") == "0"


def near(path: str | Path) -> str:
    """`path` for people: from the caller's folder where it lies inside it, else whole."""
    whole = Path(path).resolve()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)


def bar(*args: Any, **settings: Any) -> tqdm:
    """tqdm, for work of more than a few seconds. TQDM_DISABLE=1 silences it."""
    if headless():
        from tqdm import tqdm
    else:
        from tqdm.auto import tqdm
    return tqdm(*args, **settings)


@contextmanager
def clock(title: str) -> Iterator[None]:
    """The seconds gone by, for work whose own progress cannot be seen."""
    done = threading.Event()
    with bar(desc=title, bar_format="{desc}: {elapsed}", leave=False) as shown:

        def tick() -> None:
            while not done.wait(0.5):
                shown.refresh()

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def quiet_libraries() -> None:
    """Silence the bars that libraries draw for steps of a second, and notes that ask nothing of a reader.

    Downloads from the Hub keep theirs.
    """
    import logging
    import warnings

    notes = {
        "transformers.trainer_utils": "mtime may not be reliable",  # checkpoints are then sorted by number: fine
        # A tied head is saved once, as the embedding, and tied again when the best checkpoint is loaded.
        "transformers.trainer": "missing keys in the checkpoint model loaded: ['lm_head.weight']",
        "transformers.modeling_utils": "so we will NOT tie them",  # flan-t5's head is one of its own: `models` says so
        "bitsandbytes.autograd._functions": "MatMul8bitLt",  # LLM.int8() casts to fp16, at every layer and batch
        "DeepSpeed": "Setting accelerator to CPU",  # where it is installed, it is imported with the Trainer
        # On CPUs with AVX512-BF16 it looks for a kernel that `models` does not want (see `_never_repacked`).
        "bitsandbytes.backends.cpu.ops": "gemm_4bit_forward",
    }
    for name, phrase in notes.items():
        logging.getLogger(name).addFilter(lambda record, phrase=phrase: phrase not in record.getMessage())

    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    # Deprecations inside the libraries' own code, and paged optimizers on a CPU: named in the notebooks, not shouted.
    for message in (
        "`gradient_checkpointing",
        "`is_gradient_checkpointing`",
        "Paged optimizers",
        "Could not find a config",
    ):
        warnings.filterwarnings("ignore", message=f".*{message}.*")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the bars and warnings of transformers, and stderr, while a model is converted and checked."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


class Line:
    """Two bars in one line of a terminal: the cells that a run has done, and what the running cell draws on its stderr.

    A file for both: `write` takes the kernel's stderr, `cells.write` the count. Other text passes through, above the
    line. Where nobody watches (a log), a finished bar is one line, and so is the state of things once a minute.
    """

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.title, self.count, self.bar, self.text, self.is_bar = title, "", "", "", False
        self.live, self.shown = self.stream.isatty(), time.monotonic()
        self.cells = types.SimpleNamespace(write=self._count, flush=self.flush)

    def write(self, text: str) -> None:
        """Text as tqdm and other programs write it: what follows a carriage return replaces the line."""
        for piece in re.split(r"([\r\n])", text.replace("\x1b[A", "")):
            if piece == "\r":
                self.bar, self.is_bar = "", True
            elif piece == "\n":
                self._end_line()
            elif self.is_bar:
                self.bar += piece
            else:
                self.text += piece
        self._draw()

    def room(self) -> int:
        """Columns that are left for the bar of a cell. Its own guess, the whole terminal, would be cut at the right."""
        return max(40, shutil.get_terminal_size().columns - len(self.title) - len(" 99/99 · ") - 1)

    def flush(self) -> None:
        self.stream.flush()

    def close(self) -> None:
        self._end_line()
        self._put("\r\x1b[K" if self.live else "")

    def _count(self, text: str) -> None:
        self.count = text.strip() or self.count
        self._draw()

    def _end_line(self) -> None:
        unfinished = re.search(r"\d\d:\d\d", self.bar) and "100%" not in self.bar
        said = self.text + ("" if unfinished else self.bar)
        self.text, self.is_bar = "", False
        if said.strip():
            self._put(("\r\x1b[K" if self.live else "") + said.rstrip() + "\n")
            self.bar = ""

    def _draw(self) -> None:
        line = " · ".join(part for part in (f"{self.title} {self.count}".strip(), self.bar.strip()) if part)
        if self.live:
            width = shutil.get_terminal_size().columns
            self._put(f"\r{line[: width - 1]}\x1b[K")
        elif time.monotonic() - self.shown > 60:
            self._put(f"{line}\n")

    def _put(self, text: str) -> None:
        self.shown = time.monotonic()
        self.stream.write(text)
        self.stream.flush()
