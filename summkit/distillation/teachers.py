"""Floor 6. Who answers for a student to learn from: a model on this machine, or a server that speaks OpenAI's protocol.

A teacher has three things: `about`, who it is ({"model", "revision", "prompt"}, for a server also "base_url"),
`max_new_tokens`, how long its answers may be, and `ask(documents, temperature, seed)`, which gives one text a document
in the documents' order.
"""

import dataclasses
import hashlib
import ipaddress
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from summkit.data import sentences, templates, tokenisation
from summkit.errors import SummkitError
from summkit.inference import generation
from summkit.models import loading

_GO_ON = "What is labelled so far is kept: run the same again to go on"


class LocalTeacher:
    """A model that is loaded here, with its tokenizer, its template and its limits in tokens."""

    def __init__(
        self, model, tokenizer, template, *, max_length: int, max_new_tokens: int, batch_size: int = 16,
        revision: str | None = None, name: str = "", reuse_head: bool = True,
    ):  # fmt: skip
        """`name` and `revision` are for `about`; without them it says what the model's own configuration does."""
        self.asked, self.max_new_tokens = (model, tokenizer, template), max_new_tokens
        self.limits = {"max_length": max_length, "max_new_tokens": max_new_tokens, "batch_size": batch_size}
        self.reuse_head = reuse_head and not loading.is_encoder_decoder(model)
        revision = revision or getattr(model.config, "_commit_hash", None)
        self.about = {"model": name or _own_name(model), "revision": revision, "prompt": template.version}

    @classmethod
    def load(cls, name: str, profile, wording) -> "LocalTeacher":
        """The model `name` at the profile's precision for teachers.

        The prompt may be longer than a student's: a document has the room that the profile's plain prompt leaves it.
        """
        tokenizer = loading.load_tokenizer(name)
        template = templates.build_template(profile.template, tokenizer, wording)
        plain = templates.build_template(profile.template, tokenizer, dataclasses.replace(wording, examples=()))
        precision = profile.teacher_precision or profile.precision
        return cls(
            loading.load_model(name, precision, profile.compute_dtype), tokenizer, template,
            max_length=tokenisation.room_for(template, plain, profile.max_length, tokenizer),
            max_new_tokens=profile.max_new_tokens, batch_size=profile.generation_batch_size,
            name=Path(name).name if Path(name).is_dir() else name,
        )  # fmt: skip

    def ask(self, documents, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """One answer a document: the most likely words at temperature 0, above it drawn with `seed`."""
        how = {"temperature": temperature, "seed": seed, "reuse_head": self.reuse_head}
        found = generation.summarize(*self.asked, documents, **how, **self.limits)
        return [answer.text for answer in found]


class EndpointTeacher:
    """A chat model behind `base_url` ("http://127.0.0.1:8000/v1"): vLLM, llama.cpp, Ollama, `transformers serve`, ….

    The key, where the server wants one, is read from the environment variable `key_variable`, and shown nowhere.
    `timeout` is in seconds. What is busy, slow or away is asked again, up to `retries` times, after a pause that
    doubles or is as long as the server says. A server on this machine is never asked through a proxy.
    Raises SummkitError for a URL that is none, or that holds a password.
    """

    def __init__(
        self, base_url: str, model: str, wording, *, max_new_tokens: int, key_variable: str = "SUMMKIT_TEACHER_KEY",
        timeout: float = 60, retries: int = 5, workers: int = 4,
    ):  # fmt: skip
        self.wording, self.max_new_tokens, self.workers = wording, max_new_tokens, workers
        self.retries, self.key_variable = retries, key_variable
        self._key = _key(key_variable)
        self._client = self._connect(base_url, timeout)
        prompt = hashlib.sha256(json.dumps(self.messages("")).encode()).hexdigest()[:12]
        self.about = {"model": model, "revision": None, "prompt": prompt, "base_url": base_url}

    def messages(self, document: str) -> list[dict]:
        """What is sent for a document: the instruction, the examples as earlier turns, the document."""
        return templates.chat_messages(self.wording, document)

    def ask(self, documents, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """One answer a document, `workers` documents at a time; "" where the reply holds no text.

        Raises SummkitError, naming the URL, the status and what to do: at once where the request is refused (401, 403,
        404, …), after the last retry where the server is busy or away.
        """
        from multiprocessing.pool import ThreadPool  # its threads are daemons: Ctrl-C does not wait for a slow server

        with ThreadPool(self.workers) as pool:
            return list(pool.imap(lambda document: self._ask(document, temperature, seed), documents))

    def _connect(self, base_url: str, timeout: float):
        import openai

        # The client would send what OPENAI_… variables hold, a key among it, to whatever server it is pointed at.
        headers = {"Authorization": f"Bearer {self._key or 'none'}"}
        headers |= {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
        http = openai.DefaultHttpxClient(
            timeout=timeout, trust_env=not _is_this_machine(base_url), follow_redirects=False
        )
        return openai.OpenAI(
            base_url=base_url, api_key="none", default_headers=headers, timeout=timeout, max_retries=self.retries,
            http_client=http,
        )  # fmt: skip

    def _ask(self, document: str, temperature: float, seed: int) -> str:
        import openai

        try:
            reply = self._client.chat.completions.create(
                model=self.about["model"], messages=self.messages(document), max_tokens=self.max_new_tokens,
                temperature=temperature, seed=seed,
            )  # fmt: skip
        except openai.APIStatusError as error:
            raise SummkitError(self._refused(error, document)) from None
        except openai.APIConnectionError as error:
            reason = "no answer in time" if isinstance(error, openai.APITimeoutError) else "no connection"
            where = f"{self.about['base_url']}: {reason} after {self.retries + 1} tries"
            raise SummkitError(f"{where}; is the server up, and is this its address? {_GO_ON}") from None
        except (openai.APIResponseValidationError, ValueError):  # not JSON, or not the JSON that was asked for
            return ""
        return _content(reply)

    def _refused(self, error, document: str) -> str:
        """What a status means for who reads it, and the way out. The server's own words, without the key."""
        status, where = error.status_code, f"{self.about['base_url']}: status {error.status_code}"
        if status in (401, 403):
            state = "is not accepted" if self._key else "is missing"
            return f"{where}: the key {state}; put the right one into the environment variable {self.key_variable}"
        if status == 404:
            there = ", ".join(self._listed()) or "none that it names"
            return (
                f"{where}: no model {self.about['model']!r} at this address (it often ends in /v1); there is: {there}"
            )
        said = " ".join(str(error).split()).removeprefix(f"Error code: {status}").strip(" -")
        said = (said.replace(self._key, "…") if self._key else said)[:300] or "nothing"
        if status in (408, 409, 429) or status >= 500:
            return f"{where} after up to {self.retries + 1} tries; the server is busy or broken: {said}. {_GO_ON}"
        return f"{where}, for the text that begins {sentences.excerpt(document, 8)!r}; the server says: {said}"

    def _listed(self) -> list[str]:
        import openai

        try:
            found = self._client.with_options(max_retries=0).models.list().data
            return sorted(str(model.id) for model in found)[:20]
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            return []


def _own_name(model) -> str:
    name = model.config.name_or_path or type(model).__name__
    return Path(name).name if Path(name).is_dir() else name


def _key(variable: str) -> str:
    """The key in an environment variable, "" without one. Raises SummkitError where no header could carry it."""
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise SummkitError(f"{variable} holds no key: letters, digits and signs in one line are needed")
    return key


def _is_this_machine(base_url: str) -> bool:
    """Whether `base_url` leads to this machine. Raises SummkitError where it is no URL for `Endpoint`."""
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
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


def _content(reply) -> str:
    """The text of a reply, "" where it has none: an odd server's reply is an odd answer, and asked for again."""
    try:
        content = reply.choices[0].message.content
    except (AttributeError, LookupError, TypeError):
        return ""
    return content if isinstance(content, str) else ""
