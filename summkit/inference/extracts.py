"""Floor 2. What can be taken out of a text as it stands: its named sections, the sentences that say most of it without
repeating each other, and the best sentences of all, chosen with the reference in hand (a bound, no system).
"""

import re

from summkit import progress

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
