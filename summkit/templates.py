"""Floor 2. Instruction templates: one object renders training and inference, so that the two cannot differ.

A template is two pieces of text, one before the document and one after it; for a pair of texts a third stands between
them. The document is the piece that may be cut; the summary, or the label's word, is what comes next. Tokens are the
business of `features`.
"""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Wording:
    """What a template says: the instruction, and what it calls the text, the second text of a pair, and the answer."""

    instruction: str = INSTRUCTION
    text: str = "Article"
    second: str = ""
    answer: str = "Summary"

    def middle(self) -> str:
        return f"\n{self.second}: " if self.second else ""


def instruction_template(wording: Wording) -> Template:
    """Instruction / Article / Summary in plain words, for models without a chat format of their own."""
    head = f"Instruction: {wording.instruction}\n{wording.text}: "
    return Template("instruction", head, f"\n{wording.answer}:", gap=" ", middle=wording.middle())


def chat_template(tokenizer, wording: Wording) -> Template:
    """The model's own chat format, split at the places of the document and of a pair's second text.

    The instruction is the system message: a model that brings a system message of its own would otherwise spend
    tokens on it in every row. Raises SummkitError for a tokenizer without a chat template.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise SummkitError("this tokenizer has no chat template: use template='instruction'")
    asked = f"{wording.text}: {_PLACE}{wording.middle()}{_SECOND}" if wording.second else _PLACE
    messages = [{"role": "system", "content": wording.instruction}, {"role": "user", "content": asked}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:  # how a model says that it knows no system message
        raise SummkitError(f"the model's chat template refuses: {error}; use template='instruction'") from None
    if text.count(asked) != 1:
        raise SummkitError("this chat template does not keep the message as it is: use template='instruction'")
    before, _, tail = text.partition(_SECOND if wording.second else _PLACE)
    head = before.partition(_PLACE)[0]
    return Template("chat", head, tail, middle=wording.middle())


def build(name: str, tokenizer, wording: Wording | str = INSTRUCTION) -> Template:
    """The template called `name`: "instruction" or "chat". `wording` may be the summary's instruction alone."""
    check_known("template", name, ["instruction", "chat"])
    wording = Wording(wording) if isinstance(wording, str) else wording
    return chat_template(tokenizer, wording) if name == "chat" else instruction_template(wording)
