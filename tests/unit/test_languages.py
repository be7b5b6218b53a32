"""Scores in any script: a copy scores 100, scripts are told apart, and English is scored as before."""

import json
import math

import pytest

from summkit.evaluation import baselines, languages, metrics, summarisation, tables
from summkit.reporting import records, report

TEXTS = {
    "Chinese": "大桥周一开放，市长说维修花了两年。",
    "Japanese": "橋は月曜日に開いた。カメラが記録した。",
    "Thai": "สะพานเปิดวันจันทร์",
    "Korean": "다리가 월요일에 열렸다.",
    "Hindi": "पुल सोमवार को खुला।",
    "Arabic": "افتتح الجسر يوم الاثنين.",
    "Hebrew": "הגשר נפתח ביום שני.",
    "Greek": "Η γέφυρα άνοιξε τη Δευτέρα.",
    "Russian": "Мост открыли в понедельник утром.",
    "Vietnamese": "Cây cầu mở cửa vào thứ Hai.",
    "German": "Die Brücke öffnet für Fußgänger.",
    "emoji": "🎉🚀👩‍👩‍👧",
}
UNSPACED = ("Chinese", "Japanese", "Thai")


@pytest.mark.parametrize("language", TEXTS)
def test_a_copy_scores_100_in_every_script(language):
    text = TEXTS[language]
    rows = metrics.rouge_rows([text], [text])
    assert {kind: values.tolist() for kind, values in rows.items()} == {key: [100.0] for key in metrics.ROUGE_TYPES}
    other = [TEXTS["Greek" if language != "Greek" else "Russian"]]
    assert metrics.rouge_rows(other, [text])["rouge1"] == [0]
    if language != "emoji":  # three tokens, of which sacrebleu makes one
        assert metrics.corpus_bleu3([text], [text])["bleu3"] == pytest.approx(100)
        assert metrics.bleu3_of(metrics.bleu3_counts([text], [text])) == pytest.approx([100])


def test_words_are_told_apart_by_their_accents():
    assert metrics.rouge_rows(["Die Br cke"], ["Die Brücke"])["rouge1"] == pytest.approx([40])
    assert metrics.rouge_rows(["Die Bru\u0308cke"], ["Die Brücke"])["rouge1"] == [100], "the same letter, composed"
    half = metrics.rouge_rows(["大桥关闭"], ["大桥开放"])
    assert half["rouge1"] == [50] and half["rouge2"] == pytest.approx([100 / 3])


ENGLISH = [
    "The café's owner, 41, said: “It’s over” – and left.",
    "Police arrested two men in Leeds on Monday, it was said, after a fire at a school near the old town hall.",
    "Running dogs run; 3,000 people watched.",
]


def test_english_is_scored_as_rouge_score_and_sacrebleu_do_it():
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    answers = [text.replace("Monday", "Sunday").replace("dogs", "dog") for text in reversed(ENGLISH)]
    assert languages.choose_tokenizer(ENGLISH) == languages.USUAL
    rows = metrics.rouge_rows(answers, ENGLISH)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for row, (answer, reference) in enumerate(zip(answers, ENGLISH, strict=True)):
        for kind, score in scorer.score(reference, answer).items():
            assert rows[kind][row] == 100 * score.fmeasure
    own = metrics.corpus_bleu3(answers, ENGLISH)["bleu3"]
    assert own == BLEU(max_ngram_order=3).corpus_score(answers, [ENGLISH]).score
    entry = summarisation.score_summaries(answers, ENGLISH, ENGLISH)
    assert "tokenizer" not in entry and entry["support"]["mean"] is not None


@pytest.mark.parametrize("language", ["Chinese", "German"])
def test_what_does_not_apply_says_so_in_record_and_table(language, tmp_path):
    texts = [TEXTS[language]] * 3
    entry = summarisation.score_summaries(texts, texts, texts)
    tokenizer = languages.CHARACTERS if language in UNSPACED else languages.WORDS
    assert entry["tokenizer"] == tokenizer and entry["rouge1"]["mean"] == 100
    assert entry["support"] == {"mean": None, "low": None, "high": None}
    assert (entry["novel_2grams"]["mean"] is None) == (language in UNSPACED)
    assert entry["words"]["mean"] == (15 if language in UNSPACED else 5)
    table = tables.score_table({"copy": entry})
    assert table.loc["copy", "supported names and numbers, %"] == "n/a"
    assert table.loc["copy", "novel bigrams, %"] == ("n/a" if language in UNSPACED else "0 [0, 0]")
    difference = summarisation.compare_summaries("a", "b", {"a": texts, "b": texts}, texts, texts)
    assert difference["support"]["difference"] is None and difference["rouge1"]["difference"] == 0

    record = records.fill_record(records.new_record("train", "smoke", 0), "scores", copy=entry)
    read = records.read_record(records.write_record(record, tmp_path / "run.json"))
    page = report.report_page(read)
    assert "not measured (n/a): supported names and numbers, %" in page
    assert "single characters" in page if language in UNSPACED else "words by the rules of Unicode" in page
    assert "n/a" in report.result_lines(json.loads(json.dumps(read)))


def test_novelty_counts_words_of_any_script_and_a_set_has_one_tokenizer():
    assert metrics.novel_ngrams("Мост закрыт", "Мост открыт", 1) == 0.5
    assert math.isnan(metrics.novel_ngrams("", "Мост открыт", 1))
    mixed = [*[TEXTS["Russian"]] * 3, "NASA"]
    assert metrics.rouge_rows(mixed, mixed)["rouge1"].tolist() == [100] * 4


def test_the_best_extract_of_a_text_in_another_script():
    document = "Дождь шёл весь день.\nМост открыли в понедельник.\nТуман ушёл."
    assert baselines.extractive_oracle(document, "Мост открыли.", 1) == "Мост открыли в понедельник."
