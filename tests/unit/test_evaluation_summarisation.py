"""Evaluation: a system's scores in the record's form, baselines, paired differences, the table."""

import json

import numpy as np
import pytest

from summkit.errors import SummkitError
from summkit.evaluation import metrics, summarisation, tables
from summkit.reporting import records

DOCUMENTS = [
    "Sam Sodje was in Leeds.\nHe left in 2016. Nobody saw him.",
    "The mayor of Bath met three men.\nThey spoke.",
    "Fog hid the Tay bridge. Trains stood still.",
    "Rain fell on Kent for 12 days.",
]
REFERENCES = [
    "Sam Sodje has left Leeds.",
    "Three men met the mayor of Bath.",
    "Fog stopped trains at Tay.",
    "Kent is wet.",
]
GOOD = ["Sam Sodje left Leeds.", "The mayor of Bath met three men.", "Fog stopped the trains.", "It is wet in Kent."]
BAD = ["A man from Paris sang.", "", "He saw Rome.", "The Queen ate 7 pies."]


def test_scores_have_the_records_form():
    entry = summarisation.score_summaries(GOOD, REFERENCES, DOCUMENTS, ended=[True, True, True, False])
    names = [*metrics.ROUGE_TYPES, "support", "novel_1grams", "novel_2grams", "words", "ended_by_eos", "n"]
    assert [name for name in entry if name in names] == names  # there may be more: a metric is one row of METRICS
    assert entry["n"] == 4 and entry["ended_by_eos"] == 0.75
    for name in names[:8]:
        assert (
            set(entry[name]) == {"mean", "low", "high"}
            and entry[name]["low"] <= entry[name]["mean"] <= entry[name]["high"]
        )
    assert entry["rouge1"]["mean"] == pytest.approx(metrics.rouge_rows(GOOD, REFERENCES)["rouge1"].mean())
    assert entry["words"]["mean"] == pytest.approx(20 / 4)
    assert entry == summarisation.score_summaries(GOOD, REFERENCES, DOCUMENTS, ended=[1, 1, 1, 0])


def test_support_is_pooled_over_rows():
    summaries, documents = ["It was Sam", "in Ayr, Bath and Cork on May 7"], ["It was Sam", "Ayr"]
    support = summarisation.score_summaries(summaries, summaries, documents)["support"]
    assert support["mean"] == pytest.approx(2 / 6) and (support["low"], support["high"]) == (pytest.approx(1 / 5), 1)


def test_what_cannot_be_known_is_none_and_the_record_takes_it(tmp_path):
    entry = summarisation.score_summaries([""], ["A reference."], ["A text."])
    assert entry["rouge1"] == {"mean": 0, "low": None, "high": None}
    assert entry["support"] == entry["novel_2grams"] == {"mean": None, "low": None, "high": None}
    assert entry["ended_by_eos"] is None
    entry = summarisation.score_summaries(["", ""], ["A reference.", "b"], ["A text.", "b"])
    assert entry["support"]["low"] is None and json.loads(json.dumps(entry, allow_nan=False)) == entry
    record = records.new_record("task3", "smoke", 0) | {"scores": {"fine_tuned": entry}}
    records.write_record(record, tmp_path / "run.json")
    assert records.read_record(tmp_path / "run.json")["scores"]["fine_tuned"]["support"] == entry["support"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), "nothing to score"),
        ((["a"], ["a"], ["a", "b"]), "1 predictions, 1 references, 2 documents"),
        ((["a"], ["a"], [None]), "documents: .*row 1 is NoneType"),
        ((["a"], ["a"], ["a"], [True, False]), "1 predictions, 2 ended"),
    ],
)
def test_wrong_input_is_an_error(arguments, message):
    with pytest.raises(SummkitError, match=message):
        summarisation.score_summaries(*arguments)


def test_baselines_are_the_first_sentences():
    leads = summarisation.lead_baselines([{"document": text} for text in DOCUMENTS])
    assert list(leads) == ["lead1", "lead3"]
    assert leads["lead1"][:2] == ["Sam Sodje was in Leeds.", "The mayor of Bath met three men."]
    assert leads["lead3"][0] == DOCUMENTS[0].replace(". Nobody", ".\nNobody") and leads["lead3"][3] == DOCUMENTS[3]
    assert summarisation.score_summaries(leads["lead3"], REFERENCES, DOCUMENTS)["support"]["mean"] == 1
    with pytest.raises(SummkitError, match="row 1 is NoneType"):
        summarisation.lead_baselines([{"document": None}])


def test_compare_is_paired_and_signed():
    predictions = {"fine_tuned": GOOD * 4, "zero_shot": BAD * 4}
    better = summarisation.compare_summaries("fine_tuned", "zero_shot", predictions, REFERENCES * 4, DOCUMENTS * 4)
    assert {"rouge1", "rouge2", "rougeL", "rougeLsum", "support", "words"} <= set(better)
    assert not {"novel_1grams", "novel_2grams", "ended_by_eos"} & set(better)
    assert all(set(entry) == {"difference", "low", "high"} for entry in better.values())
    assert better["rouge1"]["low"] > 0 and better["rougeL"]["low"] > 0 and better["support"]["low"] > 0
    worse = summarisation.compare_summaries("zero_shot", "fine_tuned", predictions, REFERENCES * 4, DOCUMENTS * 4)
    assert worse["rouge1"]["difference"] == pytest.approx(-better["rouge1"]["difference"])
    rows = {
        name: summarisation.measure_rows(texts, REFERENCES * 4, DOCUMENTS * 4) for name, texts in predictions.items()
    }
    assert better["words"]["difference"] == pytest.approx(
        np.mean(rows["fine_tuned"]["words"] - rows["zero_shot"]["words"])
    )
    same = summarisation.compare_summaries("zero_shot", "zero_shot", predictions, REFERENCES * 4, DOCUMENTS * 4)
    assert same["support"] == {"difference": 0, "low": 0, "high": 0}


def test_compare_names_the_systems_it_knows_and_leaves_the_unknowable_none():
    with pytest.raises(SummkitError, match="unknown system 'lead2'; known: a, b"):
        summarisation.compare_summaries("a", "lead2", {"a": GOOD, "b": BAD}, REFERENCES, DOCUMENTS)
    result = summarisation.compare_summaries("a", "b", {"a": GOOD[:1], "b": [""]}, REFERENCES[:1], DOCUMENTS[:1])
    assert result["support"] == {"difference": None, "low": None, "high": None}
    assert result["words"] == {"difference": 4, "low": None, "high": None}


def test_a_metric_from_outside_is_scored_compared_and_shown():
    def question_marks(predictions, references, documents):
        return np.array([float(text.count("?")) for text in predictions])

    metrics.METRICS.add("questions", metrics.Metric("questions asked", "questions", decimals=2, rows=question_marks))
    try:
        texts = {"a": ["Why?", "Who? When?", "It fell.", "So?"], "b": GOOD}
        scores = {name: summarisation.score_summaries(rows, REFERENCES, DOCUMENTS) for name, rows in texts.items()}
        assert list(scores["a"])[-3:] == ["questions", "ended_by_eos", "n"] and scores["a"]["questions"]["mean"] == 1
        assert tables.score_table(scores)["questions asked"].tolist()[1] == "0.00"
        differences = summarisation.compare_summaries("a", "b", texts, REFERENCES, DOCUMENTS)
        assert differences["questions"]["difference"] == 1
    finally:
        del metrics.METRICS["questions"]
