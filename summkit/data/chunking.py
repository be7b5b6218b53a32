"""Cut a long text into chunks of a limited number of tokens, between sentences."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from summkit.data.sentences import split_sentences
from summkit.data.tokenisation import count_tokens
from summkit.errors import SummkitError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


def chunks(text: str, tokenizer: Tokenizer, tokens: int, overlap: int = 0) -> list[str]:
    """Cut a text into chunks.

    A sentence that is too long for a chunk is cut between words, and a word that is too long between characters.
    Only the white space at the cuts is lost.

    Args:
        text: The text; a blank one has no chunks.
        tokenizer: The tokenizer that counts the tokens.
        tokens: The largest number of tokens in a chunk.
        overlap: The largest number of tokens that a chunk repeats from the end of the chunk before, in whole sentences.

    Raises:
        SummkitError: `tokens` cannot hold a character, or `overlap` is not less than `tokens`.

    Example:
        >>> from summkit.models import tiny_tokenizer
        >>> chunks("It rained. It snowed. Then it thawed.", tiny_tokenizer(), tokens=22)
        ['It rained. It snowed.', 'Then it thawed.']
    """
    if tokens < 1 or not 0 <= overlap < tokens:
        raise SummkitError(f"chunks of tokens={tokens} with overlap={overlap}: 0 <= overlap < tokens is needed")
    units = _units(text, tokenizer, tokens)
    total = [0, *accumulate(count_tokens(tokenizer, unit) for unit in units)]
    parts = []
    first = last = 0
    while last < len(units):
        done = last
        # Try one more, since leading white space is stripped. A text may have more tokens than the sum of its pieces.
        last = max(done + 1, bisect_right(total, total[first] + tokens + 1) - 1)
        while count_tokens(tokenizer, "".join(units[first:last]).strip()) > tokens:
            if last > done + 1:
                last -= 1
            else:
                first += 1
        parts.append("".join(units[first:last]).strip())
        first = max(first + 1, bisect_left(total, total[last] - overlap))
    return parts


def _units(text: str, tokenizer: Tokenizer, tokens: int) -> list[str]:
    """Split a text into units that are not cut: sentences, or parts of a long one, each with leading white space."""
    units = []
    start = 0
    for sentence in split_sentences(text):
        end = text.index(sentence, start) + len(sentence)
        units += _cut(text[start:end], tokenizer, tokens)
        start = end
    return units


def _cut(piece: str, tokenizer: Tokenizer, tokens: int) -> list[str]:
    bare = piece.strip()
    # A text without end marks is one sentence. If it is clearly too long, it is not tokenised only to count it.
    size = tokens + 1 if len(bare) > 100 * tokens else count_tokens(tokenizer, bare)
    if size <= tokens:
        return [piece]
    if len(bare) == 1:
        raise SummkitError(f"chunks of tokens={tokens}: the character {bare!r} alone is {size} tokens; allow more")
    parts = re.findall(r"\s*\S+", piece)
    if len(parts) == 1:  # one word
        middle = len(piece) - len(bare) // 2
        parts = [piece[:middle], piece[middle:]]
    return [unit for part in parts for unit in _cut(part, tokenizer, tokens)]
