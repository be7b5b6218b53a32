"""Plain text: sentences, the first of them, and short excerpts. English rules, standard library only, linear time."""

import re

_TITLES = frozenset("mr mrs ms dr prof rev hon gen col lt sgt capt gov sen rep st mt vs v".split())
_SHORT = frozenset("jr sr inc ltd co corp etc jan feb mar apr jun jul aug sep sept oct nov dec".split())
# Words that open sentences or carry a title: a capital on them makes no name.
OPENERS = frozenset(
    "a about after all although an and are as at back be because before being both but by can could did do does during "
    "each earlier every few first five for former four from had has have he her here his how i if in into is it its "
    "last leading let many more most my new no not now of off on one only or other our out over plans police senior "
    "several she should six so some such than that the their then there these they this those three to today two under "
    "until up veteran was we were what when where which while who why will with would yes you your "
    "mr mrs ms miss dr prof sir dame lord lady".split()
)
_NEWLINE = r"[\n\r\u2028\u2029]"
_BREAK = re.compile(rf"(?<![.!?…])[.!?…]++[\"'”’)\]]*+\s+|[。！？।]+[」』”]?\s*|{_NEWLINE}\s*")
_OPENING = "\"'“‘(["
ACRONYM = r"(?:[^\W\d_]{1,2}\.){1,6}[^\W\d_]{1,2}"


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, stripped: ended by a newline, or by an end mark before anything but a small letter.

    Titles never end one ("Mr. Bean"); acronyms, initials, months and firms ("U.S.", "J.", "Jan.", "Ltd.") only before a
    word that opens sentences ("The"). Text without capitals is therefore split at newlines only.
    """
    return [text[start:end].strip() for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    start, spans = 0, []
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
    before = re.search(r"\S*$", text[max(start, mark.start() - 20) : mark.start()])[0].lstrip(_OPENING)
    if mark[0][0] != ".":
        return True
    if before.lower() in _TITLES:
        return False
    if before.lower() in ("no", "nos"):
        return not after[:1].isdigit()
    initial = len(before) == 1 and before.isupper()
    if initial or before.lower() in _SHORT or re.fullmatch(ACRONYM, before):
        return re.match(r"\w*", after)[0].lower() in OPENERS
    return True


def lead(document: str, k: int) -> str:
    """The first `k` sentences of `document`, one a line (the form that ROUGE-Lsum reads): the summary to beat."""
    return "\n".join(split_sentences(document)[:k])


def excerpt(text: str, words: int = 25) -> str:
    """The first words of a text, with an ellipsis where there are more: a quotation, not a copy."""
    parts = text.split()
    return " ".join(parts[:words]) + (" […]" if len(parts) > words else "")
