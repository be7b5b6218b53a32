"""Floor 3. Any classification set → columns `id`, `document`, `second`, `labels`, checked row by row, in three splits.

One label, several, or one for a pair of sentences: all three become text to text, the label's word being the answer.
Sets come from where summaries come from: the package index, this package, the Hub, or a local folder.
"""

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from summkit.config import Profile
from summkit.data import streaming, summarisation, templates
from summkit.data.checks import reason_unusable
from summkit.errors import SummkitError, check_known
from summkit.offline import assets

TEXT_COLUMNS = ("text", "document", "comment", "sentence", "premise", "sentence1")
SECOND_COLUMNS = ("hypothesis", "sentence2")
LABEL_COLUMNS = ("label", "labels")
EMOTIONS = (
    "admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion", "curiosity", "desire",
    "disappointment", "disapproval", "disgust", "embarrassment", "excitement", "fear", "gratitude", "grief", "joy",
    "love", "nervousness", "optimism", "pride", "realization", "relief", "remorse", "sadness", "surprise", "neutral",
)  # fmt: skip
_NEWS = ("World", "Sports", "Business", "Sci/Tech")
_INFERENCE = ("entailment", "neutral", "contradiction")
_YES_MAYBE_NO = ("yes", "maybe", "no")


@dataclass(frozen=True)
class Schema:
    """Class names in the order of a set's label numbers, and the words that a model answers with."""

    classes: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A task whose answer is a label. `wording` names the inputs; "{words}" in it becomes the list of label words.

    `hub` is the set whose schema a local folder has, unless the folder brings a classes.txt of its own.
    """

    hub: str
    wording: templates.Wording
    several: bool = False


STUDIES = {
    "agnews": Study(
        "fancyzhx/ag_news",
        templates.Wording("Name the topic of the following news article: {words}.", answer="Topic"),
    ),
    "goemotions": Study(
        "google-research-datasets/go_emotions",
        templates.Wording("Name an emotion that the following comment expresses.", "Comment", answer="Emotion"),
        several=True,
    ),
    "mnli": Study(
        "nyu-mll/multi_nli",
        templates.Wording(
            "Does the hypothesis follow from the premise? Answer with {words}.", "Premise", "Hypothesis", "Answer"
        ),
    ),
}
_EMOTION_SCHEMA = Schema(EMOTIONS, EMOTIONS)
SCHEMAS = {
    "fancyzhx/ag_news": Schema(_NEWS, ("world", "sports", "business", "technology")),
    "topics-sample": Schema(_NEWS, ("world", "sports", "business", "technology")),
    "bbc-topics": Schema(
        ("business", "entertainment", "politics", "sports", "tech"),
        ("business", "entertainment", "politics", "sports", "technology"),
    ),
    "google-research-datasets/go_emotions": _EMOTION_SCHEMA,
    "emotions-sample": _EMOTION_SCHEMA,
    "nyu-mll/multi_nli": Schema(_INFERENCE, _YES_MAYBE_NO),
    "pairs-sample": Schema(_INFERENCE, _YES_MAYBE_NO),
    "rte-and-cb": Schema(("entailment", "not entailment"), ("yes", "no")),
}
_FILES = {"topics-sample": "topics", "emotions-sample": "emotions", "pairs-sample": "pairs"}
WITHOUT_HUB = (*_FILES, "rte-and-cb")  # beside the embedded assets
# Where a set of the Hub has its splits; what is missing here is taken from its training rows.
_SPLITS = {
    "fancyzhx/ag_news": {"train": "train", "test": "test"},
    "nyu-mll/multi_nli": {"train": "train", "test": "validation_matched"},
}


@dataclass
class LabelledSplits(summarisation.Splits):
    """Three `datasets.Dataset` of id, document, second ("" where there is none) and labels, a list of class numbers."""

    schema: Schema = field(default_factory=lambda: Schema((), ()))


def load_labels(profile: Profile, seed: int = 0, data_dir: str | Path | None = None) -> LabelledSplits:
    """The set of the profile's task, every row checked, no text in two splits.

    Dropped and counted by reason: unusable texts, rows without a label, duplicates, every copy of a text that stands
    there with different labels, and the only row of a class. `data_dir` (or SUMMKIT_DATA_DIR) lets a folder stand in,
    with the label numbers of the Hub's set or of its own classes.txt, a name a line.
    Raises SummkitError where a column is missing, a label is outside the schema, or too few rows are left.
    """
    check_known("task with labels", profile.task, STUDIES)
    data_dir = data_dir or os.environ.get("SUMMKIT_DATA_DIR")
    study, schema = STUDIES[profile.task], _schema(profile, data_dir)
    raw, source = (summarisation.read_folder(Path(data_dir)), "local") if data_dir else _read_known(profile.dataset)
    dropped: dict[str, list[str]] = {}
    find, made = partial(_columns, pair=bool(study.wording.second)), partial(_row, study=study, schema=schema)
    checked = {name: summarisation.clean(rows, name, find, made, dropped) for name, rows in raw.items()}
    _drop_conflicts(checked, dropped)
    summarisation.drop_duplicates(checked, dropped)
    if not study.several:
        _drop_lone_classes(checked, dropped)
    return LabelledSplits(**summarisation.deal(checked, profile, seed), source=source, dropped=dropped, schema=schema)


def label_template(profile: Profile, tokenizer, schema: Schema) -> templates.Template:
    """The template of the profile's task, its instruction naming the schema's label words where the task does."""
    wording = STUDIES[profile.task].wording
    words = ", ".join(schema.words[:-1]) + f" or {schema.words[-1]}"
    named = replace(wording, instruction=wording.instruction.replace("{words}", words))
    return templates.build_template(profile.template, tokenizer, named)


def labels_as_text(dataset, schema: Schema):
    """Rows for `features.encode_rows`: the label's word as the summary. A row with several labels comes once for each.

    So the order of a row's labels says nothing, and the words' probabilities share what belongs to the row.
    """
    given = {"words": schema.words}
    return dataset.map(_worded, batched=True, fn_kwargs=given, remove_columns=dataset.column_names, desc="labels")


def _worded(rows: dict, words: tuple[str, ...]) -> dict:
    """A batch of rows, by column."""
    pairs = [(number, label) for number, labels in enumerate(rows["labels"]) for label in labels]
    columns = {key: [rows[key][number] for number, _ in pairs] for key in ("document", "second")}
    return columns | {"summary": [words[label] for _, label in pairs]}


def _schema(profile: Profile, data_dir) -> Schema:
    if not data_dir:
        check_known("data set with labels", profile.dataset, SCHEMAS)
        return SCHEMAS[profile.dataset]
    names = Path(data_dir) / "classes.txt"
    if not names.is_file():
        return SCHEMAS[STUDIES[profile.task].hub]
    try:
        lines = names.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SummkitError(f"{names.name}: not a text in UTF-8 ({error})") from None
    classes = tuple(line.strip() for line in lines if line.strip())
    if len(classes) < 2 or len(set(map(str.lower, classes))) < len(classes):
        raise SummkitError(f"{names.name}: two or more different class names are needed, one a line; found {classes}")
    return Schema(classes, tuple(name.lower() for name in classes))


def _read_known(name: str) -> tuple[dict, str]:
    if name in _FILES:
        return {"all": summarisation.read_jsonl(Path(__file__).parent / "sets" / f"{_FILES[name]}.jsonl")}, "code"
    if name == "bbc-topics":
        rows = summarisation.read_jsonl(assets.fetch(name))
        return {"all": [{"id": row["name"], "label": row["name"].split("/")[0], **row} for row in rows]}, "embedded"
    if name == "rte-and-cb":
        return {"all": _pairs("rte") + _pairs("cb")}, "embedded"
    splits = _SPLITS.get(name, dict(zip(summarisation.SPLITS, summarisation.SPLITS, strict=True)))
    return summarisation.read_hub(name, splits), "hub"


def _pairs(name: str) -> list[dict]:
    """RTE knows two classes and CommitmentBank three: its contradictions and its neutrals do not follow either."""
    import datasets

    rows = datasets.Dataset.from_file(str(assets.fetch(name)))
    first, second = _columns(rows.column_names, name)[:2]
    return [
        {"id": f"{name}-{row['idx']}", "premise": row[first], "hypothesis": row[second], "label": int(row["label"] > 0)}
        for row in rows
    ]


def _columns(names, where: str, pair: bool = True) -> list[str]:
    kinds = {"text": TEXT_COLUMNS, "second text": SECOND_COLUMNS, "label": LABEL_COLUMNS}
    if not pair:
        del kinds["second text"]
    found = []
    for kind, known in kinds.items():
        column = next((name for name in known if name in names), None)
        if column is None:
            there = ", ".join(names) or "none"
            raise SummkitError(f"{where}: no column for the {kind}; there are: {there}; known: {', '.join(known)}")
        found.append(column)
    return found


def _row(row: dict, columns: list[str], where: str, study: Study, schema: Schema) -> dict | str:
    """For `data.clean`: `columns` are those of the text, of the second text where there is one, of the label."""
    first, *second, label = columns
    document, beside = row.get(first), row.get(second[0]) if second else "."
    labels = label_numbers(row.get(label), schema, where, study.several)
    if reason := reason_unusable(document) or reason_unusable(beside) or (None if labels else "no label"):
        return reason
    texts = {"document": document.strip(), "second": beside.strip() if second else ""}
    return {"id": summarisation.row_id(row.get("id"), where), **texts, "labels": labels}


def label_numbers(value, schema: Schema, where: str, several: bool = True) -> list[int]:
    """Class numbers, sorted, from a number, a class name or a list of them; [] where there is none (also -1, null).

    Raises SummkitError, naming `where`, for what is outside the schema, or for several labels where one is needed.
    """
    values = value if isinstance(value, list) else [] if value is None or value == -1 else [value]
    lower = [name.lower() for name in schema.classes]
    found = set()
    for item in values:
        if isinstance(item, str) and item.strip().lower() in lower:
            item = lower.index(item.strip().lower())
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < len(lower):
            known = ", ".join(f"{number} {name}" for number, name in enumerate(schema.classes))
            raise SummkitError(f"{where}: label {item!r} is outside the schema: {known}")
        found.add(item)
    if len(found) > 1 and not several:
        raise SummkitError(f"{where}: {len(found)} labels, {sorted(found)}; this task takes one label a row")
    return sorted(found)


def _drop_conflicts(checked: dict, dropped: dict) -> None:
    """No copy of a text that stands there with different labels is kept: which of them is right, nobody can say."""
    first: dict[bytes, tuple] = {}
    mixed = set()
    for rows in checked.values():
        for key, labels in streaming.column_values(rows, "key", "labels"):
            if first.setdefault(key, tuple(labels)) != tuple(labels):
                mixed.add(key)
    _keep(checked, "key", lambda key: key not in mixed, "same text with other labels", dropped)


def _drop_lone_classes(checked: dict, dropped: dict) -> None:
    counts = Counter(labels[0] for rows in checked.values() for (labels,) in streaming.column_values(rows, "labels"))
    _keep(checked, "labels", lambda labels: counts[labels[0]] > 1, "the only row of its class", dropped)


def _keep(checked: dict, *test) -> None:
    for split, rows in checked.items():
        checked[split] = summarisation.keep(rows, *test)
