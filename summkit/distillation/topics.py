"""Read topics from a model's answer and check them.

A topic is a short phrase in lower case; several topics are written in one line, "graph networks; drug design".
"""

from __future__ import annotations

import re

from summkit.data import templates

MOST_TOPICS = 8  # in an answer
MOST_LABEL_TOPICS = 5  # in a label, as in the instruction
MOST_WORDS = 8  # in one topic
ECHO_WORDS = 5  # in a row that repeat the instruction
_NO_WORDING = templates.Wording("")
_LABEL = re.compile(r"^\W*(?:main |key )?topics?\s*:", re.IGNORECASE)
_MARK = r"(?:\(?\d{1,2}[.)]|[-*•–—])"  # list marker, before a space: "2.", "(2)", "-"
_ENDS = " \t.,:\"'`*_“”‘’«»•–—-"
_FRONT = re.compile(rf"(?:[{re.escape(_ENDS)}]*(?:{_MARK}\s+)?)*")


def parse_topics(answer: str) -> list[str]:
    """Read the topics in an answer, in order, without duplicates, bullets, numbers, quotes and full stops.

    Topics are converted to lower case. They are separated by semicolons or newlines; without these, by list markers
    ("1. … 2. …"), or else by commas. Pieces without a letter, and "Topics:" at the start, are dropped.

    Args:
        answer: The model's answer.

    Returns:
        The topics.

    Example:
        >>> parse_topics("Topics: Graph Networks; drug design; graph networks.")
        ['graph networks', 'drug design']
    """
    return list(dict.fromkeys(_pieces(answer)))


def canonical_topics(topics: list[str]) -> str:
    """Return the first five topics in one line, the format that a student learns."""
    return "; ".join(topics[:MOST_LABEL_TOPICS])


def topic_label(
    document: str, answer: object, wording: templates.Wording = _NO_WORDING
) -> tuple[str | None, str | None]:
    """Check an answer in a labelling job, and make its label.

    A topic that appears in the examples of the wording, and shares no word with the document, is dropped. A small model
    often repeats itself after some good topics: the good ones are kept.

    Args:
        document: The document in the prompt.
        answer: The model's answer.
        wording: The wording of the prompt.

    Returns:
        (topics in one line, None), or (None, the reason why they cannot be used): "empty" (no topic), "echo" (five
        words in a row of the instruction, a passage of the document longer than a topic, or topics of the examples
        alone), "duplicates" (one topic repeated), "off-format" (not text, a topic of more than eight words, or more
        than eight topics).
    """
    if not isinstance(answer, str):
        return None, "off-format"
    pieces = _pieces(answer)
    if not pieces:
        return None, "empty"
    shown = " ; ".join(part for example in wording.examples for part in example).lower()
    topics = [topic for topic in dict.fromkeys(pieces) if not _is_from_examples(topic, shown, document)]
    too_long = [piece for piece in pieces if len(piece.split()) > MOST_WORDS]
    if not topics or _share_run(answer, wording.instruction, ECHO_WORDS):
        return None, "echo"
    if any(_share_run(piece, document, MOST_WORDS + 1) for piece in too_long):
        return None, "echo"
    if len(pieces) > 1 and len(set(pieces)) == 1:
        return None, "duplicates"
    if too_long or len(set(pieces)) > MOST_TOPICS:
        return None, "off-format"
    return canonical_topics(topics), None


def _pieces(answer: str) -> list[str]:
    text = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in _LABEL.sub("", answer))
    marker = rf"(?<!\S){_MARK}(?=\s)"
    separator = marker if len(re.findall(marker, text)) > 1 else ","
    if re.search(r"[;\n]", text):
        separator = r"[;\n]"
    lower = (" ".join(piece.lower().split()) for piece in re.split(separator, text))
    pieces = (_FRONT.sub("", piece, count=1).rstrip(_ENDS) for piece in lower)
    return [piece for piece in pieces if any(letter.isalpha() for letter in piece)]


def _is_from_examples(topic: str, shown: str, document: str) -> bool:
    words = set(re.findall(r"\w{3,}", document.lower()))
    return topic in shown and words.isdisjoint(re.findall(r"\w{3,}", topic))


def _share_run(a: str, b: str, length: int) -> bool:
    """Whether the two texts share `length` words in a row."""
    return bool(_runs(a, length) & _runs(b, length))


def _runs(text: str, length: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}
