"""Teachers, whose answers train a student: a local model, or a server with an OpenAI-compatible API."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from summkit import progress
from summkit.config import Profile
from summkit.data import sentences, templates, tokenisation
from summkit.errors import SummkitError, check_known
from summkit.inference.generation import Summarizer
from summkit.inference.server import Server
from summkit.models import loading
from summkit.registry import Registry

if TYPE_CHECKING:
    import httpx

FIELDS = ("max_tokens", "temperature", "seed", "system")  # of a request, which may be left out or renamed
_FINISHES = {"length": "cut", "max_tokens": "cut", "content_filter": "content filter"}
_log = logging.getLogger(__name__)


class Answer(str):
    """A teacher's answer: a text.

    Attributes:
        reason: Why the text is no label, such as "cut"; None if it may be one.
        failed: Whether the server failed, so that the next run of the job asks again.
    """

    reason: str | None
    failed: bool

    def __new__(cls, text: str, reason: str | None = None, failed: bool = False) -> Self:
        """Make an answer; see the attributes."""
        answer = super().__new__(cls, text)
        answer.reason = reason
        answer.failed = failed
        return answer


class Teacher(Protocol):
    """A model that answers questions about documents.

    Attributes:
        about: Its identity: {"model", "revision", "prompt"}, for a server also "base_url", and "request" if its fields
            were changed.
        max_new_tokens: The largest number of tokens in an answer.
    """

    about: dict[str, Any]
    max_new_tokens: int

    def ask(self, documents: Sequence[str], temperature: float = 0.0, seed: int = 0) -> Sequence[str]:
        """Return one answer for each document, in the same order; an `Answer` where it can be no label."""


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
        self.about: dict[str, Any] = {"model": Path(name).name if Path(name).is_dir() else name}  # no local path
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

    def ask(self, documents: Sequence[str], temperature: float = 0.0, seed: int = 0) -> list[Answer]:
        """Return one answer for each document: greedy at temperature 0, or else sampled with `seed`.

        An answer of max_new_tokens may be a label: a small model often does not stop, and begins well.
        """
        how: dict[str, Any] = {"temperature": temperature, "seed": seed, "reuse_head": self.reuse_head}
        answers = self.summarizer.summarize(documents, **how)
        return [Answer(answer.text, "thinking" if answer.thought and not answer.text else None) for answer in answers]


@dataclasses.dataclass
class EndpointTeacher(Server):
    """A chat model on a server.

    Args:
        base_url: As the other arguments that are not named here, of `Server`.
        model: The model's name on the server.
        wording: The instruction and the examples.
        max_new_tokens: The largest number of tokens in an answer.
        workers: Number of parallel requests.
        without: The FIELDS that are left out of a request, since the server refuses them. Without "system", the
            instruction is the beginning of the first message.
        rename: Other names of FIELDS, such as {"max_tokens": "max_completion_tokens"} or {"system": "developer"}.
        extra: Further fields, such as {"reasoning_effort": "low"}, or other values of fields.

    Raises:
        SummkitError: As for `Server`; or a field is unknown.
    """

    model: str
    wording: templates.Wording
    max_new_tokens: int
    workers: int = 4
    without: Sequence[str] = ()
    rename: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    resume = "Finished labels are saved: run the same command again to resume"

    def __post_init__(self) -> None:
        for name in (*self.without, *self.rename):
            check_known("field of a request", name, FIELDS)
        super().__post_init__()
        self._reported: set[str] = set()
        digest = hashlib.sha256(json.dumps(self._messages("")).encode()).hexdigest()[:12]
        self.about: dict[str, Any] = {"model": self.model, "revision": None, "prompt": digest}
        self.about["base_url"] = self.base_url
        changes = {"without": sorted(self.without), "rename": dict(self.rename), "extra": dict(self.extra)}
        if any(changes.values()):
            self.about["request"] = {name: value for name, value in changes.items() if value}

    def ask(self, documents: Sequence[str], temperature: float = 0.0, seed: int = 0) -> list[Answer]:
        """Return one answer for each document, from `workers` parallel requests.

        An answer that can be no label has a reason: it was cut at max_new_tokens, filtered, refused or nothing but
        thinking; or the server answered with an error, a page or something else, and then the text is "".

        Raises:
            SummkitError: The message names the URL, the status and what to do. It is raised at once if the request is
                rejected (401, 403, 404, …), and after the last retry if the server is busy or unreachable.
        """
        from multiprocessing.pool import ThreadPool  # its threads are daemons: Ctrl-C does not wait for a slow server

        with ThreadPool(self.workers) as pool:
            return list(pool.imap(lambda document: self._ask(document, temperature, seed), documents))

    def _messages(self, document: str) -> list[dict[str, str]]:
        first, *turns = templates.chat_messages(self.wording, document, system="system" not in self.without)
        return [first | {"role": self.rename.get(first["role"], first["role"])}, *turns]

    def _ask(self, document: str, temperature: float, seed: int) -> Answer:
        fields: dict[str, float] = {"max_tokens": self.max_new_tokens, "temperature": temperature, "seed": seed}
        body: dict[str, Any] = {"model": self.model, "messages": self._messages(document)}
        body |= {self.rename.get(name, name): value for name, value in fields.items() if name not in self.without}
        about = f", for the text that begins {sentences.excerpt(document, 8)!r}"
        return self._read(self.post("/chat/completions", body | dict(self.extra), about))

    def advice(self, words: str) -> str:
        """Return how to leave out the field that the server complains about; "" if it names none."""
        field = next((name for name in FIELDS if name in words.lower()), None)
        return f". Leave {field} out of requests with --without {field}, or see --rename and --extra" if field else ""

    def _read(self, reply: httpx.Response) -> Answer:
        """Return the answer in a reply of status 200, which may be something else all the same."""
        try:
            body = reply.json()
            choice = body["choices"][0] if body.get("choices") else {}
            message = choice.get("message") or {}
            content = message.get("content")
        except ValueError:
            page = reply.text.lstrip().startswith("<")
            return self._failure("HTML instead of JSON" if page else "not JSON", reply.text)
        except (LookupError, TypeError, AttributeError):
            return self._failure("no answer in the reply", reply.text)
        if error := choice.get("error") or body.get("error"):
            return self._failure("server error", error.get("message", error) if isinstance(error, dict) else error)
        if not message:
            return self._failure("no answer in the reply", reply.text)
        if isinstance(content, list):  # parts, of which some may be thinking or images
            parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
            content = "".join(part for part in parts if isinstance(part, str))
        text = content if isinstance(content, str) else ""
        reason = _FINISHES.get(str(choice.get("finish_reason")).lower())
        if not reason and not text:
            others = {"refusal": "refusal", "reasoning_content": "thinking", "reasoning": "thinking"}
            reason = next((other for key, other in others.items() if message.get(key)), None)
        return Answer(text, reason)

    def _failure(self, reason: str, words: object) -> Answer:
        """Return an answer for a failure of the server, and log what it says once."""
        said = self.quoted(str(words))
        if said not in self._reported:
            self._reported.add(said)
            _log.warning("%s answers with status 200, but %s: %s", self.base_url, reason, said)
        return Answer("", reason, failed=True)


def _load_local(name: str | None, url: str | None, profile: Profile, wording: templates.Wording) -> Teacher:
    progress.quiet_libraries()
    return LocalTeacher.load(name or profile.teacher or profile.model, profile, wording)


def _connect_endpoint(
    name: str | None, url: str | None, profile: Profile, wording: templates.Wording, **request: Any
) -> Teacher:
    if not url or not name:
        raise SummkitError("a teacher behind a url needs the url together with a model's name there")
    return EndpointTeacher(url, name, wording, max_new_tokens=profile.max_new_tokens, **request)


# Functions (model name, URL, profile, wording) → teacher. A plugin adds its own with `TEACHERS.add`. Only "endpoint"
# is also called with `without`, `rename` and `extra`.
TEACHERS: Registry[Callable[..., Teacher]] = Registry("teacher", {"local": _load_local, "endpoint": _connect_endpoint})
