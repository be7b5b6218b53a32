"""Templates: one object for training and inference, the document at one place, refusals with the way out."""

import pytest

from summkit import models, templates
from summkit.errors import SummkitError

DOCUMENT, SUMMARY = "A crack was found in a {cable}.\n\nSummary: none <|end|>", "A bridge is shut."


@pytest.fixture(scope="module")
def tokenizer():
    return models.tiny_tokenizer()


@pytest.mark.parametrize("name", ["instruction", "chat"])
def test_the_prompt_of_inference_begins_what_is_trained_on(tokenizer, name):
    template = templates.build(name, tokenizer)
    prompt, whole = template.prompt(DOCUMENT), template.render(DOCUMENT, SUMMARY)
    assert whole.startswith(prompt) and whole[len(prompt) :] == template.answer(SUMMARY)
    assert prompt == template.head + DOCUMENT + template.tail, "the document stands there as it is"
    assert template.answer(SUMMARY).strip() == SUMMARY and templates.INSTRUCTION in template.head


def test_plain_words_say_instruction_article_summary(tokenizer):
    template = templates.build("instruction", tokenizer, "Be brief.")
    assert template.render("Text.", "Short.") == "Instruction: Be brief.\nArticle: Text.\nSummary: Short."


def test_no_prompt_ends_in_a_space(tokenizer):
    assert templates.build("instruction", tokenizer).prompt("Text.").endswith("Summary:")


def test_the_chat_format_is_the_models_own(tokenizer):
    template = templates.build("chat", tokenizer, "Be brief.")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": DOCUMENT}]
    own = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert template.prompt(DOCUMENT) == own


def test_unknown_names_are_refused(tokenizer):
    with pytest.raises(SummkitError, match="unknown template 'alpaca'; known: chat, instruction"):
        templates.build("alpaca", tokenizer)


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
    tokenizer = models.tiny_tokenizer()
    tokenizer.chat_template = chat
    with pytest.raises(SummkitError, match="template='instruction'"):
        templates.build("chat", tokenizer)


PAIR = templates.Wording("Does it follow?", "Premise", "Hypothesis", "Answer")


@pytest.mark.parametrize("name", ["instruction", "chat"])
def test_a_pairs_second_text_stands_between_the_first_and_the_answer(tokenizer, name):
    template = templates.build(name, tokenizer, PAIR)
    prompt, whole = template.prompt(DOCUMENT, "It is {shut}."), template.render(DOCUMENT, "yes", "It is {shut}.")
    assert prompt == f"{template.head}{DOCUMENT}\nHypothesis: It is {{shut}}.{template.tail}"
    assert template.head.endswith("Premise: ") and PAIR.instruction in template.head
    assert whole == prompt + template.answer("yes")
    assert templates.build(name, tokenizer).middle == "", "a single text has nothing in the middle"


def test_plain_words_of_a_pair(tokenizer):
    template = templates.build("instruction", tokenizer, PAIR)
    said = "Instruction: Does it follow?\nPremise: One.\nHypothesis: Two.\nAnswer: yes"
    assert template.render("One.", "yes", "Two.") == said


def test_the_chat_format_of_a_pair_is_the_models_own(tokenizer):
    template = templates.build("chat", tokenizer, PAIR)
    asked = f"Premise: {DOCUMENT}\nHypothesis: Two."
    messages = [{"role": "system", "content": "Does it follow?"}, {"role": "user", "content": asked}]
    own = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert template.prompt(DOCUMENT, "Two.") == own
