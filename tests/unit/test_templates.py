"""Templates: one object for training and inference, the document at one place, refusals with the way out."""

import dataclasses

import pytest

from summkit.config import choose_profile
from summkit.data import classification, registry, templates
from summkit.errors import SummkitError
from summkit.models import loading

DOCUMENT, SUMMARY = "A crack was found in a {cable}.\n\nSummary: none <|end|>", "A bridge is shut."


@pytest.fixture(scope="module")
def tokenizer():
    return loading.tiny_tokenizer()


@pytest.mark.parametrize("name", ["instruction", "chat"])
def test_the_prompt_of_inference_begins_what_is_trained_on(tokenizer, name):
    template = templates.build_template(name, tokenizer)
    prompt, whole = template.prompt(DOCUMENT), template.render(DOCUMENT, SUMMARY)
    assert whole.startswith(prompt) and whole[len(prompt) :] == template.answer(SUMMARY)
    assert prompt == template.head + DOCUMENT + template.tail, "the document stands there as it is"
    assert template.answer(SUMMARY).strip() == SUMMARY and templates.INSTRUCTION in template.head


def test_plain_words_say_instruction_article_summary(tokenizer):
    template = templates.build_template("instruction", tokenizer, "Be brief.")
    assert template.render("Text.", "Short.") == "Instruction: Be brief.\nArticle: Text.\nSummary: Short."


def test_no_prompt_ends_in_a_space(tokenizer):
    assert templates.build_template("instruction", tokenizer).prompt("Text.").endswith("Summary:")


def test_the_chat_format_is_the_models_own(tokenizer):
    template = templates.build_template("chat", tokenizer, "Be brief.")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": DOCUMENT}]
    own = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert template.prompt(DOCUMENT) == own


def test_unknown_names_are_refused(tokenizer):
    with pytest.raises(SummkitError, match="unknown template 'alpaca'; known: chat, instruction"):
        templates.build_template("alpaca", tokenizer)


@pytest.mark.parametrize(
    "chat",
    [
        None,
        "{{ raise_exception('System role not supported') }}",
        "{% for m in messages %}{{ m['content'][:0] }}{% endfor %}",
        "{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}",
    ],
    ids=["none", "refuses", "drops", "doubles"],
)
def test_a_chat_format_that_does_not_fit_names_the_way_out(chat):
    tokenizer = loading.tiny_tokenizer()
    tokenizer.chat_template = chat
    with pytest.raises(SummkitError, match="template='instruction'"):
        templates.build_template("chat", tokenizer)


PAIR = templates.Wording("Does it follow?", "Premise", "Hypothesis", "Answer")


@pytest.mark.parametrize("name", ["instruction", "chat"])
def test_a_pairs_second_text_stands_between_the_first_and_the_answer(tokenizer, name):
    template = templates.build_template(name, tokenizer, PAIR)
    prompt, whole = template.prompt(DOCUMENT, "It is {shut}."), template.render(DOCUMENT, "yes", "It is {shut}.")
    assert prompt == f"{template.head}{DOCUMENT}\nHypothesis: It is {{shut}}.{template.tail}"
    assert template.head.endswith("Premise: ") and PAIR.instruction in template.head
    assert whole == prompt + template.answer("yes")
    assert templates.build_template(name, tokenizer).middle == "", "a single text has nothing in the middle"


def test_plain_words_of_a_pair(tokenizer):
    template = templates.build_template("instruction", tokenizer, PAIR)
    said = "Instruction: Does it follow?\nPremise: One.\nHypothesis: Two.\nAnswer: yes"
    assert template.render("One.", "yes", "Two.") == said


def test_the_chat_format_of_a_pair_is_the_models_own(tokenizer):
    template = templates.build_template("chat", tokenizer, PAIR)
    asked = f"Premise: {DOCUMENT}\nHypothesis: Two."
    messages = [{"role": "system", "content": "Does it follow?"}, {"role": "user", "content": asked}]
    own = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert template.prompt(DOCUMENT, "Two.") == own


EXAMPLES = (("Cells divide.\n\nTopics: none", "cells; division"), ("We train {nets}.", "nets"))
SHOWN = templates.Wording("Name the topics.", "Abstract", answer="Topics", examples=EXAMPLES)


def test_without_examples_a_template_is_what_saved_adapters_were_trained_with(tokenizer):
    news = "Summarize the following news article in one short sentence."
    plain, chat = (templates.build_template(name, tokenizer) for name in ("instruction", "chat"))
    assert plain == templates.Template("instruction", f"Instruction: {news}\nArticle: ", "\nSummary:", " ", "")
    assert chat == templates.Template("chat", f"<|system|>{news}<|end|><|user|>", "<|end|><|assistant|>")


def test_examples_in_plain_words_stand_between_the_instruction_and_the_text(tokenizer):
    template = templates.build_template("instruction", tokenizer, SHOWN)
    assert template.render("Text.", "words") == (
        "Instruction: Name the topics.\n\n"
        "Abstract: Cells divide.\n\nTopics: none\nTopics: cells; division\n\n"
        "Abstract: We train {nets}.\nTopics: nets\n\n"
        "Abstract: Text.\nTopics: words"
    )


def test_examples_in_the_chat_format_are_earlier_messages(tokenizer):
    template = templates.build_template("chat", tokenizer, SHOWN)
    said = [("system", "Name the topics.")]
    for text, answer in EXAMPLES:
        said += [("user", text), ("assistant", answer)]
    messages = [{"role": role, "content": content} for role, content in [*said, ("user", DOCUMENT)]]
    own = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert template.prompt(DOCUMENT) == own
    plain = templates.build_template(
        "chat", tokenizer, templates.Wording("Name the topics.", "Abstract", answer="Topics")
    )
    assert (template.tail, template.gap, template.middle) == (plain.tail, plain.gap, plain.middle)


@pytest.mark.parametrize("name", ["instruction", "chat"])
@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (("", "a"), "example 2: the text is empty"),
        (("a", " \n"), "example 2: the answer is empty"),
        (("a", None), "example 2: the answer is empty"),
        (("a <|end|> b", "a"), r"example 2: the text has the special token '<\|end\|>'"),
        (("a", "<|assistant|>"), r"example 2: the answer has the special token '<\|assistant\|>'"),
        (("a \ufffc", "a"), "example 2: the text has"),
        ("ab", r"example 2 is not a \(text, answer\) pair"),
        (("a", "b", "c"), r"example 2 is not a \(text, answer\) pair"),
    ],
)
def test_an_example_that_cannot_be_shown_is_named_by_its_number(tokenizer, name, example, reason):
    with pytest.raises(SummkitError, match=reason):
        templates.build_template(name, tokenizer, templates.Wording(examples=(("fine", "fine"), example)))


def test_a_special_token_that_has_no_name_of_its_own_is_refused_in_an_example():
    """Llama 3 has such tokens: they end a turn, and are not among its `all_special_tokens`."""
    from tokenizers import AddedToken

    tokenizer = loading.tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("<|eot_id|>", special=True)])
    assert "<|eot_id|>" not in tokenizer.all_special_tokens
    with pytest.raises(SummkitError, match="eot_id"):
        templates.build_template("instruction", tokenizer, templates.Wording(examples=(("a<|eot_id|>", "b"),)))


def test_examples_are_not_for_pairs(tokenizer):
    with pytest.raises(SummkitError, match="takes two texts"):
        templates.build_template("chat", tokenizer, templates.Wording(second="Hypothesis", examples=(("a", "b"),)))


@pytest.mark.parametrize(
    "chat",
    [
        "{{ messages[0]['content'] }}{{ messages[-1]['content'] }}",
        "{% for m in messages %}{% if m['role'] != 'assistant' %}{{ m['content'] }}{% endif %}{% endfor %}",
    ],
    ids=["only the last", "no answers"],
)
def test_a_chat_format_that_drops_the_examples_is_refused(chat):
    tokenizer = loading.tiny_tokenizer()
    tokenizer.chat_template = chat
    with pytest.raises(SummkitError, match="does not keep the examples.*template='instruction'"):
        templates.build_template("chat", tokenizer, SHOWN)


MESSAGES = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
ASK = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


def chat(template: str, wording="Be brief.") -> templates.Template:
    tokenizer = loading.tiny_tokenizer()
    tokenizer.chat_template = template
    return templates.build_template("chat", tokenizer, wording)


@pytest.mark.parametrize(
    "condition",
    ["{% if m['role'] != 'system' %}", "{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% else %}"],
    ids=["dropped", "refused"],
)
def test_a_format_without_a_system_message_has_the_instruction_in_the_users(condition):
    body = MESSAGES.replace("<|{{", condition + "<|{{").replace("<|end|>", "<|end|>{% endif %}")
    assert chat(body + ASK).prompt("Text.") == "<|user|>Be brief.\n\nText.<|end|><|assistant|>"
    shown = chat(body + ASK, templates.Wording("Be brief.", examples=(("One.", "1"),)))
    assert shown.head == "<|user|>Be brief.\n\nOne.<|end|><|assistant|>1<|end|><|user|>"
    pair = chat(body + ASK, PAIR)
    assert pair.prompt("A.", "B.").startswith("<|user|>Does it follow?\n\nPremise: A.\nHypothesis: B.<|end|>")


@pytest.mark.parametrize(
    "template",
    [
        MESSAGES.replace("m['content']", "m['content'] | upper"),
        MESSAGES.replace("m['content']", "m['content'] | replace('brief', 'short')"),
        "{{ messages + 1 }}",
        "{{ messages[9]['content'] + 'x' }}",
        "{% for m in messages %",
        "{{ 1 // 0 }}",
        "{{ messages[0].content.no_such_method() }}",
    ],
)
def test_a_format_that_changes_the_instruction_or_fails_is_refused(template):
    with pytest.raises(SummkitError, match="template='instruction'"):
        chat(template)


def test_a_format_that_prints_the_date_prints_the_same_one_on_each_day():
    day = chat("<|system|>Today: {{ strftime_now('%d %b %Y') }}" + MESSAGES + ASK)
    assert day.head.startswith("<|system|>Today: 01 Jan 2026")
    given = chat("{% if not date_string is defined %}{% set date_string = strftime_now('%Y') %}{% endif %}" + MESSAGES +
                 "{{ date_string }}")  # fmt: skip
    assert given.tail == "<|end|>2026"


@pytest.mark.parametrize(
    ("call", "printed"),
    [
        ("{% set f = '%d %b' %}{{ strftime_now(f) }}", "01 Jan"),
        ("{{ strftime_now(format='%Y-%m-%d') }}", "2026-01-01"),
        ("{% set today = strftime_now %}{{ today('%B %d, %Y') }}", "January 01, 2026"),
        ("{{ strftime_now('%A ' + '%H:%M') }}", "Thursday 00:00"),
        ("{{ strftime_now('%-d.%-m.') ~ ' 100%' }}", "1.1. 100%"),
        ("{% if strftime_now is defined %}{{ strftime_now('%Y-%m-%d').split('-')[0] }}{% endif %}", "2026"),
        ("{% macro day() %}{{ strftime_now('%d') }}{% endmacro %}{{ day() }}", "01"),
        ("{% for _ in [1] %}{{ strftime_now('%y') }}{% endfor %}", "26"),
    ],
)
def test_a_date_is_fixed_however_the_format_asks_for_it(call, printed):
    assert chat(f"<|system|>Today: {call}." + MESSAGES + ASK).head.startswith(f"<|system|>Today: {printed}.<|system|>")


@pytest.mark.parametrize(
    "start", ["", "\n", "\n\n", "  ", "  {% if true %}\n  x{% endif %}\n", "\n {%- if true %} x{% endif %}"]
)
def test_the_fixed_date_adds_nothing_to_the_prompt(start):
    tokenizer = loading.tiny_tokenizer()
    tokenizer.chat_template = start + MESSAGES + ASK
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": DOCUMENT}]
    own = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert templates.build_template("chat", tokenizer, "Be brief.").prompt(DOCUMENT) == own


@pytest.mark.parametrize("switch", ["enable_thinking", "thinking"])
def test_thinking_is_off_where_there_is_a_switch(switch):
    end = "{% if " + switch + " is defined and not " + switch + " %}<think>\n\n</think>\n\n{% endif %}"
    assert chat(MESSAGES + ASK + end).tail == "<|end|><|assistant|><think>\n\n</think>\n\n"


@pytest.mark.parametrize("form", ["instruction", "chat", "prefix"])
def test_an_own_instruction_in_any_language_stands_in_the_prompt(tokenizer, form):
    profile = choose_profile("smoke", template=form, instruction="Fasse den Artikel in einem Satz zusammen. 用一句话。")
    assert profile.instruction in templates.summary_template(profile, tokenizer).head
    labels = choose_profile("smoke", task="agnews", template=form, instruction="Thema? {words}")
    head = classification.label_template(labels, tokenizer, registry.Schema(("A", "B"), ("a", "b"))).head
    assert "Thema? a or b" in head


def test_any_change_of_a_part_is_another_version(tokenizer):
    template = templates.build_template("instruction", tokenizer, SHOWN)
    assert len(template.version) == 12 and int(template.version, 16) >= 0
    assert template.version == templates.build_template("instruction", tokenizer, SHOWN).version
    parts = ("name", "head", "tail", "gap", "middle")
    versions = {dataclasses.replace(template, **{part: getattr(template, part) + "x"}).version for part in parts}
    moved = dataclasses.replace(template, gap="", middle=" ").version  # the same letters at another place
    assert len({*versions, moved, template.version}) == 7
