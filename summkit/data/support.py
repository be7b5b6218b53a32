"""Check summaries for invented facts: which of their names and numbers are in the document.

It needs no model and no downloaded data. The rules are for English news, and each function states their limits. Every
function takes linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from summkit.data.sentences import ACRONYM, OPENERS, sentence_spans

Key = Decimal | str  # the value of a number, or the bare letters of a word

_UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_UNITS += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SPELT = {word: value for value, word in enumerate(_UNITS)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}
_SPELT |= {f"{tens}-{_UNITS[unit]}": _SPELT[tens] + unit for tens in _TENS for unit in range(1, 10)}
_SCALES = {"hundred": 2, "thousand": 3, "k": 3, "million": 6, "m": 6, "mn": 6, "billion": 9, "b": 9, "bn": 9}
_SCALES |= {"trillion": 12, "tn": 12}

# Only ASCII letters are compared without case in number words: Turkish NİNE is no nine, nor is old ſix a six.
_TOKEN = re.compile(
    r"(?P<number>\d+(?::\d\d)+|\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?"
    rf"|\b(?a:(?:{'|'.join(_TENS)})(?:-(?:{'|'.join(_UNITS[1:10])}))?|{'|'.join(_UNITS)})\b)"
    r"(?:[ -]?(?P<scale>(?a:hundred|thousand|million|billion|trillion|[mb]n|tn))(?!\w)|(?P<letter>(?<=\d)[mbk])(?!\w))?"
    rf"|(?P<word>{ACRONYM}(?!\w)|[^\W\d_](?:\w|['’&](?=\w))*)",
    re.IGNORECASE,
)
_POSSESSIVE = re.compile(r"['’]s$", re.IGNORECASE)


def names_and_numbers(summary: str) -> list[tuple[int, int, Key]]:
    """Find the names and numbers of a summary.

    Only the summary is used, so an invented name counts as much as a true one, and the total does not depend on the
    article. A number is any figure ("1,000", "£1.5m") or a number word except "one" alone. A name is a word with a
    capital. The first word of a sentence or a quotation counts only with further evidence: a second capital ("BBC"), a
    possessive, or another capitalised word right after it ("Adam Voges"). Openers ("The", "Former") and titles ("Mr")
    never count. Text in title case or in capitals has too many "names", text without capitals has none.

    Args:
        summary: The text.

    Returns:
        (start, end, key) in characters and in order; equal keys are the same name or number.

    Example:
        >>> [(start, end) for start, end, _ in names_and_numbers("The man met Sam Sodje in 2016.")]
        [(12, 15), (16, 21), (25, 29)]
    """
    openers = {token.start() for span in sentence_spans(summary) if (token := _TOKEN.search(summary, *span))}
    spans: list[tuple[int, int, Key]] = []
    last = 0
    for token in _TOKEN.finditer(summary):
        opens = token.start() in openers or bool(re.search(r":|,\s*[\"“'‘]", summary[last : token.start()]))
        last = token.end()
        if _is_number(token) if token["number"] else _is_name(token, opens):
            possessive = _POSSESSIVE.search(token[0])
            end = token.start() + possessive.start() if possessive else last
            spans.append((token.start(), end, _key(token)))
    return spans


def supported_facts(summary: str, document: str) -> tuple[int, int]:
    """Count the summary's names and numbers that are in the document.

    A name must be in the document with a capital ("US" is not "us"), a number with the same value ("two" is 2,
    "£1.5million" is 1,500,000). This checks the source of words, not the truth of the sentence: words are checked one
    by one (one man's first name with another's surname passes), units and currencies are not compared, small numbers
    often match by chance, and a true fact that the article lacks, or "Scottish" for "Scotland", is unsupported.

    Args:
        summary: The text to check.
        document: The text that is summarised.

    Returns:
        (number of supported names and numbers, number of all).

    Example:
        >>> supported_facts("It was Sam, aged 38", "Sam Sodje, 37, denied fraud.")
        (1, 2)
    """
    supported = [is_supported for _, _, is_supported in _checked(summary, document)]
    return sum(supported), len(supported)


def unsupported_spans(summary: str, document: str) -> list[tuple[int, int]]:
    """Return the names and numbers of the summary that the document lacks: (start, end) in characters, in order."""
    return [(start, end) for start, end, is_supported in _checked(summary, document) if not is_supported]


def best_supported(summaries: Sequence[str], document: str) -> int:
    """Choose among several summaries of a document without a reference.

    The first criterion is the number of names and numbers that the document lacks. The second is the agreement with the
    other summaries, the mean F1 of words in common: several answers of a model agree on what is likely, and each
    invents something else. A supported name or number adds 0.03 to the agreement, because otherwise a summary without
    any would be the safest. An empty summary is chosen only if all are empty.

    Args:
        summaries: The candidates.
        document: The text that they summarise.

    Returns:
        The position of the best one, from 0.

    Example:
        >>> candidates = ["Sam Sodje won in Rome.", "Sam Sodje denied it.", "A man denied fraud.", "He denied it."]
        >>> best_supported(candidates, "Sam Sodje, 37, denied fraud.")
        1
    """
    words = [Counter(re.findall(r"\w+", summary.casefold())) for summary in summaries]

    def quality(number: int) -> tuple[bool, int, float]:
        own = words[number]
        agreement = np.mean([2 * (own & other).total() / max(1, own.total() + other.total()) for other in words])
        supported, named = supported_facts(summaries[number], document)
        return bool(own), supported - named, float(agreement) + 0.03 * supported

    return max(range(len(summaries)), key=quality)


def _checked(summary: str, document: str) -> list[tuple[int, int, bool]]:
    keys = _document_keys(document)
    return [(start, end, key in keys) for start, end, key in names_and_numbers(summary)]


def _is_number(token: re.Match) -> bool:
    return bool(token["scale"]) or token["number"].lower() != "one"


def _is_name(token: re.Match, opens: bool) -> bool:
    word = token["word"]
    in_capitals = word.isupper() and len(word) > 1
    if word == word.lower() or (not in_capitals and str(_key(token)).split("'")[0] in OPENERS):
        return False
    if not opens or _POSSESSIVE.search(word) or sum(letter.isupper() for letter in word) > 1:
        return True
    after = token.string[token.end() : token.end() + 2]
    return after[:1] in (" ", "-") and after[1:].isupper()


def _key(token: re.Match) -> Key:
    """Return the key to compare: a number's value, or a word without case, accents, dots and possessive."""
    if token["word"]:
        bare = _POSSESSIVE.sub("", token["word"]).replace("’", "'").replace(".", "")
        return "".join(c for c in unicodedata.normalize("NFKD", bare) if not unicodedata.combining(c)).casefold()
    digits = token["number"].lower().replace(",", "")
    if ":" in digits or len(digits) > 30:  # a time of day; a serial number
        return digits
    scale = (token["scale"] or token["letter"] or "").lower()
    return Decimal(_SPELT.get(digits, digits)) * 10 ** _SCALES.get(scale, 0)


def _document_keys(document: str) -> set[Key]:
    """Return the keys of all words with a capital and all numbers."""
    keys: set[Key] = set()
    for token in _TOKEN.finditer(document):
        if token["number"] or token["word"] != token["word"].lower():
            keys.add(_key(token))
        if token["letter"]:  # "100m" may be metres as well as millions
            keys.add(Decimal(token["number"].replace(",", "")))
    return keys
