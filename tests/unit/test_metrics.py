"""Metrics: numbers worked out by hand, and metrics that need neither the Hub nor a home folder."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from summkit.errors import SummkitError
from summkit.evaluation import metrics


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


def test_rouge_of_long_texts(caplog):
    long, started = "word and more. " * 7000, time.process_time()
    assert metrics.rouge_rows([long], ["One word and no more."])["rouge1"][0] < 1
    rows = metrics.rouge_rows(["short", long], ["short", long])  # a table of 441,000,000 cells would be needed
    assert rows["rouge1"].tolist() == [100, 100] and rows["rouge2"][1] == rows["rougeL"][0] == 100
    assert np.isnan([rows["rougeL"][1], rows["rougeLsum"][1]]).all()
    assert "of 1 of 2 rows (the first is row 2) are not calculated" in caplog.text
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
    for measure in (metrics.rouge_rows, metrics.corpus_bleu3):
        with pytest.raises(SummkitError, match=message):
            measure(predictions, references)


def test_the_metrics_need_neither_hub_nor_a_home_that_can_be_written(tmp_path):
    # The home is a file, so not even a folder can be made in it; two at once, as two notebooks would.
    (tmp_path / "home").write_text("")
    code = (
        "import json; from summkit.evaluation import metrics; p, r = ['the cat sat', ''], ['the cat sat', 'a dog'];"
        "overlap = metrics.overlap(); overlap.add_batch(predictions=p, references=r); means = overlap.compute();"
        "print(json.dumps([means, overlap.compute(predictions=p, references=p), overlap.name]))"
    )
    home = str(tmp_path / "home")
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    env |= {"HOME": home, "USERPROFILE": home, "HF_ENDPOINT": "http://127.0.0.1:9"}
    env["PYTHONPATH"] = str(Path(metrics.__file__).parents[2])
    call = {"stdout": subprocess.PIPE, "env": env, "cwd": tmp_path}
    started = [subprocess.Popen([sys.executable, "-c", code], **call) for _ in range(2)]
    for child in started:
        means, copy, name = json.loads(child.communicate(timeout=600)[0])
        assert means["rougeLsum"] == 50 and list(means) == [*metrics.ROUGE_TYPES, "bleu3"]
        assert copy["bleu3"] == pytest.approx(100) and name == "overlap"
    assert os.listdir(tmp_path) == ["home"]


def test_the_metric_names_the_row_that_is_no_text():
    with pytest.raises(SummkitError, match="predictions: .*row 2 is NoneType"):
        metrics.overlap().compute(predictions=["a", None], references=["a", "b"])


def test_bleu3_by_hand():
    # Precisions of 4, 3 and 2 n-grams: 4/4, 2/3, 1/2; no brevity penalty at equal lengths.
    score = metrics.corpus_bleu3(["the cat sat down"], ["the cat sat up down"])["bleu3"]
    assert score == pytest.approx(100 * math.exp(1 - 5 / 4) * (1 * 2 / 3 * 1 / 2) ** (1 / 3))
    assert metrics.corpus_bleu3([""], ["a b c"])["bleu3"] == 0


def test_importing_metrics_imports_nothing_heavy():
    heavy = "('torch', 'scipy', 'sklearn', 'datasets', 'evaluate', 'rouge_score', 'sacrebleu', 'pandas')"
    code = f"import sys; from summkit.evaluation import summarisation; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_novel_ngrams():
    assert metrics.novel_ngrams("The cat barked, the cat", "the cat sat", 1) == pytest.approx(1 / 5)
    assert metrics.novel_ngrams("The cat barked", "the cat sat", 2) == pytest.approx(1 / 2)
    assert math.isnan(metrics.novel_ngrams("one", "one", 2)) and math.isnan(metrics.novel_ngrams("", "x", 1))
