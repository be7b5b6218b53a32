"""A journal's XML as text: what is kept, what is left out, what is refused."""

import pytest

from summkit.errors import SummkitError
from summkit.offline import jats

LICENCE = '<license xlink:href="http://creativecommons.org/licenses/by/4.0/"><license-p>…</license-p></license>'
CITED = '<xref ref-type="bibr" rid="B1">{}</xref>'
ONE, TWO, BRACKETED = CITED.format("1"), CITED.format("2"), CITED.format("[7]")
BODY = f"""
<p>Before all
   sections [{ONE}–{TWO}].</p>
<sec sec-type="intro"><title>Bridges, <italic>old</italic></title>
  <p>They crack {BRACKETED},{BRACKETED}. See (<xref ref-type="fig" rid="F1">Figure 1</xref>) <sup>{ONE},{TWO}</sup>;
     10<sup>3</sup> of <inline-formula><math>x</math></inline-formula>, and f (<inline-formula/>) too.
     <disp-formula><label>(1)</label>E=mc</disp-formula>So ( <italic>n</italic> = 3).</p>
  <fig id="F1"><label>Figure 1</label><caption><title>A crack.</title><p>No text.</p></caption></fig>
  <table-wrap><table><tr><td>No text.</td></tr></table></table-wrap>
  <sec><title>Inner</title><p>One:<list><list-item><p>first</p></list-item><list-item><p>second</p></list-item></list></p>
  </sec>
</sec>
<sec><title>Supporting Information</title><supplementary-material><p>No text.</p></supplementary-material></sec>
<sec><p>After &lt;all&gt; — done<fn><p>No text.</p></fn>.</p></sec>
"""
ABSTRACT = """<abstract><sec><title>Background</title><p>We
look.</p></sec><sec><title>Results</title><p>Old.</p></sec></abstract>"""
LAY = """<abstract abstract-type="toc"><p>Teaser.</p></abstract><abstract abstract-type="summary">
<title>Author Summary</title><p>Plain.</p><sec><title>Why?</title><p>So.</p></sec></abstract>"""


def article(body=BODY, abstracts=ABSTRACT, licence=LICENCE, head="") -> bytes:
    meta = '<article-id pub-id-type="pmid">7</article-id><article-id pub-id-type="doi">10.1/x</article-id>'
    meta += "<title-group><article-title>On <italic>old</italic>\n bridges</article-title></title-group>"
    front = f"<front><article-meta>{meta}{abstracts}<permissions>{licence}</permissions></article-meta></front>"
    text = f'<?xml version="1.0" encoding="UTF-8"?>{head}<article xmlns:xlink="http://www.w3.org/1999/xlink">{front}'
    return f"{text}<body>{body}</body><back><ref-list><ref>No text.</ref></ref-list></back></article>".encode()


def test_text_is_kept_with_its_headings_and_nothing_else():
    row = jats.paper(article())
    first = "Bridges, old\nThey crack. See (Figure 1); 103 of, and f too. So (n = 3).\nInner\nOne:\nfirst\nsecond"
    assert row["document"] == f"Before all sections.\n{first}\nAfter <all> — done."
    assert row["sections"] == [
        {"title": "", "text": "Before all sections."},
        {"title": "Bridges, old", "text": first.removeprefix("Bridges, old\n")},
        {"title": "", "text": "After <all> — done."},
    ]
    assert (row["id"], row["title"], row["licence"]) == ("10.1/x", "On old bridges", "CC BY")
    assert row["summary"] == "We look. Old." and "lay_summary" not in row


def test_a_summary_for_all_is_kept_beside_the_abstract():
    row = jats.paper(article(abstracts=LAY + ABSTRACT))
    assert row["summary"] == "We look. Old." and row["lay_summary"] == "Plain.\nWhy?\nSo."


def test_where_the_journal_left_something_out_is_no_part_of_the_abstract():
    where = "<p>Please see later in the article for the Editors' Summary</p>"
    assert jats.paper(article(abstracts=f"<abstract><p>We look.</p>{where}</abstract>"))["summary"] == "We look."


@pytest.mark.parametrize(
    ("licence", "found"),
    [
        ('<license xlink:href="https://creativecommons.org/publicdomain/zero/1.0/"><p>free</p></license>', "CC0"),
        ("<license><p>… free of all copyright, and may be freely reproduced …</p></license>", "CC0"),
        ("<license><p>under the Creative Commons\n Attribution License, which …</p></license>", "CC BY"),
        ("<license><p>for private use alone</p></license>", None),
        ("", None),
    ],
)
def test_only_free_papers_are_taken(licence, found):
    row = jats.paper(article(licence=licence))
    assert row is None if found is None else row["licence"] == found


@pytest.mark.parametrize(
    "given", [{"abstracts": ""}, {"abstracts": LAY}, {"body": ""}, {"body": "<sec><title>Only a title</title></sec>"}]
)
def test_what_lacks_an_abstract_or_a_text_is_no_paper(given):
    assert jats.paper(article(**given)) is None
    assert jats.paper(b"<article/>") is None


def test_no_entity_is_read_from_anywhere(tmp_path):
    (tmp_path / "secret").write_text("secret")
    for declared in (f'<!ENTITY x SYSTEM "file://{tmp_path}/secret">', '<!ENTITY x "much more">'):
        with pytest.raises(SummkitError, match="its own entities"):
            jats.paper(article(body="<p>&x;</p>", head=f"<!DOCTYPE article [{declared}]>"))
    doctype = f'<!DOCTYPE article PUBLIC "-//NLM//DTD v3.0//EN" "file://{tmp_path}/secret">'
    assert jats.paper(article(head=doctype))["id"] == "10.1/x"  # as PLOS's begin: never fetched
    for body in ("<p>&x;</p>", "<p>cut off"):
        with pytest.raises(SummkitError, match="not a JATS file"):
            jats.paper(article(body=body, head=doctype))
