"""Floor 7. Answers side by side as HTML, and a playground to try a text of one's own. Draws; computes no answer itself.

Every text is escaped before any markup is added. No script and inline styles only, so that it reads in JupyterLab's
light and dark themes and where a notebook is only rendered.
"""

import html

from summkit import progress
from summkit.data import sentences
from summkit.errors import SummkitError
from summkit.evaluation import support
from summkit.inference.generation import DECODINGS

COLUMNS = {"document": "article", "reference": "reference", "base": "base", "fine_tuned": "fine-tuned"}
EXAMPLE = (
    "The night ferry from Port Ennick to Sant Brenner will stop running on 3 March, its owner said on Monday.\n"
    "Sound & Isles said that 41 passengers a crossing, on average, did not pay for the fuel. The line was opened in "
    "1968 and carried 112,000 people in its best year. Councillor Delia Strake asked the company to wait until the new "
    "bridge over the Marran is open. Its 26 sailors will be offered work on the day boats."
)
MARK = '<mark style="background:#ffd54f;color:#1a1a1a" title="not in the article">'
_CELL = 'style="text-align:left;vertical-align:top;white-space:normal;padding:6px 10px"'
_NOTE = f"<p>{MARK}Marked</mark>: names and numbers that the article does not hold.</p>"


def marked(summary: str, document: str) -> str:
    """`summary` as HTML, escaped, with <mark> around each name or number that `document` does not support."""
    parts, last = [], 0
    for start, end in support.unsupported_spans(summary, document):
        parts += [html.escape(summary[last:start]), MARK, html.escape(summary[start:end]), "</mark>"]
        last = end
    return "".join([*parts, html.escape(summary[last:])])


def side_by_side(rows):
    """A table as IPython.display.HTML: each row's id, the article's first words, and its summaries with marks.

    `rows` are dicts of text with `document`, and any of id, reference, base, fine_tuned; a column that no row has is
    left out. At most 25 words of an article are shown.
    """
    from IPython.display import HTML

    rows = list(rows)
    shown = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    head = "".join(f"<th {_CELL}>{COLUMNS[key]}</th>" for key in shown)
    body = "".join(f"<tr>{''.join(_cell(row, key) for key in shown)}</tr>" for row in rows)
    return HTML(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{_NOTE}")


def _cell(row: dict, key: str) -> str:
    if key != "document":
        return f"<td {_CELL}>{marked(row.get(key) or '', row['document'])}</td>"
    name = f"<b>{html.escape(str(row['id']))}</b>: " if row.get("id") is not None else ""
    return f"<td {_CELL}>{name}{html.escape(sentences.excerpt(row['document'])[:400])}</td>"


def answer_html(summarizer, text: str, which: str = "both", decoding: str = "greedy") -> str:
    """The answers to `text` as HTML: from the "base", the "adapter" or "both" side by side; an error in words.

    Says how many of the text's tokens were cut where it is longer than what the model was trained for.
    """
    try:
        asked = {"base": [True], "adapter": [False], "both": [True, False]}[which]
        answers = {base: summarizer.summarize([text], decoding=decoding, base=base)[0] for base in asked}
    except SummkitError as error:
        return f"<p><b>No summary:</b> {html.escape(str(error))}</p>"
    cut = max(answer.cut for answer in answers.values())
    said = f"<p>The text is too long: its last {cut:,} tokens were cut and not read.</p>" if cut else ""
    row = {"document": text} | {("base" if base else "fine_tuned"): a.text for base, a in answers.items()}
    return said + side_by_side([row]).data


def playground(summarizer, text: str = EXAMPLE):
    """Paste a text, choose base, adapter or both and the decoding, see the answers side by side.

    `summarizer` is a generation.Summarizer. Where nobody can press a button (no kernel, or a headless run), `text` with
    its answers as plain HTML.
    """
    from IPython import get_ipython
    from IPython.display import HTML

    if progress.headless() or get_ipython() is None:
        return HTML(answer_html(summarizer, text))
    return _controls(summarizer, text)


def _controls(summarizer, text: str):
    import ipywidgets

    wide = {"width": "98%"}
    area = ipywidgets.Textarea(text, layout={**wide, "height": "12em"}, placeholder="Paste a text here")
    which = ipywidgets.ToggleButtons(options=["base", "adapter", "both"], value="both", description="Model")
    decoding = ipywidgets.Dropdown(options=list(DECODINGS), description="Decoding")
    button = ipywidgets.Button(description="Summarise", button_style="primary")
    answer = ipywidgets.HTML(layout=wide)

    def ask(_):
        button.disabled, answer.value = True, "<p>…</p>"
        try:
            answer.value = answer_html(summarizer, area.value, which.value, decoding.value)
        except Exception as error:  # a widget swallows what its callback raises: say it instead
            answer.value = f"<p><b>No summary:</b> {html.escape(f'{type(error).__name__}: {error}')}</p>"
        finally:
            button.disabled = False

    button.on_click(ask)
    return ipywidgets.VBox([area, which, decoding, button, answer])
