"""Convert the 8-bit ONNX graphs of a T5 to a folder that `from_pretrained` loads, and check it.

The weights were quantised to 8 bits with one scale per tensor, so they are restored to within half a step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from summkit.errors import SummkitError
from summkit.files import read_mapping
from summkit.offline.gguf import check_conversion
from summkit.progress import quiet_transformers

CONFIG = Path(__file__).with_name("flan_t5_small.yaml")
_QUESTION = "translate English to German: The house is wonderful."
_ANSWER = "Das Haus ist wunderbar."


def convert(source: Path, folder: Path, parameters: int) -> None:
    """Write the model to `folder` in fp32, and check it.

    Args:
        source: The folder with encoder.onnx, decoder.onnx and tokenizer.json.
        folder: The folder to write; it may already exist.
        parameters: The number of weights that the model must have.

    Raises:
        SummkitError: The package onnx is missing, or the converted model has another number of weights or fails its
            sanity check.
    """
    import transformers

    write_model(source, folder, read_mapping(CONFIG, "configuration"))
    with quiet_transformers():  # it warns that head and embedding are two tensors, which is intended
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model, keys = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
        question = tokenizer(_QUESTION, return_tensors="pt")
        answer = tokenizer.decode(model.generate(**question, max_new_tokens=20)[0], skip_special_tokens=True)
    if keys["missing_keys"] or keys["unexpected_keys"]:
        answer = "nothing: its weights have other names"
    check_conversion("the T5", model, parameters, answer, _ANSWER)


def write_model(source: Path, folder: Path, config: dict[str, Any]) -> None:
    """Write model.safetensors, config.json, generation_config.json and the tokenizer, without a check."""
    from safetensors.numpy import save_file

    weights = {name: array for part in ("encoder", "decoder") for name, array in _weights(source / f"{part}.onnx")}
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    special = {key: config[key] for key in ("decoder_start_token_id", "pad_token_id", "eos_token_id")}
    for name, values in (("config", config), ("generation_config", special)):
        (folder / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    _write_tokenizer(source / "tokenizer.json", folder)


def _weights(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name in transformers, float32 array) of one graph. Both graphs contain the embedding."""
    try:
        import onnx
    except ImportError:
        raise SummkitError("converting this model needs the package onnx: pip install 'summkit[long]'") from None

    graph = onnx.load(path, load_external_data=False).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # A linear layer's matrix has a number as its name; the node that multiplies with it has the layer's name.
    linear = {node.input[1]: node.name for node in graph.node if node.op_type == "MatMulInteger"}
    for name, array in arrays.items():
        if name in linear:
            yield _renamed(linear[name].replace("/MatMul_quant", "/weight")), _dequantised(name, arrays).T.copy()
        elif name.endswith("_quantized"):
            yield _renamed(name.removesuffix("_quantized")), _dequantised(name, arrays)
        elif array.dtype == np.float32 and array.ndim:
            yield _renamed(name), array


def _dequantised(name: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    stem = name.removesuffix("_quantized")
    steps = arrays[name].astype(np.float32) - arrays[f"{stem}_zero_point"].astype(np.float32)
    return steps * arrays[f"{stem}_scale"]


def _renamed(name: str) -> str:
    """Convert names such as "/m/decoder/block.0/layer.0/SelfAttention/q/weight" to those of transformers."""
    name = name.replace("/", ".").strip(".").removeprefix("m.")
    return re.sub(r"^encoder\.embed_tokens", "shared", re.sub(r"^enc\.", "encoder.", name))


def _write_tokenizer(path: Path, folder: Path) -> None:
    """Write the tokenizer without the package's limit of 48 tokens, and with spaces split as in T5."""
    from tokenizers import Tokenizer, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer.from_file(str(path))
    core.no_truncation()
    core.no_padding()
    words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=512, **special).save_pretrained(folder)
