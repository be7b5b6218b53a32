"""Floor 1. What a text says, by rule: its sentences, its names and numbers, and which of those another text holds.

Standard library only, no model and no downloaded data: the rules are for English news, and their limits are stated
where they bite. Every function takes time linear in the text.
"""

import re
import unicodedata
from decimal import Decimal

_TITLES = frozenset("mr mrs ms dr prof rev hon gen col lt sgt capt gov sen rep st mt vs v".split())
_SHORT = frozenset("jr sr inc ltd co corp etc jan feb mar apr jun jul aug sep sept oct nov dec".split())
# Words that open sentences or carry a title: a capital on them makes no name.
_PLAIN = frozenset(
    "a about after all although an and are as at back be because before being both but by can could did do does during "
    "each earlier every few first five for former four from had has have he her here his how i if in into is it its "
    "last leading let many more most my new no not now of off on one only or other our out over plans police senior "
    "several she should six so some such than that the their then there these they this those three to today two under "
    "until up veteran was we were what when where which while who why will with would yes you your "
    "mr mrs ms miss dr prof sir dame lord lady".split()
)
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen".split()
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SPELT = {word: value for value, word in enumerate(_UNITS)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}
_SPELT |= {f"{tens}-{_UNITS[unit]}": _SPELT[tens] + unit for tens in _TENS for unit in range(1, 10)}
_SCALES = {"hundred": 2, "thousand": 3, "k": 3, "million": 6, "m": 6, "mn": 6, "billion": 9, "b": 9, "bn": 9}
_SCALES |= {"trillion": 12, "tn": 12}

_NEWLINE = r"[\n\r\u2028\u2029]"
_BREAK = re.compile(rf"(?<![.!?…])[.!?…]++[\"'”’)\]]*+\s+|[。！？।]+[」』”]?\s*|{_NEWLINE}\s*")
_OPENING = "\"'“‘(["
_ACRONYM = r"(?:[^\W\d_]{1,2}\.){1,6}[^\W\d_]{1,2}"
_TOKEN = re.compile(
    r"(?P<number>\d+(?::\d\d)+|\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?"
    rf"|\b(?:(?:{'|'.join(_TENS)})(?:-(?:{'|'.join(_UNITS[1:10])}))?|{'|'.join(_UNITS)})\b)"
    r"(?:[ -]?(?P<scale>hundred|thousand|million|billion|trillion|[mb]n|tn)(?!\w)|(?P<letter>(?<=\d)[mbk])(?!\w))?"
    rf"|(?P<word>{_ACRONYM}(?!\w)|[^\W\d_](?:\w|['’&](?=\w))*)",
    re.IGNORECASE,
)
_POSSESSIVE = re.compile(r"['’]s$", re.IGNORECASE)


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, stripped: ended by a newline, or by an end mark before anything but a small letter.

    Titles never end one ("Mr. Bean"); acronyms, initials, months and firms ("U.S.", "J.", "Jan.", "Ltd.") only before a
    word that opens sentences ("The"). Text without capitals is therefore split at newlines only.
    """
    return [text[start:end].strip() for start, end in _sentences(text)]


def _sentences(text: str) -> list[tuple[int, int]]:
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
    if initial or before.lower() in _SHORT or re.fullmatch(_ACRONYM, before):
        return re.match(r"\w*", after)[0].lower() in _PLAIN
    return True


def lead(document: str, k: int) -> str:
    """The first `k` sentences of `document`, one a line (the form that ROUGE-Lsum reads): the summary to beat."""
    return "\n".join(split_sentences(document)[:k])


def facts(summary: str) -> list[tuple[int, int, object]]:
    """The summary's names and numbers, as (start, end, key): decided from the summary alone, so that an invented name
    counts as much as a true one, and a summary's total does not depend on the article.

    A number is any figure ("1,000", "£1.5m") or a number word but a bare "one". A name is a word with a capital. What
    opens a sentence or a quotation counts only where its form says more: a second capital ("BBC"), a possessive, or
    another capitalised word right after it ("Adam Voges"). Openers ("The", "Former") and titles ("Mr") never count.
    Text in title case or in capitals has too many "names", text without capitals has none.
    """
    openers = {token.start() for span in _sentences(summary) if (token := _TOKEN.search(summary, *span))}
    found, last = [], 0
    for token in _TOKEN.finditer(summary):
        opens = token.start() in openers or bool(re.search(r":|,\s*[\"“'‘]", summary[last : token.start()]))
        last = token.end()
        if _is_number(token) if token["number"] else _is_name(token, opens):
            possessive = _POSSESSIVE.search(token[0])
            end = token.start() + possessive.start() if possessive else last
            found.append((token.start(), end, _key(token)))
    return found


def _is_number(token: re.Match) -> bool:
    return bool(token["scale"]) or token["number"].lower() != "one"


def _is_name(token: re.Match, opens: bool) -> bool:
    word = token["word"]
    shouted = word.isupper() and len(word) > 1
    if word == word.lower() or (not shouted and _key(token).split("'")[0] in _PLAIN):
        return False
    if not opens or _POSSESSIVE.search(word) or sum(letter.isupper() for letter in word) > 1:
        return True
    after = token.string[token.end() : token.end() + 2]
    return after[:1] in (" ", "-") and after[1:].isupper()


def _key(token: re.Match):
    """What is compared: of a number its value, of a word its letters without case, accents, dots and possessive."""
    if token["word"]:
        bare = _POSSESSIVE.sub("", token["word"]).replace("’", "'").replace(".", "")
        return "".join(c for c in unicodedata.normalize("NFKD", bare) if not unicodedata.combining(c)).casefold()
    digits = token["number"].lower().replace(",", "")
    if ":" in digits or len(digits) > 30:  # a time of day; a serial number
        return digits
    scale = (token["scale"] or token["letter"] or "").lower()
    return Decimal(_SPELT.get(digits, digits)) * 10 ** _SCALES.get(scale, 0)


def _held(document: str) -> set:
    """The keys of all that the document names or counts: words with a capital, and numbers."""
    keys = set()
    for token in _TOKEN.finditer(document):
        if token["number"] or token["word"] != token["word"].lower():
            keys.add(_key(token))
        if token["letter"]:  # "100m" may be metres as well as millions
            keys.add(Decimal(token["number"].replace(",", "")))
    return keys


def _checked(summary: str, document: str) -> list[tuple[int, int, bool]]:
    held = _held(document)
    return [(start, end, key in held) for start, end, key in facts(summary)]


def supported_facts(summary: str, document: str) -> tuple[int, int]:
    """(how many of the summary's `facts` stand in the document, how many there are).

    A name must stand there with a capital ("US" is not "us"), a number with the same value ("two" is 2, "£1.5million"
    is 1,500,000). This says where a word comes from, not whether the sentence is true: words are taken one by one (one
    man's first name with another's surname passes), units and currencies are not compared, small numbers are often
    there by chance, and a true fact from outside the article, or "Scottish" for its "Scotland", counts as unsupported.
    """
    found = [supported for _, _, supported in _checked(summary, document)]
    return sum(found), len(found)


def unsupported_spans(summary: str, document: str) -> list[tuple[int, int]]:
    """Where in the summary, (start, end) in characters and in order, a name or number is not in the document."""
    return [(start, end) for start, end, supported in _checked(summary, document) if not supported]
