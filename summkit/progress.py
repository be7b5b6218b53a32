"""What a run prints: its progress, in a terminal, a log or a notebook's page; and which messages are not shown."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm


def headless() -> bool:
    """Whether widgets are off: `summkit run` and the notebook checks set SUMMKIT_HEADLESS=1."""
    return bool(os.environ.get("SUMMKIT_HEADLESS"))


def first_process() -> bool:
    """Whether this process prints and writes: under torchrun, only the first process does."""
    return os.environ.get("RANK", "0") == "0"


def near(path: str | Path) -> str:
    """Return `path` for display: relative to the working folder if it is inside it, or else absolute."""
    whole = Path(path).resolve()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)


def command(*arguments: str | Path) -> str:
    """Return a command of summkit as one types it: with the interpreter that has the packages, paths quoted."""
    python = Path(sys.executable)
    installed = shutil.which("summkit")
    if installed and Path(installed).parent == python.parent:
        words = ["summkit"]
    else:
        here = Path.cwd()  # the link in .venv is not followed
        words = [str(python.relative_to(here) if python.is_relative_to(here) else python), "-m", "summkit"]
    words += map(str, arguments)
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def bar(*args: Any, **settings: Any) -> tqdm:
    """tqdm, for work of more than a few seconds. TQDM_DISABLE=1 silences it.

    In a notebook the bar is one output of the cell, as plain text: tqdm's own widget means nothing in a saved page.
    """
    from tqdm import tqdm

    if not headless() and _in_notebook():
        in_cell = threading.current_thread() is threading.main_thread()  # a widget's work has no cell to write to
        settings |= {"file": PageLine(), "mininterval": 0.5} | ({} if in_cell else {"disable": True})
    elif not first_process() or multiprocessing.parent_process():  # the page and the terminal are the parent's
        settings["disable"] = True
    return tqdm(*args, **settings)


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class PageLine:
    """A line of a notebook's page, as a file for one bar. Of a line that is cleared, nothing stays."""

    encoding = "utf-8"  # tqdm then draws with blocks

    def __init__(self) -> None:
        self.shown: Any = None
        self.text = ""

    def write(self, text: str) -> None:
        """Replace the line with the text after the last carriage return; line feeds and cursor moves are left out."""
        from IPython.display import display

        line = re.sub(r"\n|\x1b\[A", "", text).rpartition("\r")[2].rstrip()
        if line == self.text or ("\r" not in text and not line):
            return
        self.text = line
        data = {"text/plain": line} if line else {"text/plain": "", "text/html": ""}
        if self.shown:
            self.shown.update(data, raw=True)
        elif line:
            self.shown = display(data, raw=True, display_id=True)

    def flush(self) -> None:
        """Do nothing: each line is shown when it is written."""


@contextmanager
def clock(title: str) -> Iterator[None]:
    """Show the elapsed seconds, for work that does not report its progress."""
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


# Log messages and warnings that need no action: {logger: pattern in the message}, and parts of warnings.
_TIED = r"'(lm_head|(encoder|decoder)\.embed_tokens)\.weight'"
LOGGED = {
    "transformers.trainer_utils": "mtime may not be reliable",  # checkpoints are then sorted by number
    "transformers.trainer": rf"missing keys in the checkpoint model loaded: \[({_TIED}(, )?)+\]",  # tied weights
    "transformers.modeling_utils": "so we will NOT tie them",  # Flan-T5's head is a tensor of its own
    "transformers.utils.generic": "Use `cache` instead",  # the new name of past_key_values, which 5.21 does not know
    "bitsandbytes.autograd._functions": "MatMul8bitLt",  # LLM.int8() casts to fp16, at every layer and batch
    "DeepSpeed": "Setting accelerator to CPU",
}
WARNED = "`(is_)?gradient_checkpointing|`past_key_values`|Paged optimizers|Could not find a config"


def _is_for_readers(record: logging.LogRecord) -> bool:
    return not re.search(LOGGED[record.name], record.getMessage())


def quiet_libraries() -> None:
    """Silence the libraries' bars for steps of a second, and messages that need no action.

    Progress bars of downloads from the Hub are not silenced.
    """
    for name in LOGGED:
        logging.getLogger(name).addFilter(_is_for_readers)
    warnings.filterwarnings("ignore", message=f".*({WARNED})")

    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()


_stopped: set[str] = set()  # the first lines of cells that were stopped


def remember_stops() -> None:
    """In a notebook, say below a cell that fails which cells above it were stopped and not run again."""
    from IPython import get_ipython

    if shell := get_ipython():
        shell.events.register("post_run_cell", _after_cell)


def _after_cell(result: Any) -> None:
    line = result.info.raw_cell.strip().partition("\n")[0]
    if isinstance(result.error_in_exec, KeyboardInterrupt):
        _stopped.add(line)
    elif result.success:
        _stopped.discard(line)
    elif _stopped:
        print(f"A cell above was stopped: run it again, then this one. It begins: {' and '.join(sorted(_stopped))}")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the bars and warnings of transformers, and stderr, while a model is converted and checked."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


class Line:
    """Two bars in one line of a terminal: the finished cells of a run, and the bar of the running cell.

    It acts as a file for both: `write` takes the kernel's stderr, `cells.write` the count. Other text is printed above
    the line. `printed.write` takes what the cell prints: where it shows no bar, its last line stands in the bar's
    place. In a log, a finished bar is one line, and the state is printed once a minute.
    """

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.title = title
        self.count = self.rest = self.said = ""
        self.live = self.stream.isatty()
        self.shown = time.monotonic()
        self.cells = types.SimpleNamespace(write=self._count, flush=self.flush)
        self.printed = types.SimpleNamespace(write=self._say, flush=self.flush)

    def write(self, text: str) -> None:
        """Write text as tqdm and other programs do: text after a carriage return replaces the line."""
        *ended, rest = (self.rest + text.replace("\x1b[A", "")).split("\n")
        for line in ended:
            self._end(line)
        self.rest = rest.rpartition("\r")[2]
        now = self.rest.strip() or self.said
        both = " · ".join(part for part in (f"{self.title} {self.count}".strip(), now) if part)
        if self.live:
            width = shutil.get_terminal_size().columns
            self._put(f"\r{both[: width - 1]}\x1b[K")
        elif time.monotonic() - self.shown > 60:
            self._put(f"{both}\n")

    def room(self) -> int:
        """Return the number of columns left for a cell's bar, which would otherwise take the whole width."""
        columns = shutil.get_terminal_size().columns if self.live else 160
        return max(40, columns - len(self.title) - len(" 99/99 · ") - 1)

    def flush(self) -> None:
        """Flush the stream, as a file does."""
        self.stream.flush()

    def close(self) -> None:
        """Write the rest of the line, and clear the bars."""
        self._end(self.rest)
        self._put("\r\x1b[K" if self.live else "")

    def _count(self, text: str) -> None:
        self.count = text.strip() or self.count
        self.said = ""
        self.write("")

    def _say(self, text: str) -> None:
        self.said = text.strip().rpartition("\n")[2] or self.said
        self.write("")

    def _end(self, line: str) -> None:
        """Write a line that ended, unless it is an unfinished bar."""
        line = line.rpartition("\r")[2].rstrip()
        is_unfinished = re.search(r"\d\d:\d\d|\d%\|", line) and "100%" not in line  # a narrow bar has no time
        if line and not is_unfinished:
            self._put(("\r\x1b[K" if self.live else "") + f"{line}\n")

    def _put(self, text: str) -> None:
        self.shown = time.monotonic()
        self.stream.write(text)
        self.stream.flush()
