"""Floor 0. A scientific paper in JATS, the journals' XML, as plain text: sections, abstract, lay summary, licence.

What is no running text is left out: figures, tables, formulas, supplements, notes, references and their numbers. No
external entity is ever read.
"""

import re
import xml.etree.ElementTree as ET

from summkit.errors import SummkitError

READER = 1  # part of the name of the file in the cache: raise it where `paper` changes what it gives
_LEFT_OUT = {
    "alternatives", "disp-formula", "fig", "fig-group", "fn", "fn-group", "graphic", "inline-formula",
    "inline-graphic", "object-id", "ref-list", "supplementary-material", "table-wrap", "table-wrap-group",
}  # fmt: skip
_LINES = {"abstract", "boxed-text", "disp-quote", "list", "list-item", "p", "sec", "title"}
_LAY = ("summary", "editors-summary", "editor", "patient", "synopsis")  # what the journals call a summary for all
# A reference, which becomes a NUL, as no XML can hold one; several, with what stands between them; their brackets.
_CITED = re.compile(r"\s*[\[(][\s,;–-]*(?:\0[\s,;–-]*)+[\])]|\s*\0(?:[\s,;–-]*\0)*")


def paper(xml: bytes) -> dict | None:
    """{"id", "title", "document", "sections", "summary", "licence"} and, where there is one, "lay_summary".

    `sections` are the outermost ones, {"title", "text"}: a paragraph or an inner heading a line. `document` is all of
    them, with their titles; `summary` is the abstract, in one line. None for what has no abstract or no text, and for
    what is under another licence than CC BY or CC0.
    Raises SummkitError for what is not well-formed XML, and for one that defines entities.
    """
    if b"<!ENTITY" in xml:
        raise SummkitError("this JATS file defines entities of its own: refused")
    try:
        article = ET.fromstring(xml)
    except ET.ParseError as error:
        raise SummkitError(f"this is no JATS file: {error}") from None
    meta, body = article.find("front/article-meta"), article.find("body")
    if meta is None or body is None:
        return None
    abstracts = {part.get("abstract-type"): part for part in reversed(meta.findall("abstract"))}
    sections, summary, licence = _sections(body), _abstract(abstracts.get(None)), _licence(meta)
    if not (sections and summary and licence):
        return None
    parts = [part for section in sections for part in (section["title"], section["text"]) if part]
    row = {
        "id": meta.findtext("article-id[@pub-id-type='doi']"),
        "title": " ".join(_lines(meta.find(".//article-title"))),
    }
    row |= {"document": "\n".join(parts), "sections": sections, "summary": summary, "licence": licence}
    lay = next((abstracts[kind] for kind in _LAY if kind in abstracts), None)
    return row if lay is None else row | {"lay_summary": _without_title(lay)}


def _sections(body) -> list[dict]:
    """The body's sections that hold text; what stands before or between them is a section without a title."""
    found, loose = [], []
    for child in body:
        if child.tag == "sec":
            found += _loose_section(loose)
            title = " ".join(_lines(child.find("title")))
            found.append({"title": title, "text": _without_title(child)})
            loose = []
        else:
            loose += _lines(child)
    found += _loose_section(loose)
    return [section for section in found if section["text"]]


def _loose_section(lines: list[str]) -> list[dict]:
    return [{"title": "", "text": "\n".join(lines)}] if lines else []


def _without_title(element) -> str:
    """The text of a section or an abstract, a line a paragraph, without the title of the whole."""
    return "\n".join(line for child in element if child.tag != "title" for line in _lines(child))


def _abstract(element) -> str:
    """One line; of a structured abstract the paragraphs alone, without where to find what the journal left out here."""
    if element is None:
        return ""
    lines = [line for child in element.iter("p") for line in _lines(child)]
    return " ".join(line for line in lines if not line.startswith("Please see later in the article"))


def _lines(element) -> list[str]:
    return [] if element is None else [tidy for line in _text(element).split("\n") if (tidy := _tidy(line))]


def _text(element) -> str:
    """An element's text, with a newline before and after whatever is a line of its own."""
    if element.tag in _LEFT_OUT:
        return ""
    if element.tag == "xref" and element.get("ref-type") == "bibr":
        return "\0"
    parts = [_flat(element.text)]
    for child in element:
        parts += [_text(child), _flat(child.tail)]
    text = "".join(parts)
    return f"\n{text}\n" if element.tag in _LINES else text


def _flat(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "")


def _tidy(line: str) -> str:
    """Without references, the brackets around them, and the gaps that they and formulas leave."""
    line = re.sub(r"\s+\(\s*\)", "", _CITED.sub("", line))
    line = re.sub(r" +([,.;:)\]])", r"\1", re.sub(r"([(\[]) +", r"\1", " ".join(line.split())))
    return re.sub(r"(?<!\.)\.\.(?!\.)", ".", re.sub(r",(?: ?,)+", ",", line))


def _licence(meta) -> str | None:
    """ "CC0" or "CC BY", or None for any other."""
    licence = meta.find("permissions/license")
    if licence is None:
        return None
    words = " ".join("".join(licence.itertext()).split())
    address = licence.get("{http://www.w3.org/1999/xlink}href") or ""
    if "publicdomain" in address or "free of all copyright" in words or "Public Domain" in words:
        return "CC0"
    return "CC BY" if "Creative Commons Attribution" in words or "/licenses/by/" in address else None
