"""Label rows with a teacher, in a job that can be stopped and resumed, and make training data for a student.

The job writes one JSON line per row, with everything that the answer depends on, so that no row is labelled twice, and
answers to different prompts or from different models are never mixed in one file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from summkit import progress
from summkit.config import choose_profile
from summkit.data import templates
from summkit.data.checks import DOCUMENT_COLUMNS, SUMMARY_COLUMNS, find_column, reason_unusable
from summkit.data.sources import file_rows
from summkit.data.splits import row_id
from summkit.distillation import ledger, topics
from summkit.distillation.teachers import TEACHERS, Teacher
from summkit.errors import SummkitError

if TYPE_CHECKING:
    from datasets import Dataset

RETRY_TEMPERATURE = 0.3  # at 0 a teacher would only repeat its answer
# (document, answer) → (label, None), or (None, the reason why the answer is unusable).
Check = Callable[[str, str], tuple[str | None, str | None]]


@dataclass(frozen=True)
class Labels:
    """The result of a labelling job.

    Attributes:
        labels: {id: label}.
        set_aside: {id: reason} of the rows without a label.
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
    not ask again about rows in the file.

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
        KeyboardInterrupt: The job was interrupted; the message has the number of finished rows.
    """
    path = Path(path)
    started = time.perf_counter()
    texts = _texts(rows)
    about: dict[str, Any] = {key: teacher.about.get(key) for key in ("model", "revision", "prompt")}
    about |= {"max_new_tokens": teacher.max_new_tokens, "temperature": temperature, "seed": seed}
    with ledger.only_writer(path):
        lines = _earlier_lines(path, about, texts)
        missing = sorted(texts.keys() - lines.keys(), key=lambda row: (-len(texts[row]), row))
        ledger.append(path, [])  # report an unwritable file before anything is asked
        done = len(texts) - len(missing)
        try:
            with progress.bar(total=len(texts), initial=done, desc="labels", unit="text", leave=False) as bar:
                for start in range(0, len(missing), batch_size):
                    batch = {row: texts[row] for row in missing[start : start + batch_size]}
                    answered = _ask(teacher, batch, check, retries, about)
                    ledger.append(path, answered)
                    lines |= {line["id"]: line for line in answered}
                    bar.update(len(batch))
        except KeyboardInterrupt:
            count = f"{sum(row in lines for row in texts)} of {len(texts)} rows are in {progress.near(path)}"
            raise KeyboardInterrupt(f"interrupted: {count}; run the same command again to resume") from None
    return Labels(
        {row: lines[row]["label"] for row in texts if lines[row]["status"] == "ok"},
        {row: lines[row]["reason"] for row in texts if lines[row]["status"] != "ok"},
        asked=len(missing),
        reused=done,
        seconds=time.perf_counter() - started,
    )


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
        documents = [texts[row] for row in unanswered]
        answers = teacher.ask(documents, temperature=temperature, seed=about["seed"] + attempt)
        for row, answer in zip(unanswered, answers, strict=True):
            raw = answer.encode("utf-8", "replace").decode()  # a lone surrogate could not be written
            label, reason = check(texts[row], raw)
            reason = reason or reason_unusable(label)
            line = lines[row] = {"id": row, "label": None if reason else label}
            line |= {"status": "set aside" if reason else "ok", "reason": reason, "raw": raw}
            line |= {"attempts": attempt + 1, "last_temperature": temperature, "text": _digest(texts[row])} | about
        unanswered = [row for row in unanswered if lines[row]["reason"]]
        if not unanswered:
            break
    return [lines[row] for row in texts]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _earlier_lines(path: Path, about: dict[str, Any], texts: dict[str, str]) -> dict[str, dict]:
    """Return the lines of earlier runs by id. Raises SummkitError if one does not belong to this job."""
    lines = {}
    for row, (location, line) in ledger.read(path).items():
        known = {"max_new_tokens": about["max_new_tokens"]} | line  # older lines lack it
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
        lines[row] = line
    return lines


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

    Returns:
        The labels.

    Raises:
        SummkitError: The call is contradictory, or a file cannot be used; see `label_rows`.
    """
    is_registered = teacher in TEACHERS
    if (url and teacher) or (bool(url) != bool(model) and not is_registered):
        raise SummkitError("name one teacher: either a model to load here, or a url together with a model")
    if Path(file).resolve() == Path(out).resolve():
        raise SummkitError(f"{out}: the labels need a file of their own")
    rows = [{"id": row.get("id"), "document": document} for _, row, document in _documents(file)]
    shown = tuple(_example(*example) for example in _documents(examples)) if examples else ()
    asked = dataclasses.replace(templates.get_wording(wording), examples=shown)
    make_teacher = TEACHERS["endpoint" if url else teacher if teacher and is_registered else "local"]
    name = model if url or is_registered else teacher
    answering = make_teacher(name, url, choose_profile(profile, task="topics"), asked)
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
        yield location, row, row[find_column(row, DOCUMENT_COLUMNS, "document", location)]


def _example(location: str, row: dict, document: Any) -> tuple[str, str]:
    answers = ("topics", *(name for name in SUMMARY_COLUMNS if name != "abstract"))
    answer = row[find_column(row, answers, "answer", location)]
    if reason := reason_unusable(document) or reason_unusable(answer):
        raise SummkitError(f"{location}: the example has no text or no answer ({reason}); both are needed")
    return document, answer


def labelled_rows(dataset: Dataset, labels: Labels) -> tuple[Dataset, dict[str, int]]:
    """Return the labelled rows as training data for a student.

    Args:
        dataset: Rows with id and document.
        labels: The result of a labelling job.

    Returns:
        The labelled rows in order, with id, document and summary (the label), and {reason: number of dropped rows}.

    Raises:
        SummkitError: No row has a label.
    """
    import datasets

    rows = []
    left_out: Counter[str] = Counter()
    for row in dataset:
        identity = str(row["id"])
        if identity in labels.labels:
            rows.append({"id": identity, "document": row["document"], "summary": labels.labels[identity]})
        else:
            left_out[labels.set_aside.get(identity, "not asked")] += 1
    if not rows:
        raise SummkitError(f"no row has a label; left out: {dict(left_out) or 'none, there were no rows'}")
    return datasets.Dataset.from_list(rows), dict(left_out)
