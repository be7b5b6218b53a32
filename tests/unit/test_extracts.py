"""What is taken out of a text: sections by their headings, and the best extract as a bound."""

import itertools

import pytest

from summkit.data import sentences as sentences_of
from summkit.errors import SummkitError
from summkit.evaluation import baselines, metrics, summarisation
from summkit.inference import long_documents

ARTICLE = (
    "The bridge over the Marran was closed on Monday. A crack was found in a cable. Drivers go through Ashby. "
    "The council will pay for the repair. It rained. Ferries are running twice as often."
)
SUMMARY = "The Marran bridge is closed because of a crack in a cable, and ferries run more often."


def rouge(text: str) -> float:
    rows = metrics.rouge_rows([text], [SUMMARY])
    return rows["rouge1"][0] + rows["rouge2"][0]


@pytest.mark.parametrize("sentences", [1, 2, 3])
def test_the_oracle_is_near_the_best_of_all_extracts_and_above_lead(sentences):
    found = baselines.extractive_oracle(ARTICLE, SUMMARY, sentences)
    parts = sentences_of.split_sentences(ARTICLE)
    picked = [parts.index(part) for part in found.split("\n")]
    assert picked == sorted(picked) and len(picked) <= sentences
    best = max(rouge("\n".join(some)) for n in range(1, sentences + 1) for some in itertools.combinations(parts, n))
    assert rouge(sentences_of.lead(ARTICLE, sentences)) <= rouge(found) and rouge(found) > 0.95 * best


def test_the_oracle_stops_where_another_sentence_would_not_help():
    assert baselines.extractive_oracle(ARTICLE, "A crack was found in a cable.", 3) == "A crack was found in a cable."
    assert baselines.extractive_oracle(ARTICLE, "Nothing shared whatsoever") == ""
    assert baselines.extractive_oracle("", "a") == baselines.extractive_oracle(ARTICLE, "") == ""


def test_oracles_of_rows_stand_beside_the_lead():
    rows = [{"document": ARTICLE, "summary": SUMMARY}, {"document": "Rain. Fog.", "summary": "Fog"}]
    found = summarisation.oracle_extracts(rows)
    assert list(found) == ["oracle1", "oracle3"] and found["oracle1"][1] == "Fog."
    assert found["oracle3"][0] == baselines.extractive_oracle(ARTICLE, SUMMARY, 3)
    with pytest.raises(SummkitError, match="row 1 is NoneType"):
        summarisation.oracle_extracts([{"document": ARTICLE, "summary": None}])


@pytest.mark.parametrize(
    ("heading", "is_one"),
    [
        ("Introduction", True), ("1 Introduction", True), ("II. BACKGROUND", True), ("  Introduction: ", True),
        ("Introduction to bridges", False), ("An introduction", False),
    ],
)  # fmt: skip
def test_headings_of_introductions(heading, is_one):
    text = f"Title\n\n{heading}\n\nIt began.\n\nResults\nAll held."
    assert long_documents.opening_and_closing(text) == ("It began." if is_one else "", "")


@pytest.mark.parametrize(
    "heading",
    ["Conclusion", "5. Conclusions and future work", "Concluding remarks", "Discussion", "Summary and Conclusion"],
)
def test_headings_of_conclusions(heading):
    text = f"Results\nAll held.\n{heading}\nIt held.\nAt last\nReally.\nAcknowledgments\nThanks."
    assert long_documents.opening_and_closing(text) == ("", "It held.\nAt last\nReally.")


def test_a_conclusion_is_preferred_to_a_discussion_and_an_empty_section_is_none():
    text = "Introduction\nBackground\nWhy.\nDiscussion\nWell.\nConclusions\nSo.\n"
    assert long_documents.opening_and_closing(text) == ("Why.", "So.")
    assert long_documents.opening_and_closing("Conclusion\n") == long_documents.opening_and_closing("") == ("", "")
