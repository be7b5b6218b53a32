"""Floor 6. A text that is longer than the model's window: what of it is read, in how many rounds, for one summary.

Tokens are the model's own. A text that fits is read whole, whatever the strategy. Long texts go through the tokenizer
piece by piece, so that time and memory grow with the text and no faster.
"""

import time
from dataclasses import dataclass

from summkit import progress
from summkit.data import tokenisation
from summkit.data.checks import MAX_BOOK, reason_unusable
from summkit.data.chunking import chunks
from summkit.data.sentences import split_sentences
from summkit.errors import SummkitError, check_known
from summkit.inference import extracts
from summkit.models import embeddings

_LEAST = 16  # tokens of a text that are worth a prompt


@dataclass(frozen=True)
class LongSummary:
    """One answer: its text in one line, and whether the model ended it by EOS (all of it, where answers were joined).

    `how` says what was done to make the text fit ("whole" where it `fitted` as it is). `read` counts the text's tokens
    that the model was given: a chunk's overlap counts again, a second round does not. `seconds` is the call's time,
    shared out by the tokens that each text took.
    """

    text: str
    ended: bool
    fitted: bool
    how: str
    read: int
    seconds: float


@dataclass(frozen=True)
class Window:
    """What a strategy has at hand: the tokenizer, the tokens of a text that fit, the overlap of chunks in tokens, and a
    function that gives the sentence encoder.
    """

    tokenizer: object
    tokens: int
    overlap: int
    encoder: object

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        return tokenisation.count_tokens(self.tokenizer, text)

    def fits(self, text: str) -> bool:
        """Whether `text` can be read whole."""
        return self.slab(text, self.tokens) is text and self.count(text) <= self.tokens

    def slab(self, text: str, tokens: int, end: bool = False) -> str:
        """The beginning (or the `end`) of `text`, with more than `tokens` tokens; all of a text that has fewer."""
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
    share = 100 * len(part) * window.tokens / window.count(part) / len(text)
    return [part], f"its first {window.tokens:,} tokens were read, {share:.2g} % of it"


def lead_and_end(text: str, window: Window) -> tuple[list[str], str]:
    """Introduction and conclusion where headings of their own line name them, else the text's first and last part.

    Each gets half of the window, and what the other leaves. Whole sentences, as far as they fit.
    """
    opening, closing = extracts.opening_and_closing(text)
    names = ("introduction" if opening else "beginning", "conclusion" if closing else "end")
    at_end = not closing
    opening, closing = opening or text[: text.rindex(closing) if closing else None], closing or text
    room = window.tokens - 1  # a newline between the two
    spare = max(room // 2, room - window.count(_fill(closing, window, room // 2, at_end)))
    lead = _fill(opening, window, spare)
    end = _fill(closing, window, room - window.count(lead), at_end)
    sizes = (f"{name} ({window.count(part):,} tokens)" for name, part in zip(names, (lead, end), strict=True))
    return [f"{lead}\n{end}"], f"its {' and '.join(sizes)} were read"


def chunks(text: str, window: Window) -> tuple[list[str], str]:
    """All of it, in chunks cut at sentences; their summaries are summarised again until one is left."""
    with progress.clock("cutting into chunks"):
        found = chunks(text, window.tokenizer, window.tokens, window.overlap)
    return found, f"{len(found):,} chunks of at most {window.tokens:,} tokens"


def extract(text: str, window: Window) -> tuple[list[str], str]:
    """The sentences nearest in meaning to the whole text that do not repeat each other, in the text's order (MMR)."""

    def bounded(sentence):
        return [sentence] if window.fits(sentence) else chunks(sentence, window.tokenizer, window.tokens)

    sentences = dict.fromkeys(split_sentences(text))  # a page's head stands there once
    units = [unit for sentence in sentences for unit in bounded(sentence)]
    costs = [window.count(unit) + 1 for unit in units]  # and the newline before the next
    chosen = extracts.central(units, costs, window.tokens + 1, window.encoder())
    tokens = sum(costs[number] for number in chosen) - 1
    how = f"{len(chosen):,} of its {len(units):,} sentences were read, those nearest to the whole ({tokens:,} tokens)"
    return ["\n".join(units[number] for number in chosen)], how


def whole(text: str, window: Window) -> tuple[list[str], str]:
    """All of it at once, or not at all: for models whose window holds it."""
    about = len(text) / len(part := window.slab(text, window.tokens)) * window.count(part)
    raise SummkitError(
        f"about {about:,.0f} tokens, and the model's window has room for {window.tokens:,}: raise max_length, if the "
        "model can read more, or take another strategy, such as 'chunks'"
    )


# What each makes of a text that does not fit: the pieces that are read, and what was done, in words.
STRATEGIES = {"first": first, "lead-and-end": lead_and_end, "chunks": chunks, "extract": extract, "whole": whole}


def summarize_long(
    summarizer, texts, strategy: str = "chunks", *, encoder=None, overlap: float = 0.1, budget: int | None = None,
    **asking,
) -> list[LongSummary]:  # fmt: skip
    """One LongSummary a text, in the texts' order, from a `generation.Summarizer` or an `export.Exported`.

    `overlap` is the share of a chunk, 0 to 0.5, that is repeated in the next. With a `budget` in tokens the joined
    summaries of chunks are the answer as soon as they fit into it; without, the last round writes one summary of
    all. `encoder` (an `embeddings.Encoder`, for "extract") is `embeddings.load()` where none is given. `asking` goes to
    `summarizer.summarize`: decoding, base, seed.
    Raises SummkitError for an unknown strategy, for a text that cannot be used, by its number, for limits that leave no
    room, and with "whole" for a text that does not fit.
    """
    check_known("strategy", strategy, STRATEGIES)
    started = time.perf_counter()
    most = summarizer.limits["max_new_tokens"]
    _check(summarizer.window, most, strategy, overlap, budget)
    window = Window(
        summarizer.tokenizer,
        summarizer.window,
        int(overlap * summarizer.window),
        lambda: encoder or embeddings.load_encoder(),
    )
    for number, text in enumerate(texts, 1):
        if reason := reason_unusable(text, MAX_BOOK):
            raise SummkitError(f"text {number}: {reason}; there is no text to summarise")
    works = [_begin(number, text.strip(), strategy, window) for number, text in enumerate(texts, 1)]
    while waiting := [work for work in works if work.pieces]:
        answers = iter(summarizer.summarize([piece for work in waiting for piece in work.pieces], **asking))
        for work in waiting:
            work.take([next(answers) for _ in work.pieces], window, budget)
    seconds, asked = time.perf_counter() - started, sum(work.asked for work in works)
    return [work.done(seconds * work.asked / asked) for work in works]


@dataclass
class _Work:
    """A text on its way: the pieces that the next round reads, and what the rounds so far have come to."""

    pieces: list[str]
    how: str
    fitted: bool
    text: str = ""
    ended: bool = False
    rounds: int = 0
    read: int = 0
    asked: int = 0

    def take(self, answers: list, window: Window, budget: int | None) -> None:
        """The answers to the pieces, of one round; what is to be read in the next are summaries."""
        if not self.rounds:
            self.read = sum(min(window.count(piece), window.tokens) for piece in self.pieces)
        self.rounds += 1
        self.asked += sum(answer.prompt_tokens + answer.tokens for answer in answers)
        said = [text for answer in answers if (text := answer.text.replace("\0", " ").strip())]
        self.text = answers[0].text if len(answers) == 1 else " ".join(said)
        self.ended = all(answer.ended for answer in answers)
        last = len(said) < 2 or (budget is not None and window.count(self.text) <= budget)
        self.pieces = [] if last else _pack(said, window)

    def done(self, seconds: float) -> LongSummary:
        rounds = "" if self.rounds < 2 else f", {self.rounds} rounds"
        return LongSummary(self.text, self.ended, self.fitted, self.how + rounds, self.read, seconds)


def _check(tokens: int, most: int, strategy: str, overlap: float, budget: int | None) -> None:
    if tokens < _LEAST:
        raise SummkitError(f"the instruction and the summary leave {tokens} tokens for the text: raise max_length")
    if not 0 <= overlap <= 0.5:
        raise SummkitError(f"overlap={overlap}: the share of a chunk that the next repeats, from 0 to 0.5")
    if budget is not None and (strategy != "chunks" or budget < most):
        raise SummkitError(
            f"budget={budget} with the strategy {strategy!r}: it is for 'chunks', and at least one summary's "
            f"{most} tokens (max_new_tokens)"
        )
    if strategy == "chunks" and tokens < 2 * most + 1:
        raise SummkitError(
            f"chunks of {tokens} tokens hold no two summaries of {most} (max_new_tokens), so that they would not get "
            "fewer: raise max_length, or take another strategy"
        )


def _begin(number: int, text: str, strategy: str, window: Window) -> _Work:
    if window.fits(text):
        return _Work([text], "whole", True)
    try:
        return _Work(*STRATEGIES[strategy](text, window), False)
    except SummkitError as error:
        raise SummkitError(f"text {number}: {error}") from None


def _pack(said: list[str], window: Window) -> list[str]:
    """Summaries joined into pieces that fit, two at least in each but the last: every round has fewer than before."""
    groups: list[list[str]] = []
    for text in said:
        if groups and (len(groups[-1]) < 2 or window.count("\n".join([*groups[-1], text])) <= window.tokens):
            groups[-1].append(text)
        else:
            groups.append([text])
    return ["\n".join(group) for group in groups]


def _fill(text: str, window: Window, tokens: int, end: bool = False) -> str:
    """As many sentences from the beginning (or the `end`) of `text` as `tokens` hold; of a longer one, a part."""
    slab, size = window.slab(text, tokens, end), tokens
    if not end:
        return chunks(slab, window.tokenizer, size)[0]
    kept = len(slab)
    for sentence in reversed(split_sentences(slab)):
        start = slab.rindex(sentence, 0, kept)
        tokens -= window.count(slab[start:kept])
        if tokens < 0:
            break
        kept = start
    return slab[kept:] or chunks(slab, window.tokenizer, size)[-1]
