"""What families of models need: positions for the tokens asked for, rows that their decoder can write, own rows."""

import dataclasses

import datasets
import pytest

from summkit.config import choose_profile
from summkit.data import templates, tokenisation
from summkit.errors import SummkitError
from summkit.inference import generation
from summkit.models import families, loading, methods
from summkit.models.tiny import tiny_t5
from summkit.registry import Registry
from summkit.training.trainer import fit
from tests import tiny_models

pytestmark = pytest.mark.usefixtures("one_thread")
PROFILE = choose_profile(
    "smoke",
    model="tiny-led",
    template="prefix",
    precision="fp32",
    max_length=100,
    max_new_tokens=16,
    batch_size=2,
)
ROWS = [{"document": f"Bridge {n} fell.", "summary": "It fell. " * size} for n, size in enumerate((1, 40, 2, 1, 50))]


def encoded(tokenizer, rows=ROWS):
    template = templates.build_template("prefix", tokenizer, "Sum up:")
    return tokenisation.encode_rows(datasets.Dataset.from_list(rows), template, tokenizer, 100, 16, seq2seq=True)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("led", (512, 256)),
        ("bigbird", (512, 512)),
        ("longt5", (None, None)),
        ("gpt2", (1024, None)),
        ("phi", (None, None)),
    ],
)
def test_encoder_and_decoder_have_their_own(kind, expected):
    config = tiny_models.published(kind)[0].config
    assert families.positions(config) == expected


def test_a_plugin_adds_a_family_with_one_row(monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", Registry("model family", families.FAMILIES))
    model, _ = tiny_models.published("phi")
    loading.check_positions(model, 10**6, 16)
    families.FAMILIES.add("phi", families.Family(table_of_positions=True))
    with pytest.raises(SummkitError, match="max_length=2049: this model .phi. has positions for 2,048"):
        loading.check_positions(model, 2049, 16)


def test_a_decoder_with_a_table_of_positions_is_refused_more_tokens_before_it_trains():
    """Mistaken once: more tokens than GPT-2 has positions for were an index out of range in the first long batch."""
    model, tokenizer = tiny_models.published("gpt2")
    profile = dataclasses.replace(PROFILE, max_length=1025, template="instruction")
    with pytest.raises(SummkitError, match="max_length=1025: this model .gpt2. has positions for 1,024"):
        fit(model, tokenizer, None, None, profile, seed=0, out_dir="nowhere")
    tuned = methods.apply_method(model, dataclasses.replace(profile, method="prompt-random", virtual_tokens=20))
    with pytest.raises(SummkitError, match="max_length=1010 and 20 virtual tokens: this model"):
        loading.check_positions(tuned, 1010, 16)


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "pegasus", "mt5"])
def test_families_that_overflow_in_fp16_are_refused_by_their_configuration(name):
    from transformers import CONFIG_MAPPING

    with pytest.raises(SummkitError, match=f"{name} models overflow in fp16"):
        loading.check_config(CONFIG_MAPPING[name](), "mine", "float32", "float16")
    loading.check_config(CONFIG_MAPPING[name](), "mine", "bfloat16", "bfloat16")


def test_a_model_that_only_reads_is_refused_by_its_configuration():
    from transformers import BertConfig, GPTNeoXConfig

    with pytest.raises(SummkitError, match="model mine .bert. cannot be trained: it reads a text in both directions"):
        loading.check_config(BertConfig(), "mine", "float32")
    loading.check_config(GPTNeoXConfig(), "mine", "float32")  # whose `is_decoder` is False too


def test_more_tokens_than_positions_are_refused_by_the_options_name():
    model, tokenizer = tiny_models.published("led")
    template = templates.build_template("prefix", tokenizer, "Sum up:")
    for limits, said in (
        ((513, 16), "max_length=513: this model .led. has positions for 512"),
        ((512, 257), "max_new_tokens=257: this model .led. has positions for 256"),
    ):
        asked = dict(zip(("max_length", "max_new_tokens"), limits, strict=True))
        with pytest.raises(SummkitError, match=said):
            generation.summarize(model, tokenizer, template, ["Rain."], **asked)
        with pytest.raises(SummkitError, match=said):
            fit(model, tokenizer, None, None, dataclasses.replace(PROFILE, **asked), seed=0, out_dir="nowhere")
    text = "The bridge fell. " * 60
    full = generation.summarize(model, tokenizer, template, [text], max_length=512, max_new_tokens=256)
    assert full[0].prompt_tokens == 512
    loading.check_positions(tiny_t5(), 10**6, 10**6)


def test_a_summary_that_the_decoder_cannot_write_is_left_out_and_said_to_be(tmp_path, caplog):
    model, tokenizer = tiny_models.published("led")
    rows = encoded(tokenizer)
    assert [len(labels) > 256 for labels in rows["labels"]] == [False, True, False, False, True]
    model = methods.apply_method(model, PROFILE)
    result = fit(model, tokenizer, rows, rows.select([0, 2]), PROFILE, seed=0, out_dir=tmp_path)
    assert (result.steps, result.tokens) == (2, sum(rows["length"][number] for number in (0, 2, 3)))
    said = "2 of 5 summaries are longer than the 256 tokens that the model can write: these rows are left out"
    assert caplog.text.count(said) == 1
    with pytest.raises(SummkitError, match="1 of 1 summaries .* no row is left"):
        fit(model, tokenizer, rows.select([1]), rows, PROFILE, seed=0, out_dir=tmp_path)
    assert loading.writable_rows(rows, tiny_t5()) is rows
