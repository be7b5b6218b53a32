"""Strategies for a text that is longer than the model's window: what is read of it, and in how many rounds.

Tokens are the model's own. A text that fits is read whole, whatever the strategy. Long texts go through the tokenizer
piece by piece, so time and memory grow with the text and no faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from summkit import progress
from summkit.data import chunking, tokenisation
from summkit.data.checks import MAX_BOOK, reason_unusable
from summkit.data.sentences import split_sentences
from summkit.errors import SummkitError
from summkit.inference import extracts
from summkit.models import embeddings
from summkit.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from summkit.inference.export import Exported
    from summkit.inference.generation import Summarizer, Summary

FITTED = "whole"  # what was done to a text that fits
_LEAST_TOKENS = 16  # of a text in a prompt; fewer are not worth asking


@dataclass(frozen=True)
class LongSummary:
    """One answer about a text of any length.

    Attributes:
        text: The answer in one line.
        ended: Whether the model ended it with EOS; of joined answers, whether it ended all of them.
        fitted: Whether the text fitted into the model's window.
        how: What was done to make it fit; "whole" where it fitted.
        read: Tokens of the text that the model was given. A chunk's overlap counts again, a second round does not.
        seconds: The call's time, divided among the texts by the tokens that each took.
    """

    text: str
    ended: bool
    fitted: bool
    how: str
    read: int
    seconds: float


@dataclass(frozen=True)
class Window:
    """What a strategy works with.

    Attributes:
        tokenizer: The model's tokenizer.
        tokens: Tokens of a text that fit into one prompt.
        overlap: Tokens that a chunk repeats from the one before.
        encoder: Returns the sentence encoder; it is loaded when it is first needed.
    """

    tokenizer: PreTrainedTokenizerBase
    tokens: int
    overlap: int
    encoder: Callable[[], embeddings.Encoder]

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return tokenisation.count_tokens(self.tokenizer, text)

    def fits(self, text: str) -> bool:
        """Whether the text can be read whole."""
        return self.slab(text, self.tokens) is text and self.count(text) <= self.tokens

    def slab(self, text: str, tokens: int, end: bool = False) -> str:
        """The beginning (or the `end`) of a text, with more than `tokens` tokens; all of a text that has fewer."""
        size = 8 * tokens + 64
        while size < len(text):
            part = text[-size:] if end else text[:size]
            if self.count(part) > tokens + 8:  # the last few may be tokens of half a word
                return part
            size *= 2
        return text


def first(text: str, window: Window) -> tuple[list[str], str]:
    """The first tokens that fit: cut at the token where training cuts."""
    part = window.slab(text, window.tokens)
    percent = 100 * len(part) * window.tokens / window.count(part) / len(text)
    return [part], f"its first {window.tokens:,} tokens were read, {percent:.2g} % of it"


def lead_and_end(text: str, window: Window) -> tuple[list[str], str]:
    """Introduction and conclusion where headings of their own line name them, else the text's first and last part.

    Each gets half of the window, and what the other leaves. Whole sentences, as far as they fit.
    """
    introduction, conclusion = extracts.opening_and_closing(text)
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
    """All of it, in chunks cut at sentences; their summaries are summarised again until one is left."""
    with progress.clock("cutting into chunks"):
        pieces = chunking.chunks(text, window.tokenizer, window.tokens, window.overlap)
    return pieces, f"{len(pieces):,} chunks of at most {window.tokens:,} tokens"


def extract(text: str, window: Window) -> tuple[list[str], str]:
    """The sentences nearest in meaning to the whole text that do not repeat each other, in the text's order (MMR)."""
    units: list[str] = []
    for sentence in dict.fromkeys(split_sentences(text)):  # a page's head is there once
        fits = window.fits(sentence)
        units += [sentence] if fits else chunking.chunks(sentence, window.tokenizer, window.tokens)
    costs = [window.count(unit) + 1 for unit in units]  # and the newline before the next
    chosen = extracts.central(units, costs, window.tokens + 1, window.encoder())
    tokens = sum(costs[number] for number in chosen) - 1
    how = f"{len(chosen):,} of its {len(units):,} sentences were read, those nearest to the whole ({tokens:,} tokens)"
    return ["\n".join(units[number] for number in chosen)], how


def whole(text: str, window: Window) -> tuple[list[str], str]:
    """All of it at once, or an error: for models whose window holds it."""
    part = window.slab(text, window.tokens)
    raise SummkitError(
        f"about {len(text) / len(part) * window.count(part):,.0f} tokens, and the model's window has room for "
        f"{window.tokens:,}: raise max_length, if the model can read more, or take another strategy, such as 'chunks'"
    )


# Each makes of a text that does not fit the pieces that are read, and says what it did. A plugin adds its own.
STRATEGIES: Registry[Callable[[str, Window], tuple[list[str], str]]] = Registry(
    "strategy", {"first": first, "lead-and-end": lead_and_end, "chunks": chunks, "extract": extract, "whole": whole}
)


def summarize_long(
    summarizer: Summarizer | Exported,
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
        strategy: A name of STRATEGIES, for texts that do not fit into the model's window.
        encoder: Sentence encoder for "extract"; `embeddings.load_encoder()` where none is given.
        overlap: Share of a chunk, 0 to 0.5, that the next one repeats.
        budget: The joined summaries of chunks are the answer as soon as they have at most so many tokens. Without it,
            the last round writes one summary of all.
        options: Of `summarizer.summarize`: decoding, base, seed.

    Returns:
        One LongSummary for each text, in their order.

    Raises:
        SummkitError: The strategy is unknown; a text cannot be used, or does not fit with "whole"; the limits leave no
            room.
    """
    cut = STRATEGIES.find(strategy)
    started = time.perf_counter()
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
    seconds_per_token = (time.perf_counter() - started) / max(1, sum(job.tokens for job in jobs))
    return [job.summary(seconds_per_token) for job in jobs]


@dataclass
class _Job:
    """A text and its state: the pieces that the next round reads, and the results of the rounds so far."""

    pieces: list[str]
    how: str
    text: str = ""
    ended: bool = False
    rounds: int = 0
    read: int = 0
    tokens: int = 0

    def take(self, answers: list[Summary], window: Window, budget: int | None) -> None:
        """Take one round's answers to the pieces; the next round reads them."""
        if not self.rounds:
            self.read = sum(min(window.count(piece), window.tokens) for piece in self.pieces)
        self.rounds += 1
        self.tokens += sum(answer.prompt_tokens + answer.tokens for answer in answers)
        summaries = [text for answer in answers if (text := answer.text.replace("\0", " ").strip())]
        self.text = answers[0].text if len(answers) == 1 else " ".join(summaries)
        self.ended = all(answer.ended for answer in answers)
        is_last = len(summaries) < 2 or (budget is not None and window.count(self.text) <= budget)
        self.pieces = [] if is_last else _join_in_groups(summaries, window)

    def summary(self, seconds_per_token: float) -> LongSummary:
        how = self.how if self.rounds < 2 else f"{self.how}, {self.rounds} rounds"
        fitted = self.how == FITTED
        return LongSummary(self.text, self.ended, fitted, how, self.read, self.tokens * seconds_per_token)


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
    """Join summaries into pieces that fit, at least two in each but the last: every round has fewer than before."""
    groups: list[list[str]] = []
    for text in summaries:
        if groups and (len(groups[-1]) < 2 or window.count("\n".join([*groups[-1], text])) <= window.tokens):
            groups[-1].append(text)
        else:
            groups.append([text])
    return ["\n".join(group) for group in groups]


def _fill(text: str, window: Window, tokens: int, end: bool = False) -> str:
    """As many sentences from the beginning (or the `end`) of a text as `tokens` hold; part of a longer sentence."""
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
