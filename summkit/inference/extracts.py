"""Extract parts of a text: its named sections, or its most central sentences without repetition."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from summkit import progress

if TYPE_CHECKING:
    from summkit.models.embeddings import Encoder

RELEVANCE = 0.7  # weight of a sentence's relevance; the rest is the weight of not repeating others
_TITLES = (
    "abstract|author summary|introduction|background|related work|(?:materials? and )?methods?|methods and materials|"
    "experiments|(?:experimental )?results|results and discussion|(?:general )?discussion|"
    "(?:discussion|summary) and conclusions?|conclusions?(?: and [a-z ]{1,30})?|concluding remarks|outlook|references|"
    "bibliography|acknowledge?ments?|supporting information|author contributions|funding|appendix(?: [a-z0-9])?"
)
_HEADING = re.compile(rf"^[^\S\n]*(?:[\dIVX]+[.)]*[^\S\n]+)?({_TITLES})[^\S\n]*[.:]?[^\S\n]*$", re.IGNORECASE | re.M)


def opening_and_closing(text: str) -> tuple[str, str]:
    """Find the introduction and the conclusion of a paper by their headings.

    A heading is a separate line, with or without a number. A section ends at the next common heading, so it includes
    its own subheadings.

    Args:
        text: The paper.

    Returns:
        The section called introduction or background, and the one called conclusion or else discussion; "" for a
        missing one.
    """
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    sections = [(h[1].lower(), text[h.end() : end].strip()) for h, end in zip(headings, ends, strict=False)]
    opening = [body for title, body in sections if title in ("introduction", "background") and body]
    closing = [body for word in ("conclu", "discussion") for title, body in sections if word in title and body]
    return next(iter(opening), ""), next(iter(closing), "")


def central(sentences: list[str], costs: list[int], budget: int, encoder: Encoder) -> list[int]:
    """Choose the most central sentences by maximal marginal relevance (Carbonell and Goldstein 1998).

    Each next sentence is near the centre of all sentences and far from those already chosen. The last tenth of the
    budget is not filled with fragments.

    Args:
        sentences: The sentences.
        costs: The cost of each sentence, such as its tokens.
        budget: The largest total cost of the chosen sentences.
        encoder: Maps each sentence to a unit vector.

    Returns:
        Numbers of the chosen sentences, ascending.
    """
    with progress.clock(f"embedding {len(sentences):,} sentences"):
        vectors: np.ndarray = encoder.encode(sentences).astype(np.float32)  # (sentences, width)
    prices = np.array(costs)
    centre = vectors.mean(axis=0)
    relevance = vectors @ (centre / max(1e-9, float(np.linalg.norm(centre))))
    repetition: np.ndarray = np.zeros(len(vectors), np.float32)
    available: np.ndarray = np.ones(len(vectors), dtype=bool)
    left = budget
    chosen: list[int] = []
    while (fits := available & (prices <= left)).any() and (left > budget / 10 or not chosen):
        worth = RELEVANCE * relevance - (1 - RELEVANCE) * repetition
        best = int(np.where(fits, worth, -np.inf).argmax())
        chosen.append(best)
        available[best] = False
        left -= costs[best]
        repetition = np.maximum(repetition, vectors @ vectors[best])
    return sorted(chosen)
