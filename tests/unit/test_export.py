"""The model outside: merged it is the adapter's model to the last word, in CTranslate2 too; it comes whole or not."""

import dataclasses
import json
import os
import shutil

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from summkit.cli import main
from summkit.config import choose_profile
from summkit.errors import SummkitError
from summkit.inference import export, generation
from summkit.models import loading, methods
from summkit.models.tiny import tiny_llama, tiny_t5
from summkit.training import checkpoints
from summkit.training.checkpoints import save_adapter

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [
    "A short text.",
    "The bridge over the Marran opened on Monday after a year of work. " * 2,
    "Rain.",
    "Two tugs.",
    "x" * 500,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def base(folder):
    """A folder with a tiny Llama whose answers differ, some of them with an end, and whose angles are not the usual."""
    config = tiny_llama().config
    config.tie_word_embeddings = False
    config.rope_parameters = {"rope_type": "default", "rope_theta": 100_000.0}
    torch.manual_seed(9)
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        parameter.data.mul_(6 if parameter.dim() > 1 else 1)
    model.lm_head.weight.data[config.eos_token_id].mul_(2.5)
    model.save_pretrained(folder / "base")
    loading.tiny_tokenizer().save_pretrained(folder / "base")
    return str(folder / "base")


def adapter(base, folder, method="lora", **changes):
    """An adapter folder of `method` whose weights are drawn at random, as if it had been trained."""
    profile = dataclasses.replace(
        choose_profile("smoke"), model=base, max_new_tokens=12, method=method, **{"precision": "fp32"} | changes
    )
    torch.manual_seed(0)
    model = methods.apply_method(loading.load_model(base, profile.precision), profile)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by = 0.05 if "lora_B" in name or not hasattr(model, "peft_config") else 0
            parameter.data.add_(torch.randn_like(parameter) * by)
    return save_adapter(model, folder / f"adapter-{method}-{profile.precision}", profile)


@pytest.fixture(scope="module")
def saved(base, folder):
    return adapter(base, folder)


@pytest.fixture(scope="module")
def answers(saved):
    """What the adapter's own model says to TEXTS; different things, some of them with an end."""
    found = generation.Summarizer.load(saved).summarize(TEXTS)
    assert len({answer.text for answer in found}) == len(TEXTS) and {answer.ended for answer in found} == {True, False}
    return found


@pytest.fixture(scope="module")
def merged(saved, folder):
    return export.merge_adapter(saved, folder / "merged")


@pytest.fixture(scope="module")
def converted(saved, folder):
    return export.to_ctranslate2(saved, folder / "converted")


def plain_answers(folder, asked):
    """Texts by transformers alone, one by one, from the folder and the prompt's halves in it."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    about = json.loads((folder / checkpoints.SETTINGS).read_text())
    for text in asked:
        ids = tokenizer(about["head"] + text + about["tail"], return_tensors="pt")
        found = model.generate(**ids)[0][ids["input_ids"].shape[1] :]
        yield " ".join(tokenizer.decode(found, skip_special_tokens=True).split())


# Merged


def test_the_merged_folder_answers_by_itself_what_the_adapter_answered(merged, answers):
    short = TEXTS[:4]  # the last one was cut to the limit
    assert list(plain_answers(merged, short)) == [answer.text for answer in answers[:4]]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(merged))
    assert "adapter_config.json" not in os.listdir(merged)
    ending = json.loads((merged / "generation_config.json").read_text())
    assert (ending["eos_token_id"], ending["pad_token_id"], ending["max_new_tokens"]) == (0, 1, 12)


@pytest.mark.parametrize("method", ["dora", "head", "full"])
def test_other_methods_are_merged_too(base, tmp_path, method):
    made = adapter(base, tmp_path, method)
    whole = export.merge_adapter(made, tmp_path / "merged")
    expected = [answer.text for answer in generation.Summarizer.load(made).summarize(TEXTS[:2])]
    assert list(plain_answers(whole, TEXTS[:2])) == expected


def test_an_adapter_beside_four_bits_is_merged_into_full_precision(base, tmp_path):
    """Mistake 7: merged into 4-bit weights, most of what was learned is rounded away."""
    made = adapter(base, tmp_path, "qlora", precision="nf4")
    whole = AutoModelForCausalLM.from_pretrained(export.merge_adapter(made, tmp_path / "merged"))
    assert "quantization_config" not in whole.config.to_dict() and whole.dtype == torch.float32
    from safetensors.torch import load_file

    low = load_file(made / "adapter_model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    a, b = (low[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
    before = AutoModelForCausalLM.from_pretrained(base).get_submodule(name).weight
    profile = choose_profile("smoke")
    expected = before + b @ a * profile.alpha / profile.rank
    assert torch.allclose(whole.get_submodule(name).weight, expected, atol=1e-6)
    assert checkpoints.settings_in(tmp_path / "merged")["precision"] == "fp32"


def test_a_tuned_prompt_cannot_be_merged(base, tmp_path):
    made = adapter(base, tmp_path, "prompt", virtual_tokens=8)
    with pytest.raises(SummkitError, match="no weights to merge"):
        export.merge_adapter(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_already_is_left_alone(saved, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for make in (export.merge_adapter, export.to_ctranslate2):
        for out in (tmp_path, tmp_path / "mine.txt", saved):
            with pytest.raises(SummkitError, match="already exists: choose a new folder, or remove it"):
                make(saved, out)
    assert os.listdir(tmp_path) == ["mine.txt"]


@pytest.mark.parametrize("make", [export.merge_adapter, export.to_ctranslate2])
def test_it_comes_whole_or_not_at_all(saved, tmp_path, monkeypatch, make):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_save", full)
    with pytest.raises(SummkitError, match="could not be written: No space left"):
        make(saved, tmp_path / "out")
    monkeypatch.setattr(export, "_save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(saved, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_an_adapter_of_numbers_that_are_none_is_refused(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    made = shutil.copytree(saved, tmp_path / "adapter")
    path = made / "adapter_model.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(path).items()}, path)
    with pytest.raises(SummkitError, match="adapter holds NaN or infinity"):
        export.merge_adapter(made, tmp_path / "out")
    with pytest.raises(SummkitError, match="no such folder"):
        export.merge_adapter(tmp_path / "gone", tmp_path / "out")


def test_the_merged_folder_has_the_names_of_transformers_4(merged):
    """Checked with transformers 4.57.1: without them it took its own RoPE base, and no tokenizer."""
    config = json.loads((merged / "config.json").read_text())
    assert (config["rope_theta"], config["rope_scaling"]) == (100_000.0, None)
    assert config["rope_parameters"] == {"rope_theta": 100_000.0, "rope_type": "default"}
    tokens = json.loads((merged / "tokenizer_config.json").read_text())
    assert tokens["tokenizer_class"] == "PreTrainedTokenizerFast" and "extra_special_tokens" not in tokens
    assert tokens["additional_special_tokens"] == ["<|system|>", "<|user|>", "<|assistant|>"]
    loaded = AutoTokenizer.from_pretrained(merged)
    assert loaded.all_special_tokens == loading.tiny_tokenizer().all_special_tokens
    assert AutoModelForCausalLM.from_pretrained(merged).config.rope_parameters["rope_theta"] == 100_000.0


LINEAR = {"rope_type": "linear", "factor": 8.0}


@pytest.mark.parametrize(
    ("config", "older"),
    [
        ({"model_type": "gpt2"}, {}),
        ({"model_type": "llama", "rope_parameters": {"rope_theta": 5.0, **LINEAR}},
         {"rope_theta": 5.0, "rope_scaling": LINEAR}),
        ({"model_type": "phi", "rope_parameters": {"rope_theta": 5.0, "partial_rotary_factor": 0.4}},
         {"rope_theta": 5.0, "rope_scaling": None, "partial_rotary_factor": 0.4}),
        ({"model_type": "gpt_neox", "rope_parameters": {"rope_theta": 5.0, "partial_rotary_factor": 0.4}},
         {"rope_theta": 5.0, "rope_scaling": None, "partial_rotary_factor": 0.4, "rotary_emb_base": 5.0,
          "rotary_pct": 0.4}),
        ({"model_type": "gemma3_text", "rope_parameters": {
            "full_attention": {"rope_theta": 5.0, **LINEAR}, "sliding_attention": {"rope_theta": 3.0}}},
         {"rope_theta": 5.0, "rope_scaling": LINEAR, "rope_local_base_freq": 3.0}),
        ({"model_type": "phi3", "rope_parameters": {"rope_theta": 5.0, "rope_type": "longrope", "short_factor": [1],
                                                    "long_factor": [2], "original_max_position_embeddings": 9}},
         {"rope_theta": 5.0, "rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [2]}}),
        ({"model_type": "qwen3_moe", "num_local_experts": 4}, {"num_experts": 4}),
        ({"model_type": "granitemoehybrid", "layer_types": ["linear_attention", "full_attention"]},
         {"layer_types": ["mamba", "attention"]}),
        ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, {}),
        ({"model_type": "mamba2", "time_step_limit": [0.0, {"__float__": "Infinity"}]},
         {"time_step_limit": [0.0, float("inf")]}),
    ],
)  # fmt: skip
def test_settings_are_named_as_in_transformers_4(config, older):
    assert export._older_config(config) == config | older
    nested = export._older_config({"model_type": "x", "text_config": config})
    assert nested == {"model_type": "x", "text_config": config | older}


@pytest.mark.parametrize("scaled", [True, False])
def test_a_t5_that_does_not_scale_its_outputs_is_exported_with_a_head_of_its_own(tmp_path, scaled):
    """transformers 4 does not scale them if the head is no longer tied; 4.57 then computes the same logits as 5."""
    config = tiny_t5().config.to_dict() | {"scale_decoder_outputs": scaled, "tie_word_embeddings": scaled}
    made = transformers.T5ForConditionalGeneration(transformers.T5Config(**config))
    made.save_pretrained(tmp_path / "base")
    loading.tiny_tokenizer(ends_inputs=True).save_pretrained(tmp_path / "base")
    merged = export.merge_adapter(adapter(str(tmp_path / "base"), tmp_path, template="prefix"), tmp_path / "merged")
    from safetensors.torch import load_file

    weights = load_file(merged / "model.safetensors")
    config = json.loads((merged / "config.json").read_text())
    assert config["tie_word_embeddings"] is scaled and ("lm_head.weight" in weights) is not scaled
    whole = transformers.AutoModelForSeq2SeqLM.from_pretrained(merged)
    assert whole.config.scale_decoder_outputs is scaled


def test_an_export_ends_its_answers_where_the_model_does(base, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base)
    end = loading.tiny_tokenizer().convert_tokens_to_ids("e")  # stands for the end of a turn
    model.generation_config.eos_token_id = [0, end]
    model.save_pretrained(tmp_path / "base")
    loading.tiny_tokenizer().save_pretrained(tmp_path / "base")
    made = adapter(str(tmp_path / "base"), tmp_path)
    answers = generation.Summarizer.load(made).summarize(TEXTS)
    assert not any("e" in answer.text for answer in answers)
    merged = export.merge_adapter(made, tmp_path / "merged")
    assert json.loads((merged / "generation_config.json").read_text())["eos_token_id"] == [0, end]
    exported = export.Exported.load(export.to_ctranslate2(made, tmp_path / "converted"))
    assert exported.end_tokens == [0, end] and exported.summarize(TEXTS) == answers


# CTranslate2


def test_ctranslate2_gives_the_same_answers_in_the_order_asked(converted, answers):
    exported = export.Exported.load(converted)
    assert exported.summarize(TEXTS) == answers
    exported.batch_size = 2
    assert exported.summarize(TEXTS[::-1]) == answers[::-1]


def test_ctranslate2_gives_the_same_logits(converted, merged):
    """The angles of the positions are the model's own: wrong ones show first in the logits of late positions."""
    import ctranslate2
    import numpy

    tokenizer = loading.tiny_tokenizer()
    ids = tokenizer(TEXTS[1] * 2)["input_ids"]
    found = ctranslate2.Generator(str(converted)).forward_batch([tokenizer.convert_ids_to_tokens(ids)])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(merged)(torch.tensor([ids])).logits[0].numpy()
    assert numpy.abs(numpy.array(found)[0][:, : expected.shape[1]] - expected).max() < 1e-3


def test_in_eight_bits_it_is_smaller_and_answers(saved, converted, tmp_path):
    small = export.to_ctranslate2(saved, tmp_path / "small", "int8")
    assert (small / "model.bin").stat().st_size < 0.5 * (converted / "model.bin").stat().st_size
    assert all(answer.text for answer in export.Exported.load(small).summarize(TEXTS))


def test_text_that_looks_like_a_special_token_is_read_as_letters(converted, saved):
    texts = ["An end <|end|> in an article.", "Ünïcödé 漢字"]
    assert export.Exported.load(converted).summarize(texts) == generation.Summarizer.load(saved).summarize(texts)


@pytest.mark.parametrize("bad", ["", None, "a\0b"])
def test_a_document_that_cannot_be_used_is_named(converted, bad):
    with pytest.raises(SummkitError, match="document 2"):
        export.Exported.load(converted).summarize(["fine", bad])


def test_a_model_that_ctranslate2_does_not_know_is_refused(tmp_path):
    config = transformers.PhiConfig(
        vocab_size=264, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        eos_token_id=0, bos_token_id=None, pad_token_id=1,
    )  # fmt: skip
    transformers.PhiForCausalLM(config).save_pretrained(tmp_path / "base")
    loading.tiny_tokenizer().save_pretrained(tmp_path / "base")
    made = adapter(str(tmp_path / "base"), tmp_path)
    with pytest.raises(SummkitError, match="CTranslate2 cannot convert .*base: .*; the format 'hf' takes any model"):
        export.to_ctranslate2(made, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["adapter-lora-fp32", "base"]


def test_a_model_that_ctranslate2_computes_in_another_way_is_refused(tmp_path):
    """The angles that Llama 3.1 stretches for long texts are not CTranslate2's: found by comparing, not by a name."""
    config = tiny_llama().config
    config.rope_parameters = {
        "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 256,
    }  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)
    model.save_pretrained(tmp_path / "base")
    loading.tiny_tokenizer().save_pretrained(tmp_path / "base")
    made = adapter(str(tmp_path / "base"), tmp_path)
    with pytest.raises(SummkitError, match="computes .*base differently: its logits are off by"):
        export.to_ctranslate2(made, tmp_path / "out", "int8")
    assert sorted(os.listdir(tmp_path)) == ["adapter-lora-fp32", "base"]


def test_what_is_no_exported_model_or_a_broken_one(converted, merged, tmp_path, monkeypatch):
    for other in (merged, tmp_path / "gone"):
        with pytest.raises(SummkitError, match="is not in CTranslate2's format"):
            export.Exported.load(other)
    broken = shutil.copytree(converted, tmp_path / "broken")
    (broken / "model.bin").write_bytes((broken / "model.bin").read_bytes()[:1000])
    with pytest.raises(SummkitError, match=r"broken is broken \(.*\): export it again"):
        export.Exported.load(broken)
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SummkitError, match=r"ctranslate2 is not installed: pip install 'summkit\[export\]'"):
        export.Exported.load(converted)


def test_without_ctranslate2_nothing_is_begun(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SummkitError, match="pip install"):
        export.to_ctranslate2(saved, tmp_path / "out")
    assert os.listdir(tmp_path) == []


# The command line


def test_export_and_ask_on_the_command_line(saved, answers, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(TEXTS[0])
    ask = ["export", "--adapter", str(saved), "--out"]
    assert main([*ask, "hf"]) == 0 and (tmp_path / "hf" / "model.safetensors").is_file()
    assert main([*ask, "ct", "--format", "ctranslate2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ct"
    assert main(["summarize", "--adapter", "ct", "a.txt"]) == 0
    assert capsys.readouterr().out == answers[0].text + "\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "onnx"], "unknown format 'onnx'; known: ctranslate2, hf"),
        (["--format", "ctranslate2", "--quantization", "int3"], "unknown quantization 'int3'; known: float32, int8"),
        (["--quantization", "int8"], "only the format ctranslate2 is quantised here"),
    ],
)
def test_wrong_calls_of_export(saved, tmp_path, capsys, arguments, said):
    assert main(["export", "--adapter", str(saved), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert said in capsys.readouterr().err and os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments", [["--base"], ["--decoding", "beam"], ["--engine", "graphs"]])
def test_an_exported_model_has_no_other_ways_to_answer(converted, tmp_path, capsys, arguments):
    (tmp_path / "a.txt").write_text(TEXTS[0])
    assert main(["summarize", "--adapter", str(converted), str(tmp_path / "a.txt"), *arguments]) == 2
    assert "is an exported model: no --decoding, --base or --engine" in capsys.readouterr().err


def test_prompts_are_those_of_the_training(converted, saved):
    exported, summarizer = export.Exported.load(converted), generation.Summarizer.load(saved)
    assert exported.template == summarizer.template
    assert exported.encode(TEXTS[4:]) == summarizer.encode(TEXTS[4:])
