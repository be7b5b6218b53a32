"""Names and numbers: what counts as one, and which of them a document has."""

import time

import pytest

from summkit.data import sentences, support
from summkit.data.support import names_and_numbers
from summkit.evaluation import metrics

ARTICLE = (
    "Sam Sodje, 37, denied fraud at the Old Bailey. Mr Sodje's brothers are Efe, 44, and Bright.\n"
    "The charity raised £1.5million in two years, the BBC's Zoë O’Neill said. The US team won 2-1 and told us so."
)


def named(text):
    return [text[start:end] for start, end, _ in names_and_numbers(text)]


def unsupported(text, document=ARTICLE):
    return [text[start:end] for start, end in support.unsupported_spans(text, document)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("The man met Sam Sodje. Plans failed.", ["Sam", "Sodje"]),
        ("Sam Sodje left. BBC staff wept. Dundee's mayor.", ["Sam", "Sodje", "BBC", "Dundee"]),
        ("Dundee won.", []),  # what opens a sentence may be any word
        ('He said: "Go home", then I\'m told, "Stay" at Mr Bean\'s Manchester-based firm.', ["Bean", "Manchester"]),
        ("Two of the 1,000 and one of £1.5million at 18:00", ["Two", "1,000", "£1.5million"[1:], "18:00"]),
        ("one million, twenty-one, T20, the US, 2nd", ["one million", "twenty-one", "T20", "US", "2"]),
        ("nothing here", []),
        ("", []),
    ],
)
def test_what_counts_as_a_fact(text, names):
    assert named(text) == names


@pytest.mark.parametrize(
    "text",
    [
        "It was Sam Sodje and Efe",
        "in 2 years, two",
        "£1,500,000 or £1.5m or 1.5 million or 1.50m",
        "the old Bailey’s BBC",
        "by Zoe O'Neill",
        "the U.S. team",
        "thirty-seven of forty-four",
    ],
)
def test_supported(text):
    assert unsupported(text) == [] and support.supported_facts(text, ARTICLE)[0] == len(named(text)) > 0


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("A club paid Celtic's £1.5bn to Sam", ["Celtic", "1.5bn"]),
        ("aged 38 in Charity Street", ["38", "Charity", "Street"]),  # "charity" has no capital in the article
        ("all of 15 or 1.5", ["15", "1.5"]),
    ],
)
def test_unsupported(text, wrong):
    assert unsupported(text) == wrong
    assert support.supported_facts(text, ARTICLE) == (len(named(text)) - len(wrong), len(named(text)))


def test_us_is_not_us():
    assert unsupported("the US team", "they told us so") == ["US"]
    assert unsupported("over 100 metres", "the 100m race") == []  # metres, or millions
    assert support.supported_facts("", ARTICLE) == (0, 0) and support.supported_facts("Sam Xu", "") == (0, 2)


@pytest.mark.parametrize(
    "piece", [".", "a.", " ", "9", "9,", "! ", "\n", "A", "'", "Aa ", '."', "twenty-", "no. ", "\ud800"]
)
def test_rules_take_linear_time_on_100k_characters(piece):
    text, started = (piece * 100_000)[:100_000], time.process_time()
    sentences.split_sentences(text)
    support.supported_facts(text, text)
    metrics.novel_ngrams(text, text, 2)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("summaries", "best"),
    [
        (["Sodje met Ali.", "Sodje denied fraud."], 1),  # a name that the article lacks
        (["He was 39.", "He denied it.", "He was 37."], 2),  # a number; then what the others agree on
        (["A man ran.", "He denied fraud.", "Sodje denied fraud."], 1),  # nothing unsupported: the words of the others
        (["", "Sam Ali won 3-0.", ""], 1),  # an empty answer is no summary
        (["", ""], 0),
        (["Only one."], 0),
    ],
)
def test_the_best_supported_summary(summaries, best):
    assert support.best_supported(summaries, ARTICLE) == best


@pytest.mark.parametrize("word", ["NİNE", "ſix", "sıx", "SİX"])
def test_a_word_that_differs_from_a_number_word_by_a_letter_is_no_number(word):
    """Python takes İ, ı and ſ for i and s where case does not count."""
    assert names_and_numbers(f"He saw {word.lower()} boats.") == []
    assert unsupported(f"He saw {word} in Rome.", f"Rome, {word}, Paris.") == []
