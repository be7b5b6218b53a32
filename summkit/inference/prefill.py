"""Prefill: read a batch's prompts in groups of similar length, without padding, and answer them together.

A decoding step takes about as long for sixteen answers as for four, but the time for reading grows with the number of
positions, padding included. So documents of different lengths are answered together but read separately.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from summkit.data import batching, tokenisation
from summkit.errors import SummkitError
from summkit.inference import sampling
from summkit.models import loading

if TYPE_CHECKING:
    import torch
    from transformers import Cache, DynamicCache

    from summkit.inference.generation import Summarizer

SIMILAR = 0.95  # prompts are read together if they have at least this share of the longest one's length


class Prefill:
    """Reads rows of `tokenisation.encode`, longest first, and returns the inputs from which `generate` continues.

    A call returns a dict with input_ids and attention_mask, (rows, tokens), padded on the left, and past_key_values
    if part of the input has been read already, which it always has if the settings ask for several answers to each row
    (`num_return_sequences`). All rows are read as one group, later, if caches cannot be joined: in an encoder, with
    prompt tuning, with beams, and in a model that does not keep all keys and values.

    Args:
        summarizer: The model that answers, its tokenizer and template.
        settings: Settings of the GenerationConfig.
        reuse_head: Read the common beginning of all prompts once, and copy its cache for each group.

    Raises:
        SummkitError: `reuse_head` is set, but the model's caches cannot be joined.
    """

    def __init__(self, summarizer: Summarizer, settings: dict[str, Any], reuse_head: bool = False) -> None:
        self.model = summarizer.model
        self.pad_id = summarizer.tokenizer.pad_token_id
        # An encoder counts positions from the left, and its decoder has its own start token.
        side = "right" if summarizer.seq2seq else "left"
        self.collate = batching.Collator(summarizer.tokenizer, side=side, **loading.padding(self.model))
        self.head: list[int] = []
        self.head_cache: Cache | None = None
        reason = _reason_not_joinable(summarizer, settings)
        self.in_groups = not reason
        self.several = settings.get("num_return_sequences", 1) > 1
        if reuse_head:
            self._read_head(tokenisation.head_ids(summarizer.template, summarizer.tokenizer), reason)

    def __call__(self, rows: list[dict]) -> dict[str, Any]:
        """Read rows, longest first, and return the inputs from which `generate` continues."""
        tensors = {name: tensor.to(self.model.device) for name, tensor in self._padded(rows).items()}
        groups = similar_lengths([len(row["input_ids"]) for row in rows])
        if self.in_groups and (len(groups) > 1 or self.several):
            caches = [self._read_group(tensors, groups[0])]
            self.in_groups = _keeps_all(caches[0])
            if self.in_groups:
                caches += [self._read_group(tensors, group) for group in groups[1:]]
                return tensors | {"past_key_values": self._joined(caches)}
        return tensors | self._head_copies(len(rows))

    def _padded(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Return head, padding, rest. The mask hides the padding, and positions follow the mask without a gap."""
        import torch

        if not self.head:
            return self.collate(rows)
        rest = self.collate([{"input_ids": row["input_ids"][len(self.head) :]} for row in rows])
        head = torch.tensor([self.head]).expand(len(rows), -1)
        before = {"input_ids": head, "attention_mask": torch.ones_like(head)}
        return {name: torch.cat([before[name], tensor], dim=1) for name, tensor in rest.items()}

    def _read_head(self, head: list[int], reason: str) -> None:
        import torch

        if not reason:
            ids = torch.tensor([head], device=self.model.device)
            cache = self._read({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            reason = "" if _keeps_all(cache) else "this model does not keep all keys and values; leave reuse_head out"
        if reason:
            raise SummkitError(f"reuse_head: {reason}")
        self.head = head
        self.head_cache = cache

    def _head_copies(self, rows: int) -> dict[str, Cache]:
        if self.head_cache is None:
            return {}
        cache = copy.deepcopy(self.head_cache)
        cache.batch_repeat_interleave(rows)
        return {"past_key_values": cache}

    def _read_group(self, tensors: dict[str, torch.Tensor], group: slice) -> Cache:
        import torch

        size = len(self.head)
        padding = int((tensors["attention_mask"][group][0] == 0).sum())  # of the longest row
        return self._read(
            {key: torch.cat([t[group, :size], t[group, size + padding :]], dim=1) for key, t in tensors.items()}
        )

    def _read(self, inputs: dict[str, torch.Tensor]) -> Cache:
        """Return keys and values of all tokens, by `generate`, which makes the model's positions and masks."""
        import torch
        from transformers import GenerationConfig

        config = GenerationConfig(max_new_tokens=1, pad_token_id=self.pad_id, return_dict_in_generate=True)
        with torch.inference_mode():
            past = self._head_copies(len(inputs["input_ids"]))
            return self.model.generate(**inputs, **past, generation_config=config).past_key_values

    def _joined(self, caches: list[Cache]) -> DynamicCache:
        """Join the groups' caches, without each prompt's last token, from which the answer continues.

        Shorter groups are padded with zeros. Only one layer at a time is in memory twice.
        """
        import torch
        from transformers import DynamicCache

        size = len(self.head)
        longest = caches[0].get_seq_length()
        joined = DynamicCache()

        def stretched(states: torch.Tensor) -> torch.Tensor:  # (rows, heads, tokens, width)
            zeros = states.new_zeros(*states.shape[:2], longest - states.shape[2], states.shape[3])
            return torch.cat([states[:, :, :size], zeros, states[:, :, size:-1]], dim=2)

        for number in range(len(caches[0].layers)):
            layers = [cache.layers[number] for cache in caches]
            keys = torch.cat([stretched(layer.keys) for layer in layers])
            joined.update(keys, torch.cat([stretched(layer.values) for layer in layers]), number)
            for cache in caches:
                cache.layers[number] = None
        return joined


def similar_lengths(lengths: list[int]) -> list[slice]:
    """Group lengths, longest first, into slices whose shortest is at least SIMILAR times their longest."""
    starts = [0]
    for number, length in enumerate(lengths):
        if length < SIMILAR * lengths[starts[-1]]:
            starts.append(number)
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(lengths)], strict=True)]


def _reason_not_joinable(summarizer: Summarizer, settings: dict[str, Any]) -> str:
    """Return why caches cannot be joined, with a remedy; "" if they can."""
    if summarizer.seq2seq:
        return "an encoder reads head and document together; leave reuse_head out"
    if loading.virtual_tokens(summarizer.model):
        return "prompt tuning puts its tokens before the head; leave reuse_head out"
    if settings.get("num_beams", 1) > 1 or "cache_implementation" in settings:
        return "beams would need a copy of the head each; use decoding='greedy'"
    if settings.get("num_return_sequences", 1) > 1 and not sampling.suits(summarizer.model, settings):
        return "several answers would need a copy of the head each; use decoding='greedy'"
    return ""


def _keeps_all(cache: Cache) -> bool:
    """Whether the cache keeps all keys and values: a sliding window or a recurrent state would include padding."""
    from transformers.cache_utils import DynamicLayer

    layers = getattr(cache, "layers", [None])
    return all(type(layer) is DynamicLayer and layer.keys is not None for layer in layers)
