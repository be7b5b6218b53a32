"""Texts longer than the window: what each strategy reads, that one answer comes of it, that a book takes seconds."""

import copy
import random
import time
import tracemalloc

import pytest

from summkit.data import checks, templates
from summkit.data import sentences as sentences_of
from summkit.data.chunking import chunks
from summkit.errors import SummkitError
from summkit.inference import generation, long_documents
from summkit.inference.generation import Summary
from summkit.models import embeddings, loading
from summkit.models.tiny import tiny_llama

SENTENCE = "the bridge over river was closed on a day after crack cable found drivers go through town and council said"
WORDS = SENTENCE.split()
LIMITS = {"max_length": 320, "max_new_tokens": 24}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny():
    """A Summarizer of random weights, larger than usual, so that the answers depend on the text."""
    model, tokenizer = tiny_llama(), loading.tiny_tokenizer()
    for parameter in model.parameters():
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)
    return generation.Summarizer(model.eval(), tokenizer, templates.build_template("instruction", tokenizer), **LIMITS)


class Told:
    """Answers with the first `most` characters (bytes, and so tokens) of what it is given, and keeps what that was."""

    def __init__(self, window: int = 200, most: int = 20, words=None):
        self.tokenizer = loading.tiny_tokenizer()
        self.window = window
        self.max_new_tokens = most
        self.words = words
        self.rounds = []
        self.asked = []

    def summarize(self, documents, **asking):
        self.rounds.append(list(documents))
        self.asked.append(asking)
        texts = [self.words if self.words is not None else text[: self.max_new_tokens] for text in documents]
        return [Summary(text, True, len(text), 0, 50 + len(text)) for text in texts]


def book(characters: int, seed: int = 0) -> str:
    """Sentences, each of which stands there once."""
    draw, found, size = random.Random(seed), [], 0
    while size < characters:
        found.append(f"Number {len(found)} {' '.join(draw.choices(WORDS, k=draw.randint(4, 20)))}.")
        size += len(found[-1]) + 1
    return " ".join(found)


def one(summarizer, text, strategy, **settings) -> long_documents.LongSummary:
    [answer] = long_documents.summarize_long(summarizer, [text], strategy, **settings)
    return answer


@pytest.mark.parametrize("strategy", long_documents.STRATEGIES)
def test_a_text_that_fits_is_read_whole(tiny, strategy):
    text = "The bridge was closed on Monday."
    answer = one(tiny, f"  {text}\n", strategy)
    assert (answer.fitted, answer.how, answer.read) == (True, "whole", len(text))
    assert answer.text == tiny.summarize([text])[0].text


def test_the_window_is_what_the_encoding_keeps(tiny):
    [row] = tiny.encode(["a" * 900])
    assert tiny.window == 900 - row["cut"]
    edge = "ab " * 500
    assert one(tiny, edge[: tiny.window - 1] + "x", "chunks").fitted
    assert not one(tiny, edge[: tiny.window] + "x", "chunks").fitted


def test_first_answers_as_the_summarizer_alone(tiny):
    text = book(6000)
    answer, plain = one(tiny, text, "first"), tiny.summarize([text])[0]
    assert (answer.text, answer.ended) == (plain.text, plain.ended)
    assert answer.read == tiny.window and not answer.fitted
    assert answer.how == f"its first {tiny.window} tokens were read, {100 * tiny.window / len(text):.2g} % of it"


@pytest.mark.parametrize("strategy", ["first", "lead-and-end", "extract"])
def test_what_is_read_at_once_fits_and_is_the_texts_own(strategy):
    told, text = Told(window=400), book(6000)
    answer = one(told, text, strategy, encoder=embeddings.load_encoder("tiny"))
    [[read]] = told.rounds
    if strategy != "first":  # the encoding cuts there, as in training
        assert len(read) <= 400 and len(read) > 200 and len(read) == answer.read
        sentences = sentences_of.split_sentences(text)
        found = [sentences.index(sentence) for sentence in sentences_of.split_sentences(read)]
        assert found == sorted(set(found)) and len(found) > 2
    assert answer.text == read[:20].strip()


def test_beginning_and_end_are_read_where_no_heading_names_them():
    told, text = Told(window=600), book(6000)
    answer = one(told, text, "lead-and-end")
    [[read]] = told.rounds
    lead, end = read.split("\n")
    assert text.startswith(lead) and text.endswith(end) and min(len(lead), len(end)) > 150
    assert answer.how == f"its beginning ({len(lead)} tokens) and end ({len(end)} tokens) were read"


def test_introduction_and_conclusion_are_found_by_their_headings():
    parts = {title: book(900, seed) for seed, title in enumerate(("I", "S", "M", "C", "R"))}
    text = (
        f"On bridges\n{parts['M']}\n1. Introduction\n{parts['I']}\nA bridge\n{parts['S']}\nMaterials and Methods\n"
        f"{parts['M']}\n4  CONCLUSIONS:\n{parts['C']}\nReferences\n{parts['R']}"
    )
    told = Told(window=500)
    answer = one(told, text, "lead-and-end")
    lead, end = told.rounds[0][0].split("\n")
    assert parts["I"].startswith(lead) and parts["C"].startswith(end) and len(lead) > 150 < len(end)
    assert answer.how.startswith("its introduction (")
    told = Told(window=1400)
    one(told, text.replace(parts["C"], "It held."), "lead-and-end")
    lead, end = told.rounds[0][0].rsplit("\n", 1)
    assert end == "It held." and len(lead) > 1200, "what the one leaves, the other gets"
    one(
        told := Told(window=500),
        text.replace("4  CONCLUSIONS:", "Discussion").replace("1. Introduction", ""),
        "lead-and-end",
    )
    lead, end = told.rounds[0][0].split("\n", 1)[0], told.rounds[0][0].rsplit("\n", 1)[1]
    assert lead == "On bridges" and parts["C"].startswith(end)


def test_a_sentence_longer_than_its_part_is_read_in_part():
    told = Told(window=100)
    one(told, "no full stop and no capital " * 40, "lead-and-end")
    [[read]] = told.rounds
    assert 70 < len(read) <= 100


def test_chunks_read_all_in_rounds_until_one_summary_is_left():
    told, text = Told(), book(9000)
    answer = one(told, text, "chunks", overlap=0)
    pieces = chunks(text, told.tokenizer, 200)
    assert told.rounds[0] == pieces and " ".join(pieces) == text
    assert all(len(piece) <= 200 for pieces in told.rounds for piece in pieces)
    assert [len(pieces) for pieces in told.rounds] == [55, 7, 1]
    assert told.rounds[1][0].split("\n") == [piece[:20].strip() for piece in pieces[:9]], "in the text's order"
    assert answer.how == f"{len(pieces)} chunks of at most 200 tokens, 3 rounds" and not answer.fitted
    assert answer.text == told.rounds[2][0][:20].strip() and answer.read == sum(map(len, pieces))


def test_chunks_overlap_by_whole_sentences():
    told, text = Told(), book(3000)
    answer = one(told, text, "chunks", overlap=0.5)
    seen = [sentence for piece in told.rounds[0] for sentence in sentences_of.split_sentences(piece)]
    assert list(dict.fromkeys(seen)) == sentences_of.split_sentences(text) and len(seen) > len(set(seen))
    assert answer.read > len(text)


def test_joined_summaries_within_the_budget_are_the_answer():
    text = book(1000)
    for budget, rounds in ((20, 2), (60, 2), (400, 1)):
        told = Told()
        answer = one(told, text, "chunks", budget=budget)
        assert len(told.rounds) == rounds and len(answer.text) <= budget
    assert answer.text == " ".join(piece[:20].strip() for piece in told.rounds[0])
    assert answer.how == f"{len(told.rounds[0])} chunks of at most 200 tokens"


def test_a_real_model_comes_to_an_end(tiny):
    """Random weights write what takes more tokens read than written: no round may have as many pieces as before."""
    loud = generation.Summarizer(tiny.model, tiny.tokenizer, tiny.template, 320, 60)
    answer = one(loud, book(4000), "chunks", decoding="nucleus", seed=3)
    assert answer.text and "rounds" in answer.how and "\n" not in answer.text


@pytest.mark.parametrize("words", ["", "\0", " "])
def test_a_model_that_says_nothing(words):
    told = Told(words=words)
    assert one(told, book(3000), "chunks").text == "" and len(told.rounds) == 1


def test_texts_keep_their_order_and_share_rounds_and_time():
    told, texts = Told(), [book(3000, 1), "Rain.", book(900, 2)]
    answers = long_documents.summarize_long(told, texts, "chunks", seed=7)
    assert [answer.text for answer in answers] == [one(Told(), text, "chunks").text for text in texts]
    assert len(told.rounds) < 4 and told.asked[0] == {"seed": 7}


def test_extract_takes_what_is_central_and_does_not_repeat():
    class Meanings:
        """Vectors as the test says: three directions, the first of which most sentences share."""

        def encode(self, texts):
            import numpy as np

            return np.array([{"S": (1, 0, 0), "T": (0.6, 0.8, 0), "U": (0, 0, 1)}[text[0]] for text in texts], float)

    said = [f"Said {number} of the same bridge over and over." for number in range(2)]
    town = [f"Town and bridge, which is {number} new thing." for number in range(2)]
    text = " ".join([*said, *town, town[1], "Utterly unrelated things are named here."])
    told = Told(window=100)
    answer = one(told, text, "extract", encoder=Meanings())
    assert told.rounds == [[f"{said[0]}\n{town[0]}"]]
    assert answer.how.startswith("2 of its 5 sentences were read") and answer.how.endswith("(79 tokens)")


def test_a_plugin_adds_a_strategy(monkeypatch):
    monkeypatch.setattr(long_documents, "STRATEGIES", copy.copy(long_documents.STRATEGIES))
    long_documents.STRATEGIES.add("last", lambda text, window: ([text[-50:]], "its end was read"))
    told = Told()
    answer = one(told, book(3000), "last")
    assert (len(told.rounds[0][0]), answer.how, answer.read) == (50, "its end was read", 50)


def test_whole_refuses_what_does_not_fit(tiny):
    with pytest.raises(SummkitError, match="text 2: about 3,0.. tokens, and the model's window has room for 205"):
        long_documents.summarize_long(tiny, ["Rain.", book(3000)], "whole")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy": "last"}, "unknown strategy 'last'; known: chunks, extract, first, lead-and-end, whole"),
        ({"overlap": 0.6}, "overlap=0.6"),
        ({"budget": 19}, "budget=19 with the strategy 'chunks': .* at least one summary's 20 tokens"),
        ({"budget": 40, "strategy": "first"}, "it is for 'chunks'"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(SummkitError, match=said):
        long_documents.summarize_long(Told(), ["Rain."], **settings)


def test_windows_that_are_too_small():
    with pytest.raises(SummkitError, match="chunks of 40 tokens hold no two summaries of 20"):
        long_documents.summarize_long(Told(window=40), ["Rain."])
    with pytest.raises(SummkitError, match="leave -3 tokens for the text: raise max_length"):
        long_documents.summarize_long(Told(window=-3), ["Rain."], "first")


@pytest.mark.parametrize("bad", ["", " \n", None, 7, "a\0b", "\ud800", "x" * (checks.MAX_BOOK + 1)])
def test_a_text_that_cannot_be_used_is_named_by_its_number(bad):
    with pytest.raises(SummkitError, match="text 2: "):
        long_documents.summarize_long(Told(), ["fine", bad])


@pytest.fixture(scope="module")
def long_book():
    """5 MB of text."""
    return book(40_000) * 125


@pytest.mark.parametrize("strategy", ["first", "lead-and-end"])
def test_a_book_of_5_mb_takes_seconds(tiny, long_book, strategy):
    started = time.process_time()
    tracemalloc.start()
    try:
        answer = one(tiny, long_book, strategy)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.text and answer.read <= tiny.window < len(long_book) / 10_000
    assert time.process_time() - started < 10 and peak < 60e6


def test_all_of_a_book_is_read_in_chunks(long_book):
    """A tenth of it here, to stay in seconds; the time grows with the text, and no faster."""
    spent = []
    for characters in (50_000, 500_000):
        started, told = time.process_time(), Told(window=1000)
        answer = one(told, long_book[:characters], "chunks")
        spent.append(time.process_time() - started)
        assert answer.read > 0.98 * characters and len(told.rounds) > 1
    assert spent[1] < 25 * spent[0]


def test_a_book_without_an_end_mark_is_one_sentence_and_read_all_the_same():
    told = Told(window=1000)
    answer = one(told, " ".join(WORDS * 500), "chunks")
    assert answer.read > 0.98 * len(" ".join(WORDS * 500)) and all(len(piece) <= 1000 for piece in told.rounds[0])


def test_a_summary_is_a_plain_value():
    answer = one(Told(), "Rain.", "first")
    assert answer == long_documents.LongSummary("Rain.", True, True, "whole", 5)
