"""Strategies for texts longer than the model's window: which parts are read, and in how many rounds.

Tokens are counted by the model's tokenizer. A text that fits is read whole with any strategy. Long texts are tokenised
piece by piece, so time and memory grow linearly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from summkit import progress
from summkit.data import chunking, tokenisation
from summkit.data.checks import MAX_BOOK, reason_unusable
from summkit.data.sentences import split_sentences
from summkit.errors import SummkitError
from summkit.models import embeddings
from summkit.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from summkit.inference.export import Exported, Served
    from summkit.inference.generation import Summarizer, Summary

FITTED = "whole"  # `how` of a text that fits
_LEAST_TOKENS = 16  # the fewest tokens of a text in a prompt
RELEVANCE = 0.7  # weight of a sentence's relevance; the rest is the weight of not repeating others
_TITLES = (
    "abstract|author summary|introduction|background|related work|(?:materials? and )?methods?|methods and materials|"
    "experiments|(?:experimental )?results|results and discussion|(?:general )?discussion|"
    "(?:discussion|summary) and conclusions?|conclusions?(?: and [a-z ]{1,30})?|concluding remarks|outlook|references|"
    "bibliography|acknowledge?ments?|supporting information|author contributions|funding|appendix(?: [a-z0-9])?"
)
_HEADING = re.compile(rf"^[^\S\n]*(?:[\dIVX]+[.)]*[^\S\n]+)?({_TITLES})[^\S\n]*[.:]?[^\S\n]*$", re.IGNORECASE | re.M)


@dataclass(frozen=True)
class LongSummary:
    """The summary of a text of any length.

    Attributes:
        text: The summary in one line.
        ended: Whether the answer, or each of several joined answers, ended with EOS.
        fitted: Whether the text fitted into the model's window.
        how: How the text was shortened; "whole" if it fitted.
        read: Tokens of the text that the model read. Overlaps of chunks count again, later rounds do not.
    """

    text: str
    ended: bool
    fitted: bool
    how: str
    read: int


@dataclass(frozen=True)
class Window:
    """The limits and tools of a strategy.

    Attributes:
        tokenizer: The model's tokenizer.
        tokens: Tokens of a text that fit into one prompt.
        overlap: Tokens that a chunk repeats from the previous one.
        encoder: Function that returns the sentence encoder, which is loaded when first needed.
    """

    tokenizer: PreTrainedTokenizerBase
    tokens: int
    overlap: int
    encoder: Callable[[], embeddings.Encoder]

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return tokenisation.count_tokens(self.tokenizer, text)

    def fits(self, text: str) -> bool:
        """Whether the whole text fits into one prompt."""
        return self.slab(text, self.tokens) is text and self.count(text) <= self.tokens

    def slab(self, text: str, tokens: int, end: bool = False) -> str:
        """Return the beginning (or `end`) of a text, of more than `tokens` tokens, or all of a shorter text."""
        size = 8 * tokens + 64
        while size < len(text):
            part = text[-size:] if end else text[:size]
            if self.count(part) > tokens + 8:  # the last few may be parts of a cut word
                return part
            size *= 2
        return text


def first(text: str, window: Window) -> tuple[list[str], str]:
    """Take the first tokens that fit, cut at the same token as in training."""
    part = window.slab(text, window.tokens)
    percent = 100 * len(part) * window.tokens / window.count(part) / len(text)
    return [part], f"its first {window.tokens:,} tokens were read, {percent:.2g} % of it"


def lead_and_end(text: str, window: Window) -> tuple[list[str], str]:
    """Take introduction and conclusion if headings mark them, or else the first and last part of the text.

    Each gets half of the window and any room that the other leaves, filled with whole sentences.
    """
    introduction, conclusion = opening_and_closing(text)
    opening = introduction or text[: text.rindex(conclusion) if conclusion else None]
    closing = conclusion or text
    room = window.tokens - 1  # a newline between the two
    half_used = window.count(_fill(closing, window, room // 2, end=not conclusion))
    lead = _fill(opening, window, max(room // 2, room - half_used))
    end = _fill(closing, window, room - window.count(lead), end=not conclusion)
    names = ("introduction" if introduction else "beginning", "conclusion" if conclusion else "end")
    sizes = [f"{name} ({window.count(part):,} tokens)" for name, part in zip(names, (lead, end), strict=True)]
    return [f"{lead}\n{end}"], f"its {' and '.join(sizes)} were read"


def chunks(text: str, window: Window) -> tuple[list[str], str]:
    """Take the whole text in chunks of sentences; their summaries are summarised until one is left."""
    with progress.clock("cutting into chunks"):
        pieces = chunking.chunks(text, window.tokenizer, window.tokens, window.overlap)
    return pieces, f"{len(pieces):,} chunks of at most {window.tokens:,} tokens"


def extract(text: str, window: Window) -> tuple[list[str], str]:
    """Take the most central sentences without repetition (MMR), in the order of the text."""
    units: list[str] = []
    for sentence in dict.fromkeys(split_sentences(text)):  # drops repeated page headers
        fits = window.fits(sentence)
        units += [sentence] if fits else chunking.chunks(sentence, window.tokenizer, window.tokens)
    costs = [window.count(unit) + 1 for unit in units]  # one for the newline before the next
    chosen = central(units, costs, window.tokens + 1, window.encoder())
    tokens = sum(costs[number] for number in chosen) - 1
    how = f"{len(chosen):,} of its {len(units):,} sentences were read, those nearest to the whole ({tokens:,} tokens)"
    return ["\n".join(units[number] for number in chosen)], how


def whole(text: str, window: Window) -> tuple[list[str], str]:
    """Raise an error for a text that does not fit, for models with a long window."""
    part = window.slab(text, window.tokens)
    raise SummkitError(
        f"about {len(text) / len(part) * window.count(part):,.0f} tokens, and the model's window has room for "
        f"{window.tokens:,}: raise max_length if the model can read more, or use another strategy, such as 'chunks'"
    )


# Function of a text that does not fit → the pieces to read, and a description. A plugin adds its own.
STRATEGIES: Registry[Callable[[str, Window], tuple[list[str], str]]] = Registry(
    "strategy", {"first": first, "lead-and-end": lead_and_end, "chunks": chunks, "extract": extract, "whole": whole}
)


def summarize_long(
    summarizer: Summarizer | Exported | Served,
    texts: Sequence[str],
    strategy: str = "chunks",
    *,
    encoder: embeddings.Encoder | None = None,
    overlap: float = 0.1,
    budget: int | None = None,
    **options: Any,
) -> list[LongSummary]:
    """Summarise texts of any length.

    Args:
        summarizer: The model.
        texts: The texts.
        strategy: A name in STRATEGIES, for texts that do not fit into the model's window.
        encoder: Sentence encoder for "extract"; None: `embeddings.load_encoder()`.
        overlap: Share of a chunk, 0 to 0.5, that the next one repeats.
        budget: Stop when the joined summaries of chunks have at most this many tokens. None: continue until the last
            round writes one summary of all.
        options: Of `summarizer.summarize`: decoding, base, seed.

    Returns:
        One LongSummary for each text, in the same order.

    Raises:
        SummkitError: The strategy is unknown; a text cannot be used, or does not fit with "whole"; the limits
            leave no room for the text.
    """
    cut = STRATEGIES.find(strategy)
    _check_settings(summarizer.window, summarizer.max_new_tokens, strategy, overlap, budget)
    tokens = summarizer.window
    load_encoder = embeddings.load_encoder if encoder is None else lambda: encoder
    window = Window(summarizer.tokenizer, tokens, int(overlap * tokens), load_encoder)
    for number, text in enumerate(texts, 1):
        if reason := reason_unusable(text, MAX_BOOK):
            raise SummkitError(f"text {number}: {reason}; there is no text to summarise")
    jobs = []
    for number, text in enumerate(map(str.strip, texts), 1):
        try:
            pieces, how = ([text], FITTED) if window.fits(text) else cut(text, window)
        except SummkitError as error:
            raise SummkitError(f"text {number}: {error}") from None
        jobs.append(_Job(pieces, how))
    while waiting := [job for job in jobs if job.pieces]:
        answers = iter(summarizer.summarize([piece for job in waiting for piece in job.pieces], **options))
        for job in waiting:
            job.take([next(answers) for _ in job.pieces], window, budget)
    return [job.summary() for job in jobs]


@dataclass
class _Job:
    """A text and its state: the pieces for the next round, and the results of the rounds so far."""

    pieces: list[str]
    how: str
    text: str = ""
    ended: bool = False
    rounds: int = 0
    read: int = 0

    def take(self, answers: list[Summary], window: Window, budget: int | None) -> None:
        """Process one round's answers to the pieces, and make the pieces of the next round."""
        if not self.rounds:
            self.read = sum(min(window.count(piece), window.tokens) for piece in self.pieces)
        self.rounds += 1
        summaries = [text for answer in answers if (text := answer.text.replace("\0", " ").strip())]
        self.text = answers[0].text if len(answers) == 1 else " ".join(summaries)
        self.ended = all(answer.ended for answer in answers)
        is_last = len(summaries) < 2 or (budget is not None and window.count(self.text) <= budget)
        self.pieces = [] if is_last else _join_in_groups(summaries, window)

    def summary(self) -> LongSummary:
        how = self.how if self.rounds < 2 else f"{self.how}, {self.rounds} rounds"
        return LongSummary(self.text, self.ended, self.how == FITTED, how, self.read)


def _check_settings(tokens: int, max_new_tokens: int, strategy: str, overlap: float, budget: int | None) -> None:
    if tokens < _LEAST_TOKENS:
        raise SummkitError(f"the instruction and the summary leave {tokens} tokens for the text: raise max_length")
    if not 0 <= overlap <= 0.5:
        raise SummkitError(f"overlap={overlap}: the share of a chunk that the next one repeats must be from 0 to 0.5")
    if budget is not None and (strategy != "chunks" or budget < max_new_tokens):
        least = f"it is for 'chunks', and must hold at least one summary's {max_new_tokens} tokens (max_new_tokens)"
        raise SummkitError(f"budget={budget} with the strategy {strategy!r}: {least}")
    if strategy == "chunks" and tokens < 2 * max_new_tokens + 1:
        reason = f"chunks of {tokens} tokens hold no two summaries of {max_new_tokens} (max_new_tokens)"
        raise SummkitError(f"{reason}, so their number would never fall: raise max_length, or take another strategy")


def _join_in_groups(summaries: list[str], window: Window) -> list[str]:
    """Join summaries into pieces that fit, of at least two except the last, so each round has fewer pieces."""
    groups: list[list[str]] = []
    for text in summaries:
        if groups and (len(groups[-1]) < 2 or window.count("\n".join([*groups[-1], text])) <= window.tokens):
            groups[-1].append(text)
        else:
            groups.append([text])
    return ["\n".join(group) for group in groups]


def _fill(text: str, window: Window, tokens: int, end: bool = False) -> str:
    """Return the first (or, with `end`, last) sentences that fit into `tokens`; part of a sentence if it is longer."""
    slab = window.slab(text, tokens, end)
    if not end:
        return chunking.chunks(slab, window.tokenizer, tokens)[0]
    left = tokens
    start = len(slab)
    for sentence in reversed(split_sentences(slab)):
        before = slab.rindex(sentence, 0, start)
        left -= window.count(slab[before:start])
        if left < 0:
            break
        start = before
    return slab[start:] or chunking.chunks(slab, window.tokenizer, tokens)[-1]


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


def central(sentences: list[str], costs: list[int], budget: int, encoder: embeddings.Encoder) -> list[int]:
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
