"""Models with random weights and their byte-level tokenizer, for tests, CI and the profile `smoke`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from summkit import files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer(ends_inputs: bool = False) -> PreTrainedTokenizerFast:
    """Make a tokenizer of 256 bytes and a few special tokens, with a chat template.

    Args:
        ends_inputs: Append EOS to every input and leave out the chat template, as T5's tokenizer does.

    Returns:
        The tokenizer; no file is read.

    Example:
        >>> tokenizer = tiny_tokenizer()
        >>> tokenizer.decode(tokenizer("Café")["input_ids"])
        'Café'
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    specials = ["<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={token: number for number, token in enumerate(specials + alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if ends_inputs:
        core.post_processor = processors.TemplateProcessing(f"$A {specials[0]}", special_tokens=[(specials[0], 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=specials[0], pad_token=specials[1], additional_special_tokens=specials[2:]
    )
    tokenizer.chat_template = None if ends_inputs else _CHAT
    return tokenizer


def tiny_llama(seed: int = 0) -> PreTrainedModel:
    """Make a Llama with 0.1 million random weights, the same for the same seed."""
    return tiny_model("tiny-llama", seed)


def tiny_t5(seed: int = 0) -> PreTrainedModel:
    """Make a T5 with 0.05 million random weights, the same for the same seed."""
    return tiny_model("tiny-t5", seed)


TINY = {"tiny-llama": tiny_llama, "tiny-t5": tiny_t5}


def tiny_model(name: str, seed: int = 0) -> PreTrainedModel:
    """Make a model of tiny.yaml with random weights, the same for the same seed."""
    import torch
    import transformers

    values = files.read_mapping(Path(__file__).with_name("tiny.yaml"), "tiny models")[name]
    model_class = getattr(transformers, values.pop("class"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_class(model_class.config_class(**values))
