"""Floor 2. Instruction templates: one object renders training and inference, so that the two cannot differ.

A template is two pieces of text, one before the document and one after it; for a pair of texts a third stands between
them. The document is the piece that may be cut; the summary, or the label's word, is what comes next. Tokens are the
business of `features`.
"""

import hashlib
import json
from dataclasses import astuple, dataclass

from summkit.errors import SummkitError, check_known

INSTRUCTION = "Summarize the following news article in one short sentence."
_PLACE = "\N{OBJECT REPLACEMENT CHARACTER}"
_SECOND = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Template:
    """`head` + document + `tail` is the prompt; `answer(summary)` follows, then the end-of-sequence token.

    For a pair of texts it is `head` + document + `middle` + second + `tail`.

    `gap` belongs to the answer: byte-pair tokenizers glue a space to the word after it, and after a prompt that ends in
    a space a model has hardly ever seen a word begin.
    """

    name: str
    head: str
    tail: str
    gap: str = ""
    middle: str = ""

    def prompt(self, document: str, second: str = "") -> str:
        """What the model is given to continue, in training and in inference."""
        return self.head + document + self.middle + second + self.tail

    def render(self, document: str, summary: str, second: str = "") -> str:
        """What the model is trained on, without the end-of-sequence token."""
        return self.prompt(document, second) + self.answer(summary)

    def answer(self, summary: str) -> str:
        """What the model has to write."""
        return self.gap + summary

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits that any change of a part changes: what a file of answers was asked with."""
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Wording:
    """What a template says: the instruction, and what it calls the text, the second text of a pair, and the answer.

    `examples` are (text, answer) pairs that stand before the question; a template of pairs takes none.
    """

    instruction: str = INSTRUCTION
    text: str = "Article"
    second: str = ""
    answer: str = "Summary"
    examples: tuple[tuple[str, str], ...] = ()

    def middle(self) -> str:
        return f"\n{self.second}: " if self.second else ""


def instruction_template(wording: Wording) -> Template:
    """Instruction / Article / Summary in plain words, for models without a chat format of their own.

    With examples an empty line parts the instruction, each example and the question.
    """
    tail, gap = f"\n{wording.answer}:", " "
    between = "\n\n" if wording.examples else "\n"
    shown = [f"{wording.text}: {text}{tail}{gap}{answer}" for text, answer in wording.examples]
    head = between.join([f"Instruction: {wording.instruction}", *shown, f"{wording.text}: "])
    return Template("instruction", head, tail, gap=gap, middle=wording.middle())


def prefix_template(wording: Wording) -> Template:
    """The instruction before the text, and nothing more: how T5 and its like are asked. It shows no examples."""
    if wording.examples:
        raise SummkitError("template 'prefix' shows no examples: leave them out, or use template='instruction'")
    return Template("prefix", f"{wording.instruction} ", "", middle=wording.middle())


def chat_template(tokenizer, wording: Wording) -> Template:
    """The model's own chat format, split at the places of the document and of a pair's second text.

    The instruction is the system message: a model that brings a system message of its own would otherwise spend
    tokens on it in every row. Examples are earlier messages of the user and the assistant.
    Raises SummkitError for a tokenizer without a chat template.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise SummkitError("this tokenizer has no chat template: use template='instruction'")
    asked = f"{wording.text}: {_PLACE}{wording.middle()}{_SECOND}" if wording.second else _PLACE
    messages = chat_messages(wording, asked)
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:  # how a model says that it knows no system message
        raise SummkitError(f"the model's chat template refuses: {error}; use template='instruction'") from None
    if text.count(asked) != 1:
        raise SummkitError("this chat template does not keep the message as it is: use template='instruction'")
    before, _, tail = text.partition(_SECOND if wording.second else _PLACE)
    head = before.partition(_PLACE)[0]
    end = 0
    for part in (part.strip() for example in wording.examples for part in example):
        if (start := head.find(part, end)) < 0:
            raise SummkitError("this chat template does not keep the examples as they are: use template='instruction'")
        end = start + len(part)
    return Template("chat", head, tail, middle=wording.middle())


def chat_messages(wording: Wording, asked: str) -> list[dict]:
    turns = [turn for text, answer in wording.examples for turn in (("user", text), ("assistant", answer))]
    said = [("system", wording.instruction), *turns, ("user", asked)]
    return [{"role": role, "content": content} for role, content in said]


def build_template(name: str, tokenizer, wording: Wording | str = INSTRUCTION) -> Template:
    """The template called `name`: "instruction", "prefix" or "chat". `wording` may be the summary's instruction alone.

    Raises SummkitError for an unknown name, and for an example that cannot be shown, by its number.
    """
    check_known("template", name, ["instruction", "prefix", "chat"])
    wording = Wording(wording) if isinstance(wording, str) else wording
    if wording.examples:
        _check_examples(wording, tokenizer)
    if name == "chat":
        return chat_template(tokenizer, wording)
    return prefix_template(wording) if name == "prefix" else instruction_template(wording)


def _check_examples(wording: Wording, tokenizer) -> None:
    """Examples come from data, and the head's special tokens are obeyed: one in an example would end the prompt."""
    if wording.second:
        raise SummkitError("examples are (text, answer), and this template asks about a pair of texts: leave them out")
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    forbidden = {_PLACE, *tokenizer.all_special_tokens, *added}
    for number, example in enumerate(wording.examples, 1):
        if not isinstance(example, (tuple, list)) or len(example) != 2:
            raise SummkitError(f"example {number} is no (text, answer) pair: {example!r:.80}")
        for kind, part in zip(("text", "answer"), example, strict=True):
            if not isinstance(part, str) or not part.strip():
                raise SummkitError(f"example {number}: the {kind} is empty; leave the example out")
            if held := [token for token in sorted(forbidden) if token in part]:
                raise SummkitError(
                    f"example {number}: the {kind} holds {held[0]!r}, which is no text to the model; leave it out"
                )


_PAPER = "the following abstract of a scientific paper"
WORDINGS = {
    "news": Wording(),
    "topics": Wording(
        f"Name the main topics of {_PAPER}: two to five short phrases, separated by semicolons.",
        "Abstract", answer="Topics",
    ),
    "paper": Wording("Summarize the following scientific paper in one paragraph.", "Paper", answer="Abstract"),
    "dialogue": Wording("Summarize the following conversation as a short note.", "Conversation", answer="Note"),
    "title": Wording(f"Write the title of {_PAPER}.", "Abstract", answer="Title"),
}  # fmt: skip


def get_wording(name: str) -> Wording:
    """The wording that a profile names. Raises SummkitError for an unknown one."""
    check_known("wording", name, WORDINGS)
    return WORDINGS[name]
