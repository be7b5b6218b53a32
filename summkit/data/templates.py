"""Prompt templates: one object renders the prompts of training and inference, so that they cannot differ.

A template has a text before the document and a text after it; for a pair of texts, also one between them. Only the
document may be cut. The summary, or the label word, follows the template. `tokenisation` turns the pieces into tokens.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from summkit.errors import SummkitError, build
from summkit.files import read_mapping
from summkit.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from summkit.config import Profile

INSTRUCTION = "Summarize the following news article in one short sentence."
_DOCUMENT = "\N{OBJECT REPLACEMENT CHARACTER}"  # placeholder for the document while a chat format is split
_SECOND = "\N{REPLACEMENT CHARACTER}"
DAY = datetime.date(2026, 1, 1)  # "today" in every prompt
_DIRECTIVES = "aAbBcCdDeFGHIjmMpRSTuUVwWxXyYzZ"


@dataclass(frozen=True)
class Template:
    """`head` + document + `tail` is the prompt; `answer(summary)` follows, then the end-of-sequence token.

    Attributes:
        name: The name of its builder in TEMPLATES.
        head: Text before the document.
        tail: Text after the document, or after a pair's second text.
        gap: Text that the answer begins with. Byte-pair tokenizers join a space to the next word, so models have rarely
            seen a word after a prompt that ends in a space.
        middle: Text between the texts of a pair.
    """

    name: str
    head: str
    tail: str
    gap: str = ""
    middle: str = ""

    def prompt(self, document: str, second: str = "") -> str:
        """Return the prompt, in training and in inference."""
        return self.head + document + self.middle + second + self.tail

    def render(self, document: str, summary: str, second: str = "") -> str:
        """Return prompt and answer, as in training, without the end-of-sequence token."""
        return self.prompt(document, second) + self.answer(summary)

    def answer(self, summary: str) -> str:
        """Return the text that the model has to write."""
        return self.gap + summary

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits of a hash of all parts, which a file of answers records."""
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()[:12]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Wording:
    """The words of a template.

    Attributes:
        instruction: The task for the model.
        text: Name of the text.
        second: Name of the second text of a pair; "" if there is none.
        answer: Name of the answer.
        examples: Pairs of (text, answer) that are shown before the question; not for pairs of texts.
    """

    instruction: str = INSTRUCTION
    text: str = "Article"
    second: str = ""
    answer: str = "Summary"
    examples: tuple[Any, ...] = ()  # checked by `build_template`, which names the wrong one

    def middle(self) -> str:
        """Return the text between the texts of a pair."""
        return f"\n{self.second}: " if self.second else ""


WORDINGS: Registry[Wording] = Registry("wording")
for _name, _row in read_mapping(Path(__file__).with_name("wordings.yaml"), "wordings").items():
    WORDINGS.add(_name, build(Wording, _row, f"wordings.yaml: {_name}:"))


def get_wording(name: str, instruction: str | None = None) -> Wording:
    """Return the wording called `name`, with another instruction if one is given. Raises SummkitError if unknown."""
    wording = WORDINGS.find(name)
    return replace(wording, instruction=instruction) if instruction else wording


def instruction_template(tokenizer: Tokenizer, wording: Wording) -> Template:
    """Build a template of labelled lines (instruction, article, summary), for models without a chat format.

    With examples, an empty line separates the instruction, each example and the question.
    """
    tail = f"\n{wording.answer}:"
    gap = " "
    separator = "\n\n" if wording.examples else "\n"
    shown = [f"{wording.text}: {text}{tail}{gap}{answer}" for text, answer in wording.examples]
    head = separator.join([f"Instruction: {wording.instruction}", *shown, f"{wording.text}: "])
    return Template("instruction", head, tail, gap=gap, middle=wording.middle())


def prefix_template(tokenizer: Tokenizer, wording: Wording) -> Template:
    """Build a template of the instruction before the text, as T5 models expect it. It shows no examples."""
    if wording.examples:
        raise SummkitError("template 'prefix' cannot show examples: leave them out, or use template='instruction'")
    return Template("prefix", f"{wording.instruction} ", "", middle=wording.middle())


def chat_messages(wording: Wording, document: str, system: bool = True) -> list[dict[str, str]]:
    """Return the chat messages that ask about a document.

    The instruction is the system message, since some chat formats would otherwise add a system message of their own to
    every row. Examples are earlier messages of the user and the assistant. Without `system`, for chat formats that have
    no system message, the user's first message begins with the instruction.

    Example:
        >>> [turn["role"] for turn in chat_messages(Wording(examples=(("It rained.", "Rain."),)), "It snowed.")]
        ['system', 'user', 'assistant', 'user']
    """
    turns = [("system", wording.instruction)]
    for text, answer in wording.examples:
        turns += [("user", text), ("assistant", answer)]
    turns.append(("user", document))
    if not system:
        turns = [("user", f"{wording.instruction}\n\n{turns[1][1]}"), *turns[2:]]
    return [{"role": role, "content": content} for role, content in turns]


def chat_template(tokenizer: Tokenizer, wording: Wording) -> Template:
    """Build a template from the model's own chat format, split at the document and at a pair's second text.

    Where the format has a switch for thinking, it is off. A format that prints the date prints a fixed one, so that
    prompts are the same on each day.

    Raises:
        SummkitError: The tokenizer has no chat format, or the format changes the messages.
    """
    if not tokenizer.chat_template:
        raise SummkitError("this tokenizer has no chat template: use template='instruction'")
    try:
        return _chat_template(tokenizer, wording, system=True)
    except SummkitError as error:
        try:
            return _chat_template(tokenizer, wording, system=False)
        except SummkitError:
            raise error from None


def _chat_template(tokenizer: Tokenizer, wording: Wording, system: bool) -> Template:
    question = f"{wording.text}: {_DOCUMENT}{wording.middle()}{_SECOND}" if wording.second else _DOCUMENT
    messages = chat_messages(wording, question, system)
    options: dict[str, Any] = {"add_generation_prompt": True, "enable_thinking": False, "thinking": False}
    try:
        pinned = f"{_fixed_date()}\n{tokenizer.get_chat_template()}"
        text = tokenizer.apply_chat_template(messages, chat_template=pinned, tokenize=False, **options)
    except Exception as error:  # the format is a program, which may raise anything
        raise SummkitError(f"the model's chat template fails: {error!r}; use template='instruction'") from None
    if wording.instruction.strip() not in text:
        raise SummkitError("this chat template drops or changes the instruction: use template='instruction'")
    if text.count(question) != 1:
        raise SummkitError("this chat template does not keep the message as it is: use template='instruction'")
    before, _, tail = text.partition(_SECOND if wording.second else _DOCUMENT)
    head = before.partition(_DOCUMENT)[0]
    end = 0
    for part in (part.strip() for example in wording.examples for part in example):
        start = head.find(part, end)
        if start < 0:
            raise SummkitError("this chat template does not keep the examples as they are: use template='instruction'")
        end = start + len(part)
    return Template("chat", head, tail, middle=wording.middle())


def _fixed_date() -> str:
    """Return a Jinja macro in place of transformers' `strftime_now`, which cannot be passed: it prints DAY."""
    text = "format"
    for letter in _DIRECTIVES:
        value = DAY.strftime(f"%{letter}")
        text += f".replace('%{letter}', {value!r}).replace('%-{letter}', {value.lstrip('0') or '0'!r})"
    return f"{{% macro strftime_now(format) %}}{{{{ {text} }}}}{{% endmacro %}}"


Builder = Callable[["Tokenizer", Wording], Template]
TEMPLATES: Registry[Builder] = Registry(
    "template", {"instruction": instruction_template, "prefix": prefix_template, "chat": chat_template}
)


def build_template(name: str, tokenizer: Tokenizer, wording: Wording | str = INSTRUCTION) -> Template:
    """Build a template.

    Args:
        name: A name in TEMPLATES: "instruction", "prefix" or "chat".
        tokenizer: The model's tokenizer, with its chat format and special tokens.
        wording: The words of the template, or the instruction alone.

    Raises:
        SummkitError: The name is unknown, the template does not fit the model, or an example cannot be shown.

    Example:
        >>> from summkit.models import tiny_tokenizer
        >>> template = build_template("instruction", tiny_tokenizer(), "Be brief.")
        >>> print(template.render("A bridge was closed.", "Bridge shut."))
        Instruction: Be brief.
        Article: A bridge was closed.
        Summary: Bridge shut.
    """
    builder = TEMPLATES.find(name)
    wording = Wording(wording) if isinstance(wording, str) else wording
    if wording.examples:
        _check_examples(wording, tokenizer)
    return builder(tokenizer, wording)


def summary_template(profile: Profile, tokenizer: Tokenizer) -> Template:
    """Build the template that a profile sets: its form, its wording, and its own instruction if it has one."""
    return build_template(profile.template, tokenizer, get_wording(profile.wording, profile.instruction))


def _check_examples(wording: Wording, tokenizer: Tokenizer) -> None:
    """Check that the examples are usable: a special token inside one could end the prompt."""
    if wording.second:
        raise SummkitError("examples are (text, answer) pairs, but this template takes two texts: leave them out")
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    forbidden = sorted({_DOCUMENT, *tokenizer.all_special_tokens, *added})
    for number, example in enumerate(wording.examples, 1):
        if not isinstance(example, tuple | list) or len(example) != 2:
            raise SummkitError(f"example {number} is not a (text, answer) pair: {example!r:.80}")
        for kind, part in zip(("text", "answer"), example, strict=True):
            if not isinstance(part, str) or not part.strip():
                raise SummkitError(f"example {number}: the {kind} is empty; leave the example out")
            held = [token for token in forbidden if token in part]
            if held:
                raise SummkitError(f"example {number}: the {kind} has the special token {held[0]!r}; leave it out")
