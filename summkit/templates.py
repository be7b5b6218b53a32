"""Floor 2. Instruction templates: one object renders training and inference, so that the two cannot differ.

A template is two pieces of text, one before the document and one after it. The document is the only piece that may be
cut; the summary is what comes next. Tokens are the business of `features`.
"""

from dataclasses import dataclass

from summkit.errors import SummkitError, check_known

INSTRUCTION = "Summarize the following news article in one short sentence."
_PLACE = "\N{OBJECT REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Template:
    """`head` + document + `tail` is the prompt; `answer(summary)` follows, then the end-of-sequence token.

    `gap` belongs to the answer: byte-pair tokenizers glue a space to the word after it, and after a prompt that ends in
    a space a model has hardly ever seen a word begin.
    """

    name: str
    head: str
    tail: str
    gap: str = ""

    def prompt(self, document: str) -> str:
        """What the model is given to continue, in training and in inference."""
        return self.head + document + self.tail

    def render(self, document: str, summary: str) -> str:
        """What the model is trained on, without the end-of-sequence token."""
        return self.prompt(document) + self.answer(summary)

    def answer(self, summary: str) -> str:
        """What the model has to write."""
        return self.gap + summary


def instruction_template(instruction: str = INSTRUCTION) -> Template:
    """Instruction / Article / Summary in plain words, for models without a chat format of their own."""
    return Template("instruction", f"Instruction: {instruction}\nArticle: ", "\nSummary:", gap=" ")


def chat_template(tokenizer, instruction: str = INSTRUCTION) -> Template:
    """The model's own chat format, split at the place of the document.

    The instruction is the system message: a model that brings a system message of its own would otherwise spend
    tokens on it in every row. Raises SummkitError for a tokenizer without a chat template.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise SummkitError("this tokenizer has no chat template: use template='instruction'")
    messages = [{"role": "system", "content": instruction}, {"role": "user", "content": _PLACE}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:  # how a model says that it knows no system message
        raise SummkitError(f"the model's chat template refuses: {error}; use template='instruction'") from None
    head, place, tail = text.partition(_PLACE)
    if not place or _PLACE in tail:
        raise SummkitError("this chat template does not keep the message as it is: use template='instruction'")
    return Template("chat", head, tail)


def build(name: str, tokenizer, instruction: str = INSTRUCTION) -> Template:
    """The template called `name`: "instruction" or "chat"."""
    check_known("template", name, ["instruction", "chat"])
    return chat_template(tokenizer, instruction) if name == "chat" else instruction_template(instruction)
