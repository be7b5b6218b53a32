"""Sentences: where English text is split, and its first sentences."""

import pytest

from summkit.data import sentences as sentences_of


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One.\nTwo without a stop\nThree", ["One.", "Two without a stop", "Three"]),
        ("One.\r\n\r\nTwo.  \u2028Three", ["One.", "Two.", "Three"]),
        ("Mr. Bean met Dr. No. He left.", ["Mr. Bean met Dr. No.", "He left."]),
        ("In the U.S. Senate it fell. In the U.S. The man", ["In the U.S. Senate it fell.", "In the U.S.", "The man"]),
        ("It rose 3.5 to 61.87. Shares fell.", ["It rose 3.5 to 61.87.", "Shares fell."]),
        ("J. K. Rowling wrote. No. 10 agreed.", ["J. K. Rowling wrote.", "No. 10 agreed."]),
        ('"Go!" he said. "Why?" She left.', ['"Go!" he said.', '"Why?"', "She left."]),
        ("On Jan. 5 at 5 p.m. with Acme Ltd. staff... then", ["On Jan. 5 at 5 p.m. with Acme Ltd. staff... then"]),
        ("今日は晴れ。明日は雨。", ["今日は晴れ。", "明日は雨。"]),
        ("", []),
        (" \n ", []),
    ],
)  # fmt: skip
def test_sentences(text, sentences):
    assert sentences_of.split_sentences(text) == sentences


def test_lead_ends_a_sentence_at_a_newline():
    article = "A headline without a stop\nThe first sentence. The second.\nThe third"
    assert sentences_of.lead(article, 1) == "A headline without a stop"
    assert sentences_of.lead(article, 3) == "A headline without a stop\nThe first sentence.\nThe second."
    assert sentences_of.lead("One only.", 3) == "One only." and sentences_of.lead("", 3) == ""
