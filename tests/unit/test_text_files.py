"""Texts out of files: by their ending, with the place of what cannot be read."""

import gzip
import io
import json
import os
import sys

import pytest

from summkit.errors import SummkitError
from summkit.recipes import text_files


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pdf(lines: list[str]) -> bytes:
    """A PDF of one page with a line of text each, written by hand."""
    shown = "\n".join(f"({line}) Tj T*" for line in lines)
    stream = f"BT /F1 12 Tf 14 TL 72 720 Td\n{shown}\nET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    content, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    content, start = content + b"xref\n0 %d\n0000000000 65535 f \n%s" % (count, table), len(content)
    return content + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (count, start)


def test_plain_text_standard_input_and_json_lines(here, monkeypatch):
    (here / "a.txt").write_bytes("\ufeffRain.\n".encode())
    rows = [{"article": "First.", "abstract": "no"}, {"id": 3, "text": "Second."}]
    (here / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (here / "d.csv").write_bytes("Text;Note\nFünfte.;x\n".encode("utf-8-sig"))
    (here / "e.txt").write_text("Sechste.", encoding="utf-16")
    assert text_files.read_texts(["d.csv", "e.txt"]) == [("d.csv, row 1", "Fünfte."), ("e.txt", "Sechste.")]
    (here / "c.jsonl.gz").write_bytes(gzip.compress(json.dumps({"document": "Third."}).encode()))
    assert text_files.read_texts(["a.txt", "b.jsonl", "c.jsonl.gz"]) == [
        ("a.txt", "Rain.\n"),
        ("b.jsonl, row 1", "First."),
        ("b.jsonl, row 2", "Second."),
        ("c.jsonl.gz, row 1", "Third."),
    ]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Fog.")))
    assert text_files.read_texts([]) == [("standard input", "Fog.")]


def test_lines_that_windows_wrote_are_lines(here, monkeypatch):
    (here / "a.txt").write_bytes(b"Rain.\r\nFog.\r\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Rain.\r\nFog.\r\n")))
    assert [text_files.read_texts(names)[0][1] for names in (["a.txt"], [])] == ["Rain.\nFog.\n"] * 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_a_pipe_in_place_of_a_file_is_refused_since_its_beginning_would_be_lost():
    """As of `summarize <(pdftotext paper.pdf -)`: a file is opened more than once."""
    reading, writing = os.pipe()
    os.write(writing, b"Rain fell. " * 3000)
    os.close(writing)
    with pytest.raises(SummkitError, match=f"/dev/fd/{reading} is a pipe, .*: save its content to a file"):
        text_files.read_texts([f"/dev/fd/{reading}"])
    os.close(reading)


def test_no_standard_input_is_an_empty_one(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SummkitError, match="standard input: empty; there is no text"):
        text_files.read_texts([])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"\xfcber", "a.txt, after line 0: cannot be read as text in UTF-8"),
        ("a.txt", b" \n", "a.txt: empty; there is no text to summarise"),
        ("a.txt", b"a\0b", "a.txt: NUL or half a character"),
        ("a.jsonl", b"", "a.jsonl: no rows"),
        ("a.jsonl", b"[1]", "a.jsonl, row 1: a JSON object is needed"),
        ("a.jsonl", b'{"text": "Rain."}\n{"text": 7}', "a.jsonl, row 2: not text"),
        (
            "a.jsonl",
            b'{"title": "Rain."}',
            "a.jsonl, row 1: no column for the text (see --document-column); there are: title; known: doc",
        ),
        ("a.jsonl", b"{", "a.jsonl, line 1: cannot be read as JSON"),
    ],
)
def test_what_cannot_be_read_is_named(here, name, content, said):
    (here / name).write_bytes(content)
    with pytest.raises(SummkitError) as refused:
        text_files.read_texts([name])
    assert said in str(refused.value)


def test_the_column_is_the_one_that_is_named_and_of_a_chat_the_users_message(here):
    (here / "a.csv").write_text("text,Artikel\nno,Regen.\n")
    assert text_files.read_texts(["a.csv"], ("artikel",)) == [("a.csv, row 1", "Regen.")]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Rain."}]
    (here / "b.jsonl").write_text(json.dumps({"messages": [*turns, {"role": "assistant", "content": "no"}]}))
    assert text_files.read_texts(["b.jsonl"]) == [("b.jsonl, row 1", "Rain.")]
    with pytest.raises(SummkitError, match="a.csv, row 1: .*--document-column.*; there are: text, Artikel; known: Te"):
        text_files.read_texts(["a.csv"], ("Texte",))


@pytest.mark.parametrize("name", ["gone.txt", "gone.jsonl", "gone.parquet", "."])
def test_no_such_file(name):
    with pytest.raises(SummkitError, match=f"{name}: .*(No such file|Is a directory|Permission denied)"):
        text_files.read_texts([name])


def test_a_pdf_without_pypdf_says_what_to_install(here, monkeypatch):
    (here / "a.pdf").write_bytes(pdf(["Rain."]))
    monkeypatch.setattr(text_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SummkitError, match="a.pdf: reading a PDF needs pypdf, .* pip install pypdf$"):
        text_files.read_texts(["a.pdf"])


def test_a_pdf_is_read_without_its_line_breaks(here):
    pytest.importorskip("pypdf")
    lines = [
        "Introduction",
        "The bridge over the river was closed on Mon-",
        "day, since a crack was found in one of its",
    ]
    (here / "A.PDF").write_bytes(pdf([*lines, "cables.", "Drivers go through the town of Ashby, slowly"]))
    text = "The bridge over the river was closed on Monday, since a crack was found in one of its cables."
    assert text_files.read_texts(["A.PDF"]) == [
        ("A.PDF", f"Introduction\n{text}\nDrivers go through the town of Ashby, slowly")
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [(pdf([]), "no text in its 1 pages; scanned"), (b"no pdf", "cannot be read as a PDF"), (b"", "cannot be read")],
)
def test_a_pdf_without_text_or_that_is_none(here, content, said):
    pytest.importorskip("pypdf")
    (here / "a.pdf").write_bytes(content)
    with pytest.raises(SummkitError, match=f"a.pdf: {said}"):
        text_files.read_texts(["a.pdf"])
    with pytest.raises(SummkitError, match="gone.pdf: cannot be read as a PDF .*No such file"):
        text_files.read_texts(["gone.pdf"])


def test_lines_are_joined_into_paragraphs():
    text = (
        "Methods\nWe looked at every bridge of the county and counted\nits cables, twice, in spring and in au-\ntumn.\n"
        "The state-of-the-art is a mystery to all of us here (U-\nSA).\n\nEnd"
    )
    assert text_files.joined_lines(text) == (
        "Methods\nWe looked at every bridge of the county and counted its cables, twice, in spring and in autumn.\n"
        "The state-of-the-art is a mystery to all of us here (U- SA).\n\nEnd"
    )
    assert text_files.joined_lines("") == ""
