"""Requests to a server with an OpenAI-compatible API: vLLM, llama.cpp, Ollama, `transformers serve`, …."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from summkit.errors import SummkitError

if TYPE_CHECKING:
    import httpx
    import openai


@dataclass
class Server:
    """A server's API.

    If the server is busy, slow or unreachable, the request is repeated after a pause, which doubles each time or is set
    by the server. Requests to a server on this machine never use a proxy.

    Args:
        base_url: The URL of the API, such as "http://127.0.0.1:8000/v1".
        key_variable: The environment variable with the API key, if the server needs one. The key is never shown.
        timeout: Timeout in seconds.
        retries: How often a request is repeated.

    Raises:
        SummkitError: The URL is invalid or contains a password; openai is not installed.
    """

    base_url: str
    _: KW_ONLY
    key_variable: str = "SUMMKIT_TEACHER_KEY"
    timeout: float = 60
    retries: int = 5

    resume = "Run the same command again"  # said after the last retry

    def __post_init__(self) -> None:
        self._key = os.environ.get(self.key_variable, "").strip()
        if not self._key.isascii() or not self._key.isprintable() or " " in self._key:  # no part of a header
            raise SummkitError(f"{self.key_variable} is not a valid key: use letters, digits and punctuation only")
        is_local = _is_this_machine(self.base_url)
        try:
            import openai
        except ImportError:
            raise SummkitError("openai is not installed: pip install 'summkit[distill]'") from None
        # By default the client would send the values of OPENAI_… variables, such as a key, to any server.
        headers: dict[str, Any] = {"Authorization": f"Bearer {self._key or 'none'}"}
        headers |= {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
        http = openai.DefaultHttpxClient(timeout=self.timeout, trust_env=not is_local, follow_redirects=False)
        options = {"timeout": self.timeout, "max_retries": self.retries, "http_client": http}
        self._client = openai.OpenAI(base_url=self.base_url, api_key="none", default_headers=headers, **options)

    def post(self, path: str, body: dict[str, Any], about: str = "") -> httpx.Response:
        """Return the reply to a request; `about` says in the error of a refusal what was asked.

        Raises:
            SummkitError: The message names the URL, the status and what to do. It is raised at once if the request is
                rejected (401, 403, 404, …), and after the last retry if the server is busy or unreachable.
        """
        import httpx
        import openai

        try:
            return self._client.post(path, cast_to=httpx.Response, body=body)
        except openai.APIStatusError as error:
            raise SummkitError(self._refusal(error, body["model"], about)) from None
        except openai.APIConnectionError as error:
            reason = "no answer in time" if isinstance(error, openai.APITimeoutError) else "no connection"
            tries = f"{self.base_url}: {reason} after {self.retries + 1} tries"
            raise SummkitError(f"{tries}; is the server up, and is this its address? {self.resume}") from None

    def models(self) -> list[str]:
        """Return the names of at most 20 models that the server lists; none if it does not answer."""
        import openai

        try:
            models = self._client.with_options(max_retries=0).models.list().data
            return sorted(str(model.id) for model in models)[:20]
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            return []

    def quoted(self, words: str) -> str:
        """Return the server's words in one line, without the key."""
        words = " ".join(words.split())
        return (words.replace(self._key, "…") if self._key else words)[:300] or "nothing"

    def advice(self, words: str) -> str:
        """Return what to do about a request that the server refused with these words."""
        return ""

    def _refusal(self, error: openai.APIStatusError, model: str, about: str) -> str:
        """Explain a status and what to do, quoting the server's message without the key."""
        status = error.status_code
        start = f"{self.base_url}: status {status}"
        if status in (401, 403):
            state = "is not accepted" if self._key else "is missing"
            return f"{start}: the key {state}; put the right one into the environment variable {self.key_variable}"
        if status == 404:
            known = ", ".join(self.models()) or "none that it lists"
            return f"{start}: no model {model!r} at this address (it often ends in /v1); known: {known}"
        words = self.quoted(str(error).removeprefix(f"Error code: {status}").strip(" -"))
        if status in (408, 409, 429) or status >= 500:
            return f"{start} after up to {self.retries + 1} tries; the server is busy or broken: {words}. {self.resume}"
        return f"{start}{about}; the server says: {words.rstrip('.')}{self.advice(words)}"


def _is_this_machine(base_url: str) -> bool:
    """Whether `base_url` is on this machine. Raises SummkitError if it is not a URL for `Server`."""
    try:
        parts = urlsplit(base_url)
        host = parts.hostname if parts.port != 0 else None  # `port` raises an error if it is not a number
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise SummkitError("the server's URL: an address such as http://127.0.0.1:8000/v1 is needed")
    if parts.username or parts.password:  # the URL is shown and recorded, so it must not contain a password
        raise SummkitError("the server's URL contains a name or password: put the key into an environment variable")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
