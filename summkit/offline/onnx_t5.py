"""Floor 0. From the 8-bit ONNX graphs of a T5 to a folder that `from_pretrained` loads, checked before it is kept.

The weights passed through 8 bits once, a scale a tensor: they come back to within half a step, not to what they were.
"""

import contextlib
import json
import re
from pathlib import Path

from summkit.errors import SummkitError

CONVERTER = 1  # part of a converted model's folder name: raise it where `convert` changes what it writes
_QUESTION = "translate English to German: The house is wonderful."
_ANSWER = "Das Haus ist wunderbar."


def convert(source: Path, folder: Path, parameters: int) -> None:
    """Write to `folder`, in fp32, the model whose encoder.onnx, decoder.onnx and tokenizer.json lie in `source`.

    Raises SummkitError where what was read has not `parameters` weights or has lost its wits.
    """
    write(source, folder)
    _check_model(folder, parameters)


def write(source: Path, folder: Path) -> None:
    """The same, unchecked: model.safetensors, config.json, generation_config.json and the tokenizer's files."""
    from safetensors.numpy import save_file

    weights = {name: array for part in ("encoder", "decoder") for name, array in _weights(source / f"{part}.onnx")}
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    special = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    _write_json(folder / "config.json", _config(weights) | special)
    _write_json(folder / "generation_config.json", special)
    _write_tokenizer(source / "tokenizer.json", folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # readable by all: a cache may be shared


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _weights(path: Path):
    """Names, as transformers gives them, and float32 arrays of one graph's weights. The embedding comes from both."""
    import numpy as np
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # A linear layer's matrix has a number for a name: the node that multiplies with it says where it belongs.
    linear = {node.input[1]: node.name for node in graph.node if node.op_type == "MatMulInteger"}
    for name, array in arrays.items():
        if name in linear:
            yield _named(linear[name].replace("/MatMul_quant", "/weight")), _dequantised(name, arrays).T.copy()
        elif name.endswith("_quantized"):
            yield _named(name.removesuffix("_quantized")), _dequantised(name, arrays)
        elif array.dtype == np.float32 and array.ndim:
            yield _named(name), array


def _dequantised(name: str, arrays: dict):
    import numpy as np

    stem = name.removesuffix("_quantized")
    steps = arrays[name].astype(np.float32) - arrays[f"{stem}_zero_point"].astype(np.float32)
    return steps * arrays[f"{stem}_scale"]


def _named(name: str) -> str:
    """ "/m/decoder/block.0/layer.0/SelfAttention/q/weight" and "enc.embed_tokens.weight" as transformers says them."""
    name = name.replace("/", ".").strip(".").removeprefix("m.")
    return re.sub(r"^encoder\.embed_tokens", "shared", re.sub(r"^enc\.", "encoder.", name))


def _config(weights: dict) -> dict:
    """What the shapes say. The head and the embedding are two matrices: tied, one would be lost without a word."""
    bias, query = (
        weights[f"encoder.block.0.layer.0.SelfAttention.{part}.weight"] for part in ("relative_attention_bias", "q")
    )
    queries = [name for name in weights if name.endswith(".SelfAttention.q.weight")]
    layers = {part: sum(name.startswith(part) for name in queries) for part in ("encoder", "decoder")}
    return {
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": True,
        "vocab_size": weights["shared.weight"].shape[0], "d_model": weights["shared.weight"].shape[1],
        "d_kv": query.shape[0] // bias.shape[1], "num_heads": bias.shape[1],
        "d_ff": weights["encoder.block.0.layer.1.DenseReluDense.wo.weight"].shape[1],
        "num_layers": layers["encoder"], "num_decoder_layers": layers["decoder"],
        "relative_attention_num_buckets": bias.shape[0], "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }  # fmt: skip


def _write_tokenizer(path: Path, folder: Path) -> None:
    """Without the limit of 48 tokens that a program for titles sets, and spaces parted as T5's own tokenizer does."""
    from tokenizers import Tokenizer, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer.from_file(str(path))
    core.no_truncation()
    core.no_padding()
    words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=512, **special).save_pretrained(folder)


def _check_model(folder: Path, parameters: int) -> None:
    """Another release of a library may read or load differently: a model that lost its wits must not be cached."""
    import transformers

    with _quiet(transformers):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model, keys = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
        asked = tokenizer(_QUESTION, return_tensors="pt")
        answer = tokenizer.decode(model.generate(**asked, max_new_tokens=20)[0], skip_special_tokens=True)
    count = sum(p.numel() for p in model.parameters())
    if count != parameters or answer != _ANSWER or keys["missing_keys"] or keys["unexpected_keys"]:
        raise SummkitError(
            f"the T5 did not survive its conversion ({count:,} parameters, {parameters:,} expected; it says "
            f"{answer[:60]!r}): install the versions in requirements.txt"
        )


@contextlib.contextmanager
def _quiet(transformers):
    """Without the loader's bars, and its warning that head and embedding are two: they are meant to be."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
