"""Floor 7. A teacher's answers as labels: a job that can be stopped and goes on, and data to train a student on.

The job writes one JSON line a row, with all that the answer depends on, so that no row is paid for twice and answers to
different prompts or from different models never end up in one file.
"""

import dataclasses
import hashlib
import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from summkit import progress
from summkit.config import choose_profile
from summkit.data import templates
from summkit.data.checks import reason_unusable
from summkit.data.columns import DOCUMENT_COLUMNS, SUMMARY_COLUMNS, find_column
from summkit.data.registry import SPLITS
from summkit.data.splits import row_id
from summkit.data.streaming import json_rows
from summkit.distillation import ledger, teachers, topics
from summkit.errors import SummkitError
from summkit.evaluation.intervals import score_entry

RETRY_TEMPERATURE = 0.3  # at 0 a teacher would only repeat its answer


@dataclass(frozen=True)
class Labels:
    """{id: label}, {id: reason} of the rows without one, and what it took: rows asked now, rows that had their line."""

    labels: dict[str, str]
    set_aside: dict[str, str]
    asked: int
    reused: int
    seconds: float

    def counts(self) -> dict[str, int]:
        """Rows that are labelled, and rows set aside by reason."""
        return {"labelled": len(self.labels), **Counter(self.set_aside.values())}


def label_rows(
    rows, teacher, path, *, check, batch_size: int = 32, retries: int = 2, temperature: float = 0.0, seed: int = 0
) -> Labels:
    """The teacher's labels of `rows` (id, document), written line by line to `path` as they come, longest text first.

    `check(document, answer)` gives (label, None) or (None, the reason why the answer is none); such a row is asked
    again up to `retries` times, at RETRY_TEMPERATURE and with the next seed, and then set aside. A line's
    "last_temperature" is that of the attempt it tells of. A batch is on the disk before the next is asked: whenever the
    job is stopped, the same call goes on and asks no row again that has its line.
    Raises SummkitError for rows that cannot be asked, for a file of another prompt, model, length,
    temperature, seed or text, for a broken one, and where another process writes it; KeyboardInterrupt with what to do.
    """
    path, started, texts = Path(path), time.perf_counter(), _texts(rows)
    about = {key: teacher.about.get(key) for key in ("model", "revision", "prompt")}
    about |= {"max_new_tokens": getattr(teacher, "max_new_tokens", None), "temperature": temperature, "seed": seed}
    with ledger.one_process(path):
        lines = _earlier(path, about, texts)
        missing = sorted((row for row in texts if row not in lines), key=lambda row: (-len(texts[row]), row))
        ledger.append(path, [])  # a file that cannot be written is found out before anything is asked
        bar = progress.bar(total=len(texts), initial=len(texts) - len(missing), desc="labels", unit="text", leave=False)
        try:
            with bar:
                for start in range(0, len(missing), batch_size):
                    part = {row: texts[row] for row in missing[start : start + batch_size]}
                    answered = _ask(teacher, part, check, retries, about)
                    ledger.append(path, answered)
                    lines |= {line["id"]: line for line in answered}
                    bar.update(len(part))
        except KeyboardInterrupt:
            done = f"{sum(row in lines for row in texts)} of {len(texts)} rows are in {progress.near(path)}"
            raise KeyboardInterrupt(f"interrupted: {done}; the same again goes on from there") from None
    found = [lines[row] for row in texts]
    return Labels(
        {line["id"]: line["label"] for line in found if line["status"] == "ok"},
        {line["id"]: line["reason"] for line in found if line["status"] != "ok"},
        len(missing), len(texts) - len(missing), time.perf_counter() - started,
    )  # fmt: skip


def _texts(rows) -> dict[str, str]:
    """{id: document}. Raises SummkitError for a row without a text or with another row's id, by its number."""
    texts: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if reason := reason_unusable(row.get("document")):
            raise SummkitError(f"row {number}: the document is no text to ask about ({reason}); leave the row out")
        identity = row_id(row.get("id"), f"row:{number}")
        if identity in texts:
            raise SummkitError(f"row {number}: the id {identity!r} is another row's too; give each row its own")
        texts[identity] = row["document"]
    if not texts:
        raise SummkitError("there are no rows to label")
    return texts


def _ask(teacher, texts: dict[str, str], check, retries: int, about: dict) -> list[dict]:
    """The lines of a batch, after as many attempts as its answers needed."""
    lines, unanswered = {}, list(texts)
    for attempt in range(retries + 1):
        temperature = max(RETRY_TEMPERATURE, about["temperature"]) if attempt else about["temperature"]
        asked = [texts[row] for row in unanswered]
        answers = teacher.ask(asked, temperature=temperature, seed=about["seed"] + attempt)
        for row, answer in zip(unanswered, answers, strict=True):
            raw = answer.encode("utf-8", "replace").decode()  # half a character could not be written
            found, reason = check(texts[row], raw)
            reason = reason or reason_unusable(found)
            lines[row] = {
                "id": row, "label": None if reason else found, "status": "set aside" if reason else "ok",
                "reason": reason, "raw": raw, "attempts": attempt + 1, "last_temperature": temperature,
                "text": _digest(texts[row]), **about,
            }  # fmt: skip
        unanswered = [row for row in unanswered if lines[row]["reason"]]
        if not unanswered:
            break
    return [lines[row] for row in texts]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _earlier(path: Path, about: dict, texts: dict[str, str]) -> dict[str, dict]:
    """The lines of earlier runs by id. Raises SummkitError where one is not of this job."""
    lines = {}
    for row, (where, line) in ledger.read(path).items():
        for key, value in about.items():
            if key == "max_new_tokens" and key not in line:
                continue  # written before it was kept
            if key not in line or line[key] != value:
                raise SummkitError(
                    f"{where}: labelled with {key} {line.get(key)!r}, asked for now is {value!r}; choose another file, "
                    "or delete this one to label everything again"
                )
        if not isinstance(line.get("label") if line.get("status") == "ok" else line.get("reason"), str):
            raise SummkitError(f"{where}: neither a label nor a reason; delete the line, and its row is asked again")
        if row in texts and line.get("text") != _digest(texts[row]):
            raise SummkitError(f"{where}: the row {row!r} had another text then; choose another file, or another id")
        lines[row] = line
    return lines


def label_file(
    file, out, *, teacher: str | None = None, url: str | None = None, model: str | None = None,
    wording: str = "topics", examples=None, profile: str = "auto",
) -> Labels:  # fmt: skip
    """Label a JSON lines file of id and document (or abstract, …) into `out`, with a model here or behind `url`.

    `url` needs the `model`'s name there. `examples` is a JSON lines file of documents and their answers, shown to the
    teacher before each question. Length limits and precision are the profile's, and the teacher, where none is named.
    """
    if bool(url) != bool(model) or (url and teacher):
        raise SummkitError("who labels? either a teacher that is loaded here, or a url together with a model")
    if Path(file).resolve() == Path(out).resolve():
        raise SummkitError(f"{out}: the labels need a file of their own")
    rows = [
        {"id": row.get("id"), "document": row[find_column(row, DOCUMENT_COLUMNS, "document", f"{file}, row {number}")]}
        for number, row in enumerate(json_rows(Path(file)), 1)
    ]
    shown = ()
    if examples:
        rows_shown = enumerate(json_rows(Path(examples)), 1)
        shown = tuple(_example(row, f"{examples}, row {number}") for number, row in rows_shown)
    said = dataclasses.replace(templates.get_wording(wording), examples=shown)
    chosen = choose_profile(profile, task="topics")
    if url:
        asked = teachers.EndpointTeacher(url, model, said, max_new_tokens=chosen.max_new_tokens)
    else:
        progress.quiet_libraries()
        asked = teachers.LocalTeacher.load(teacher or chosen.teacher or chosen.model, chosen, said)
    return label_rows(rows, asked, out, check=answer_checker(wording, shown))


def answer_checker(wording: str, examples=()):
    """What `label` takes as `check` for answers to one of `templates.WORDINGS`: topics have a form, others any text.

    `examples` are those that the teacher is shown: what it repeats from them is no topic of another text.
    """
    if wording == "topics":
        shown = dataclasses.replace(templates.get_wording(wording), examples=tuple(examples))
        return lambda document, answer: topics.topic_label(document, answer, shown)
    return lambda document, answer: (" ".join(answer.split()), None)


def _example(row: dict, location: str) -> tuple[str, str]:
    document = row[find_column(row, DOCUMENT_COLUMNS, "document", location)]
    answers = ("topics", *(name for name in SUMMARY_COLUMNS if name != "abstract"))
    answer = row[find_column(row, answers, "answer", location)]
    reason = reason_unusable(document) or reason_unusable(answer)
    if reason:
        raise SummkitError(f"{location}: the example has no text or no answer ({reason}); both are needed")
    return document, answer


def agreement(first: Labels, second: Labels, seed: int = 0) -> dict:
    """How far a teacher agrees with itself, over the rows that both have: the ceiling of what a student can learn.

    {"topic_f1": {"mean", "low", "high"}, 0 to 100, with a 95 % interval over rows, "identical": share of equal labels,
    0 to 1, "n": rows}. Raises SummkitError where they share no row.
    """
    shared = [row for row in first.labels if row in second.labels]
    if not shared:
        raise SummkitError("no row has a label in both: ask the teacher twice about the same rows")
    ours, theirs = ([labels.labels[row] for row in shared] for labels in (first, second))
    identical = sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(shared)
    entry = score_entry(topics.topic_f1_rows(ours, theirs), seed=seed)
    return {"topic_f1": entry, "identical": identical, "n": len(shared)}


def labelled_rows(dataset, labels: Labels):
    """The rows that have a label, as a `datasets.Dataset` of id, document and summary (the label), in their order.

    Returns it with {reason: rows left out}. Raises SummkitError where no row is left.
    """
    import datasets

    kept, left_out = [], Counter()
    for row in dataset:
        identity = str(row["id"])
        if identity in labels.labels:
            kept.append({"id": identity, "document": row["document"], "summary": labels.labels[identity]})
        else:
            left_out[labels.set_aside.get(identity, "not asked")] += 1
    if not kept:
        raise SummkitError(f"no row has a label; left out: {dict(left_out) or 'none, there were no rows'}")
    return datasets.Dataset.from_list(kept), dict(left_out)


def write_data_folder(folder, *, train, validation, test) -> Path:
    """A data folder for `train`: train.jsonl, validation.jsonl and test.jsonl, replaced once all three are written."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in {"train": train, "validation": validation, "test": test}.items():
            text = "".join(json.dumps(dict(row)) + "\n" for row in rows)
            (folder / f"{name}.part").write_text(text, encoding="utf-8")
        for name in SPLITS:
            os.replace(folder / f"{name}.part", folder / f"{name}.jsonl")
    except OSError as error:
        raise SummkitError(f"cannot write {folder}: {error.strerror}; choose another folder") from None
    return folder
