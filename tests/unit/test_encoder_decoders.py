"""Encoder-decoders go where decoders go: rows, padding, loss, methods, training, answers.

T5, BART, LED, LongT5 and BigBird-Pegasus, all tiny and random, built from their configurations.
"""

import dataclasses
import json

import datasets
import pytest
import torch
import transformers

from summkit.config import Hardware, choose_profile
from summkit.data import batching, templates, tokenisation
from summkit.errors import SummkitError
from summkit.evaluation import watch
from summkit.inference import export, generation, label_scores
from summkit.models import loading, methods
from summkit.models.tiny import tiny_llama
from summkit.recipes import finetune
from summkit.training import checkpoints, losses
from summkit.training.trainer import fit
from tests import tiny_models

TEXTS = ["Rain.", "The bridge over the Marran opened on Monday after a year of work. " * 3, "Two tugs met."]
SUMMARIES = ["Rain fell all day.", "A bridge opened.", "Tugs."]
LIMITS = {"max_length": 400, "max_new_tokens": 8}

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(kind, seed=0):
    """Weights are larger than usual, so that the answers depend on the prompt."""
    larger = 3 if "t5" in kind else 10
    model = tiny_models.build(tiny_models.config(kind), seed)
    for name, parameter in model.named_parameters():
        parameter.data.mul_(1 if parameter.dim() < 2 or "shared" in name else larger)
    if kind == "bart":
        model.generation_config.forced_bos_token_id = 2  # as the published BARTs for summaries
    return model.eval()


def bart_tokenizer():
    """As `tiny_tokenizer`, with BART's special tokens around a text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = loading.tiny_tokenizer()
    tokenizer.bos_token = "<|system|>"
    numbers = [("<|system|>", tokenizer.bos_token_id), ("<|end|>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<|system|> $A <|end|>", special_tokens=numbers)
    return tokenizer


T5_TOKENIZER = loading.load_tokenizer("tiny-t5")
BART_TOKENIZER = bart_tokenizer()
PUBLISHED = [made() for made in (tiny_models.led_tokenizer, tiny_models.t5_tokenizer, tiny_models.pegasus_tokenizer)]
TEMPLATE = templates.build_template("prefix", T5_TOKENIZER, "Sum up:")


def asked(kind):
    return tiny(kind), BART_TOKENIZER if kind in ("bart", "led") else T5_TOKENIZER, TEMPLATE


def rows(tokenizer, texts=TEXTS, summaries=SUMMARIES):
    pairs = zip(texts, summaries, strict=True)
    return [tokenisation.encode(TEMPLATE, tokenizer, *pair, **LIMITS, seq2seq=True) for pair in pairs]


# Rows and batches


@pytest.mark.parametrize("tokenizer", [T5_TOKENIZER, BART_TOKENIZER, *PUBLISHED], ids=lambda t: type(t).__name__)
def test_the_prompt_is_the_input_as_its_tokenizer_makes_one_and_the_summary_the_labels(tokenizer):
    row = tokenisation.encode(TEMPLATE, tokenizer, "The bridge fell.", "It fell.", **LIMITS, seq2seq=True)
    assert row["input_ids"] == tokenizer("Sum up: The bridge fell.")["input_ids"]
    assert row["labels"] == tokenizer("It fell.")["input_ids"] and row["labels"][-1] == tokenizer.eos_token_id
    assert (row["length"], row["cut"]) == (len(row["input_ids"]) + len(row["labels"]), 0)
    prompt = tokenisation.encode(TEMPLATE, tokenizer, "The bridge fell.", None, **LIMITS, seq2seq=True)
    assert prompt["input_ids"] == row["input_ids"] and "labels" not in prompt


def test_eos_is_learned_where_the_tokenizer_sets_none():
    row = tokenisation.encode(TEMPLATE, loading.tiny_tokenizer(), "Fog.", "It.", **LIMITS, seq2seq=True)
    assert row["labels"][-1] == 0 and 0 not in row["input_ids"]


def test_the_input_has_the_whole_limit_and_the_summary_is_never_cut():
    long = {"max_length": 40, "max_new_tokens": 30, "seq2seq": True}
    row = tokenisation.encode(TEMPLATE, T5_TOKENIZER, TEXTS[1], "word " * 20, **long)
    assert len(row["input_ids"]) == 40 and row["input_ids"][-1] == 0 and len(row["labels"]) == 101
    text = T5_TOKENIZER.decode(row["input_ids"][:-1])
    kept = text.removeprefix(TEMPLATE.head)
    assert TEXTS[1].startswith(kept) and row["cut"] == len(TEXTS[1]) - len(kept)
    with pytest.raises(SummkitError, match="max_length=8 is too small: the instruction takes 8 tokens; at least 9"):
        tokenisation.encode(TEMPLATE, T5_TOKENIZER, "Fog.", None, 8, 30, seq2seq=True)
    fits = tokenisation.encode(TEMPLATE, T5_TOKENIZER, "Fog.", None, 9, 30, seq2seq=True)
    assert len(fits["input_ids"]) == 9


def test_labels_are_padded_with_ignore_to_their_own_longest():
    """Mistake 8: padded with the pad token, the model learns to write pads."""
    made = rows(T5_TOKENIZER)
    batch = batching.Collator(T5_TOKENIZER, global_first=True, shortest=5)(made)
    longest = max(len(row["labels"]) for row in made)
    assert batch["labels"].shape == (3, longest) != batch["input_ids"].shape
    for row, labels, mask, first in zip(
        made, *(batch[key].tolist() for key in ("labels", "attention_mask", "global_attention_mask")), strict=True
    ):
        assert labels == row["labels"] + [tokenisation.IGNORE] * (longest - len(row["labels"]))
        size = len(row["input_ids"])
        assert mask == [1] * size + [0] * (len(mask) - size)
        assert first == [1] + [0] * (len(first) - 1)
    wide = batching.Collator(T5_TOKENIZER, shortest=500)(made)
    assert wide["input_ids"].shape == (3, 500) and wide["labels"].shape == (3, longest)


# The same loss and the same answers in a batch as alone


def by_hand(model, made):
    """Mean loss over the summaries' tokens: every row alone, no padding, no library code."""
    total = count = 0
    start = model.config.decoder_start_token_id
    first = {"global_attention_mask": True} if model.config.model_type == "led" else {}
    for row in made:
        ids = torch.tensor([row["input_ids"]])
        extra = {name: torch.eye(1, ids.shape[1], dtype=torch.long) for name in first}
        with torch.no_grad():
            before = torch.tensor([[start, *row["labels"][:-1]]])
            logits = model(input_ids=ids, decoder_input_ids=before, use_cache=False, **extra).logits[0]
        chances = logits.log_softmax(-1)
        total -= sum(float(chances[place, label]) for place, label in enumerate(row["labels"]))
        count += len(row["labels"])
    return total / count


@pytest.mark.parametrize("kind", ["t5", "longt5", "longt5-global", "bart", "led"])
def test_a_batch_of_different_lengths_has_the_loss_of_its_rows(kind):
    model, tokenizer, _ = asked(kind)
    made = rows(tokenizer)
    expected = by_hand(model, made)
    for batch_size in (1, 3):
        assert losses.mean_loss(model, made, tokenizer, batch_size) == pytest.approx(expected, rel=1e-4)
    batch = batching.Collator(tokenizer, **loading.padding(model))(made)
    with torch.no_grad():
        assert float(losses.summary_loss(model, batch)) == pytest.approx(expected, rel=1e-4)
        own = float(model(**batch, use_cache=False).loss)  # the models' own, a mean over the batch's labels
    assert own == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["t5", "longt5", "longt5-global", "bart", "led"])
@pytest.mark.parametrize("decoding", ["greedy", "beam"])
def test_a_batch_answers_as_each_row_alone_and_in_the_order_asked(kind, decoding):
    model, *rest = asked(kind)
    together = generation.summarize(model, *rest, TEXTS, batch_size=3, decoding=decoding, **LIMITS)
    alone = [generation.summarize(model, *rest, [text], decoding=decoding, **LIMITS)[0] for text in TEXTS]
    assert together == alone
    assert len({answer.text for answer in together}) > 1, "the same answer to everything would hide a wrong order"
    assert [answer.prompt_tokens for answer in together] == [len(row["input_ids"]) for row in rows(rest[0])]
    assert all(1 <= answer.tokens <= 8 for answer in together)


@pytest.mark.parametrize("kind", ["t5", "bart", "led"])
def test_greedy_takes_the_likeliest_token_each_time(kind):
    model, tokenizer, _ = asked(kind)
    row = rows(tokenizer)[1]
    ids = torch.tensor([row["input_ids"]])
    extra = {"global_attention_mask": torch.eye(1, ids.shape[1], dtype=torch.long)} if kind == "led" else {}
    written = [model.config.decoder_start_token_id, *([tokenizer.bos_token_id] if kind == "bart" else [])]
    while len(written) < 9 and written[1:][-1:] != [0]:
        with torch.no_grad():
            logits = model(input_ids=ids, decoder_input_ids=torch.tensor([written]), use_cache=False, **extra).logits
        written.append(int(logits[0, -1].argmax()))
    found = generation.summarize(model, tokenizer, TEMPLATE, TEXTS, **LIMITS)[1]
    assert found == generation.read_answer(tokenizer, written[1:], 0, len(row["input_ids"]))


def test_led_reads_its_first_token_globally(monkeypatch):
    """Mistake 8: without it no token sees further than its window, and nobody says so."""
    model, tokenizer, _ = asked("led")
    batch = batching.Collator(tokenizer, **loading.padding(model))(rows(tokenizer))
    without = {name: value for name, value in batch.items() if name != "global_attention_mask"}
    with torch.no_grad():
        assert abs(float(losses.summary_loss(model, batch)) - float(losses.summary_loss(model, without))) > 1e-4
    seen, generate = [], model.generate
    monkeypatch.setattr(model, "generate", lambda **given: seen.append(given) or generate(**given))
    generation.summarize(model, tokenizer, TEMPLATE, TEXTS, **LIMITS)
    mask = seen[0]["global_attention_mask"]
    assert mask[:, 0].tolist() == [1, 1, 1] and int(mask.sum()) == 3
    assert not loading.padding(tiny("t5"))["global_first"] and not any(loading.padding(tiny_llama()).values())


def test_bigbird_stays_sparse_and_rows_of_as_many_blocks_agree():
    """At a batch too short for its blocks the encoder would turn to full attention, and stay there."""
    model, tokenizer, _ = asked("bigbird")
    encoder = model.get_encoder()
    assert loading.padding(model) == {"global_first": False, "shortest": 57}
    made = rows(tokenizer, ["Rain.", "Fog and rain.", TEXTS[0] * 3], SUMMARIES)  # all below 57 tokens
    assert max(len(row["input_ids"]) for row in made) < 57
    alone = [losses.mean_loss(model, [row], tokenizer) for row in made]
    sizes = [len(row["labels"]) for row in made]
    expected = sum(a * n for a, n in zip(alone, sizes, strict=True)) / sum(sizes)
    assert losses.mean_loss(model, made, tokenizer, 3) == pytest.approx(expected, rel=1e-4)
    assert encoder.attention_type == "block_sparse"
    texts = ["Rain.", "Fog and rain."]
    together = generation.summarize(model, tokenizer, TEMPLATE, texts, batch_size=2, **LIMITS)
    assert together == [generation.summarize(model, tokenizer, TEMPLATE, [text], **LIMITS)[0] for text in texts]
    assert losses.mean_loss(model, rows(tokenizer), tokenizer, 3) > 0 and encoder.attention_type == "block_sparse"
    model(input_ids=torch.full((1, 20), 9), decoder_input_ids=torch.ones(1, 1, dtype=torch.long))
    assert encoder.attention_type == "original_full", "the trap is gone, and `shortest` may go"


def test_the_models_own_lengths_and_penalties_do_not_get_in():
    model, *rest = asked("bart")
    plain = generation.summarize(model, *rest, TEXTS, **LIMITS)
    own = model.generation_config
    own.num_beams, own.min_length, own.no_repeat_ngram_size, own.length_penalty = 4, 6, 1, 9.0
    assert generation.summarize(model, *rest, TEXTS, **LIMITS) == plain
    assert model.generation_config is own
    own.forced_bos_token_id = 77
    forced = generation.summarize(model, *rest, TEXTS, **LIMITS)
    assert all(answer.text.startswith(rest[0].decode([77])) for answer in forced), "what the decoder begins with stays"


def test_a_head_of_its_own_stays_one_whatever_the_configuration_says(tmp_path):
    made = loading.TINY["tiny-t5"]()
    made.lm_head.weight = torch.nn.Parameter(torch.randn_like(made.lm_head.weight))
    made.config.tie_word_embeddings = False
    made.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": True}), encoding="utf-8")
    loaded = loading.load_model(str(tmp_path))
    loaded.tie_weights()
    assert torch.equal(loaded.lm_head.weight, made.lm_head.weight)
    assert not torch.equal(loaded.lm_head.weight, loaded.get_input_embeddings().weight)


def test_a_head_cannot_be_reused_and_labels_are_not_scored():
    with pytest.raises(SummkitError, match="an encoder reads head and document together"):
        generation.summarize(*asked("t5"), TEXTS, reuse_head=True, **LIMITS)
    with pytest.raises(SummkitError, match="this model is an encoder-decoder"):
        label_scores.label_log_likelihoods(*asked("t5"), [{"document": "a"}], ["yes", "no"], **LIMITS)


# Methods


def prepared(kind="t5", model=None, **overrides):
    profile = choose_profile("smoke", model=f"tiny-{kind}", **({"precision": "fp32"} | overrides))
    return methods.apply_method(model or tiny(kind), profile)


@pytest.mark.parametrize(
    ("kind", "attention"),
    [
        ("t5", ["k", "o", "q", "v"]),
        ("longt5", ["k", "o", "q", "v"]),
        ("bart", ["k_proj", "out_proj", "q_proj", "v_proj"]),
    ],
)
def test_attention_is_found_in_encoder_and_decoder(kind, attention):
    model = tiny(kind)
    assert methods.target_layers(model, "attention") == attention
    assert set(methods.target_layers(model, "all-linear")) > set(attention)
    names = {name for name, p in prepared(kind, targets="attention").named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in names) and len(names) == 2 * 4 * 6  # A and B; 2 + 2 + 2 attentions
    assert any("encoder" in name for name in names) and any("decoder" in name for name in names)


@pytest.mark.parametrize("kind", ["led", "bigbird"])
def test_sparse_encoders_take_adapters(kind):
    model = prepared(kind, targets="attention")
    assert model.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    made = rows(BART_TOKENIZER)
    losses.summary_loss(model, batching.Collator(BART_TOKENIZER, **loading.padding(model))(made)).backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing, "an adapter that no row reaches"


def test_what_stays_frozen():
    def trained(method):
        return {name for name, p in prepared(method=method).named_parameters() if p.requires_grad}

    everything = {name for name, _ in tiny("t5").named_parameters()}
    embeddings = {"shared.weight"}  # of encoder, decoder and head: one tensor
    assert trained("full") == everything
    assert trained("frozen-embeddings") == everything - embeddings
    assert trained("frozen-encoder") == {name for name in everything if name.startswith("decoder.")}
    assert trained("frozen-encoder-layers") == trained("frozen-encoder") | {"shared.weight"}
    last = {name for name in everything if name.startswith("decoder.block.1.")}
    assert trained("last-block") == last | embeddings and trained("head") == embeddings


@pytest.mark.parametrize("kind", ["led", "bart", "bigbird"])
def test_the_last_block_is_the_decoders(kind):
    last = methods.blocks(tiny(kind))[-1]
    assert last is tiny(kind).get_decoder().layers[-1] or type(last).__name__.endswith("DecoderLayer")


def test_a_decoder_has_no_encoder_to_freeze_but_embeddings():
    with pytest.raises(SummkitError, match="'frozen-encoder' needs an encoder-decoder, but this model is a decoder"):
        methods.apply_method(tiny_llama(), choose_profile("smoke", method="frozen-encoder", precision="fp32"))
    model = methods.apply_method(tiny_llama(), choose_profile("smoke", method="frozen-embeddings", precision="fp32"))
    assert not model.get_input_embeddings().weight.requires_grad
    assert sum(p.requires_grad for p in model.parameters()) == len(list(model.parameters())) - 1


def test_a_tuned_prompt_is_read_by_the_encoder_and_padding_does_not_matter():
    model = prepared(method="prompt", virtual_tokens=7)
    assert loading.parameter_report(model)["trainable"] == 7 * 32
    made = rows(T5_TOKENIZER)
    alone = [losses.mean_loss(model, [row], T5_TOKENIZER) for row in made]
    sizes = [len(row["labels"]) for row in made]
    together = losses.mean_loss(model, made, T5_TOKENIZER, 3)
    assert together == pytest.approx(sum(a * n for a, n in zip(alone, sizes, strict=True)) / sum(sizes), rel=1e-4)
    answers = generation.summarize(model, T5_TOKENIZER, TEMPLATE, TEXTS, **LIMITS)
    one = [generation.summarize(model, T5_TOKENIZER, TEMPLATE, [text], **LIMITS)[0] for text in TEXTS]
    assert answers == one
    with model.disable_adapter():
        assert losses.mean_loss(model, made, T5_TOKENIZER, 3) != pytest.approx(together, rel=1e-5)
    for kind in ("led", "bigbird"):
        with pytest.raises(SummkitError, match="does not support virtual tokens"):
            prepared(kind, method="prompt")


@pytest.mark.parametrize("kind", ["t5", "led"])
def test_checkpointing_gives_the_same_gradients(kind):
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = prepared(kind, gradient_checkpointing=checkpointing, dropout=0.0)
        tokenizer = asked(kind)[1]
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()
            for module in model.modules():
                module.p = 0.0 if isinstance(module, torch.nn.Dropout) else getattr(module, "p", None)
                for name in ("dropout", "activation_dropout", "attention_dropout", "dropout_rate"):
                    if isinstance(getattr(module, name, None), float):
                        setattr(module, name, 0.0)
        losses.summary_loss(model, batching.Collator(tokenizer, **loading.padding(model))(rows(tokenizer))).backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found, strict=True))
    assert sum(float(grad.abs().sum()) for grad in found[1]) > 0


# Training, saving, asking

SMOKE = choose_profile(
    "smoke",
    model="tiny-t5",
    template="prefix",
    learning_rate=3e-3,
    dropout=0.0,
    epochs=3,
    evaluations_per_epoch=1,
)
PAIRS = datasets.Dataset.from_list(
    [
        {"document": f"{word} " * size, "summary": f"{word}."}
        for word in ("tugs", "rain", "fog")
        for size in (2, 5, 9, 14)
    ]
)


def fitted(out, model=None, profile=SMOKE, **settings):
    transformers.set_seed(0)
    ready = methods.apply_method(model or loading.load_model(profile.model, profile.precision), profile)
    tokenizer = BART_TOKENIZER if ready.config.model_type == "led" else T5_TOKENIZER
    made = tokenisation.encode_rows(PAIRS, TEMPLATE, tokenizer, 200, 8, loading.is_encoder_decoder(ready))
    return ready, fit(ready, tokenizer, made, made, profile, seed=0, out_dir=out, **settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "nf4"},
        {"precision": "fp32"},
        {"precision": "fp32", "method": "full"},
        {"precision": "fp32", "method": "frozen-encoder"},
        {"precision": "fp32", "method": "frozen-embeddings"},
    ],
    ids=["QLoRA", "LoRA", "full", "frozen-encoder", "frozen-embeddings"],
)
def test_training_lowers_the_loss_and_what_is_saved_answers_the_same(changes, tmp_path):
    profile = dataclasses.replace(SMOKE, **changes)
    model, result = fitted(tmp_path, profile=profile)
    evaluations = [entry["eval_loss"] for entry in result.history if "eval_loss" in entry]
    assert len(evaluations) == 3 and evaluations[-1] < evaluations[0]
    made = tokenisation.encode_rows(PAIRS, TEMPLATE, T5_TOKENIZER, 200, 8, True)
    assert result.tokens == 3 * sum(made["length"]) and 0 <= result.padding_fraction < 0.5
    fresh = loading.load_model(profile.model, profile.precision)
    loaded = checkpoints.load_adapter(fresh, result.adapter, profile.model)
    assert losses.mean_loss(loaded, made, T5_TOKENIZER) == pytest.approx(result.eval_loss, rel=1e-4)
    summarizer = generation.Summarizer.load(result.adapter)
    template = templates.build_template("prefix", T5_TOKENIZER, templates.get_wording(profile.wording))
    ask = {"max_length": profile.max_length, "max_new_tokens": profile.max_new_tokens}
    mine = generation.summarize(model, T5_TOKENIZER, template, TEXTS, **ask)
    assert summarizer.summarize(TEXTS) == mine


def test_led_trains_and_accumulated_batches_weigh_every_token_the_same(tmp_path):
    """LED's own loss knows no number of tokens: the Trainer would divide by the number of batches instead."""
    found = []
    for batch, parts in ((12, 1), (3, 4)):
        profile = dataclasses.replace(
            SMOKE, precision="fp32", batch_size=batch, gradient_accumulation=parts, epochs=6, optimizer="adamw_torch"
        )
        model = tiny("led")
        model.config.dropout = 0.0
        for module in model.modules():
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
        found.append(fitted(tmp_path / str(batch), model, profile)[1])
    first, second = ([entry["loss"] for entry in result.history if "loss" in entry] for result in found)
    assert first == pytest.approx(second, rel=1e-3) and len(first) == 6 and first[-1] < first[0]
    assert found[0].tokens == found[1].tokens


def test_what_was_trained_in_bf16_answers_on_a_gpu_without_it(monkeypatch):
    older, newer = (Hardware("cuda", name, 2**34, (age, 0)) for name, age in (("T4", 7), ("A100", 8)))
    for machine, expected in ((older, ["float32", "float16"]), (newer, ["bfloat16", "bfloat16"])):
        monkeypatch.setattr(generation, "detect_hardware", lambda machine=machine: machine)
        assert [generation._compute_dtype("bfloat16", name) for name in ("tiny-t5", "tiny-llama")] == expected


def test_a_broken_off_training_goes_on_as_if_it_had_not_been_and_can_be_watched(tmp_path):
    def stop(history):
        if history[-1]["step"] == 5 and "loss" in history[-1]:
            raise KeyboardInterrupt

    def curve(result):
        return [{key: entry[key] for key in ("step", "loss", "eval_loss") if key in entry} for entry in result.history]

    watched = [watch.generation_scores(T5_TOKENIZER, TEMPLATE, PAIRS, SMOKE, limit=2)]
    _, whole = fitted(tmp_path / "whole", callbacks=watched)
    assert all("eval_rouge1" in entry for entry in whole.history if "eval_loss" in entry)
    assert fitted(tmp_path / "broken", on_log=stop)[1].interrupted
    _, resumed = fitted(tmp_path / "broken", resume=True)
    assert resumed.resumed_from == "checkpoint-3" and curve(resumed) == curve(whole)
    names = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "broken")]
    assert names[0].read_bytes() == names[1].read_bytes()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run from a configuration file, NF4."""
    folder = tmp_path_factory.mktemp("run")
    settings = {"profile": "smoke", "model": "tiny-t5", "template": "prefix", "out": str(folder / "out")}
    settings |= {"score": ["test"], "watch": 2, "test_rows": 3}
    (folder / "config.json").write_text(json.dumps(settings))
    return finetune.train(folder / "config.json")


def test_a_run_from_a_file_is_recorded_and_summarises(run):
    from summkit.cli import main
    from summkit.reporting import records

    record = records.read_record(run / "run.json")
    assert record["model"]["id"] == "tiny-t5" and record["model"]["quantization"] == "nf4"
    assert record["scores"]["fine_tuned"]["rouge1"] is not None and record["training"]["tokens"] > 0
    assert len(record["details"]["watched"]) == 3
    text = run / "text.txt"
    text.write_text("A bridge has been closed.")
    assert main(["summarize", str(text), "--adapter", str(run / "adapter")]) == 0


def test_merged_it_answers_by_itself_and_ctranslate2_is_refused(run, tmp_path):
    pytest.importorskip("ctranslate2")
    whole = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        export.merge_adapter(run / "adapter", tmp_path / "merged")
    )
    assert whole.generation_config.decoder_start_token_id == 1
    ids = T5_TOKENIZER("A bridge fell.", return_tensors="pt")
    assert whole.generate(**ids)[0, 0] == 1
    with pytest.raises(SummkitError, match="tiny-t5 is an encoder-decoder, but this export supports decoders only"):
        export.to_ctranslate2(run / "adapter", tmp_path / "quick")
    assert not (tmp_path / "quick").exists()
