"""Generation on a tiny random model: order, padding side, the model's state, EOS, limits; and the saved adapter."""

import copy
import dataclasses
import io
import json

import pytest
import torch
import tqdm

from summkit.config import choose_profile
from summkit.data import batching, templates, tokenisation
from summkit.errors import Interrupted, SummkitError
from summkit.inference import generation, prefill, sampling
from summkit.models import loading, methods
from summkit.models.tiny import tiny_llama
from summkit.training import checkpoints
from summkit.training.checkpoints import save_adapter

TEXTS = [
    "A short text.",
    "The bridge over the Marran opened on Monday after a year of work. " * 2,
    "Rain.",
    "Two tugs.",
]
LIMITS = {"max_length": 320, "max_new_tokens": 12}
DECODINGS = ("greedy", "beam")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny():
    """(model, tokenizer, template); weights are larger than usual, so that the answers depend on the prompt."""
    model = tiny_llama()
    for parameter in model.parameters():
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)
    tokenizer = loading.tiny_tokenizer()
    return model.eval(), tokenizer, templates.build_template("instruction", tokenizer)


def texts(found):
    return [summary.text for summary in found]


def alone(tiny, document, **settings):
    """The answer by steps written out here: no batch, no padding, no cache."""
    model, tokenizer, template = tiny
    ids = tokenisation.encode(template, tokenizer, document, None, **LIMITS)["input_ids"]
    for _ in range(LIMITS["max_new_tokens"]):
        with torch.no_grad():
            ids = [*ids, int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())]
    return ids[-LIMITS["max_new_tokens"] :]


def test_a_batch_answers_as_one_by_one_and_in_the_order_asked(tiny):
    batched = generation.summarize(*tiny, TEXTS, batch_size=4, **LIMITS)
    single = [generation.summarize(*tiny, [text], **LIMITS)[0] for text in TEXTS]
    assert batched == single
    assert len(set(texts(batched))) > 1, "the same answer to everything would hide a wrong order"
    turned = generation.summarize(*tiny, TEXTS[::-1], batch_size=2, **LIMITS)
    assert turned == batched[::-1]


def test_greedy_takes_the_likeliest_token_each_time(tiny):
    for text in TEXTS[:2]:
        size = tokenisation.encode(tiny[2], tiny[1], text, None, **LIMITS)["length"]
        found = generation.read_answer(tiny[1], alone(tiny, text), 0, size)
        assert generation.summarize(*tiny, TEXTS, **LIMITS)[TEXTS.index(text)] == found


def test_prompts_are_padded_on_the_left(tiny, monkeypatch):
    """Mistake 5: padded on the right, a decoder goes on from a pad. The same call with right padding must differ."""
    right = generation.summarize(*tiny, TEXTS, batch_size=4, **LIMITS)
    collator = batching.Collator
    monkeypatch.setattr(batching, "Collator", lambda *given, side, **options: collator(*given, side="right", **options))
    assert generation.summarize(*tiny, TEXTS, batch_size=4, **LIMITS) != right


def test_evaluation_mode_and_cache_while_generating_and_as_before_after(tiny, monkeypatch):
    """Mistake 5: in training mode, dropout is on; without cache every token costs the whole prompt."""
    model, seen = tiny[0], []
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **k: seen.append((model.training, model.config.use_cache)) or generate(**k)
    )
    for training_mode, cache in ((True, False), (False, True)):
        model.train(training_mode)
        model.config.use_cache = cache
        generation.summarize(*tiny, TEXTS[:1], **LIMITS)
        assert (model.training, model.config.use_cache) == (training_mode, cache)
    assert seen == [(False, True)] * 2


def test_the_state_comes_back_after_an_error_too(tiny, monkeypatch):
    model = tiny[0]
    monkeypatch.setattr(model, "generate", lambda **_: 1 / 0)
    model.train()
    with pytest.raises(ZeroDivisionError):
        generation.summarize(*tiny, TEXTS[:1], **LIMITS)
    assert model.training
    model.eval()


def test_the_state_comes_back_when_there_is_no_memory_to_unpack_the_weights(tiny, monkeypatch):
    model = tiny[0]
    own = model.generation_config
    monkeypatch.setattr(loading, "unpacked", lambda _: 1 / 0)
    model.train()
    model.config.use_cache = False
    try:
        with pytest.raises(ZeroDivisionError):
            generation.summarize(*tiny, TEXTS[:1], **LIMITS)
        assert (model.training, model.config.use_cache) == (True, False)
        assert model.generation_config is own
    finally:
        model.eval()
        model.config.use_cache = True
        model.generation_config = own


def test_a_plugin_adds_a_decoding(tiny, monkeypatch):
    monkeypatch.setattr(generation, "DECODINGS", copy.copy(generation.DECODINGS))
    generation.DECODINGS.add("warm", {"do_sample": True, "top_k": 50})
    assert len(generation.summarize(*tiny, TEXTS[:1], decoding="warm", **LIMITS)) == 1


@pytest.mark.parametrize("decoding", generation.DECODINGS)
@pytest.mark.parametrize("limit", [1, 7])
def test_no_more_new_tokens_than_asked(tiny, decoding, limit):
    found = generation.summarize(*tiny, TEXTS[:2], max_length=320, max_new_tokens=limit, decoding=decoding)
    assert all(1 <= summary.tokens <= limit for summary in found)


def test_eos_ends_an_answer_and_is_counted_and_flagged(tiny):
    tokenizer = tiny[1]
    word, eos, pad = tokenizer("ab")["input_ids"], tokenizer.eos_token_id, tokenizer.pad_token_id
    assert generation.read_answer(tokenizer, [*word, eos, pad, pad], 3) == generation.Summary("ab", True, 3, 3)
    assert generation.read_answer(tokenizer, word, 0) == generation.Summary("ab", False, 2, 0)


def test_the_models_own_lengths_and_penalties_do_not_get_in(tiny):
    """`generate` puts the model's own settings wherever the ones it is given say nothing."""
    plain = {decoding: generation.summarize(*tiny, TEXTS, decoding=decoding, **LIMITS) for decoding in DECODINGS}
    own, before = tiny[0].generation_config, tiny[0].generation_config.to_dict()
    try:
        own.update(num_beams=3, min_length=300, no_repeat_ngram_size=1, repetition_penalty=9.0, length_penalty=9.0)
        for decoding, expected in plain.items():
            assert generation.summarize(*tiny, TEXTS, decoding=decoding, **LIMITS) == expected
        assert tiny[0].generation_config is own and own.num_beams == 3
    finally:
        own.update(**before)


def test_nucleus_is_the_same_for_the_same_seed(tiny):
    ask = dict(decoding="nucleus", **LIMITS)
    first, again, other = (generation.summarize(*tiny, TEXTS, seed=seed, **ask) for seed in (1, 1, 2))
    assert first == again != other


def test_of_several_answers_the_best_supported_one_is_taken_for_each_document(tiny, monkeypatch):
    tokenizer = tiny[1]
    answers = {
        "The bridge of Marran opened.": [
            "Paris won again.",
            "A bridge opened.",
            "Bridge opened in Oslo.",
            "A bridge is.",
        ],
        "Two tugs met in Oslo.": ["Sam met them.", "", "Tugs met in Oslo.", "Two tugs met in Oslo."],
    }
    documents = sorted(answers, key=len, reverse=True)  # the order of a batch
    monkeypatch.setattr(generation, "DECODINGS", copy.copy(generation.DECODINGS))
    generation.DECODINGS.add("four", {"do_sample": True, "num_return_sequences": 4})

    def draw(model, prompts, settings, max_new_tokens, ends, show_token):
        assert len(prompts["input_ids"]) == 2, "two documents, read once each"
        ids = [[tokenizer(text)["input_ids"] for text in answers[document]] for document in documents]
        return torch.tensor([[row + [tokenizer.eos_token_id] * (40 - len(row)) for row in rows] for rows in ids])

    monkeypatch.setattr(sampling, "draw", draw)
    found = generation.summarize(*tiny, list(answers), decoding="four", batch_size=8, **LIMITS)
    assert texts(found) == ["A bridge opened.", "Two tugs met in Oslo."]


def test_where_generate_has_to_copy_the_prompts_a_batch_has_as_many_answers_as_without(tiny, monkeypatch):
    sizes, generate = [], generation.Summarizer._generate

    def recorded(self, tensors, settings):
        sizes.append(len(tensors["input_ids"]) * settings["num_return_sequences"])
        return generate(self, tensors, settings)

    monkeypatch.setattr(generation.Summarizer, "_generate", recorded)
    monkeypatch.setattr(generation, "DECODINGS", copy.copy(generation.DECODINGS))
    penalty = {"do_sample": True, "num_return_sequences": 4, "repetition_penalty": 1.1}
    generation.DECODINGS.add("penalty", penalty)
    assert len(generation.summarize(*tiny, TEXTS, decoding="penalty", batch_size=8, **LIMITS)) == len(TEXTS)
    assert set(sizes) <= {4, 8} and sum(sizes) == 4 * len(TEXTS)


@pytest.mark.parametrize("bad", ["", " \n", None, 7, "a\0b", "\ud800", "x" * 1_000_001])
def test_a_document_that_cannot_be_used_is_named_by_its_number(tiny, bad):
    with pytest.raises(SummkitError, match="document 2"):
        generation.summarize(*tiny, ["fine", bad], **LIMITS)


def test_an_unknown_decoding_lists_the_known(tiny):
    with pytest.raises(SummkitError, match="beam, greedy, no-repeat, nucleus, supported"):
        generation.summarize(*tiny, ["a"], decoding="contrastive", **LIMITS)


def test_what_was_cut_is_said(tiny):
    found = generation.summarize(*tiny, ["a" * 1000, "a"], **LIMITS)
    assert found[0].cut > 600 and found[1].cut == 0
    assert found[0].prompt_tokens == 320 - 12 and found[1].prompt_tokens == len(tiny[2].prompt("a"))


@pytest.fixture(scope="module")
def profile():
    return dataclasses.replace(choose_profile("smoke"), max_new_tokens=12)


@pytest.fixture(scope="module")
def saved(profile, tmp_path_factory):
    """(folder of an adapter that changes the answers, the model it was saved from)."""
    model = methods.apply_method(loading.load_model(profile.model, profile.precision), profile)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    folder = tmp_path_factory.mktemp("run") / "adapter"
    return save_adapter(model, folder, profile), model


@pytest.fixture
def broken(saved, tmp_path):
    """A copy of the adapter's folder, to be damaged."""
    import shutil

    return shutil.copytree(saved[0], tmp_path / "adapter")


def test_the_adapter_counts_when_4_bit_layers_are_unpacked(saved):
    """peft's class bears the name of the layer it wraps: unpacked instead of it, the adapter would be left out."""
    model, ids = saved[1].eval(), torch.arange(5, 60)[None]
    with torch.no_grad():
        plain = model(ids).logits
        with loading.unpacked(model):
            unpacked = model(ids).logits
        with model.disable_adapter():
            base = model(ids).logits
    assert torch.allclose(plain, unpacked, atol=1e-5)
    assert (plain - base).abs().max() > 0.1


def test_a_saved_adapter_answers_as_before(saved, profile):
    folder, model = saved
    loaded = generation.Summarizer.load(folder)
    tokenizer = loading.load_tokenizer(profile.model)
    template = templates.build_template(profile.template, tokenizer)
    limits = {"max_length": profile.max_length, "max_new_tokens": profile.max_new_tokens}
    assert loaded.summarize(TEXTS) == generation.summarize(model, tokenizer, template, TEXTS, **limits)
    base = loading.load_model(profile.model, profile.precision)
    assert loaded.summarize(TEXTS, base=True) == generation.summarize(base, tokenizer, template, TEXTS, **limits)
    assert loaded.summarize(TEXTS, base=True) != loaded.summarize(TEXTS)


def test_settings_are_the_profiles(saved, profile):
    settings = json.loads((saved[0] / "summkit.json").read_text())
    assert settings == {key: getattr(profile, key) for key in checkpoints.ASKING} | {"model_is_folder": False}
    assert not list(saved[0].glob("*.bin")) and not list(saved[0].parent.glob("adapter.*"))


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors", "summkit.json"])
def test_a_folder_that_is_no_adapter(broken, missing):
    (broken / missing).unlink()
    with pytest.raises(SummkitError, match=missing):
        generation.Summarizer.load(broken)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(SummkitError, match="no such folder"):
        generation.Summarizer.load(tmp_path / "nothing")


@pytest.mark.parametrize("kept", [0, 5, 300, -1])
def test_weights_that_are_cut_off(broken, kept):
    weights = broken / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(SummkitError, match="truncated"):
        generation.Summarizer.load(broken)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": "tiny-llama"}'])
def test_settings_that_are_broken(broken, text):
    (broken / "summkit.json").write_text(text)
    with pytest.raises(SummkitError, match="summkit.json is missing or broken"):
        generation.Summarizer.load(broken)


def rewrite(folder, **changes):
    """Change the settings beside an adapter; None takes one out."""
    path = folder / "summkit.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    return settings


def test_an_adapter_of_before_there_were_tasks_writes_summaries(broken, saved):
    assert rewrite(broken, task=None, kind=None)["task"] is None
    assert checkpoints.read_settings(broken) == checkpoints.read_settings(saved[0])
    assert generation.Summarizer.load(broken).summarize(TEXTS[:1])


@pytest.mark.parametrize("task", ["agnews", "goemotions", "mnli"])
def test_an_adapter_for_labels_is_refused_where_summaries_are_asked_for(broken, task):
    rewrite(broken, task=task, kind=None)  # as it was saved before kinds were
    with pytest.raises(SummkitError, match=rf"trained for the task '{task}', which is classification, not summaris"):
        generation.Summarizer.load(broken)
    assert checkpoints.read_settings(broken, "classification")["task"] == task


def test_the_kind_of_task_is_saved_and_counts_when_a_training_is_resumed(saved, tmp_path):
    profile = choose_profile("smoke", task="agnews")
    settings = json.loads(checkpoints.save_settings(tmp_path, profile).read_text())
    assert (settings["task"], settings["kind"]) == ("agnews", "classification")
    with pytest.raises(SummkitError, match="'agnews', which is classification"):
        checkpoints.read_settings(save_adapter(saved[1], tmp_path / "adapter", profile))
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    checkpoints.write_manifest(checkpoint, {}, checkpoints.fingerprint(profile, 0, [], []))
    now = checkpoints.fingerprint(profile.replace(kind="summarisation"), 0, [], [])
    with pytest.raises(SummkitError, match="kind was 'classification', now 'summarisation'"):
        checkpoints.check_same(checkpoint, now)
    checkpoints.write_manifest(checkpoint, {}, {key: value for key, value in now.items() if key != "kind"})
    checkpoints.check_same(checkpoint, now)  # made before there were kinds


def test_an_adapter_of_another_shape(broken):
    from safetensors.torch import load_file, save_file

    path = broken / "adapter_model.safetensors"
    save_file({name: torch.zeros(3, 3) for name in load_file(path)}, path)
    with pytest.raises(SummkitError, match="does not fit"):
        generation.Summarizer.load(broken)


WORDING = templates.Wording(examples=(("Fog lay on the river Marran.", "Fog."), ("It rained in Ashby.", "Rain.")))
LONG = {"max_length": 500, "max_new_tokens": 12}


def with_examples(model, name="instruction"):
    tokenizer = loading.tiny_tokenizer()
    return model, tokenizer, templates.build_template(name, tokenizer, WORDING)


def new_ids(monkeypatch, asked, **settings):
    """(answers, the token ids that the model wrote, by batch)."""
    seen, read = [], generation.read_answer
    with monkeypatch.context() as patch:
        patch.setattr(generation, "read_answer", lambda t, ids, *rest: seen.append(list(ids)) or read(t, ids, *rest))
        return generation.summarize(*asked, TEXTS, **LONG, **settings), seen


@pytest.fixture(scope="module")
def loud_nf4():
    """A tiny model in 4-bit weights, larger than usual, so that the answers depend on the prompt."""
    full = tiny_llama()
    for parameter in full.parameters():
        parameter.data.mul_(6 if parameter.dim() > 1 else 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(loading.TINY, "tiny-llama", lambda: full)
        return loading.load_model("tiny-llama", "nf4").eval()


@pytest.mark.parametrize("kind", ["plain", "adapter", "nf4"])
@pytest.mark.parametrize("name", ["instruction", "chat"])
@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_a_head_read_once_gives_the_same_tokens(tiny, saved, loud_nf4, monkeypatch, kind, name, batch_size):
    model = {"plain": tiny[0], "adapter": saved[1].eval(), "nf4": loud_nf4}[kind]
    asked = with_examples(model, name)
    assert len({tokenisation.encode(*asked[:0:-1], text, None, **LONG)["length"] for text in TEXTS}) > 2
    plain = new_ids(monkeypatch, asked, batch_size=batch_size)
    assert new_ids(monkeypatch, asked, batch_size=batch_size, reuse_head=True) == plain
    assert len(set(texts(plain[0]))) > 1, "the same answer to everything would hide a mistake"


def test_the_head_is_read_once_and_never_again(tiny, monkeypatch):
    asked = with_examples(tiny[0])
    head, seen = len(tokenisation.head_ids(asked[2], asked[1])), []
    forward = tiny[0].forward
    monkeypatch.setattr(tiny[0], "forward", lambda *a, **k: seen.append(k["input_ids"].shape) or forward(*a, **k))
    generation.summarize(*asked, TEXTS, batch_size=2, reuse_head=True, **LONG)
    first = [shape for shape in seen if shape[1] > 1]
    assert first[0] == (1, head)
    assert sum(rows for rows, _ in first[1:]) == len(TEXTS) and all(tokens < head for _, tokens in first[1:])


def test_a_wrong_head_shows(tiny, monkeypatch):
    """That the test of the same tokens can fail: the cached head counts."""
    asked = with_examples(tiny[0])
    plain = new_ids(monkeypatch, asked)

    class Wrong(prefill.Prefill):
        def _read_head(self, head, reason):
            super()._read_head(head[::-1], reason)
            self.head = head

    monkeypatch.setattr(generation, "Prefill", Wrong)
    assert new_ids(monkeypatch, asked, reuse_head=True) != plain


def test_a_head_cannot_be_reused_with_beams_or_with_prompt_tuning(tiny):
    with pytest.raises(SummkitError, match="reuse_head: beams.*greedy"):
        generation.summarize(*with_examples(tiny[0]), TEXTS, decoding="beam", reuse_head=True, **LONG)
    profile = choose_profile("smoke", method="prompt", precision="fp32", virtual_tokens=4)
    tuned = methods.apply_method(loading.load_model("tiny-llama"), profile)
    with pytest.raises(SummkitError, match="reuse_head: prompt tuning"):
        generation.summarize(*with_examples(tuned), TEXTS, reuse_head=True, **LONG)


def test_a_head_is_not_reused_by_a_model_that_forgets():
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=264, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=16, bos_token_id=None, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    with pytest.raises(SummkitError, match="does not keep all keys and values"):
        generation.summarize(*with_examples(MistralForCausalLM(config)), TEXTS, reuse_head=True, **LONG)


def test_a_temperature_draws_from_all_tokens_and_the_same_for_the_same_seed(tiny):
    ask = dict(temperature=0.7, **LIMITS)
    first, again, other = (generation.summarize(*tiny, TEXTS, seed=seed, **ask) for seed in (1, 1, 2))
    assert first == again != other
    assert generation.summarize(*tiny, TEXTS, temperature=1e-4, **LIMITS) == generation.summarize(
        *tiny, TEXTS, **LIMITS
    )
    assert generation._generation_settings("greedy", 0.7) == {
        "do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 1.0,
    }  # fmt: skip


def test_a_temperature_with_a_head_read_once(tiny):
    ask = dict(temperature=0.7, seed=3, **LONG)
    plain, shared = (generation.summarize(*with_examples(tiny[0]), TEXTS, reuse_head=r, **ask) for r in (False, True))
    assert plain == shared


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf")])
def test_a_temperature_that_is_none(tiny, wrong):
    with pytest.raises(SummkitError, match="temperature"):
        generation.summarize(*tiny, TEXTS, temperature=wrong, **LIMITS)


def test_a_temperature_and_another_decoding_is_one_too_many(tiny):
    with pytest.raises(SummkitError, match="temperature=0.7 with decoding='beam'"):
        generation.summarize(*tiny, TEXTS, temperature=0.7, decoding="beam", **LIMITS)


@pytest.fixture
def two_ends():
    """A model that writes "OK", ends its turn with <|assistant|> and not with EOS, and then goes on: "!!!!"."""
    tokenizer = loading.tiny_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|assistant|>")
    o, k, bang = (tokenizer.convert_tokens_to_ids(letter) for letter in "OK!")
    config = tiny_llama().config
    config.update({"hidden_size": 264, "num_hidden_layers": 1, "intermediate_size": 8, "tie_word_embeddings": False})
    model = type(tiny_llama())(config)
    head = torch.zeros(264, 264)  # (next token, last token)
    head[o] = 1
    for token, following in ((o, k), (k, end), (end, bang), (bang, bang)):
        head[:, token] = 0
        head[following, token] = 1
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.model.norm.weight.fill_(1)
        model.model.embed_tokens.weight.copy_(torch.eye(264))
        model.lm_head.weight.copy_(head)
    model.generation_config.eos_token_id = [0, end]
    return model.eval(), tokenizer, templates.build_template("instruction", tokenizer)


def test_each_of_the_models_own_end_tokens_ends_an_answer(two_ends):
    [answer] = generation.summarize(*two_ends, ["A bridge was closed."], **LIMITS)
    assert (answer.text, answer.ended, answer.tokens) == ("OK", True, 3)
    two_ends[0].generation_config.eos_token_id = 0
    [answer] = generation.summarize(*two_ends, ["A bridge was closed."], **LIMITS)
    assert (answer.ended, answer.tokens) == (False, 12)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Rain fell.", "Rain fell."),
        ("", ""),
        ("<think>\n\n</think>\n\nRain fell.", "Rain fell."),
        ("<think>They ask for\na line.</think> Rain fell.", "Rain fell."),
        ("They ask for a line.</think>Rain fell.", "Rain fell."),
        ("<Thinking>A line.</Thinking>Rain fell.", "Rain fell."),
        ("[THINK]A line.[/THINK]Rain fell.", "Rain fell."),
        ("<seed:think>A line.</seed:think>Rain fell.", "Rain fell."),
        ("◁think▷A line.◁/think▷Rain fell.", "Rain fell."),
        ("<|channel|>analysis<|message|>A line.<|end|><|channel|>final<|message|>Rain fell.", "Rain fell."),
        ("Rain fell. <think>Is that all", "Rain fell."),
        ("<think>They ask for", None),
        ("<think>They ask for a line.</think>", None),
        ("If x < 3 and y > 4, think.", "If x < 3 and y > 4, think."),
    ],
)
def test_what_is_thought_is_no_part_of_an_answer(text, answer):
    assert generation.without_thinking(text) == answer
    tokenizer = loading.tiny_tokenizer()
    found = generation.read_answer(tokenizer, [*tokenizer(text, split_special_tokens=True)["input_ids"], 0], 0)
    assert (found.text, found.thought) == (answer or "", answer != text) and found.ended


def test_thinking_that_the_prompt_opens_is_no_answer(tiny):
    model, tokenizer, template = tiny
    opened = dataclasses.replace(template, tail=template.tail + "<think>\n")
    found = generation.summarize(model, tokenizer, opened, TEXTS[:2], **LIMITS)
    assert all(answer.thought and not answer.text for answer in found)
    closed = dataclasses.replace(template, tail=template.tail + "<think>\n\n</think>\n\n")
    assert not any(answer.thought for answer in generation.summarize(model, tokenizer, closed, TEXTS[:2], **LIMITS))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("decoding", ["greedy", "beam", "nucleus"])
def test_a_model_that_computes_no_numbers_has_no_answer(value, decoding):
    model, tokenizer = tiny_llama(), loading.tiny_tokenizer()
    model.model.layers[1].mlp.down_proj.weight.data.fill_(value)
    asked = (model, tokenizer, templates.build_template("instruction", tokenizer), TEXTS)
    with pytest.raises(SummkitError, match="computes NaN or infinity.*learning_rate"):
        generation.summarize(*asked, decoding=decoding, **LIMITS)


def test_the_base_answers_before_and_after_an_adapter_is_there(saved, profile):
    tokenizer = loading.load_tokenizer(profile.model)
    asked = (tokenizer, templates.build_template(profile.template, tokenizer), TEXTS[:2])
    fresh = loading.load_model(profile.model, profile.precision)
    before = generation.summarize(fresh, *asked, base=True, **LIMITS)
    assert generation.summarize(saved[1], *asked, base=True, **LIMITS) == before
    assert generation.summarize(saved[1], *asked, **LIMITS) != before


def test_the_base_of_a_model_whose_own_weights_were_trained_is_not_there(profile, tmp_path):
    full = profile.replace(method="head", precision="fp32")
    folder = save_adapter(methods.apply_method(loading.load_model(full.model), full), tmp_path / "adapter", full)
    with pytest.raises(SummkitError, match="changed the model's own weights: load the base model"):
        generation.Summarizer.load(folder).summarize(TEXTS[:1], base=True)


def test_a_stopped_answer_leaves_the_model_as_it_was_and_a_short_message(saved, profile, monkeypatch):
    model = saved[1].train()
    tokenizer = loading.load_tokenizer(profile.model)
    asked = (model, tokenizer, templates.build_template(profile.template, tokenizer), TEXTS)
    own, generate, calls = model.generation_config, model.base_model.model.generate, []

    def stopped(**inputs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(**inputs)

    monkeypatch.setattr(model.base_model.model, "generate", stopped)
    with pytest.raises(Interrupted, match="interrupted: 2 of 4 texts were answered") as stop:
        generation.summarize(*asked, batch_size=1, base=True, **LIMITS)
    assert stop.value._render_traceback_() == [str(stop.value)] and stop.value.__suppress_context__
    assert model.training and model.generation_config is own
    assert not any("forward" in vars(module) for module in model.modules())
    monkeypatch.undo()
    assert len({summary.text for summary in generation.summarize(*asked, **LIMITS)}) > 1
    model.eval()


@pytest.mark.parametrize("decoding", ["greedy", "beam", "supported"])
def test_the_bar_counts_tokens_before_the_first_batch_is_answered(decoding, tiny, monkeypatch):
    file, real = io.StringIO(), tqdm.tqdm
    monkeypatch.setattr(
        tqdm, "tqdm", lambda **given: real(**given | {"file": file, "disable": False, "mininterval": 0})
    )
    generation.summarize(*tiny, TEXTS, decoding=decoding, **LIMITS)
    none_answered = file.getvalue().partition(f"{len(TEXTS)}/{len(TEXTS)}")[0]
    assert f"token 2 of at most {LIMITS['max_new_tokens']}" in none_answered


def test_an_interrupt_while_weights_are_unpacked_leaves_none_behind(saved, monkeypatch):
    unpack, calls = loading._unpacked_forward, []

    def stopped(layer):
        calls.append(layer)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return unpack(layer)

    monkeypatch.setattr(loading, "_unpacked_forward", stopped)
    with pytest.raises(KeyboardInterrupt), loading.unpacked(saved[1]):
        pass
    assert len(calls) == 3 and not any("forward" in vars(module) for module in saved[1].modules())
