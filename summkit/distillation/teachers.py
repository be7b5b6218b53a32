"""Teachers, whose answers train a student: a local model, or a server with an OpenAI-compatible API."""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from summkit import progress
from summkit.config import Profile
from summkit.data import sentences, templates, tokenisation
from summkit.errors import SummkitError
from summkit.inference.generation import Summarizer
from summkit.models import loading
from summkit.registry import Registry

if TYPE_CHECKING:
    import openai

_RESUME = "Finished labels are saved: run the same command again to resume"


class Teacher(Protocol):
    """A model that answers questions about documents.

    Attributes:
        about: Its identity: {"model", "revision", "prompt"}, for a server also "base_url".
        max_new_tokens: The largest number of tokens in an answer.
    """

    about: dict[str, str | None]
    max_new_tokens: int

    def ask(self, documents: Sequence[str], temperature: float = 0.0, seed: int = 0) -> list[str]:
        """Return one answer for each document, in the same order."""


class LocalTeacher:
    """A local model.

    Args:
        summarizer: The model, its tokenizer, its template and its limits.
        name: The model's name for `about`; by default the name in the model's configuration.
        revision: The revision for `about`; by default the one in the configuration.
        reuse_head: Read the instruction and the examples once for all documents; ignored for an encoder-decoder.
    """

    def __init__(
        self, summarizer: Summarizer, name: str = "", revision: str | None = None, reuse_head: bool = True
    ) -> None:
        self.summarizer = summarizer
        self.max_new_tokens = summarizer.max_new_tokens
        self.reuse_head = reuse_head and not summarizer.seq2seq
        config = summarizer.model.config
        name = name or config.name_or_path or type(summarizer.model).__name__
        self.about = {"model": Path(name).name if Path(name).is_dir() else name}  # no local path
        self.about["revision"] = revision or getattr(config, "_commit_hash", None)
        self.about["prompt"] = summarizer.template.version

    @classmethod
    def load(cls, name: str, profile: Profile, wording: templates.Wording) -> LocalTeacher:
        """Load the model `name` at the profile's precision for teachers.

        With examples, the prompt may exceed the profile's max_length, so that a document has as much room as without.
        """
        tokenizer = loading.load_tokenizer(name)
        template = templates.build_template(profile.template, tokenizer, wording)
        plain = templates.build_template(profile.template, tokenizer, dataclasses.replace(wording, examples=()))
        model = loading.load_model(name, profile.teacher_precision or profile.precision, profile.compute_dtype)
        max_length = tokenisation.room_for(template, plain, profile.max_length, tokenizer)
        limits = (max_length, profile.max_new_tokens, profile.generation_batch_size)
        return cls(Summarizer(model, tokenizer, template, *limits), name)

    def ask(self, documents: Sequence[str], temperature: float = 0.0, seed: int = 0) -> list[str]:
        """Return one answer for each document: greedy at temperature 0, or else sampled with `seed`."""
        how: dict[str, Any] = {"temperature": temperature, "seed": seed, "reuse_head": self.reuse_head}
        return [answer.text for answer in self.summarizer.summarize(documents, **how)]


@dataclasses.dataclass
class EndpointTeacher:
    """A chat model on a server: vLLM, llama.cpp, Ollama, `transformers serve`, ….

    If the server is busy, slow or unreachable, the request is repeated after a pause, which doubles each time or is set
    by the server. Requests to a server on this machine never use a proxy.

    Args:
        base_url: The URL of the API, such as "http://127.0.0.1:8000/v1".
        model: The model's name on the server.
        wording: The instruction and the examples.
        max_new_tokens: The largest number of tokens in an answer.
        key_variable: The environment variable with the API key, if the server needs one. The key is never shown.
        timeout: Timeout in seconds.
        retries: How often a request is repeated.
        workers: Number of parallel requests.

    Raises:
        SummkitError: The URL is invalid or contains a password; openai is not installed.
    """

    base_url: str
    model: str
    wording: templates.Wording
    max_new_tokens: int
    key_variable: str = "SUMMKIT_TEACHER_KEY"
    timeout: float = 60
    retries: int = 5
    workers: int = 4

    def __post_init__(self) -> None:
        self._key = _read_key(self.key_variable)
        self._client = self._connect()
        prompt = json.dumps(templates.chat_messages(self.wording, ""))
        digest = hashlib.sha256(prompt.encode()).hexdigest()[:12]
        self.about = {"model": self.model, "revision": None, "prompt": digest, "base_url": self.base_url}

    def ask(self, documents: Sequence[str], temperature: float = 0.0, seed: int = 0) -> list[str]:
        """Return one answer for each document, from `workers` parallel requests; "" if a reply has no text.

        Raises:
            SummkitError: The message names the URL, the status and what to do. It is raised at once if the request is
                rejected (401, 403, 404, …), and after the last retry if the server is busy or unreachable.
        """
        from multiprocessing.pool import ThreadPool  # its threads are daemons: Ctrl-C does not wait for a slow server

        with ThreadPool(self.workers) as pool:
            return list(pool.imap(lambda document: self._ask(document, temperature, seed), documents))

    def _connect(self) -> openai.OpenAI:
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
        return openai.OpenAI(base_url=self.base_url, api_key="none", default_headers=headers, **options)

    def _ask(self, document: str, temperature: float, seed: int) -> str:
        import openai

        how = {"max_tokens": self.max_new_tokens, "temperature": temperature, "seed": seed}
        messages = templates.chat_messages(self.wording, document)
        try:
            reply = self._client.chat.completions.create(model=self.model, messages=messages, **how)
        except openai.APIStatusError as error:
            raise SummkitError(self._refusal(error, document)) from None
        except openai.APIConnectionError as error:
            reason = "no answer in time" if isinstance(error, openai.APITimeoutError) else "no connection"
            tries = f"{self.base_url}: {reason} after {self.retries + 1} tries"
            raise SummkitError(f"{tries}; is the server up, and is this its address? {_RESUME}") from None
        except (openai.APIResponseValidationError, ValueError):  # not JSON, or not the JSON that was asked for
            return ""
        return _content(reply)

    def _refusal(self, error: openai.APIStatusError, document: str) -> str:
        """Explain a status and what to do, quoting the server's message without the key."""
        status = error.status_code
        start = f"{self.base_url}: status {status}"
        if status in (401, 403):
            state = "is not accepted" if self._key else "is missing"
            return f"{start}: the key {state}; put the right one into the environment variable {self.key_variable}"
        if status == 404:
            known = ", ".join(self._models()) or "none that it lists"
            return f"{start}: no model {self.model!r} at this address (it often ends in /v1); known: {known}"
        words = " ".join(str(error).split()).removeprefix(f"Error code: {status}").strip(" -")
        words = (words.replace(self._key, "…") if self._key else words)[:300] or "nothing"
        if status in (408, 409, 429) or status >= 500:
            return f"{start} after up to {self.retries + 1} tries; the server is busy or broken: {words}. {_RESUME}"
        return f"{start}, for the text that begins {sentences.excerpt(document, 8)!r}; the server says: {words}"

    def _models(self) -> list[str]:
        import openai

        try:
            models = self._client.with_options(max_retries=0).models.list().data
            return sorted(str(model.id) for model in models)[:20]
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            return []


def _load_local(name: str | None, url: str | None, profile: Profile, wording: templates.Wording) -> Teacher:
    progress.quiet_libraries()
    return LocalTeacher.load(name or profile.teacher or profile.model, profile, wording)


def _connect_endpoint(name: str | None, url: str | None, profile: Profile, wording: templates.Wording) -> Teacher:
    if not url or not name:
        raise SummkitError("a teacher behind a url needs the url together with a model's name there")
    return EndpointTeacher(url, name, wording, max_new_tokens=profile.max_new_tokens)


# Functions (model name, URL, profile, wording) → teacher. A plugin adds its own with `TEACHERS.add`.
TEACHERS: Registry[Callable[[str | None, str | None, Profile, templates.Wording], Teacher]] = Registry(
    "teacher", {"local": _load_local, "endpoint": _connect_endpoint}
)


def _read_key(variable: str) -> str:
    """Return the key in an environment variable, or "". Raises SummkitError if it cannot be part of a header."""
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise SummkitError(f"{variable} is not a valid key: use letters, digits and punctuation in one line")
    return key


def _is_this_machine(base_url: str) -> bool:
    """Whether `base_url` is on this machine. Raises SummkitError if it is not a URL for `EndpointTeacher`."""
    try:
        parts = urlsplit(base_url)
        host = parts.hostname if parts.port != 0 else None  # `port` raises an error if it is not a number
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise SummkitError("the teacher's URL: an address such as http://127.0.0.1:8000/v1 is needed")
    if parts.username or parts.password:  # the URL is shown and recorded, so it must not contain a password
        raise SummkitError("the teacher's URL contains a name or password: put the key into an environment variable")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _content(reply: Any) -> str:
    """Return the text of a reply; "" if it has none, and the job then asks again."""
    try:
        content = reply.choices[0].message.content
    except (AttributeError, LookupError, TypeError):
        return ""
    return content if isinstance(content, str) else ""
