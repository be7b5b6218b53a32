"""A T5 in 8-bit ONNX and back: every weight to within half a step, under its own name, the right way round."""

import json
import sys

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from summkit.errors import SummkitError
from summkit.offline import assets, onnx_t5

SIZES = {"vocab_size": 40, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 3, "num_decoder_layers": 2}
SIZES |= {"num_heads": 3, "relative_attention_num_buckets": 8}
PACKAGED = yaml.safe_load(onnx_t5.CONFIG.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full():
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**PACKAGED | SIZES)).eval()
    model.lm_head.weight = torch.nn.Parameter(torch.randn(40, 16))
    return {name: array.numpy() for name, array in model.state_dict().items() if "embed_tokens" not in name}


@pytest.fixture(scope="module")
def source(full, tmp_path_factory):
    """A folder as the package's: two graphs named as its exporter names them, and a tokenizer cut at 48 tokens."""
    folder = tmp_path_factory.mktemp("onnx")
    for part in ("encoder", "decoder"):
        own = {
            name: array
            for name, array in full.items()
            if not name.startswith({"encoder": "decoder", "decoder": "encoder"}[part])
        }
        own.pop("lm_head.weight" if part == "encoder" else "", None)
        onnx.save(graph(own), folder / f"{part}.onnx")
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def graph(weights):
    tensors, nodes = [], []
    for number, (name, array) in enumerate(weights.items()):
        exported = name.replace("encoder.", "enc.") if name.startswith("encoder.") else f"m.{name}"
        if "norm" in name:
            tensors.append(numpy_helper.from_array(array, exported))
        elif name == "shared.weight" or "bias" in name:
            tensors += quantised(array, exported, np.uint8, 138)
        else:
            tensors += quantised(array.T, f"onnx::MatMul_{number}", np.int8, 0)
            path = "/" + exported.removesuffix(".weight").replace(".", "/").replace("block/", "block.").replace(
                "layer/", "layer."
            )
            inputs = ["x_quantized", f"onnx::MatMul_{number}_quantized", "x_zero", f"onnx::MatMul_{number}_zero_point"]
            nodes.append(helper.make_node("MatMulInteger", inputs, [f"y{number}"], name=f"{path}/MatMul_quant"))
    tensors.append(numpy_helper.from_array(np.array(3.0, np.float32), "a_scalar_of_the_graph"))
    return helper.make_model(helper.make_graph(nodes, "g", [], [], tensors))


def quantised(array, name, kind, zero):
    limits = np.iinfo(kind)
    scale = np.float32(np.abs(array).max() / min(limits.max - zero, zero - limits.min))
    steps = np.clip(np.round(array / scale) + zero, limits.min, limits.max).astype(kind)
    zero_kind = TensorProto.UINT8 if kind == np.uint8 else TensorProto.INT8
    return [
        numpy_helper.from_array(steps, f"{name}_quantized"),
        numpy_helper.from_array(scale, f"{name}_scale"),
        helper.make_tensor(f"{name}_zero_point", zero_kind, [], [zero]),
    ]


def tokenizer():
    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁house", "b", ":"]
    core = Tokenizer(models.Unigram([(piece, -float(n)) for n, piece in enumerate(pieces)], unk_id=2))
    core.add_special_tokens(["<pad>", "</s>", "<unk>", "<extra_id_0>"])
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    core.enable_truncation(48)
    core.enable_padding(pad_id=0, pad_token="<pad>", length=48)
    return core


@pytest.fixture(scope="module")
def written(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "model"
    onnx_t5.write_model(source, folder, PACKAGED | SIZES)
    return folder


def test_every_weight_comes_back_to_within_half_a_step(full, written):
    model, keys = AutoModelForSeq2SeqLM.from_pretrained(written, output_loading_info=True)
    assert not keys["missing_keys"] and not keys["unexpected_keys"] and not keys["mismatched_keys"]
    found = {name: array.numpy() for name, array in model.state_dict().items() if "embed_tokens" not in name}
    assert set(found) == set(full) and all(array.dtype == np.float32 for array in found.values())
    for name, array in full.items():
        step = 0 if "norm" in name else np.abs(array).max() / 117
        assert np.abs(found[name] - array).max() <= step / 2 + 1e-6, name
    assert not np.allclose(found["lm_head.weight"], found["shared.weight"], atol=0.1), "two matrices, both kept"


def test_the_configuration_keeps_two_matrices_and_the_special_tokens(written):
    assert json.loads((written / "config.json").read_text()) == PACKAGED | SIZES
    assert PACKAGED["tie_word_embeddings"] is False and PACKAGED["feed_forward_proj"] == "gated-gelu"
    model = AutoModelForSeq2SeqLM.from_pretrained(written)
    special = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    assert {key: getattr(model.generation_config, key) for key in special} == special


def test_the_tokenizer_has_no_limit_no_padding_and_ends_its_inputs(written):
    made = AutoTokenizer.from_pretrained(written)
    assert made("a house").input_ids == [4, 5, 1] and len(made("a " * 100).input_ids) == 101
    assert made(" a \n  house ").input_ids == [4, 5, 1], "spaces at the ends and in rows are no tokens"
    assert (made.pad_token_id, made.eos_token_id, made.unk_token_id) == (0, 1, 2)
    assert made.decode([4, 5, 1], skip_special_tokens=True) == "a house"
    assert "<extra_id_0>" not in made.decode(made("a<extra_id_0>").input_ids, skip_special_tokens=True)


def test_a_model_that_answers_nonsense_is_refused_and_the_log_is_as_before(source, tmp_path, capfd, monkeypatch):
    from transformers.utils import logging

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(PACKAGED | SIZES))
    monkeypatch.setattr(onnx_t5, "CONFIG", tmp_path / "tiny.yaml")
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(SummkitError, match=r"was not converted correctly \([\d,]+ parameters, 76,961,152 expected"):
        onnx_t5.convert(source, tmp_path / "model", 76_961_152)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert "tied weights" not in capfd.readouterr().err


def test_without_the_package_onnx_the_error_names_the_extra(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SummkitError, match=r"package onnx: pip install 'summkit\[long\]'"):
        onnx_t5.convert(source, tmp_path / "model", 76_961_152)


@pytest.mark.skipif(
    not assets.ASSETS["flan-t5-small"].model_folder.is_dir(), reason="the cache does not hold flan-t5-small"
)
def test_the_cached_flan_t5_translates():
    folder = assets.embedded_model("flan-t5-small")
    made, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
    asked = made("translate English to German: The house is wonderful.", return_tensors="pt")
    answer = model.generate(**asked, max_new_tokens=12)[0]
    assert (
        made.decode(answer, skip_special_tokens=True) == "Das Haus ist wunderbar." and answer[-1] == made.eos_token_id
    )
    assert len(made("word " * 600, truncation=False).input_ids) == 601
