"""Metrics: numbers worked out by hand, the rules of sentences and facts, the metric without Hub or home, intervals."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from summkit.data import sentences as sentences_of
from summkit.errors import SummkitError
from summkit.evaluation import metrics, support
from summkit.evaluation.support import names_and_numbers

ARTICLE = (
    "Sam Sodje, 37, denied fraud at the Old Bailey. Mr Sodje's brothers are Efe, 44, and Bright.\n"
    "The charity raised £1.5million in two years, the BBC's Zoë O’Neill said. The US team won 2-1 and told us so."
)


def named(text):
    return [text[start:end] for start, end, _ in names_and_numbers(text)]


def unsupported(text, document=ARTICLE):
    return [text[start:end] for start, end in support.unsupported_spans(text, document)]


def test_rouge_by_hand():
    rows = metrics.rouge_rows(
        ["the cat sat on the mat", "", "ran", " \n"], ["the cat lay on a mat", "a text", "ran", "x"]
    )
    # 4 of 6 words, 1 of 5 bigrams ("the cat"), subsequence the-cat-on-mat.
    assert rows["rouge1"] == pytest.approx([400 / 6, 0, 100, 0])
    assert rows["rouge2"] == pytest.approx([20, 0, 0, 0])
    assert rows["rougeL"] == pytest.approx([400 / 6, 0, 100, 0])
    assert all(values.shape == (4,) and np.isfinite(values).all() for values in rows.values())


def test_rouge_is_rouge_scores_own_with_the_stemmer_on():
    from rouge_score.rouge_scorer import RougeScorer

    pairs = [
        ("Police arrested two men", "Two men were arrested by police in Leeds"),
        ("Running dogs run", "The dog runs"),
    ]
    rows = metrics.rouge_rows(*map(list, zip(*pairs, strict=True)))
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for row, (prediction, reference) in enumerate(pairs):
        for kind, score in scorer.score(reference, prediction).items():
            assert rows[kind][row] == pytest.approx(100 * score.fmeasure)
    assert rows["rouge1"][1] == pytest.approx(200 / 3)  # dogs = dog, runs = run: 2 of 3 and 3


def test_rouge_lsum_reads_sentences_where_rouge_l_reads_one_line():
    prediction, reference = "The dog barked. A cat slept.", "A cat slept. The dog barked."
    for join in (" ", "\n"):  # with or without newlines in the input
        rows = metrics.rouge_rows([prediction.replace(". ", "." + join)], [reference])
        assert rows["rougeLsum"] == [100] and rows["rougeL"] == [50]


def test_rouge_of_other_scripts_and_of_long_texts():
    rows = metrics.rouge_rows(["Полиция арестовала", "café ☕ in Łódź"], ["Полиция арестовала", "café ☕ in Łódź"])
    assert rows["rouge1"].tolist() == [0, 100]  # rouge-score's tokens are a-z and 0-9
    long, started = "word and more. " * 7000, time.process_time()
    assert metrics.rouge_rows([long], ["One word and no more."])["rouge1"][0] < 1
    with pytest.raises(SummkitError, match=r"row 2: a prediction of 21,000 words against .* 21,000"):
        metrics.rouge_rows(["short", long], ["short", long])
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "nothing to score"),
        (["a"], ["a", "b"], "1 predictions, 2 references"),
        (["a", None], ["a", "b"], r"predictions: .*row 2 is NoneType \(1 of 2 rows\)"),
        (["a"], [7], "references: .*row 1 is int"),
        ("a text", ["a"], "predictions is one text"),
    ],
)
def test_wrong_input_is_named_by_row(predictions, references, message):
    for measure in (metrics.rouge_rows, metrics._bleu3):
        with pytest.raises(SummkitError, match=message):
            measure(predictions, references)


def test_the_metrics_need_neither_hub_nor_a_home_that_can_be_written(tmp_path):
    # The home is a file, so not even a folder can be made in it; two at once, as two notebooks would.
    (tmp_path / "home").write_text("")
    code = (
        "import json; from summkit.evaluation import metrics; p, r = ['the cat sat', ''], ['the cat sat', 'a dog'];"
        "rouge = metrics.rouge(); rows = rouge.compute(predictions=p, references=r, per_row=True);"
        "rouge.add_batch(predictions=p, references=r); means = rouge.compute();"
        "print(json.dumps([rows, means, metrics.bleu3().compute(predictions=p, references=p), rouge.name]))"
    )
    home = str(tmp_path / "home")
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    env |= {"HOME": home, "USERPROFILE": home, "HF_ENDPOINT": "http://127.0.0.1:9"}
    env["PYTHONPATH"] = str(Path(metrics.__file__).parents[2])
    call = {"stdout": subprocess.PIPE, "env": env, "cwd": tmp_path}
    started = [subprocess.Popen([sys.executable, "-c", code], **call) for _ in range(2)]
    for child in started:
        rows, means, bleu, name = json.loads(child.communicate(timeout=120)[0])
        assert rows["rouge1"] == [100, 0] and means["rougeLsum"] == 50 and list(means) == list(metrics.ROUGE_TYPES)
        assert bleu == {"bleu3": pytest.approx(100)} and name == "rouge"
    assert os.listdir(tmp_path) == ["home"]


def test_the_metric_names_the_row_that_is_no_text():
    with pytest.raises(SummkitError, match="predictions: .*row 2 is NoneType"):
        metrics.rouge().compute(predictions=["a", None], references=["a", "b"])


def test_bleu3_by_hand():
    # Precisions of 4, 3 and 2 n-grams: 4/4, 2/3, 1/2; no brevity penalty at equal lengths.
    score = metrics._bleu3(["the cat sat down"], ["the cat sat up down"])["bleu3"]
    assert score == pytest.approx(100 * math.exp(1 - 5 / 4) * (1 * 2 / 3 * 1 / 2) ** (1 / 3))
    assert metrics._bleu3([""], ["a b c"])["bleu3"] == 0


def test_importing_metrics_imports_nothing_heavy():
    heavy = "('numpy', 'torch', 'datasets', 'evaluate', 'rouge_score', 'sacrebleu', 'pandas')"
    code = f"import sys; from summkit.evaluation import summarisation; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
    sentences_of.split_sentences(text)
    support.supported_facts(text, text)
    metrics.novel_ngrams(text, text, 2)
    assert time.process_time() - started < 5


def test_novel_ngrams():
    assert metrics.novel_ngrams("The cat barked, the cat", "the cat sat", 1) == pytest.approx(1 / 5)
    assert metrics.novel_ngrams("The cat barked", "the cat sat", 2) == pytest.approx(1 / 2)
    assert math.isnan(metrics.novel_ngrams("one", "one", 2)) and math.isnan(metrics.novel_ngrams("", "x", 1))


def test_bootstrap_interval_covers_and_repeats():
    values = np.random.default_rng(1).normal(20, 10, 400)
    low, high = metrics.bootstrap_interval(values, seed=3)
    error = values.std() / 20
    assert values.mean() - low == pytest.approx(1.96 * error, rel=0.15) and low < values.mean() < high
    assert (low, high) == metrics.bootstrap_interval(values, seed=3) != metrics.bootstrap_interval(values, seed=4)
    narrow = metrics.bootstrap_interval(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert metrics.bootstrap_interval([5.0, 5.0]) == (5, 5)


def test_counting_how_often_a_row_was_drawn_is_drawing_it():
    columns = np.random.default_rng(1).normal(3, 1, (50, 2))
    drawn = columns[np.random.default_rng(2).integers(50, size=(300, 50))].mean(axis=1)
    expected = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    found = metrics.bootstrap(columns, lambda means: means[:, 0] / means[:, 1], seed=2, resamples=300)
    assert found == pytest.approx(tuple(expected))


def test_bootstrap_leaves_nan_out_and_says_nothing_of_one_row():
    assert metrics.bootstrap_interval([1.0, 2.0, 3.0, math.nan]) == metrics.bootstrap_interval([1.0, 2.0, 3.0])
    for few in ([], [1.0], [1.0, math.nan]):
        assert all(map(math.isnan, metrics.bootstrap_interval(few)))
    with pytest.raises(SummkitError, match="level=95"):
        metrics.bootstrap_interval([1.0, 2.0], level=95)


def test_paired_bootstrap_sees_a_difference_and_does_not_see_none():
    generator = np.random.default_rng(0)
    hard, noise = generator.normal(20, 10, 64), generator.normal(0, 2, (2, 64))
    difference, low, high = metrics.paired_bootstrap(hard + 2 + noise[0], hard)
    assert 0 < low < difference < high < 4
    # Unpaired, the same two points drown in how much the rows differ.
    assert metrics.bootstrap_interval(hard + 2 + noise[0])[0] < metrics.bootstrap_interval(hard)[1]
    same = (metrics.paired_bootstrap(hard, hard + generator.normal(0, 2, 64), resamples=500) for _ in range(100))
    assert sum(low > 0 or high < 0 for _, low, high in same) < 13  # about 5 in 100
    assert metrics.paired_bootstrap([1.0, 2.0], [1.0, 2.0]) == (0, 0, 0)
    with pytest.raises(SummkitError, match="2 against 1"):
        metrics.paired_bootstrap([1.0, 2.0], [1.0])
