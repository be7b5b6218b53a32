"""Tables: scores and differences as text, and Markdown that no cell can break."""

from summkit.evaluation import summarisation, tables

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
BAD = ["A man from Paris sang.", "", "He saw Rome.", "The Queen ate 7 pies."]


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


def test_an_interval_without_a_width_is_left_out():
    all_right = {"mean": 1.0, "low": 1.0, "high": 1.0}
    table = tables.score_table({"tfidf": {"accuracy": all_right}, "model": {"accuracy": all_right | {"low": 0.9}}})
    assert table["accuracy, %"].tolist() == ["100.0", "100.0 [90.0, 100.0]"]


def test_a_table_of_differences_marks_those_that_leave_out_zero():
    def entry(*values):
        return dict(zip(("difference", "low", "high"), values, strict=True))

    found = {
        "a_minus_b": {"rouge1": entry(1.26, 0.3, 2.0), "words": entry(-1, -2, 0)},
        "a_minus_c": {"rouge1": entry(None, None, None), "words": entry(-1.0, -2.0, -0.5)},
    }
    table = tables.difference_table(found, {"rouge1": "ROUGE-1", "words": "words"})
    assert table.loc["a_minus_b"].tolist() == ["+1.3 [+0.3, +2.0] *", "-1.0 [-2.0, +0.0]"]
    assert table.loc["a_minus_c"].tolist() == ["–", "-1.0 [-2.0, -0.5] *"]
