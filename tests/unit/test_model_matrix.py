"""Which families of models can be trained: each as a tiny model of random weights, from loading to merging.

A new family is one entry of tests/unit/model_matrix.yaml: the `model_type`, and the values that its configuration needs
beside those of COMMON. `pytest -rP tests/unit/test_model_matrix.py` prints the list.
"""

import dataclasses
import inspect
import re
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from transformers import CONFIG_MAPPING

from summkit.config import choose_profile
from summkit.data import templates, tokenisation
from summkit.errors import SummkitError
from summkit.inference import export, generation, prefill, sampling
from summkit.models import loading, methods
from summkit.models.tiny import tiny_tokenizer
from summkit.training import fit, mean_loss
from tests import tiny_models

pytestmark = pytest.mark.usefixtures("one_thread")
TABLE = yaml.safe_load(Path(__file__).with_name("model_matrix.yaml").read_text())
COMMON = {name: value for value, names in TABLE["common"].items() for name in names.split()}
TRAINED = TABLE["decoders"] | TABLE["encoder-decoders"]
ROWS = [
    {"document": "Rain fell.", "summary": "Rain."},
    {"document": "The bridge over the Marran opened on Monday.", "summary": "A bridge opened."},
    {"document": "Two tugs met.", "summary": "Tugs."},
]
LIMITS = {"max_length": 120, "max_new_tokens": 18}


def config_of(kind, values):
    """The configuration: COMMON's values where its class has such fields, then `values`; those in text_config too."""
    made = CONFIG_MAPPING[kind]
    fields = {*inspect.signature(made).parameters, *made.attribute_map}
    known = {name: value for name, value in COMMON.items() if name in fields}
    return made(**known | values)


def built(kind, values):
    """A tiny model, whose answers depend on the prompt."""
    model = tiny_models.build(config_of(kind, values))
    for weight in model.parameters():
        weight.data.add_(0 if weight.any() else 0.1)  # a scale of zero lets no gradient through
        weight.data.mul_(3 if weight.dim() > 1 else 1)
    return model


def written(kind, values, folder):
    """A folder with such a model and a tokenizer."""
    model = built(kind, values)
    model.save_pretrained(folder)
    tiny_tokenizer(ends_inputs=model.config.is_encoder_decoder).save_pretrained(folder)
    return str(folder)


def by_hand(model, rows, seq2seq):
    """Mean loss over the summaries' tokens: every row alone, all logits, no library code."""
    total = count = 0
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        start = getattr(model.config, "decoder_start_token_id", None)
        more = {"decoder_input_ids": torch.tensor([[start, *row["labels"][:-1]]])} if seq2seq else {}
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False, **more).logits
        chances = logits[0].log_softmax(-1)
        for place, label in enumerate(labels[0].tolist()):
            if label != tokenisation.IGNORE:
                total -= float(chances[place if seq2seq else place - 1, label])
                count += 1
    return total / count


@pytest.mark.parametrize("kind", TRAINED)
def test_it_loads_learns_answers_and_merges(kind, tmp_path):
    name = written(kind, TRAINED[kind] or {}, tmp_path / "model")
    model, tokenizer = loading.load_model(name), loading.load_tokenizer(name)
    seq2seq = loading.is_encoder_decoder(model)
    template = templates.build_template("prefix" if seq2seq else "instruction", tokenizer, "Sum up.")
    rows = tokenisation.encode_rows(datasets.Dataset.from_list(ROWS), template, tokenizer, **LIMITS, seq2seq=seq2seq)
    assert mean_loss(model, rows, tokenizer, 3) == pytest.approx(by_hand(model, rows, seq2seq), rel=1e-3)

    documents, short = [row["document"] for row in ROWS[:2]], LIMITS | {"max_new_tokens": 3}
    together = generation.summarize(model, tokenizer, template, documents, batch_size=2, **short)
    alone = [generation.summarize(model, tokenizer, template, [document], **short)[0] for document in documents]
    assert [answer.text for answer in together] == [answer.text for answer in alone]

    profile = choose_profile("smoke", model=name, precision="fp32", optimizer="adamw_torch", **LIMITS)
    changes = {"template": template.name, "batch_size": 2, "rank": 2, "evaluations_per_epoch": 1, "epochs": 1}
    profile = dataclasses.replace(profile, **changes, learning_rate=1e-2, dropout=0.0)
    torch.manual_seed(0)
    model = methods.apply_method(model, profile)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert not [name for name in trained if "vision" in name or "audio" in name]
    result = fit(model, tokenizer, rows, rows.select([0]), profile, seed=0, out_dir=tmp_path / "run")
    # Gemma 3n's router of its parallel streams gets no gradient from random weights.
    adapters = [(name, weight) for name, weight in model.named_parameters() if "lora_B" in name]
    unmoved = [name for name, weight in adapters if "altup" not in name and not weight.any()]
    assert result.steps == 2 and not unmoved, f"no gradient reaches {unmoved}"

    asked = generation.Summarizer.load(result.adapter)
    assert asked.summarize(documents[:1])[0].tokens
    merged = loading.load_model(str(export.merge_adapter(result.adapter, tmp_path / "merged")))
    assert mean_loss(merged, rows, tokenizer) == pytest.approx(mean_loss(asked.model, rows, tokenizer), rel=1e-3)
    print(f"{kind}: {sum(weight.numel() for weight in merged.parameters()):,} weights, {len(adapters)} adapters")


@pytest.mark.parametrize("kind", TRAINED)
def test_all_linear_puts_an_adapter_beside_each_linear_layer(kind, caplog):
    model = built(kind, TRAINED[kind] or {}).eval()
    linear = {path for path in loading.adaptable_layers(model)[0] if "expert" not in path}
    assert linear and not [path for path in linear if re.search(r"lm_head|embed_out|vision|\brouter", path)]
    ids = torch.arange(5, 25)[None]
    asked = {"input_ids": ids, "use_cache": False}
    if model.config.is_encoder_decoder:
        asked["decoder_input_ids"] = ids[:, :6]
    with torch.no_grad():
        before = model(**asked).logits
    profile = choose_profile("smoke", precision="fp32", targets="all-linear", rank=2, gradient_checkpointing=False)
    model = methods.apply_method(model, dataclasses.replace(profile, dropout=0.0))
    adapted = {name.removeprefix("base_model.model.") for name, m in model.named_modules() if hasattr(m, "lora_A")}
    # Experts are one tensor, or lists of layers, or both: which of them get adapters is peft's choice. Where experts
    # and the dense layers of other blocks have the same names, peft takes the experts only.
    missed = {path for path in linear if kind == "deepseek_v3" and ".mlp." in path}
    assert {path for path in adapted if "expert" not in path} == linear - missed
    assert ("layers get no adapter, such as model.layers.0.mlp.down_proj: " in caplog.text) is bool(missed)
    logits = model(**asked).logits
    assert torch.allclose(logits, before, atol=1e-4), "a fresh adapter changes nothing"
    logits.logsumexp(-1).sum().backward()
    unmoved = [name for name, w in model.named_parameters() if "lora_B" in name and not w.grad.any()]
    assert not [name for name in unmoved if "altup" not in name], f"no gradient reaches {unmoved}"


@pytest.mark.parametrize("kind", TABLE["decoders"])
def test_answers_that_share_a_prompt_are_computed_as_if_alone(kind, monkeypatch):
    model = built(kind, TABLE["decoders"][kind] or {})
    limits = {"max_length": 120, "max_new_tokens": 6}
    tokenizer = tiny_tokenizer()
    template = templates.build_template("instruction", tokenizer)
    writer = generation.Summarizer(model, tokenizer, template, **limits, end_tokens=[7])
    drawn, found = [], []  # for each step (rows, asked), and the logits they were drawn from

    def sample(logits, settings):
        found.append(logits)
        drawn.append(torch.randint(5, 9, logits.shape[:2], generator=torch.Generator().manual_seed(len(drawn))))
        return drawn[-1]

    monkeypatch.setattr(sampling, "sample", sample)
    documents = [row["document"] for row in ROWS]
    rows = sorted(writer.encode(documents), key=lambda row: -row["length"])
    settings = generation.DECODINGS.find("supported") | {"num_return_sequences": 3}
    read = prefill.Prefill(writer, settings)
    with generation.ready_to_answer(model), torch.inference_mode():
        prompts = read(rows) if read.in_groups else {}
        if not read.in_groups:  # a sliding window, a recurrent state or ALiBi: `generate` writes the answers
            assert kind in TABLE["answers apart"]
            return
        answers = sampling.draw(model, prompts, settings, 6, [7])
        asked = {(row, answer): 0 for row in range(3) for answer in range(3)}
        for row, answer in asked:
            ids = answers[row, answer].tolist()
            ids = ids[: ids.index(7) + 1 if 7 in ids else 6]
            prompt = rows[row]["input_ids"]
            alone = model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            for step, token in enumerate(ids):
                steps = [
                    logits for logits, tokens in zip(found[step][row], drawn[step][row], strict=True) if tokens == token
                ]
                nearest = min((logits - alone[step]).abs().max() for logits in steps)
                assert nearest < 1e-5 * alone[step].abs().max()
    assert len({logits.shape[1] for logits in found}) > 1, "those that ended are not asked again"


@pytest.mark.parametrize("kind", TABLE["refused"])
def test_what_cannot_be_trained_is_refused_by_its_configuration(kind, tmp_path, monkeypatch):
    config_of(kind, TABLE["refused"][kind] or {}).save_pretrained(tmp_path)
    for name in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM"):
        monkeypatch.setattr(f"transformers.{name}.from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(SummkitError, match=r"cannot be trained: .*; use a decoder such as"):
        loading.load_model(str(tmp_path))
