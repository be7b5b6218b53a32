"""Floor 0. From the embedded model's GGUF file to a folder that `from_pretrained` loads, checked before it is kept."""

import contextlib
import functools
import io
from pathlib import Path

from summkit.errors import SummkitError

CONVERTER = 1  # part of a converted model's folder name: raise it where `convert` changes what it writes


def convert(gguf: Path, folder: Path, parameters: int) -> None:
    """Write model and tokenizer to `folder` as transformers saves them, in fp32. Takes about half a minute.

    Raises SummkitError where what was read has not `parameters` weights or has lost its wits.
    """
    import torch
    import transformers

    with _quiet(transformers), _read_once():
        where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name, "local_files_only": True}
        tokenizer = _tokenizer(transformers.AutoTokenizer.from_pretrained(**where))
        model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        _forget_gguf(model)
        _set_special_tokens(model, tokenizer)
        _check_model(gguf.stem, parameters, model, tokenizer)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # the weights come out readable by their owner only; a cache may be shared


@contextlib.contextmanager
def _quiet(transformers):
    """Without the loader's own bars, which show 5 of its 30 seconds. transformers is imported before: its log stays."""
    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if shown:
            bars.enable_progress_bar()


@contextlib.contextmanager
def _read_once():
    """Transformers reads the file for the tokenizer, the configuration and the weights; a third of that is enough."""
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def _tokenizer(tokenizer):
    """Mend what the GGUF reader leaves out: single digits as in the original, and a pad that is not the EOS."""
    from tokenizers import pre_tokenizers

    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.pad_token = tokenizer.unk_token  # <|endoftext|>: masking the padding can then never mask the EOS
    for key in ("local_files_only", "is_local", "gguf_file"):
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def _forget_gguf(model) -> None:
    # Left in place, Trainer, .float() and save_pretrained take the dequantised model for a quantised one.
    for key in ("hf_quantizer", "is_quantized", "quantization_method"):
        model.__dict__.pop(key, None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _set_special_tokens(model, tokenizer) -> None:
    from transformers import GenerationConfig

    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids)
    tokenizer.model_max_length = model.config.max_position_embeddings


def _check_model(name: str, parameters: int, model, tokenizer) -> None:
    """Another release of transformers may read GGUF differently: a model that lost its wits must not be cached."""
    import torch

    count = sum(p.numel() for p in model.parameters())
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        best = int(model.eval()(**prompt).logits[0, -1].argmax())
    if count != parameters or tokenizer.decode(best) != " Paris" or not tokenizer.chat_template:
        raise SummkitError(
            f"{name} did not survive its conversion ({count:,} parameters, {parameters:,} expected): "
            "install the versions in requirements.txt"
        )
