"""A local Hugging Face Hub on 127.0.0.1, enough of it for load_dataset, AutoTokenizer and AutoModel; no network.

It serves the folders {root}/{models,datasets}/{org}/{name}/ as they are. The libraries read HF_ENDPOINT when they are
imported, so what loads through it runs in a child process: `subprocess.run([...], env=hub.environment(home))`.
"""

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

from tests import tiny_models

_DROPPED = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "SUMMKIT_")  # what would point a child elsewhere, or forbid the Hub


class LocalHub:
    """A context manager; `endpoint` is its address while it runs, `requests` what was asked, as "GET /path"."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.requests: list[str] = []

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def environment(self, home: str | Path, **extra: str) -> dict[str, str]:
        """This process's environment, for a child that sees this Hub and keeps everything under the folder `home`."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_DROPPED)}
        return (
            kept
            | {
                "HF_ENDPOINT": self.endpoint,
                "HF_HOME": str(home),
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "NO_PROXY": "127.0.0.1",
            }
            | extra
        )

    def folder(self, kind: str, repo: str) -> Path:
        """The folder of `repo` ("org/name"), made where it is missing; `kind` is "models" or "datasets"."""
        path = self.root / kind / repo
        path.mkdir(parents=True, exist_ok=True)
        return path

    def add_tiny_phi(self, repo: str = "microsoft/phi-2", seed: int = 0) -> Path:
        """A Phi of 0.1 million random weights with a byte-level tokenizer, which like phi-2's has no pad token."""
        return self._add_tiny("phi", repo, seed)

    def add_tiny_gpt2(self, repo: str = "openai-community/gpt2", seed: int = 0) -> Path:
        """A GPT-2 of 0.2 million random weights with such a tokenizer."""
        return self._add_tiny("gpt2", repo, seed)

    def add_tiny_led(self, repo: str = "allenai/led-base-16384", seed: int = 0) -> Path:
        """A LED of 0.1 million random weights with a byte-level tokenizer that puts <s> and </s> around a text."""
        return self._add_tiny("led", repo, seed)

    def add_tiny_bigbird_pegasus(self, repo: str = "google/bigbird-pegasus-large-arxiv", seed: int = 0) -> Path:
        """A BigBird-Pegasus of as many, its encoder block-sparse, with a tokenizer of letters that puts </s> behind."""
        return self._add_tiny("bigbird", repo, seed)

    def add_tiny_long_t5(self, repo: str = "google/long-t5-tglobal-base", seed: int = 0) -> Path:
        """A LongT5 of 0.05 million, its encoder transient-global, with such a tokenizer."""
        return self._add_tiny("longt5", repo, seed)

    def _add_tiny(self, kind: str, repo: str, seed: int) -> Path:
        folder = self.folder("models", repo)
        for part in tiny_models.published(kind, seed):
            part.save_pretrained(folder)
        return folder

    def add_xsum(self, repo: str = "EdinburghNLP/xsum", train=24, validation=8, test=8, form="parquet") -> Path:
        """Rows of summkit's own examples as a data set with three splits, in `form` "parquet" or "jsonl"."""
        rows = [json.loads(line) for line in _EXAMPLES.read_text(encoding="utf-8").splitlines()]
        folder, start = self.folder("datasets", repo), 0
        for split, count in {"train": train, "validation": validation, "test": test}.items():
            assert start + count <= len(rows), f"only {len(rows)} examples are there"
            _write_rows(rows[start : start + count], folder, split, form)
            start += count
        return folder

    def add_rows(self, repo: str, configs: dict[str, dict[str, list[dict]]]) -> Path:
        """A data set of {config: {split: rows}} as parquet, and the README that names each config's files."""
        folder, lines = self.folder("datasets", repo), ["---", "configs:"]
        for config, splits in configs.items():
            place = "data" if config == "default" else config
            lines += [f"- config_name: {config}", "  data_files:"]
            for split, rows in splits.items():
                _write_rows(rows, folder, split, "parquet", place)
                lines += [f"  - split: {split}", f"    path: {place}/{split}-*"]
        (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")
        return folder

    def files(self, kind: str, repo: str) -> dict[str, Path] | None:
        """The files of a repository by name, or None where there is no such repository."""
        base = self.root / kind / repo
        if not base.is_dir():
            return None
        return {path.relative_to(base).as_posix(): path for path in sorted(base.rglob("*")) if path.is_file()}


_EXAMPLES = Path(__file__).parent.parent / "summkit" / "data" / "sets" / "examples.jsonl"


def _write_rows(rows: list[dict], folder: Path, split: str, form: str, place: str = "data") -> None:
    if form == "jsonl":
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        return
    from datasets import Dataset

    Dataset.from_list(rows).to_parquet(folder / place / f"{split}-00000-of-00001.parquet")


class _Handler(BaseHTTPRequestHandler):
    """What the libraries ask a Hub for; any revision is answered with the one there is.

    GET /api/{kind}/{id}[/revision/{rev}], GET …/tree/{rev}[/{folder}], POST …/paths-info/{rev},
    HEAD or GET /[datasets/]{id}/resolve/{rev}/{file}, whole or a range of bytes.
    """

    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def log_message(self, *args):
        pass

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[0] == "api" and len(parts) >= 4 and parts[1] in ("models", "datasets"):
            self._api(parts[1], "/".join(parts[2:4]), parts[4:], body)
        elif "resolve" in parts[2:4]:
            kind = parts.pop(0) if parts[0] == "datasets" else "models"
            self._file(kind, "/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._send(200 if path == "/" else 404, b"{}")

    def _api(self, kind: str, repo: str, rest: list[str], body: bytes) -> None:
        files = self.hub.files(kind, repo)
        if files is None:
            self._send(404, b'{"error": "no such repository"}', {"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["tree"]:
            self._send_json(_entries(files, under="/".join(rest[2:])))
        elif rest[:1] == ["paths-info"]:
            self._send_json(_paths_info(files, self._asked_paths(body)))
        elif not rest or rest[0] == "revision":
            siblings = [{"rfilename": name} for name in files]
            self._send_json({"id": repo, "sha": _commit(files), "private": False, "tags": [], "siblings": siblings})
        else:
            self._send(404, b"{}")

    def _asked_paths(self, body: bytes) -> list[str]:
        if "json" in self.headers.get("Content-Type", ""):
            return json.loads(body)["paths"]
        return parse_qs(body.decode())["paths"]

    def _file(self, kind: str, repo: str, name: str) -> None:
        files = self.hub.files(kind, repo)
        if files is None or name not in files:
            code = "RepoNotFound" if files is None else "EntryNotFound"
            commit = {} if files is None else {"X-Repo-Commit": _commit(files)}
            self._send(404, b"not found", {"X-Error-Code": code, **commit})
            return
        content = files[name].read_bytes()
        headers = {"ETag": f'"{_sha1(content)}"', "X-Repo-Commit": _commit(files), "Accept-Ranges": "bytes"}
        start, end = _range(self.headers.get("Range"), len(content))
        if self.headers.get("Range"):
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self._send(206 if self.headers.get("Range") else 200, content[start:end], headers)

    def _send_json(self, value) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entries(files: dict[str, Path], under: str) -> list[dict]:
    """Every file and folder beneath the folder `under` ("" for all), as the Hub lists a tree."""
    folders = {parent.as_posix() for name in files for parent in Path(name).parents} - {"."}
    inside = f"{under}/" if under else ""
    listed = [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(folders)]
    listed += [_entry(name, path) for name, path in files.items()]
    return [entry for entry in listed if entry["path"].startswith(inside)]


def _paths_info(files: dict[str, Path], asked: list[str]) -> list[dict]:
    return [entry for entry in _entries(files, "") if entry["path"] in asked]


def _entry(name: str, path: Path) -> dict:
    content = path.read_bytes()
    return {"type": "file", "path": name, "size": len(content), "oid": _sha1(content)}


def _commit(files: dict[str, Path]) -> str:
    """A commit id that changes when a file's name or content does."""
    return _sha1("".join(name + _sha1(path.read_bytes()) for name, path in files.items()).encode())


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _range(header: str | None, size: int) -> tuple[int, int]:
    """First byte and the one after the last that "bytes=a-b", "bytes=a-" or None ask for."""
    if not header:
        return 0, size
    first, _, last = header.removeprefix("bytes=").partition("-")
    return int(first), min(int(last) + 1, size) if last else size
