"""Floor 4. Prefill: a batch's prompts are read in groups of like length, so that no padding is, and answered together.

A decoding step takes about as long for sixteen answers as for four; reading takes as long as there are positions. So
few documents of many lengths are answered together, and not read together.
"""

import copy

from summkit.errors import SummkitError
from summkit.models import loading

LIKE = 0.95  # prompts are read together whose length is at least this share of the longest one's


class Prefill:
    """Rows of `features.encode` in one batch, longest first → what `generate` goes on from: a dict of input_ids and
    attention_mask, (rows, tokens), padded on the left, and past_key_values where something has been read.

    A `head`, token numbers that all prompts begin with, is read once and copied for each group; it stands before the
    padding. SummkitError where that cannot be. Prompts are read as one group in a model whose caches cannot be put
    together: of an encoder, with prompt tuning, with beams, and where not all keys and values are kept.
    """

    def __init__(self, model, tokenizer, collate, settings: dict, head: list[int] | None = None):
        self.model, self.tokenizer, self.collate, self.head = model, tokenizer, collate, head or []
        reason = _obstacle(model, settings)
        if head and reason:
            raise SummkitError(f"reuse_head: {reason}")
        self.apart = not reason
        self.head_cache = self._read_head() if head else None

    def __call__(self, rows: list[dict]) -> dict:
        tensors = {name: tensor.to(self.model.device) for name, tensor in self._padded(rows).items()}
        groups = like_lengths([len(row["input_ids"]) for row in rows]) if self.apart else [slice(0, len(rows))]
        if len(groups) > 1:
            caches = [self._read(tensors, group) for group in groups]
            if self.apart:
                return tensors | {"past_key_values": self._joined(caches)}
        return tensors | self._copy(len(rows))

    def _padded(self, rows: list[dict]) -> dict:
        """Head, padding, the rest: the mask hides the padding, and positions, counted along it, leave no gap."""
        import torch

        if not self.head:
            return self.collate(rows)
        size = len(self.head)
        assert all(row["input_ids"][:size] == self.head for row in rows)
        rest = self.collate([{"input_ids": row["input_ids"][size:]} for row in rows])
        head = torch.tensor([self.head]).expand(len(rows), -1)
        before = {"input_ids": head, "attention_mask": torch.ones_like(head)}
        return {name: torch.cat([before[name], tensor], dim=1) for name, tensor in rest.items()}

    def _read_head(self):
        import torch

        with torch.inference_mode():
            head = torch.tensor([self.head], device=self.model.device)
            cache = self.model(input_ids=head, use_cache=True, logits_to_keep=1).past_key_values
        if not _keeps_all(cache):
            raise SummkitError("reuse_head: this model does not keep all keys and values; leave reuse_head out")
        return cache

    def _copy(self, rows: int) -> dict:
        if not self.head:
            return {}
        cache = copy.deepcopy(self.head_cache)
        cache.batch_repeat_interleave(rows)
        return {"past_key_values": cache}

    def _read(self, tensors: dict, group: slice):
        """The cache of a group's prompts but for their last token, which the answer begins from. None, and no further
        group is asked for, where the model does not keep all of it.
        """
        import torch
        from transformers import GenerationConfig

        if not self.apart:
            return None
        size, rows = len(self.head), tensors["attention_mask"][group]
        padding = int((rows[0] == 0).sum())  # of the longest
        parts = {k: torch.cat([t[group, :size], t[group, size + padding :]], dim=1) for k, t in tensors.items()}
        # By `generate` and not by the model itself: it knows which positions and masks a model takes.
        config = GenerationConfig(
            max_new_tokens=1, pad_token_id=self.tokenizer.pad_token_id, return_dict_in_generate=True
        )
        with torch.inference_mode():
            cache = self.model.generate(**parts, **self._copy(len(rows)), generation_config=config).past_key_values
        self.apart = _keeps_all(cache)
        return cache

    def _joined(self, caches: list):
        """One cache of all groups, zeros where the shorter ones have padding. Layer by layer, to hold little twice."""
        import torch
        from transformers import DynamicCache

        longest, joined = caches[0].get_seq_length(), DynamicCache()
        for number in range(len(caches[0].layers)):
            layers = [cache.layers[number] for cache in caches]
            keys = torch.cat([self._stretched(layer.keys, longest) for layer in layers])
            values = torch.cat([self._stretched(layer.values, longest) for layer in layers])
            joined.update(keys, values, number)
            for cache in caches:
                cache.layers[number] = None
        return joined

    def _stretched(self, states, length: int):
        """(rows, heads, tokens, size) → `length` tokens but for the last one, with zeros between head and rest."""
        import torch

        size, gap = len(self.head), length - states.shape[2]
        zeros = states.new_zeros(*states.shape[:2], gap, states.shape[3])
        return torch.cat([states[:, :, :size], zeros, states[:, :, size:-1]], dim=2)


def like_lengths(lengths: list[int]) -> list[slice]:
    """Lengths, longest first, → slices whose shortest is at least `LIKE` of their longest."""
    starts = [0]
    for number, length in enumerate(lengths):
        if length < LIKE * lengths[starts[-1]]:
            starts.append(number)
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(lengths)], strict=True)]


def _obstacle(model, settings: dict) -> str | None:
    """Why caches cannot be put together, and the way out; None where they can."""
    if loading.is_encoder_decoder(model):
        return "an encoder reads head and document together; leave reuse_head out"
    if loading.virtual_tokens(model):
        return "prompt tuning puts its tokens before the head; leave reuse_head out"
    if settings.get("num_beams", 1) > 1:
        return "beams would need a copy of the head each; use decoding='greedy'"
    return None


def _keeps_all(cache) -> bool:
    """A sliding window would count padding as tokens; a recurrent state would have read it."""
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in getattr(cache, "layers", [None]))
