"""A server on 127.0.0.1 with the parts of OpenAI's protocol that `EndpointTeacher` and `Served` use.

Its answers are a function of the document and the temperature, or of a prompt's token ids; `script` has unusual replies
that come first.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PLAIN = {"Content-Type": "application/json"}


class LocalEndpoint:
    """A context manager: `url` for the client, `asked` with the bodies of all requests, `headers` with theirs.

    `script` is a list of (status, headers, body) that the first requests get, in the order in which they come;
    everyone after them gets `answer(document, temperature)`, `delay` seconds after asking. `broken` maps a document to
    such a reply too, for every time it is asked. A prompt of token ids gets `complete(ids)`, which returns a text and
    whether it ended. `most` is the largest number of requests that were answered at the same time.
    """

    def __init__(self, answer=None, delay: float = 0.0, script=(), broken=None, models=("teacher",), complete=None):
        self.answer = answer
        self.delay = delay
        self.script = list(script)
        self.broken = broken or {}
        self.complete = complete
        self.most, self._busy = 0, 0
        self.models = models
        self.asked: list[dict] = []
        self.headers: list[dict] = []
        self.times: list[float] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"endpoint": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def documents(self) -> list[str]:
        """The documents that were asked about, in the order in which they came."""
        return [body["messages"][-1]["content"] for body in self.asked]

    def reply(self, body: dict, headers) -> tuple[int, dict, bytes]:
        with self._lock:
            self.asked.append(body)
            self.headers.append({name.lower(): value for name, value in headers.items()})
            self.times.append(time.monotonic())
            scripted = self.script.pop(0) if self.script else None
            self._busy += 1
            self.most = max(self.most, self._busy)
        try:
            return scripted or self._answered(body)
        finally:
            with self._lock:
                self._busy -= 1

    def _answered(self, body: dict) -> tuple[int, dict, bytes]:
        document = body["messages"][-1]["content"] if "messages" in body else None
        if document in self.broken:
            return self.broken[document]
        time.sleep(self.delay)
        if document is None:
            return continuation(body["prompt"], *self.complete(body["prompt"]))
        return completion(self.answer(document, body["temperature"]))


def completion(content, **changes) -> tuple[int, dict, bytes]:
    """A whole reply of status 200 whose one choice says `content`."""
    message = {"role": "assistant", "content": content}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "teacher", "choices": choices}
    return 200, PLAIN, json.dumps(whole | changes).encode()


def continuation(ids, text, ended, read=None) -> tuple[int, dict, bytes]:
    """A whole reply of status 200 to a prompt of token ids; the server says that it read `read` of them."""
    choices = [{"index": 0, "text": text, "finish_reason": "stop" if ended else "length"}]
    usage = {"prompt_tokens": len(ids) if read is None else read}
    return 200, PLAIN, json.dumps({"object": "text_completion", "choices": choices, "usage": usage}).encode()


def failure(status: int, said: str = "no", **headers) -> tuple[int, dict, bytes]:
    """A reply of an error; headers by name with an underscore for a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, PLAIN | named, json.dumps({"error": {"message": said}}).encode()


class _Handler(BaseHTTPRequestHandler):
    endpoint: LocalEndpoint
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        known = self.path == path and body["model"] in self.endpoint.models
        self._send(*(self.endpoint.reply(body, self.headers) if known else failure(404, "no such model")))

    def do_GET(self):
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "test"} for name in self.endpoint.models]
        found = json.dumps({"object": "list", "data": listed}).encode()
        self._send(*((200, PLAIN, found) if self.path == "/v1/models" else failure(404, "no such page")))

    def log_message(self, *args):
        pass

    def _send(self, status: int, headers: dict, body: bytes) -> None:
        try:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client was killed meanwhile
            self.close_connection = True
