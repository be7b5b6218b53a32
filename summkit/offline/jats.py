"""Read scientific papers in JATS, an XML format of journals, as plain text with sections, abstract and licence.

Only running text is read, without figures, tables, formulas, supplements, notes, references and their numbers.
External entities are never read.
"""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from summkit.errors import SummkitError

_LEFT_OUT = re.compile(
    "alternatives|(disp|inline)-formula|fig(-group)?|fn(-group)?|graphic|inline-graphic|object-id|ref-list|"
    "supplementary-material|table-wrap(-group)?"
)
_OWN_LINE = {"abstract", "boxed-text", "disp-quote", "list", "list-item", "p", "sec", "title"}
_LAY = ("summary", "editors-summary", "editor", "patient", "synopsis")  # the journals' names of a lay summary
_CITATION = "\0"  # placeholder for a reference, since XML cannot contain NUL
# Citations in brackets, or several in a row with the commas and dashes between them.
_CITATIONS = re.compile(r"\s*[\[(][\s,;–-]*(?:\0[\s,;–-]*)+[\])]|\s*\0(?:[\s,;–-]*\0)*")


def paper_rows(name: str, content: bytes) -> Iterator[dict]:
    """Yield the paper in a file's bytes, if it is usable: a reader for `archives.READERS`."""
    row = paper(content)
    if row is not None:
        yield row


def paper(xml: bytes) -> dict | None:
    """Read one paper.

    Args:
        xml: The content of a JATS file.

    Returns:
        {"id", "title", "document", "sections", "summary", "licence"} and, if there is one, "lay_summary".
        `sections` are the outermost ones, {"title", "text"}, with a line for each paragraph and inner heading;
        `document` is all of them with their titles; `summary` is the abstract, in one line. None if there is no
        abstract or no text, or if the licence is not CC BY or CC0.

    Raises:
        SummkitError: The file is not well-formed XML, or it defines entities.
    """
    if b"<!ENTITY" in xml:
        raise SummkitError("this JATS file defines its own entities, which is not allowed")
    try:
        article = ET.fromstring(xml)
    except ET.ParseError as error:
        raise SummkitError(f"this is not a JATS file: {error}") from None
    meta = article.find("front/article-meta")
    body = article.find("body")
    if meta is None or body is None:
        return None
    abstracts = {part.get("abstract-type"): part for part in reversed(meta.findall("abstract"))}
    sections = _sections(body)
    summary = _abstract(abstracts.get(None))
    licence = _licence(meta)
    if not (sections and summary and licence):
        return None
    row = {
        "id": meta.findtext("article-id[@pub-id-type='doi']"),
        "title": " ".join(_lines(meta.find(".//article-title"))),
        "document": "\n".join(part for section in sections for part in section.values() if part),
        "sections": sections,
        "summary": summary,
        "licence": licence,
    }
    lay = next((abstracts[kind] for kind in _LAY if kind in abstracts), None)
    return row if lay is None else row | {"lay_summary": _without_title(lay)}


def _sections(body: ET.Element) -> list[dict[str, str]]:
    """Return the body's sections that have text; text before or between them is a section without a title."""
    sections: list[dict[str, str]] = []
    for is_section, children in itertools.groupby(body, key=lambda child: child.tag == "sec"):
        if is_section:
            for child in children:
                sections.append({"title": " ".join(_lines(child.find("title"))), "text": _without_title(child)})
        else:
            sections.append({"title": "", "text": "\n".join(line for child in children for line in _lines(child))})
    return [section for section in sections if section["text"]]


def _without_title(element: ET.Element) -> str:
    """Return the text of a section or an abstract without its own title, one line for each paragraph."""
    return "\n".join(line for child in element if child.tag != "title" for line in _lines(child))


def _abstract(element: ET.Element | None) -> str:
    """Return an abstract in one line: its paragraphs, without headings and without references to a summary."""
    if element is None:
        return ""
    lines = [line for child in element.iter("p") for line in _lines(child)]
    return " ".join(line for line in lines if not line.startswith("Please see later in the article"))


def _lines(element: ET.Element | None) -> list[str]:
    return [] if element is None else [tidy for line in _text(element).split("\n") if (tidy := _tidy(line))]


def _text(element: ET.Element) -> str:
    """Return an element's text, with newlines around elements that form separate lines."""
    if _LEFT_OUT.fullmatch(element.tag):
        return ""
    if element.tag == "xref" and element.get("ref-type") == "bibr":
        return _CITATION
    parts = [_in_one_line(element.text)]
    for child in element:
        parts += [_text(child), _in_one_line(child.tail)]
    text = "".join(parts)
    return f"\n{text}\n" if element.tag in _OWN_LINE else text


def _in_one_line(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "")


def _tidy(line: str) -> str:
    """Remove references, the brackets around them, and the gaps that they and formulas leave."""
    line = re.sub(r"\s+\(\s*\)", "", _CITATIONS.sub("", line))
    line = re.sub(r" +([,.;:)\]])", r"\1", re.sub(r"([(\[]) +", r"\1", " ".join(line.split())))
    return re.sub(r"(?<!\.)\.\.(?!\.)", ".", re.sub(r",(?: ?,)+", ",", line))


def _licence(meta: ET.Element) -> str | None:
    """Return "CC0" or "CC BY", or None for any other licence."""
    licence = meta.find("permissions/license")
    if licence is None:
        return None
    words = " ".join("".join(licence.itertext()).split())
    address = licence.get("{http://www.w3.org/1999/xlink}href") or ""
    if "publicdomain" in address or "free of all copyright" in words or "Public Domain" in words:
        return "CC0"
    return "CC BY" if "Creative Commons Attribution" in words or "/licenses/by/" in address else None
