"""Split plain text into sentences by English rules, in linear time; leads and short excerpts.

This is own code because a library's splitter would change every recorded ROUGE-Lsum and baseline.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

_WORDS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_TITLES = frozenset(_WORDS["titles"].split())
_SHORT = frozenset(_WORDS["short"].split())
OPENERS = frozenset(_WORDS["openers"].split())  # a capital letter does not make them names
_NEWLINE = r"[\n\r\u2028\u2029]"
_BREAK = re.compile(rf"(?<![.!?…])[.!?…]++[\"'”’)\]]*+\s+|[。！？।]+[」』”]?\s*|{_NEWLINE}\s*")
_OPENING = "\"'“‘(["
ACRONYM = r"(?:[^\W\d_]{1,2}\.){1,6}[^\W\d_]{1,2}"


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences, which end at a newline, or at an end mark that no lower-case letter follows.

    A title never ends a sentence ("Mr. Bean"). Acronyms, initials, months and firms ("U.S.", "J.", "Jan.", "Ltd.") end
    one only before a word that often begins a sentence ("The"). Text without capitals is split at newlines only.

    Example:
        >>> split_sentences("Mr. Bean came back on Jan. 3. He was late!")
        ['Mr. Bean came back on Jan. 3.', 'He was late!']
    """
    return [text[start:end].strip() for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return the start and end of each sentence, including the white space around it."""
    start = 0
    spans = []
    for mark in _BREAK.finditer(text):
        if _ends(text, start, mark):
            spans.append((start, mark.end()))
            start = mark.end()
    return [(a, b) for a, b in [*spans, (start, len(text))] if text[a:b].strip()]


def _ends(text: str, start: int, mark: re.Match) -> bool:
    if mark[0][0] not in ".!?…" or re.search(_NEWLINE, mark[0]):
        return True
    after = text[mark.end() : mark.end() + 40].lstrip(_OPENING)
    if after[:1].islower():
        return False
    before = re.findall(r"\S*$", text[max(start, mark.start() - 20) : mark.start()])[0].lstrip(_OPENING)
    if mark[0][0] != ".":
        return True
    if before.lower() in _TITLES:
        return False
    if before.lower() in ("no", "nos"):
        return not after[:1].isdigit()
    initial = len(before) == 1 and before.isupper()
    if initial or before.lower() in _SHORT or re.fullmatch(ACRONYM, before):
        return re.findall(r"^\w*", after)[0].lower() in OPENERS
    return True


def lead(document: str, k: int) -> str:
    """Return the first `k` sentences, one per line as ROUGE-Lsum reads them: the lead baseline."""
    return "\n".join(split_sentences(document)[:k])


def excerpt(text: str, words: int = 25) -> str:
    """Return the first words of a text as a quotation, with an ellipsis if there are more.

    Without spaces between words, as in Chinese, twenty characters count as one word.
    """
    whole = " ".join(text.split())
    shown = " ".join(whole.split()[:words])[: 20 * words]
    return shown if shown == whole else f"{shown} […]"
