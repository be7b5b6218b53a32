"""Convert the embedded decoder's GGUF file to a folder that `from_pretrained` loads, and check it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from summkit.errors import SummkitError
from summkit.progress import quiet_transformers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def convert(gguf: Path, folder: Path, parameters: int) -> None:
    """Write model and tokenizer to `folder` in transformers' format and fp32, in about half a minute.

    Args:
        gguf: The GGUF file.
        folder: An empty folder.
        parameters: The number of weights that the model must have.

    Raises:
        SummkitError: The converted model has another number of weights, or fails its sanity check.
    """
    import torch
    import transformers

    options = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name, "local_files_only": True}
    with quiet_transformers(), _reading_once():
        tokenizer = transformers.AutoTokenizer.from_pretrained(**options)
        model = transformers.AutoModelForCausalLM.from_pretrained(**options, dtype=torch.float32)
        _complete_tokenizer(tokenizer)
        _forget_gguf(model)
        _set_special_tokens(model, tokenizer)
        prompt = tokenizer("The capital of France is", return_tensors="pt")
        with torch.inference_mode():
            answer = tokenizer.decode(int(model.eval()(**prompt).logits[0, -1].argmax()))
        check_conversion(gguf.stem, model, parameters, answer, " Paris")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def check_conversion(name: str, model: torch.nn.Module, parameters: int, answer: str, expected: str) -> None:
    """Check that a model was converted correctly, since releases of a library may read a file differently.

    Args:
        name: The model's name, for the error.
        model: The converted model.
        parameters: The number of weights that it must have.
        answer: Its answer to a question.
        expected: The expected answer.

    Raises:
        SummkitError: The number of weights or the answer differs.
    """
    count = sum(weights.numel() for weights in model.parameters())
    if count != parameters or answer != expected:
        raise SummkitError(
            f"{name} was not converted correctly ({count:,} parameters, {parameters:,} expected; it answers "
            f"{answer[:60]!r}, {expected!r} expected): install the versions in requirements.txt"
        )


@contextlib.contextmanager
def _reading_once() -> Iterator[None]:
    """Parse the file only once: transformers parses it for the tokenizer, the configuration and the weights."""
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def _complete_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Set what the GGUF reader omits: single digits as in the original, and a pad token that differs from EOS."""
    from tokenizers import pre_tokenizers

    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.pad_token = tokenizer.unk_token  # <|endoftext|>, so that masking the padding never masks EOS
    for key in ("local_files_only", "is_local", "gguf_file"):
        tokenizer.init_kwargs.pop(key, None)
    if not tokenizer.chat_template:
        raise SummkitError("the GGUF file has no chat template: install the versions in requirements.txt")


def _forget_gguf(model: PreTrainedModel) -> None:
    # With these attributes, Trainer, .float() and save_pretrained would treat the model as quantised.
    for key in ("hf_quantizer", "is_quantized", "quantization_method"):
        model.__dict__.pop(key, None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _set_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    from transformers import GenerationConfig

    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids)
    tokenizer.model_max_length = model.config.max_position_embeddings
