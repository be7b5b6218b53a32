"""Words in any language: which tokenizer suits a set of texts, and the words that it finds.

rouge-score's own tokenizer knows only a-z and 0-9, and stems English. It is used where nearly all words are written
with these letters and the commonest English words are among them, so that scores of English texts are those of
rouge-score and sacrebleu. Fewer than FEWEST_WORDS words count as English by their letters. Other texts are split at
the word boundaries of Unicode (UAX 29), which the package `regex` knows, without stemming. For scripts without spaces,
such as Chinese, Japanese and Thai, these words are single characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import regex

USUAL = "rouge-score"
WORDS = "unicode words"
CHARACTERS = "unicode characters"
OTHER_WORDS = 0.04  # the share of words beyond a-z from which on texts are not English; in English papers it is 0.03
FEWEST_WORDS = 50  # in fewer words, the lack of the commonest English words says nothing
ENGLISH_WORDS = 0.02  # the least share of common English words in English; it is 0.1 to 0.25, elsewhere 0 to 0.016
_ENGLISH = regex.compile("the|of|and|to|that|with|from|by|it|his|they|are|were|has|this|who|said|you|your|how|not|be")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
_COUNTED = regex.compile(r"[\p{L}\p{N}\p{Extended_Pictographic}\p{Regional_Indicator}]")


def choose_tokenizer(texts: Sequence[str]) -> str:
    """Return the tokenizer for texts in one language: USUAL, WORDS or CHARACTERS.

    Choose by all references of a set, so that every system is scored in the same way.

    Example:
        >>> [choose_tokenizer([text]) for text in ("The bridge is open.", "Die Brücke ist auf.", "大桥周一开放。")]
        ['rouge-score', 'unicode words', 'unicode characters']
    """
    return _tokenizer_of("\n".join(texts))


@lru_cache(maxsize=16)
def _tokenizer_of(text: str) -> str:
    words = regex.findall(r"\p{L}[\p{L}\p{M}]*", text)
    others = [word for word in words if not word.isascii()]
    if len(others) < OTHER_WORDS * len(words) or (not words and regex.search("[0-9]", text)):
        english = sum(bool(_ENGLISH.fullmatch(word.lower())) for word in words)
        return USUAL if len(words) < FEWEST_WORDS or english >= ENGLISH_WORDS * len(words) else WORDS
    return CHARACTERS if 2 * len(_UNSPACED.findall(text)) > sum(map(len, words)) else WORDS


def unicode_words(text: str) -> list[str]:
    """Return the words, numbers and emoji of a text in any script, in lower case.

    Example:
        >>> unicode_words("Die Brücke, 大桥: 3.5 km 🎉")
        ['die', 'brücke', '大', '桥', '3.5', 'km', '🎉']
    """
    parts = regex.split(r"(?V1w)\b", unicodedata.normalize("NFKC", text).lower())
    return [part for part in parts if _COUNTED.search(part)]
