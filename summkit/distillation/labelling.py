"""Label rows with a teacher, in a job that can be stopped and resumed, and make training data for a student.

The job writes one JSON line per row, with everything that the answer depends on, so that no row is labelled twice, and
answers to different prompts or from different models are never mixed in one file. After a kill, all lines except the
last are complete; an incomplete last line is removed when the file is next read. Any other broken line is an error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from summkit import files, progress
from summkit.config import choose_profile
from summkit.data import templates
from summkit.data.checks import DOCUMENT_COLUMNS, SUMMARY_COLUMNS, as_text, find_column, reason_unusable
from summkit.data.formats import file_rows
from summkit.data.splits import row_id
from summkit.distillation import topics
from summkit.distillation.teachers import TEACHERS, Teacher
from summkit.errors import Interrupted, SummkitError
from summkit.inference.generation import without_thinking

RETRY_TEMPERATURE = 0.3  # at 0 a teacher would only repeat its answer
PAUSE = 1.0  # seconds before a failing server is asked again; each further pause is twice as long
NOT_ASKED = "not asked"
_LINE_START = b'{"id": '
# (document, answer) → (label, None), or (None, the reason why the answer is unusable).
Check = Callable[[str, str], tuple[str | None, str | None]]


@dataclass(frozen=True)
class Labels:
    """The result of a labelling job.

    Attributes:
        labels: {id: label}.
        set_aside: {id: reason} of the rows without a label. "not asked": the server had failed for a whole batch.
        asked: Number of rows that this call asked.
        reused: Number of rows that were in the file already.
        seconds: The call's time.
    """

    labels: dict[str, str]
    set_aside: dict[str, str]
    asked: int
    reused: int
    seconds: float

    def counts(self) -> dict[str, int]:
        """Return the number of labelled rows, and of rows set aside by reason."""
        return {"labelled": len(self.labels), **Counter(self.set_aside.values())}


def label_rows(
    rows: Iterable[dict],
    teacher: Teacher,
    path: str | Path,
    *,
    check: Check,
    batch_size: int = 32,
    retries: int = 2,
    temperature: float = 0.0,
    seed: int = 0,
) -> Labels:
    """Label rows with a teacher, longest text first, and append each batch of labels to a file.

    Each batch is on the disk before the next one starts. After an interruption, the same call resumes the job and does
    not ask again about rows in the file, except those for which the server failed (the status "failed"). What a teacher
    thought before its answer is never part of a label. If the server fails for a whole batch, the job ends.

    Args:
        rows: Dicts with id and document.
        teacher: The teacher.
        path: The file of labels. "last_temperature" in a line is the temperature of the reported attempt.
        check: Turns an answer into a label, or returns the reason why it is unusable.
        batch_size: Rows asked together.
        retries: How often a row with an unusable answer is asked again, at RETRY_TEMPERATURE and with the next seed,
            before it is set aside.
        temperature: Temperature of the first attempt.
        seed: Seed of the first attempt.

    Returns:
        The labels of all rows.

    Raises:
        SummkitError: A row is unusable; the file belongs to another prompt, model, length, temperature, seed or
            text, is broken, or is being written by another process.
        Interrupted: The user stopped the job; the message has the number of finished rows.
    """
    path = Path(path)
    started = time.perf_counter()
    texts = _texts(rows)
    about: dict[str, Any] = {key: teacher.about.get(key) for key in ("model", "revision", "prompt", "request")}
    about |= {"max_new_tokens": teacher.max_new_tokens, "temperature": temperature, "seed": seed}
    append(Path(f"{path}.lock"), [])  # report a folder or file that cannot be written before anything is asked
    with files.lock(f"{path}.lock"):
        append(path, [])
        lines = _earlier_lines(path, about, texts)
        missing = sorted(texts.keys() - lines.keys(), key=lambda row: (-len(texts[row]), row))
        done = len(texts) - len(missing)
        try:
            with progress.bar(total=len(texts), initial=done, desc="labels", unit="text", leave=False) as bar:
                for start in range(0, len(missing), batch_size):
                    batch = {row: texts[row] for row in missing[start : start + batch_size]}
                    answered = _ask(teacher, batch, check, retries, about)
                    append(path, answered)
                    lines |= {line["id"]: line for line in answered}
                    bar.update(len(batch))
                    if all(line["status"] == "failed" for line in answered):
                        break
        except KeyboardInterrupt:
            count = f"{sum(row in lines for row in texts)} of {len(texts)} rows are in {progress.near(path)}"
            raise Interrupted(f"interrupted: {count}; run the same command again to resume") from None
    labels = {row: lines[row]["label"] for row in texts if row in lines and lines[row]["status"] == "ok"}
    others = {row: lines[row]["reason"] if row in lines else NOT_ASKED for row in texts if row not in labels}
    asked = sum(row in lines for row in missing)
    return Labels(labels, others, asked, reused=done, seconds=time.perf_counter() - started)


def _texts(rows: Iterable[dict]) -> dict[str, str]:
    """Return {id: document}. Raises SummkitError for a row without a text or with the id of another row."""
    texts: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if reason := reason_unusable(row.get("document")):
            raise SummkitError(f"row {number}: the document cannot be used ({reason}); leave the row out")
        identity = row_id(row.get("id"), f"row:{number}")
        if identity in texts:
            raise SummkitError(f"row {number}: the id {identity!r} is not unique; give each row its own id")
        texts[identity] = row["document"]
    if not texts:
        raise SummkitError("there are no rows to label")
    return texts


def _ask(teacher: Teacher, texts: dict[str, str], check: Check, retries: int, about: dict[str, Any]) -> list[dict]:
    """Return the lines of a batch, after as many attempts as needed."""
    lines: dict[str, dict[str, Any]] = {}
    unanswered = list(texts)
    temperature = about["temperature"]
    for attempt in range(retries + 1):
        if attempt:
            temperature = max(RETRY_TEMPERATURE, about["temperature"])
            if any(lines[row]["status"] == "failed" for row in unanswered):
                time.sleep(PAUSE * 2 ** (attempt - 1))
        documents = [texts[row] for row in unanswered]
        answers = teacher.ask(documents, temperature=temperature, seed=about["seed"] + attempt)
        for row, answer in zip(unanswered, answers, strict=True):
            raw = answer.encode("utf-8", "replace").decode()  # a lone surrogate could not be written
            text = without_thinking(raw)
            reason = "thinking" if text is None else getattr(answer, "reason", None)
            label, reason = (None, reason) if reason else check(texts[row], text or "")
            reason = reason or reason_unusable(label)
            status = "failed" if getattr(answer, "failed", False) else "set aside" if reason else "ok"
            lines[row] = {"id": row, "label": None if reason else label, "status": status, "reason": reason, "raw": raw}
            how = {"attempts": attempt + 1, "last_temperature": temperature, "text": _digest(texts[row])}
            lines[row] |= how | about
        unanswered = [row for row in unanswered if lines[row]["reason"]]
        if not unanswered:
            break
    return [lines[row] for row in texts]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _earlier_lines(path: Path, about: dict[str, Any], texts: dict[str, str]) -> dict[str, dict]:
    """Return the lines of earlier runs by id. Raises SummkitError if one does not belong to this job."""
    lines = {}
    for row, (location, line) in read(path).items():
        known = {"max_new_tokens": about["max_new_tokens"], "request": None} | line  # older lines lack them
        for key, value in about.items():
            if key not in known or known[key] != value:
                raise SummkitError(
                    f"{location}: labelled with {key} {line.get(key)!r}, now {value!r} is asked for; choose another "
                    "file, or delete this one to label everything again"
                )
        if not isinstance(line.get("label") if line.get("status") == "ok" else line.get("reason"), str):
            raise SummkitError(f"{location}: neither a label nor a reason; delete the line to label the row again")
        if row in texts and line.get("text") != _digest(texts[row]):
            raise SummkitError(f"{location}: the row {row!r} had another text; choose another file, or another id")
        if line["status"] != "failed":
            lines[row] = line
    return lines


def append(path: Path, lines: list[dict]) -> None:
    """Add lines, each with a text "id" as its first key, and return when they are on the disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SummkitError(f"cannot write {path}: {error.strerror}; fix that, or choose another file") from None


def read(path: Path) -> dict[str, tuple[str, dict]]:
    """Read all lines; the caller must hold the lock.

    Args:
        path: The file, which may be missing.

    Returns:
        {id: ("file, line number", line)}.

    Raises:
        SummkitError: A line is not a JSON object with an id, or repeats the id of an earlier line that did not fail.
    """
    lines: dict[str, tuple[str, dict]] = {}
    try:
        content = path.read_bytes() if path.exists() else b""
        *complete, torn = content.split(b"\n")
        for number, raw in enumerate(complete, 1):
            location = f"{path}, line {number}"
            line = _parse(raw)
            if line is None:
                raise SummkitError(f"{location}: broken; delete the line to process the row again")
            if line["id"] in lines and lines[line["id"]][1].get("status") != "failed":
                raise SummkitError(f"{location}: {line['id']!r} is in an earlier line too; delete one of them")
            lines[line["id"]] = (location, line)
        if not torn.startswith(_LINE_START[: len(torn)]):
            raise SummkitError(f"{path}: the text after line {len(complete)} is not a label; choose another file")
        if torn:
            os.truncate(path, len(content) - len(torn))
    except OSError as error:
        raise SummkitError(f"cannot continue {path}: {error.strerror}; choose another file") from None
    return lines


def _parse(raw: bytes) -> dict | None:
    try:
        line = json.loads(raw)
        return line if isinstance(line["id"], str) else None
    except (ValueError, RecursionError, TypeError, KeyError):
        return None


def label_file(
    file: str | Path,
    out: str | Path,
    *,
    teacher: str | None = None,
    url: str | None = None,
    model: str | None = None,
    wording: str = "topics",
    examples: str | Path | None = None,
    profile: str = "auto",
    **request: Any,
) -> Labels:
    """Label a JSON lines file.

    Args:
        file: The file, with an id and a document (or abstract, …) in each row.
        out: The file of labels.
        teacher: A model to load here, or a name in TEACHERS; if it and `url` are None, the profile's teacher.
        url: The URL of a server to use instead.
        model: The model's name at `url`.
        wording: A name in `templates.WORDINGS`.
        examples: A JSON lines file of documents with answers, as examples in the prompt.
        profile: Sets the length limits and the precision.
        **request: Changes of the requests to `url`: `without`, `rename` and `extra` of `EndpointTeacher`.

    Returns:
        The labels.

    Raises:
        SummkitError: The call is contradictory, or a file cannot be used; see `label_rows`.
    """
    is_registered = teacher in TEACHERS
    if (url and teacher) or (bool(url) != bool(model) and not is_registered):
        raise SummkitError("name one teacher: either a model to load here, or a url together with a model")
    request = {name: value for name, value in request.items() if value}
    if request and not url:
        raise SummkitError(f"{', '.join(request)}: these change the requests to a url, and none was named")
    if Path(file).resolve() == Path(out).resolve():
        raise SummkitError(f"{out}: the labels need a file of their own")
    rows = [{"id": row.get("id"), "document": document} for _, row, document in _documents(file)]
    shown = tuple(_example(*example) for example in _documents(examples)) if examples else ()
    asked = dataclasses.replace(templates.get_wording(wording), examples=shown)
    make_teacher = TEACHERS["endpoint" if url else teacher if teacher and is_registered else "local"]
    name = model if url or is_registered else teacher
    answering = make_teacher(name, url, choose_profile(profile, task="topics"), asked, **request)
    return label_rows(rows, answering, out, check=answer_checker(wording, shown))


def answer_checker(wording: str, examples: Iterable[tuple[str, str]] = ()) -> Check:
    """Make the `check` of a labelling job.

    Args:
        wording: A name in `templates.WORDINGS`. Topics have a fixed format; other answers may be any text.
        examples: The examples in the prompt. Topics that the teacher repeats from them are removed.

    Returns:
        The check.
    """
    if wording == "topics":
        shown = dataclasses.replace(templates.get_wording(wording), examples=tuple(examples))
        return lambda document, answer: topics.topic_label(document, answer, shown)
    return lambda document, answer: (" ".join(answer.split()), None)


def _documents(file: str | Path) -> Iterator[tuple[str, dict, Any]]:
    """Yield (location, row, document) for each row of a JSON lines file."""
    for number, row in enumerate(file_rows(Path(file)), 1):
        location = f"{file}, row {number}"
        yield location, row, as_text(row[find_column(row, DOCUMENT_COLUMNS, "document", location)], "user")


def _example(location: str, row: dict, document: Any) -> tuple[str, str]:
    answers = ("topics", *(name for name in SUMMARY_COLUMNS if name != "abstract"))
    answer = as_text(row[find_column(row, answers, "answer", location)], "assistant")
    if reason := reason_unusable(document) or reason_unusable(answer):
        raise SummkitError(f"{location}: the example has no text or no answer ({reason}); both are needed")
    return document, answer
