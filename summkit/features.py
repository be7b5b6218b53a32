"""Floor 3. From text to tokens: the document is cut and never the summary, EOS is appended, the prompt is masked.

Training and inference share `encode`, so the same document is cut at the same token in both.
"""

from summkit.errors import SummkitError
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
    head, tail = _head(tokenizer, template.head), _ids(tokenizer, template.tail)
    middle = _ids(tokenizer, template.middle)
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


def _head(tokenizer, text: str) -> list[int]:
    """The head's tokens, behind the tokenizer's BOS where it sets one and the chat template has not done so."""
    bos, ids = tokenizer.bos_token_id, _ids(tokenizer, text)
    wanted = bos is not None and tokenizer("a")["input_ids"][0] == bos
    return [bos, *ids] if wanted and ids[:1] != [bos] else ids


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


def padding_fraction(batches: list[list[int]], lengths: list[int], pad_to: int | None = None) -> float:
    """Share of all computed positions that are padding; `pad_to` None pads each batch to its longest row."""
    computed = sum(len(batch) * (pad_to or max(lengths[row] for row in batch)) for batch in batches)
    return 1 - sum(lengths[row] for batch in batches for row in batch) / computed
