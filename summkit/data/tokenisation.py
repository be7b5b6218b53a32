"""Floor 3. From text to tokens: the document is cut and never the summary, EOS is appended, the prompt is masked.

Training and inference share `encode`, so the same document is cut at the same token in both.
"""

import re
from bisect import bisect_left, bisect_right
from itertools import accumulate

from summkit.data.sentences import split_sentences
from summkit.data.templates import Template
from summkit.errors import SummkitError

IGNORE = -100  # the label that torch's cross entropy leaves out


def encode(
    template: Template, tokenizer, document: str, summary: str | None, max_length: int, max_new_tokens: int,
    second: str = "", seq2seq: bool = False,
) -> dict:  # fmt: skip
    """One row as {"input_ids", "labels", "length", "cut"}; without a summary, the prompt alone.

    Room for `max_new_tokens` of summary is kept in training too: the model meets in training what it will be asked
    with. A longer summary takes its room from the document. `cut` counts the document's tokens that were left out.
    The `second` text of a pair stays whole while it takes no more than half of the room.
    Labels are IGNORE for the prompt, and the summary's tokens and EOS after it.
    For an encoder-decoder (`seq2seq`, see `models.is_encoder_decoder`) the prompt alone is the input, with the special
    tokens that its tokenizer puts around a text, and has all of `max_length`; the labels are the summary alone, with
    the same special tokens and EOS at the end. `length` counts both.
    Raises SummkitError where `max_length` leaves no room for the document.
    """
    frame, limits = _frame(template, tokenizer, seq2seq), (max_length, max_new_tokens)
    return _row(frame, template, tokenizer, document, summary, second, limits, seq2seq)


def _row(frame, template, tokenizer, document, summary, second, limits, seq2seq) -> dict:
    (head, middle, tail), (max_length, max_new_tokens) = frame, limits
    answer = [] if summary is None else _written(template, tokenizer, summary, seq2seq)
    reserved = 0 if seq2seq else max(max_new_tokens, len(answer))
    room = max_length - len(head) - len(middle) - len(tail) - reserved
    if room < 1:
        _refuse(max_length, room, len(head + middle + tail), reserved)
    gap = _glued(template)[1] if seq2seq else ""
    body, beside = (_ids(tokenizer, text, plain=True) for text in (gap + document, second))
    kept = beside[: max(room // 2, room - len(body))]
    prompt = head + body[: room - len(kept)] + middle + kept + tail
    cut = max(0, len(body) + len(beside) - room)
    row = {"input_ids": prompt if seq2seq else prompt + answer, "length": len(prompt) + len(answer), "cut": cut}
    if summary is not None:
        row["labels"] = answer if seq2seq else [IGNORE] * len(prompt) + answer
    return row


def _refuse(max_length: int, room: int, frame: int, reserved: int):
    summary = f" and the summary up to {reserved}" if reserved else ""
    raise SummkitError(
        f"max_length={max_length} is too small: the instruction takes {frame} tokens{summary}; at least "
        f"{max_length - room + 1} are needed for any of the document"
    )


def encode_rows(dataset, template: Template, tokenizer, max_length: int, max_new_tokens: int, seq2seq: bool = False):
    """A `datasets.Dataset` with document, summary and maybe second → one with input_ids, labels, length and cut.

    It lies where `dataset` does: on disk for the splits of `data.for_profile`.
    """
    import datasets

    limits = (max_length, max_new_tokens)
    given = {"template": template, "tokenizer": tokenizer, "limits": limits, "seq2seq": seq2seq}
    number, numbers = datasets.Value("int32"), datasets.List(datasets.Value("int32"))
    columns = datasets.Features(input_ids=numbers, labels=numbers, length=number, cut=number)
    how = {"batched": True, "batch_size": 500, "features": columns, "remove_columns": dataset.column_names}
    return dataset.map(_encode_batch, fn_kwargs=given, desc="tokenising", **how)


def _encode_batch(batch, template, tokenizer, limits, seq2seq):
    frame, seconds = _frame(template, tokenizer, seq2seq), batch.get("second") or [""] * len(batch["summary"])
    texts = zip(batch["document"], batch["summary"], seconds, strict=True)
    rows = [_row(frame, template, tokenizer, *row, limits, seq2seq) for row in texts]
    return {key: [row[key] for row in rows] for key in rows[0]}


def answer_ids(template: Template, tokenizer, text: str) -> list[int]:
    """Tokens of what the model has to write, without the end-of-sequence token."""
    return _ids(tokenizer, template.answer(text), plain=True)


def _ids(tokenizer, text: str, plain: bool = False) -> list[int]:
    """Token numbers. `plain` reads "<|end|>" in an article as the letters they are: no text may end its own prompt."""
    # verbose=False: a document longer than the model's window is cut here, so the tokenizer's warning would mislead.
    return tokenizer(text, add_special_tokens=False, split_special_tokens=plain, verbose=False)["input_ids"]


def head_ids(template: Template, tokenizer) -> list[int]:
    """The head's tokens, behind the tokenizer's BOS where it sets one and the chat template has not done so.

    Every prompt of `encode` begins with them.
    """
    bos, ids = tokenizer.bos_token_id, _ids(tokenizer, template.head)
    wanted = bos is not None and tokenizer("a")["input_ids"][0] == bos
    return [bos, *ids] if wanted and ids[:1] != [bos] else ids


def special_ids(tokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and behind a text: T5's nothing and EOS, BART's BOS and EOS."""
    whole, bare = tokenizer("a")["input_ids"], _ids(tokenizer, "a")
    start = next(n for n in range(len(whole)) if whole[n : n + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def _written(template: Template, tokenizer, summary: str, seq2seq: bool) -> list[int]:
    """All that the model writes: the answer and EOS, of an encoder-decoder between its tokenizer's special tokens."""
    before, behind = special_ids(tokenizer) if seq2seq else ([], [])
    ids = [*before, *answer_ids(template, tokenizer, summary), *behind]
    return ids if ids[-1:] == [tokenizer.eos_token_id] else [*ids, tokenizer.eos_token_id]


def _glued(template: Template) -> tuple[str, str]:
    """The head without the space at its end, and that space: in an encoder's prompt it goes to the document's first
    word, as in any text that is tokenised whole.
    """
    bare = template.head.rstrip(" ")
    return bare, template.head[len(bare) :]


def _frame(template: Template, tokenizer, seq2seq: bool = False) -> tuple[list[int], list[int], list[int]]:
    """Tokens of head, middle and tail: all of the prompt that is not the document's or the second text's."""
    middle, tail = _ids(tokenizer, template.middle), _ids(tokenizer, template.tail)
    if not seq2seq:
        return head_ids(template, tokenizer), middle, tail
    before, behind = special_ids(tokenizer)
    return before + _ids(tokenizer, _glued(template)[0]), middle, tail + behind


def window(template: Template, tokenizer, max_length: int, max_new_tokens: int, seq2seq: bool = False) -> int:
    """Tokens of a document that `encode` keeps; a longer one is cut."""
    # The space that an encoder's prompt has between head and document may be a token of its own.
    besides = len(_glued(template)[1]) if seq2seq else max_new_tokens
    return max_length - sum(map(len, _frame(template, tokenizer, seq2seq))) - besides


def room_for(template: Template, plain: Template, max_length: int, tokenizer) -> int:
    """The max_length in tokens under which `template` leaves the document the room that `plain` has in `max_length`.

    So a teacher with examples in its prompt reads as much of each document as a student without them.
    """
    ours, theirs = (sum(map(len, _frame(one, tokenizer))) for one in (template, plain))
    return max_length + ours - theirs


def chunks(text: str, tokenizer, tokens: int, overlap: int = 0) -> list[str]:
    """`text` in pieces of at most `tokens` tokens each, cut between sentences; of blank text, none.

    A sentence longer than that is cut between words, a longer word between characters. Each chunk begins with the last
    sentences of the one before, as many whole ones as `overlap` tokens hold. But for the white space where they are
    cut, the chunks hold all that the text does.
    Raises SummkitError where `tokens` cannot hold a character, or `overlap` is not less than `tokens`.
    """
    if tokens < 1 or not 0 <= overlap < tokens:
        raise SummkitError(f"chunks of tokens={tokens} with overlap={overlap}: 0 <= overlap < tokens is needed")
    units = _units(text, tokenizer, tokens)
    total = [0, *accumulate(count_tokens(tokenizer, unit) for unit in units)]
    found, first, last = [], 0, 0
    while last < len(units):
        done = last
        # One more: the white space before the first piece goes. A text may have more tokens than its pieces together.
        last = max(done + 1, bisect_right(total, total[first] + tokens + 1) - 1)
        while count_tokens(tokenizer, "".join(units[first:last]).strip()) > tokens:
            first, last = (first, last - 1) if last > done + 1 else (first + 1, last)
        found.append("".join(units[first:last]).strip())
        first = max(first + 1, bisect_left(total, total[last] - overlap))
    return found


def _units(text: str, tokenizer, tokens: int) -> list[str]:
    """What a chunk holds whole, each with the white space before it: sentences, or what a long one was cut into."""
    units, start = [], 0
    for sentence in split_sentences(text):
        end = text.index(sentence, start) + len(sentence)
        units += _cut(text[start:end], tokenizer, tokens)
        start = end
    return units


def _cut(piece: str, tokenizer, tokens: int) -> list[str]:
    bare = piece.strip()
    # A text without an end mark is one sentence: a whole book of it is not tokenised to learn that it is too long.
    if (size := tokens + 1 if len(bare) > 100 * tokens else count_tokens(tokenizer, bare)) <= tokens:
        return [piece]
    if len(bare) == 1:
        raise SummkitError(f"chunks of tokens={tokens}: the character {bare!r} alone is {size} tokens; allow more")
    parts = re.findall(r"\s*\S+", piece)
    if len(parts) == 1:  # one word
        middle = len(piece) - len(bare) // 2
        parts = [piece[:middle], piece[middle:]]
    return [unit for part in parts for unit in _cut(part, tokenizer, tokens)]


def count_tokens(tokenizer, text: str) -> int:
    """Tokens of a plain text, without the special tokens around it."""
    return len(_ids(tokenizer, text, plain=True))


class Collator:
    """Pads rows to the longest of the batch, and no further; labels with IGNORE, an encoder-decoder's to their longest.

    Training pads on the right: with labels (rows, tokens). Generation from a decoder pads on the left (`side="left"`),
    since it goes on from the last token, and a pad there would be what it goes on from.
    What an encoder needs beside that, `models.padding` says: `global_first` adds global_attention_mask, 1 on each row's
    first token; no batch is made shorter than `shortest`.
    """

    def __init__(self, tokenizer, side: str = "right", global_first: bool = False, shortest: int = 0):
        self.pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.side, self.global_first, self.shortest = side, global_first, shortest

    def __call__(self, rows: list[dict]) -> dict:
        """Rows of `encode` → tensors input_ids, attention_mask: (rows, longest), and labels where there are any."""
        import torch

        inputs = [row["input_ids"] for row in rows]
        # From the lengths, never from `ids != pad`: the pad token may be the EOS, which must be attended to.
        masks = [[1] * len(row) for row in inputs]
        batch = {"input_ids": self._pad(inputs, self.pad_id), "attention_mask": self._pad(masks, 0)}
        if self.global_first:
            batch["global_attention_mask"] = self._pad([[1] + [0] * (len(r) - 1) for r in inputs], 0)
        if "labels" in rows[0]:
            batch["labels"] = self._pad([row["labels"] for row in rows], IGNORE)
        return {name: torch.tensor(values) for name, values in batch.items()}

    def _pad(self, rows: list[list[int]], filler: int) -> list[list[int]]:
        longest = max(self.shortest if filler != IGNORE else 0, *map(len, rows))
        paddings = [[filler] * (longest - len(row)) for row in rows]
        return [r + p if self.side == "right" else p + r for r, p in zip(rows, paddings, strict=True)]


def length_sorted_batches(lengths: list[int], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of similar length, longest first: what does not fit in memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def padding_fraction(batches: list[list[int]], lengths: list[int], pad_to: int | None = None) -> float:
    """Share of all computed positions that are padding; `pad_to` None pads each batch to its longest row."""
    computed = sum(len(batch) * (pad_to or max(lengths[row] for row in batch)) for batch in batches)
    return 1 - sum(lengths[row] for batch in batches for row in batch) / computed
