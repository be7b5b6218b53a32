"""Teachers, whose answers a student learns from: a model on this machine, or a server that speaks OpenAI's protocol."""

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

_RESUME = "What is labelled so far is kept: run the same again to resume"


class Teacher(Protocol):
    """What answers questions about documents.

    Attributes:
        about: Who it is: {"model", "revision", "prompt"}, for a server also "base_url".
        max_new_tokens: The most tokens of an answer.
    """

    about: dict[str, str | None]
    max_new_tokens: int

    def ask(self, documents: Sequence[str], temperature: float = 0.0, seed: int = 0) -> list[str]:
        """One answer for each document, in their order."""


class LocalTeacher:
    """A model that is loaded here.

    Args:
        summarizer: The model, its tokenizer, its template and its limits.
        name: For `about`; by default what the model's own configuration says.
        revision: The same.
        reuse_head: Read the instruction and the examples once for all documents; never with an encoder-decoder.
    """

    def __init__(
        self, summarizer: Summarizer, name: str = "", revision: str | None = None, reuse_head: bool = True
    ) -> None:
        self.summarizer = summarizer
        self.max_new_tokens = summarizer.max_new_tokens
        self.reuse_head = reuse_head and not summarizer.seq2seq
        config = summarizer.model.config
        name = name or config.name_or_path or type(summarizer.model).__name__
        self.about = {"model": Path(name).name if Path(name).is_dir() else name}  # no machine's path
        self.about["revision"] = revision or getattr(config, "_commit_hash", None)
        self.about["prompt"] = summarizer.template.version

    @classmethod
    def load(cls, name: str, profile: Profile, wording: templates.Wording) -> LocalTeacher:
        """Load the model `name` at the profile's precision for teachers.

        The prompt may be longer than a student's: a document has the room that the profile's plain prompt leaves it.
        """
        tokenizer = loading.load_tokenizer(name)
        template = templates.build_template(profile.template, tokenizer, wording)
        plain = templates.build_template(profile.template, tokenizer, dataclasses.replace(wording, examples=()))
        model = loading.load_model(name, profile.teacher_precision or profile.precision, profile.compute_dtype)
        max_length = tokenisation.room_for(template, plain, profile.max_length, tokenizer)
        limits = (max_length, profile.max_new_tokens, profile.generation_batch_size)
        return cls(Summarizer(model, tokenizer, template, *limits), name)

    def ask(self, documents: Sequence[str], temperature: float = 0.0, seed: int = 0) -> list[str]:
        """One answer for each document: the most likely words at temperature 0, above it drawn with `seed`."""
        how: dict[str, Any] = {"temperature": temperature, "seed": seed, "reuse_head": self.reuse_head}
        return [answer.text for answer in self.summarizer.summarize(documents, **how)]


@dataclasses.dataclass
class EndpointTeacher:
    """A chat model behind a server: vLLM, llama.cpp, Ollama, `transformers serve`, ….

    A server that is busy, slow or away is asked again, after a pause that doubles or is as long as the server says. A
    server on this machine is never asked through a proxy.

    Args:
        base_url: Such as "http://127.0.0.1:8000/v1".
        model: The model's name there.
        wording: The instruction and the examples.
        max_new_tokens: The most tokens of an answer.
        key_variable: The environment variable with the key, where the server wants one. The key is shown nowhere.
        timeout: In seconds.
        retries: How often a document is asked again.
        workers: Documents that are asked at a time.

    Raises:
        SummkitError: The URL is not one, or holds a password; openai is not installed.
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
        """One answer for each document, `workers` documents at a time; "" where the reply holds no text.

        Raises:
            SummkitError: The message names the URL, the status and what to do. It comes at once where the request is
                refused (401, 403, 404, …), and after the last retry where the server is busy or away.
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
        # The client would send what OPENAI_… variables hold, a key among it, to whatever server it is pointed at.
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
        """What a status means, and the way out, with the server's own words but not the key."""
        status = error.status_code
        start = f"{self.base_url}: status {status}"
        if status in (401, 403):
            state = "is not accepted" if self._key else "is missing"
            return f"{start}: the key {state}; put the right one into the environment variable {self.key_variable}"
        if status == 404:
            known = ", ".join(self._models()) or "none that it names"
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


# Functions of a model's name, a URL, a profile and a wording. A plugin adds its own with `TEACHERS.add`.
TEACHERS: Registry[Callable[[str | None, str | None, Profile, templates.Wording], Teacher]] = Registry(
    "teacher", {"local": _load_local, "endpoint": _connect_endpoint}
)


def _read_key(variable: str) -> str:
    """The key in an environment variable, "" without one. Raises SummkitError where no header could carry it."""
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise SummkitError(f"{variable} holds no key: letters, digits and signs in one line are needed")
    return key


def _is_this_machine(base_url: str) -> bool:
    """Whether `base_url` leads to this machine. Raises SummkitError where it is not a URL for `EndpointTeacher`."""
    try:
        parts = urlsplit(base_url)
        host = parts.hostname if parts.port != 0 else None  # `port` raises where it is not a number
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise SummkitError("the teacher's URL: an address such as http://127.0.0.1:8000/v1 is needed")
    if parts.username or parts.password:  # the URL is shown and recorded, a password must not be
        raise SummkitError("the teacher's URL holds a name or password: put the key into an environment variable")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _content(reply: Any) -> str:
    """The text of a reply, "" where it has none: the job then asks again."""
    try:
        content = reply.choices[0].message.content
    except (AttributeError, LookupError, TypeError):
        return ""
    return content if isinstance(content, str) else ""
