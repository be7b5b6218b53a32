"""Show answers side by side as HTML, and a playground for your own texts."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from summkit import progress
from summkit.data import sentences
from summkit.errors import SummkitError
from summkit.evaluation import unsupported_spans
from summkit.evaluation.languages import USUAL, choose_tokenizer
from summkit.inference.generation import DECODINGS

if TYPE_CHECKING:
    import ipywidgets
    from IPython.display import HTML

    from summkit.inference.generation import Summarizer

COLUMNS = {"document": "article", "reference": "reference", "base": "base", "fine_tuned": "fine-tuned"}
COLUMNS |= {"supported": "fine-tuned, best supported"}
EXAMPLE = (
    "The night ferry from Port Ennick to Sant Brenner will stop running on 3 March, its owner said on Monday.\n"
    "Sound & Isles said that 41 passengers a crossing, on average, did not pay for the fuel. The line was opened in "
    "1968 and carried 112,000 people in its best year. Councillor Delia Strake asked the company to wait until the new "
    "bridge over the Marran is open. Its 26 sailors will be offered work on the day boats."
)
MARK = '<mark style="background:#ffd54f;color:#1a1a1a" title="not in the article">'


def marked(summary: str, document: str) -> str:
    """Return a summary as escaped HTML, with <mark> around each name or number that `document` does not support.

    The rules for names are English: in other languages nothing is marked.
    """
    parts = []
    last = 0
    for start, end in unsupported_spans(summary, document) if _is_english(document) else []:
        parts += [html.escape(summary[last:start]), MARK, html.escape(summary[start:end]), "</mark>"]
        last = end
    return "".join([*parts, html.escape(summary[last:])])


def _is_english(document: str) -> bool:
    return choose_tokenizer([document]) == USUAL


def side_by_side(rows: Iterable[dict[str, Any]]) -> HTML:
    """Return a table of summaries, with marks on names and numbers that the article does not support.

    Args:
        rows: Dicts with `document` and any of id, reference, base, fine_tuned and supported. A column that no row has
            is omitted. At most 25 words of an article are shown.
    """
    from IPython.display import HTML
    from jinja2 import Environment, PackageLoader

    rows = [{"id": None, **dict.fromkeys(COLUMNS), **row} for row in rows]
    columns = {key: name for key, name in COLUMNS.items() if any(row[key] is not None for row in rows)}
    template = Environment(loader=PackageLoader("summkit.reporting"), autoescape=True)
    page = template.get_template("side_by_side.html.j2")
    english = all(_is_english(row["document"]) for row in rows)
    shown = {"rows": rows, "columns": columns, "marked": marked, "mark": MARK, "english": english}
    return HTML(page.render(**shown, excerpt=sentences.excerpt))


def answer_html(summarizer: Summarizer, text: str, which: str = "both", decoding: str = "greedy") -> str:
    """Return the answers to a text as HTML; an error in the input is shown as a sentence.

    Args:
        summarizer: Answers with and without the adapter.
        text: The article. If it is too long for the model, the number of cut tokens is shown.
        which: "base", "adapter", or "both" side by side.
        decoding: See `DECODINGS`.
    """
    models = {"base": [True], "adapter": [False], "both": [True, False]}[which]
    try:
        answers = {base: summarizer.summarize([text], decoding=decoding, base=base)[0] for base in models}
    except SummkitError as error:
        return _refusal(str(error))
    cut = max(answer.cut for answer in answers.values())
    note = f"<p>The text is too long: its last {cut:,} tokens were cut and not read.</p>" if cut else ""
    texts = {"base" if base else "fine_tuned": answer.text for base, answer in answers.items()}
    return note + side_by_side([{"document": text, **texts}]).data


def _refusal(reason: str) -> str:
    return f"<p><b>No summary:</b> {html.escape(reason)}</p>"


def playground(summarizer: Summarizer, text: str = EXAMPLE) -> HTML | ipywidgets.interactive:
    """Show controls: paste a text, choose base, adapter or both and the decoding, and see the answers side by side.

    Without a kernel, or in a headless run, show `text` with its answers as plain HTML.
    """
    from IPython import get_ipython
    from IPython.display import HTML

    if progress.headless() or get_ipython() is None:
        return HTML(answer_html(summarizer, text))
    import ipywidgets

    def answer(text: str, model: str, decoding: str) -> HTML:
        try:
            return HTML(answer_html(summarizer, text, model, decoding))
        except Exception as error:  # a traceback in a widget's output does not help users
            return HTML(_refusal(f"{type(error).__name__}: {error}"))

    return ipywidgets.interactive(
        answer,
        {"manual": True, "manual_name": "Summarise"},
        text=ipywidgets.Textarea(text, layout={"width": "98%", "height": "12em"}, placeholder="Paste a text here"),
        model=ipywidgets.ToggleButtons(options=["base", "adapter", "both"], value="both"),
        decoding=ipywidgets.Dropdown(options=list(DECODINGS)),
    )
