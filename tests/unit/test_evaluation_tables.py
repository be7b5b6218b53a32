"""Tables: scores as text, and Markdown that no cell can break."""

from summkit.evaluation import summarisation, tables
from tests.unit.test_evaluation_summarisation import BAD, DOCUMENTS, REFERENCES


def test_the_table_reads_the_record_alone():
    scores = {
        "lead1": summarisation.score_summaries(BAD, REFERENCES, DOCUMENTS),
        "a|b": {"rouge1": {"mean": 26.31, "low": None, "high": None}},
    }
    scores["lead1"]["rouge1"] = {"mean": 26.31, "low": 24.14, "high": 28.55}
    scores["lead1"]["support"] = {"mean": 0.483, "low": 0.4, "high": 0.5}
    frame = tables.score_table(scores)
    assert list(frame.index) == ["lead1", "a|b"] and list(frame.columns)[:4] == [
        "ROUGE-1",
        "ROUGE-2",
        "ROUGE-L",
        "ROUGE-Lsum",
    ]
    assert frame.loc["lead1", "ROUGE-1"] == "26.3 [24.1, 28.6]" and frame.loc["a|b", "ROUGE-1"] == "26.3"
    assert frame.loc["lead1"].iloc[4] == "48 [40, 50]" and frame.loc["a|b", "words"] == "–"
    lines = tables.markdown_table(frame).splitlines()
    assert lines[0].startswith("| system | ROUGE-1 |") and lines[1] == "|---" * 9 + "|"
    assert len(lines) == 4 and lines[3].startswith("| a\\|b | 26.3 | – |")
    assert frame.loc["lead1", "ended by EOS, %"] == "–" and "accuracy, %" not in frame.columns


def test_a_score_of_labels_that_are_all_right_or_all_wrong_has_a_valid_interval_or_none():
    def entry(mean, **ends):
        return {"mean": mean, "low": mean, "high": mean} | ends

    def labels(mean, n=40, **more):
        return {"accuracy": entry(mean, **more), "macro_f1": entry(mean, **more), "n": n}

    scores = {"all": labels(1.0), "none": labels(0.0, 60), "some": labels(0.9, low=0.8, high=1.0)}
    rounded = labels(1.0, low=1 - 1e-15)  # as means of many draws come out
    table = tables.score_table(scores | {"unknown": {"accuracy": entry(1.0)}, "rounded": rounded})
    # Wilson's interval of 40 of 40: from 40 / (40 + 1.96²); of 0 of 60: to 1.96² / (60 + 1.96²).
    shown = ["100.0 [91.2, 100.0]", "0.0 [0.0, 6.0]", "90.0 [80.0, 100.0]", "100.0", "100.0 [91.2, 100.0]"]
    assert table["accuracy, %"].tolist() == shown
    assert table["macro F1, %"].tolist() == ["100.0", "0.0", "90.0 [80.0, 100.0]", "–", "100.0"]
    assert scores["all"]["accuracy"] == entry(1.0), "the record is unchanged"


def test_a_mean_without_spread_has_no_interval():
    same = {"mean": 12.0, "low": 12.0, "high": 12.0}
    assert tables.score_table({"a": {"rouge1": same, "n": 5}})["ROUGE-1"].tolist() == ["12.0"]
