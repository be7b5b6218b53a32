"""Floor 5. Topics of a text: read out of a model's answer, refused where they are none, scored, merged over chunks.

A topic is a short phrase in small letters; several stand in one line, "graph networks; drug design".
"""

import re
from collections import Counter

from summkit.data import templates
from summkit.data.checks import check_texts
from summkit.data.registry import SETS
from summkit.data.streaming import read_jsonl
from summkit.errors import SummkitError, check_known
from summkit.evaluation import metrics
from summkit.evaluation.intervals import difference_entry, mean_statistic, score_entry
from summkit.evaluation.summarisation import ended_share

MOST_TOPICS = 8
KEPT = 5  # of a label: as many as the instruction asks for
MOST_WORDS = 8  # of one topic
ECHO_WORDS = 5  # in a row out of the instruction
MEASURES = (*metrics.ROUGE_TYPES, "bleu3", "similarity", "topic_f1", "words")
_NOTHING_SHOWN = templates.Wording("")
_LABEL = re.compile(r"^\W*(?:main |key )?topics?\s*:", re.IGNORECASE)
_MARK = r"(?:\(?\d{1,2}[.)]|[-*•–—])"  # of a list's item, before a space: "2.", "(2)", "-"
_ENDS = " \t.,:\"'`*_“”‘’«»•–—-"
_FRONT = re.compile(rf"(?:[{re.escape(_ENDS)}]*(?:{_MARK}\s+)?)*")


def topic_examples(answer: str = "topics", number: int = 5) -> tuple[tuple[str, str], ...]:
    """The first `number` of five abstracts written for this tutorial, each with its answer: "topics" or "title".

    For `templates.Wording.examples`. Raises SummkitError for another answer, or a number that is not from 0 to 5.
    """
    check_known("answer of the examples", answer, ("topics", "title"))
    rows = read_jsonl(SETS / "topic_examples.jsonl")
    if not isinstance(number, int) or not 0 <= number <= len(rows):
        raise SummkitError(f"{number!r} examples asked for: there are {len(rows)}, and none is 0")
    return tuple((row["abstract"], row[answer]) for row in rows[:number])


def parse_topics(answer: str) -> list[str]:
    """The topics in `answer`, each once, in its order: lower case, without bullets, numbers, quotes and full stops.

    They are parted by semicolons or newlines; where there are none, by the marks of a list ("1. … 2. …"), else by
    commas. A piece without a letter is none. "Topics:" in front is left out.
    """
    return list(dict.fromkeys(_pieces(answer)))


def check_topics(document: str, answer: str, wording=_NOTHING_SHOWN) -> tuple[list[str], str | None]:
    """The topics in `answer`, and the reason why they cannot be used: None where they can.

    Left out is what the answer has from the examples of the `wording`: a topic that stands there and shares no word
    with the document. The reasons: "empty" (no topic), "echo" (five words in a row of the wording's instruction, a
    passage of the `document` longer than a topic, or topics of the examples alone), "duplicates" (one topic, again and
    again), "off-format" (not text, a topic of more than eight words, more than eight topics). A small model often falls
    into a loop after some good topics: these are kept.
    """
    if not isinstance(answer, str):
        return [], "off-format"
    pieces = _pieces(answer)
    shown = " ; ".join(part for example in wording.examples for part in example).lower()
    topics = [topic for topic in dict.fromkeys(pieces) if not _from_examples(topic, shown, document)]
    reasons = _reasons(document, answer, wording.instruction, pieces, topics)
    return topics, next((reason for reason, so in reasons if so), None)


def canonical_topics(topics: list[str]) -> str:
    """The first five topics in one line, as a student is trained to write them."""
    return "; ".join(topics[:KEPT])


def topic_label(document: str, answer: str, wording=_NOTHING_SHOWN) -> tuple[str | None, str | None]:
    """`check` for a labelling job: (the topics in one line, None), or (None, the reason)."""
    topics, reason = check_topics(document, answer, wording)
    return (None, reason) if reason else (canonical_topics(topics), None)


def merge_topics(lists: list[list[str]], most: int = 5) -> list[str]:
    """The topics that most of `lists` hold (one list a chunk of a long text), at most `most`; ties as they came.

    Topics that differ in capitals or in a plural's last s alone are one; it is written as it was first.
    """
    if most < 1:
        raise SummkitError(f"most={most!r}: at least 1 topic")
    named = {}
    for topic in (topic for topics in lists for topic in topics):
        named.setdefault(_singular(topic), topic)
    counts = Counter(key for topics in lists for key in dict.fromkeys(map(_singular, topics)))
    return [named[key] for key, _ in counts.most_common(most)]


def topic_f1_rows(predictions, references):
    """F1 times 100 of the two sets of topics: float array [rows]; 0 where either names none."""
    import numpy as np

    check_texts(predictions=predictions, references=references)
    pairs = [(set(parse_topics(p)), set(parse_topics(r))) for p, r in zip(predictions, references, strict=True)]
    return np.array([200 * len(p & r) / max(1, len(p) + len(r)) for p, r in pairs])


def score_topics(predictions, references, encoder, seed: int = 0, ended=None) -> dict:
    """One system's entry in a record's `scores`: each of MEASURES as {"mean", "low", "high"} (95 %, bootstrap over
    rows), then the share that the model ended itself, if `ended` says so row by row, and n.

    ROUGE, BLEU-3 and topic F1 from 0 to 100, similarity (by an `embeddings.Encoder`) from −100 to 100.
    """
    rows = _rows(predictions, references, encoder)
    statistics = {"bleu3": _bleu3(len(predictions))}
    result = {name: score_entry(rows[name], statistics.get(name, mean_statistic), seed) for name in MEASURES}
    return result | {"ended_by_eos": ended_share(ended, len(predictions)), "n": len(predictions)}


def compare_topics(a, b, references, encoder, seed: int = 0) -> dict:
    """How much the predictions `a` are above `b` on the same rows: {measure: {"difference", "low", "high"}}, a minus b.

    Paired bootstrap (95 %): an interval that leaves out 0 is a difference that these rows can show.
    """
    ours, theirs = (_rows(texts, references, encoder) for texts in (a, b))
    statistics = {"bleu3": _bleu3(len(a))}
    return {
        name: difference_entry(ours[name], theirs[name], statistics.get(name, mean_statistic), seed)
        for name in MEASURES
    }


def _rows(predictions, references, encoder) -> dict:
    """{measure: float array [rows]}; of bleu3 the counts that add up, [rows, 8]."""
    import numpy as np

    rows = metrics.rouge_rows(predictions, references)
    rows["bleu3"] = metrics.bleu3_counts(predictions, references)
    rows["similarity"] = encoder.similarity(predictions, references)
    rows["topic_f1"] = topic_f1_rows(predictions, references)
    rows["words"] = np.array([float(len(text.split())) for text in predictions])
    return rows


def _bleu3(rows: int):
    """BLEU-3 from means over `rows` rows of its counts, for the bootstrap."""
    import numpy as np

    return lambda means: metrics.bleu3_of(np.rint(rows * means))


def _pieces(answer: str) -> list[str]:
    text = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in _LABEL.sub("", answer))
    marks = re.findall(rf"(?<!\S){_MARK}(?=\s)", text)
    if re.search(r"[;\n]", text):
        found = re.split(r"[;\n]", text)
    else:
        found = re.split(rf"(?<!\S){_MARK}(?=\s)" if len(marks) > 1 else ",", text)
    clean = (_FRONT.sub("", " ".join(piece.lower().split()), count=1).rstrip(_ENDS) for piece in found)
    return [piece for piece in clean if any(letter.isalpha() for letter in piece)]


def _from_examples(topic: str, shown: str, document: str) -> bool:
    words = set(re.findall(r"\w{3,}", document.lower()))
    return topic in shown and words.isdisjoint(re.findall(r"\w{3,}", topic))


def _reasons(document: str, answer: str, instruction: str, pieces: list[str], topics: list[str]):
    long = [piece for piece in pieces if len(piece.split()) > MOST_WORDS]
    yield "empty", not pieces
    yield "echo", not topics or _shares_run(answer, instruction, ECHO_WORDS)
    yield "echo", any(_shares_run(piece, document, MOST_WORDS + 1) for piece in long)
    yield "duplicates", len(pieces) > 1 == len(set(pieces))
    yield "off-format", long or len(set(pieces)) > MOST_TOPICS


def _shares_run(text: str, source: str, length: int) -> bool:
    """Whether `length` words in a row of `text` stand in `source` too."""
    runs = (_runs(part, length) for part in (text, source))
    return not next(runs).isdisjoint(next(runs))


def _runs(text: str, length: int) -> set[tuple]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(*(words[start:] for start in range(length)), strict=False))


def _singular(topic: str) -> str:
    return re.sub(r"(?<=[^\Ws])s$", "", topic.lower())
