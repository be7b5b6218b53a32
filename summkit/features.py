"""Floor 3. From text to tokens: the document is cut and never the summary, EOS is appended, the prompt is masked.

Training and inference share `encode`, so the same document is cut at the same token in both.
"""

import re
from bisect import bisect_left, bisect_right
from itertools import accumulate

from summkit.errors import SummkitError
from summkit.facts import split_sentences
from summkit.templates import Template

IGNORE = -100  # the label that torch's cross entropy leaves out


def encode(
    template: Template, tokenizer, document: str, summary: str | None, max_length: int, max_new_tokens: int,
    second: str = "",
) -> dict:  # fmt: skip
    """One row as {"input_ids", "labels", "length", "cut"}; without a summary, the prompt alone.

    Room for `max_new_tokens` of summary is kept in training too: the model meets in training what it will be asked
    with. A longer summary takes its room from the document. `cut` counts the document's tokens that were left out.
    The `second` text of a pair stays whole while it takes no more than half of the room.
    Labels are IGNORE for the prompt, and the summary's tokens and EOS after it.
    Raises SummkitError where `max_length` leaves no room for the document.
    """
    head, middle, tail = _frame(template, tokenizer)
    answer = [] if summary is None else [*answer_ids(template, tokenizer, summary), tokenizer.eos_token_id]
    room = max_length - len(head) - len(middle) - len(tail) - max(max_new_tokens, len(answer))
    if room < 1:
        needed = max_length - room + 1
        raise SummkitError(
            f"max_length={max_length} is too small: the instruction takes {len(head + middle + tail)} tokens and the "
            f"summary up to {max(max_new_tokens, len(answer))}; at least {needed} are needed for any of the document"
        )
    body, beside = (_ids(tokenizer, text, plain=True) for text in (document, second))
    kept = beside[: max(room // 2, room - len(body))]
    prompt = head + body[: room - len(kept)] + middle + kept + tail
    cut = max(0, len(body) + len(beside) - room)
    row = {"input_ids": prompt + answer, "length": len(prompt) + len(answer), "cut": cut}
    if summary is not None:
        row["labels"] = [IGNORE] * len(prompt) + answer
    return row


def encode_rows(dataset, template: Template, tokenizer, max_length: int, max_new_tokens: int):
    """A `datasets.Dataset` with document, summary and maybe second → one with input_ids, labels, length and cut."""
    settings = {"template": template, "tokenizer": tokenizer}
    settings |= {"max_length": max_length, "max_new_tokens": max_new_tokens}
    return dataset.map(_encode_row, fn_kwargs=settings, remove_columns=dataset.column_names, desc="tokenising")


def _encode_row(row, template, tokenizer, max_length, max_new_tokens):
    return encode(
        template, tokenizer, row["document"], row["summary"], max_length, max_new_tokens, row.get("second", "")
    )


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


def _frame(template: Template, tokenizer) -> tuple[list[int], list[int], list[int]]:
    """Tokens of head, middle and tail: all of the prompt that is not the document's or the second text's."""
    return head_ids(template, tokenizer), _ids(tokenizer, template.middle), _ids(tokenizer, template.tail)


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
    total = [0, *accumulate(_count(tokenizer, unit) for unit in units)]
    found, first, last = [], 0, 0
    while last < len(units):
        done = last
        # One more: the white space before the first piece goes. A text may have more tokens than its pieces together.
        last = max(done + 1, bisect_right(total, total[first] + tokens + 1) - 1)
        while _count(tokenizer, "".join(units[first:last]).strip()) > tokens:
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
    if (size := _count(tokenizer, bare)) <= tokens:
        return [piece]
    if len(bare) == 1:
        raise SummkitError(f"chunks of tokens={tokens}: the character {bare!r} alone is {size} tokens; allow more")
    parts = re.findall(r"\s*\S+", piece)
    if len(parts) == 1:  # one word
        middle = len(piece) - len(bare) // 2
        parts = [piece[:middle], piece[middle:]]
    return [unit for part in parts for unit in _cut(part, tokenizer, tokens)]


def _count(tokenizer, text: str) -> int:
    return len(_ids(tokenizer, text, plain=True))


class Collator:
    """Pads rows to the longest of the batch, and no further.

    Training pads on the right: with labels (rows, tokens). Generation pads on the left (`side="left"`), since a decoder
    goes on from the last token, and a pad there would be what it goes on from.
    """

    def __init__(self, tokenizer, side: str = "right"):
        self.pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.side = side

    def __call__(self, rows: list[dict]) -> dict:
        """Rows of `encode` → tensors input_ids, attention_mask and, where there are any, labels: (rows, longest)."""
        import torch

        longest = max(len(row["input_ids"]) for row in rows)
        batch = {
            "input_ids": [self._pad(row["input_ids"], self.pad_id, longest) for row in rows],
            # From the lengths, never from `ids != pad`: the pad token may be the EOS, which must be attended to.
            "attention_mask": [self._pad([1] * len(row["input_ids"]), 0, longest) for row in rows],
        }
        if "labels" in rows[0]:
            batch["labels"] = [self._pad(row["labels"], IGNORE, longest) for row in rows]
        return {name: torch.tensor(values) for name, values in batch.items()}

    def _pad(self, values: list[int], filler: int, longest: int) -> list[int]:
        padding = [filler] * (longest - len(values))
        return values + padding if self.side == "right" else padding + values


def length_sorted_batches(lengths: list[int], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of similar length, longest first: what does not fit in memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def same_order_sampler():
    """The sampler class of training: rows of similar length together, in one order for all processes."""
    # Made here because a class statement at the module's top would import transformers and torch with it.
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class SameOrder(LengthGroupedSampler):
        """What the first process has drawn is the order of all."""

        def __iter__(self):
            order = [list(super().__iter__())]
            if torch.distributed.is_initialized():
                torch.distributed.broadcast_object_list(order)
            return iter(order[0])

    return SameOrder


def padding_fraction(batches: list[list[int]], lengths: list[int], pad_to: int | None = None) -> float:
    """Share of all computed positions that are padding; `pad_to` None pads each batch to its longest row."""
    computed = sum(len(batch) * (pad_to or max(lengths[row] for row in batch)) for batch in batches)
    return 1 - sum(lengths[row] for batch in batches for row in batch) / computed
