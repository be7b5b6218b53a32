"""A Python that starts at once: each call is a fork of a server process that imported the heavy libraries.

`python -m summkit train …` spends some ten seconds of CPU time on imports, and one on training a tiny model. A test
that is not about imports calls `warm.python()` in place of `sys.executable`: it takes `-m`, `-c` or a file, has its own
environment, folder and pipes, and is interrupted and killed like any other. `preexec_fn` cannot limit it.

The libraries of Hugging Face read the environment when they are imported. So `python(hub=True)` is for an environment
with another HF_HOME or HF_ENDPOINT than this process's: it imports those libraries itself. matplotlib is never imported
before, because it chooses its backend then.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import types
from pathlib import Path

ROOT = Path(__file__).parents[1]
OTHERS = ("torch", "torch._dynamo", "torch.distributed.tensor", "bitsandbytes", "sklearn", "scipy.stats", "pandas")
OTHERS += ("pyarrow.parquet", "regex", "psutil", "ipykernel.ipkernel")
HUGGING_FACE = ("transformers.trainer", "transformers.generation", "datasets", "peft", "summkit.recipes.finetune")
ENVIRONMENT = dict(os.environ)


@functools.cache
def python(hub: bool = False) -> str:
    """The path of a program to be called in place of `sys.executable`; its server lives as long as this process."""
    if sys.platform != "linux":
        return sys.executable
    folder = tempfile.TemporaryDirectory(prefix="summkit-warm-")
    path, program = Path(folder.name) / "socket", Path(folder.name) / "python"
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-IS", __file__, "call", str(path)])} "$@"\n')
    program.chmod(0o755)
    modules = OTHERS if hub else OTHERS + HUGGING_FACE
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", str(path), *modules],
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,  # the server ends when this is closed
        stdout=subprocess.PIPE,
    )
    assert server.stdout.readline() == b"ready\n"

    @atexit.register
    def end():
        server.communicate()
        folder.cleanup()

    return str(program)


def call(path: str, words: list[str]) -> None:
    """Have the server call Python with these words, pass signals on to it, and end as it ends."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(path)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: link.send(bytes([number])))
    request = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(link, [len(request).to_bytes(4)], [0, 1, 2])
    link.sendall(request)
    answer = link.recv(1) + link.recv(1)
    if answer[:1] == b"s":
        with contextlib.suppress(OSError):  # of SIGKILL nothing is set
            signal.signal(answer[1], signal.SIG_DFL)
        os.kill(os.getpid(), answer[1])
    sys.exit(answer[1])


def serve(path: str) -> tuple[list, list[int]]:
    """Fork for each call; return in the child, with what was asked and its files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    waiting = selectors.DefaultSelector()
    for source in (listening, woken, sys.stdin.buffer):
        waiting.register(source, selectors.EVENT_READ)
    links: dict[socket.socket, int] = {}
    print("ready", flush=True)
    while True:
        for source in [key.fileobj for key, _ in waiting.select()]:
            if source is sys.stdin.buffer:
                for pid in links.values():
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            elif source is woken:
                woken.recv(4096)
                for link, pid in list(links.items()):
                    done, status = os.waitpid(pid, os.WNOHANG)
                    if done:
                        code = os.waitstatus_to_exitcode(status)
                        links.pop(link)
                        with contextlib.suppress(KeyError):
                            waiting.unregister(link)
                        with contextlib.suppress(OSError):  # the caller was killed
                            link.send(b"s" + bytes([-code]) if code < 0 else b"e" + bytes([code]))
                        link.close()
            elif source is listening:
                link, _ = listening.accept()
                size, files, _, _ = socket.recv_fds(link, 4, 3)
                request = b""
                while len(request) < int.from_bytes(size):
                    request += link.recv(2**20)
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    waiting.close()
                    for end in (listening, woken, wake, link, *links):
                        end.close()
                    return json.loads(request), files
                for file in files:
                    os.close(file)
                links[link] = pid
                waiting.register(link, selectors.EVENT_READ)
            elif source in links:
                number = source.recv(1)
                os.kill(links[source], number[0] if number else signal.SIGKILL)
                if not number:
                    waiting.unregister(source)


def become(request: list, files: list[int], program: str) -> None:
    """Be a Python that was called with these words, in this folder and environment."""
    words, folder, environment = request
    multiprocessing.set_executable(sys.executable)
    sys.executable, tempfile.tempdir = program, None
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    while words[0] == "-u":
        words.pop(0)
    sys.argv = ["-c" if words[0] == "-c" else words[0], *words[2 if words[0] in ("-c", "-m") else 1 :]]
    sys.path[:1] = ["" if words[0] in ("-c", "-m") else str(Path(words[0]).parent), *paths]
    if words[0] == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), vars(main))
    else:
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    what, place, *rest = sys.argv[1:]
    if what == "call":
        call(place, rest)
    for name in rest:
        importlib.import_module(name)
    gc.freeze()
    become(*serve(place), program=str(Path(place).with_name("python")))
