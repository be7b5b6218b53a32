"""JupyterLab as a reader has it, driven in a headless Chromium: open a page, run it, save it, shut it down."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")  # as tools/check_site.py has them
PATIENCE = 1000 * int(os.environ.get("SUMMKIT_TEST_SECONDS", "240"))  # of one step, in milliseconds


def browser_program() -> str | None:
    """Where Chromium is; None: the one that playwright installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def server(folder: Path, settings: Path) -> Iterator[str]:
    """JupyterLab over `folder`, as `make lab` starts it, with settings of its own; the value is the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    places += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    quiet = {"TQDM_DISABLE", "SUMMKIT_HEADLESS", "MPLBACKEND"}  # of tests; a reader's kernel has none of them
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    environment |= {name: str(settings / name) for name in places}
    environment |= {"SUMMKIT_PROFILE": "smoke", "SUMMKIT_RUN_DIR": str(settings / "runs")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--IdentityProvider.token=", "--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True"]
    command += [f"--config={ROOT / 'tools' / 'lab_config.py'}", f"--ServerApp.root_dir={folder}"]
    settings.mkdir(exist_ok=True)
    log = settings / "log"
    with log.open("w") as said:
        running = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(PATIENCE // 500):
            assert running.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{address}/api/status").close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        running.terminate()
        running.wait(30)


class Lab:
    """One notebook in JupyterLab."""

    def __init__(self, browser, address: str, folder: Path, width: int = 1280) -> None:
        self.folder, self.address = folder, address
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.set_default_timeout(PATIENCE)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{address}/lab?reset")
        self.page.wait_for_function("() => window.jupyterapp")
        self.page.evaluate("async () => { await window.jupyterapp.restored; }")

    def command(self, name: str, **arguments):
        """Run a command of JupyterLab, as its menu does, and wait until it is done."""
        call = "async ([name, args]) => { await window.jupyterapp.commands.execute(name, args); }"
        return self.page.evaluate(call, [name, arguments])

    def open(self, name: str) -> None:
        """Open a notebook, and wait for its kernel."""
        self.name = name
        self.command("docmanager:open", path=name, factory="Notebook")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.page.evaluate(
            """async () => {
              const {context} = window.jupyterapp.shell.currentWidget;
              await context.ready; await context.sessionContext.ready;
              await context.sessionContext.session.kernel.info;
            }"""
        )

    def run(self) -> None:
        self.command("notebook:run-all-cells")

    def type_and_run(self, source: str) -> None:
        """Run code in a new cell at the end of the page."""
        self.page.evaluate(
            """(source) => {
              const {model} = window.jupyterapp.shell.currentWidget.context;
              model.sharedModel.addCell({cell_type: "code", source, outputs: [], metadata: {}});
              const notebook = window.jupyterapp.shell.currentWidget.content;
              notebook.activeCellIndex = notebook.widgets.length - 1;
            }""",
            source,
        )
        self.command("notebook:run-cell")

    def save(self) -> dict:
        """Save the page; return what is in the file."""
        self.command("docmanager:save")
        return json.loads((self.folder / self.name).read_text(encoding="utf-8"))

    def shut_down(self) -> None:
        """Shut the kernel down, and close the page."""
        self.page.evaluate(
            """async () => {
              const {sessionContext} = window.jupyterapp.shell.currentWidget.context;
              await sessionContext.shutdown();
            }"""
        )
        self.page.close()

    def text(self) -> str:
        """What a reader sees of the outputs of all cells."""
        return "\n".join(self.page.locator(".jp-Cell .jp-OutputArea").all_inner_texts())


def outputs(notebook: dict) -> list[dict]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def texts(output: dict) -> str:
    """All text of an output, of whatever kind, but pictures."""
    parts = [output.get("text", ""), *(text for kind, text in output.get("data", {}).items() if "image" not in kind)]
    return "\n".join("".join(part) if isinstance(part, list) else str(part) for part in parts)


UNFINISHED = re.compile(r"(?<!\d)0%|VBox\(|HBox\(|model not found|Loading widget")
