"""Floor 2. What can be taken out of a text as it stands: its named sections, the sentences that say most of it without
repeating each other, and the best sentences of all, chosen with the reference in hand (a bound, no system).
"""

import re
from collections import Counter

from summkit import progress
from summkit.facts import split_sentences

RELEVANCE = 0.7  # of a sentence's worth; the rest is what it does not repeat
_AT_ONCE = 512  # sentences
_TITLES = (
    "abstract|author summary|introduction|background|related work|(?:materials? and )?methods?|methods and materials|"
    "experiments|(?:experimental )?results|results and discussion|(?:general )?discussion|"
    "(?:discussion|summary) and conclusions?|conclusions?(?: and [a-z ]{1,30})?|concluding remarks|outlook|references|"
    "bibliography|acknowledge?ments?|supporting information|author contributions|funding|appendix(?: [a-z0-9])?"
)
_HEADING = re.compile(rf"^[^\S\n]*(?:[\dIVX]+[.)]*[^\S\n]+)?({_TITLES})[^\S\n]*[.:]?[^\S\n]*$", re.IGNORECASE | re.M)


def opening_and_closing(text: str) -> tuple[str, str]:
    """What stands under the heading of an introduction (or background), and under that of a conclusion, or else of a
    discussion; "" for what is not there.

    A heading is a line of its own, with or without a number; a section ends at the next heading that papers share, so
    that headings within it are part of it.
    """
    marks = list(_HEADING.finditer(text))
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    found = [(mark[1].lower(), text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
    opening = [body for title, body in found if title in ("introduction", "background") and body]
    closing = [body for word in ("conclu", "discussion") for title, body in found if word in title and body]
    return opening[0] if opening else "", closing[0] if closing else ""


def central(sentences: list[str], costs: list[int], most: int, encoder) -> list[int]:
    """Numbers of the sentences nearest to the centre of all, as many as `most` holds at their `costs`, in their order.

    By maximal marginal relevance (Carbonell and Goldstein 1998) over an `embeddings.Encoder`: each next one is near the
    centre and far from those that were taken before. Less than a tenth of `most` is not filled up with scraps.
    """
    import numpy as np

    vectors = _embed(sentences, encoder)
    centre = vectors.mean(axis=0)
    relevance = vectors @ (centre / max(1e-9, float(np.linalg.norm(centre))))
    repeated, costs = np.zeros(len(vectors), np.float32), np.array(costs)
    free, left, chosen = np.ones(len(vectors), dtype=bool), most, []
    while (fits := free & (costs <= left)).any() and (left > most / 10 or not chosen):
        worth = RELEVANCE * relevance - (1 - RELEVANCE) * repeated
        best = int(np.where(fits, worth, -np.inf).argmax())
        chosen.append(best)
        free[best], left = False, left - costs[best]
        repeated = np.maximum(repeated, vectors @ vectors[best])
    return sorted(chosen)


def _embed(sentences: list[str], encoder):
    """Unit vectors, float32 array [sentences, width]."""
    import numpy as np

    found = []
    with progress.bar(total=len(sentences), desc="embedding", unit="sentence", leave=False) as bar:
        for start in range(0, len(sentences), _AT_ONCE):
            part = sentences[start : start + _AT_ONCE]
            found.append(encoder.encode(part).astype(np.float32))
            bar.update(len(part))
    return np.concatenate(found)


def extractive_oracle(document: str, summary: str, sentences: int = 3) -> str:
    """The sentences of `document`, at most so many, that together overlap `summary` most, one a line, in their order.

    Chosen one by one, greedily, by the mean F1 of ROUGE-1 and ROUGE-2, while it grows (Nallapati et al. 2017). It has
    seen the reference: about the best that an extract of this length can reach, beside `facts.lead`, which anyone can.
    """
    from rouge_score.tokenizers import DefaultTokenizer

    words, parts = DefaultTokenizer(use_stemmer=True).tokenize, split_sentences(document)
    grams, wanted = [_grams(words(part)) for part in parts], _grams(words(summary))
    chosen, held, best = [], (Counter(), Counter()), 0.0
    for _ in range(min(sentences, len(parts))):
        free = (number for number in range(len(parts)) if number not in chosen)
        value, number = max((_overlap(held, grams[number], wanted), -number) for number in free)
        if value <= best:
            break
        chosen.append(-number)
        held, best = tuple(a + b for a, b in zip(held, grams[-number], strict=True)), value
    return "\n".join(parts[number] for number in sorted(chosen))


def _grams(words: list[str]) -> tuple[Counter, Counter]:
    return Counter(words), Counter(zip(words, words[1:], strict=False))


def _overlap(held: tuple, extra: tuple, wanted: tuple) -> float:
    """The F1 of words and of pairs of words, summed, of `held` and `extra` together against `wanted`."""
    total = 0.0
    for ours, more, theirs in zip(held, extra, wanted, strict=True):
        matches = sum(min(ours[gram] + more[gram], number) for gram, number in theirs.items())
        total += matches / max(1, ours.total() + more.total() + theirs.total())
    return total
