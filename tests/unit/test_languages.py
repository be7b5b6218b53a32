"""Scores in any script: a copy scores 100, scripts are told apart, and English is scored as before."""

import json
import math

import pytest

from summkit.data import DATASETS
from summkit.data.sources import read_rows
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


FEW_ACCENTS = {
    "Dutch": """De oude brug over de rivier is sinds maandag dicht voor al het verkeer, want er zit een scheur in een
    kabel. Of het herstel snel klaar is, weet nog niemand. De werken hadden al twee jaar geleden moeten beginnen, maar
    de aannemer ging failliet. We hopen dat de brug in het voorjaar weer open is, zei hij.""",
    "Italian": """Il vecchio ponte sul fiume resta chiuso a tutto il traffico da lunedi, con una crepa in un cavo. I
    lavori dovevano cominciare due anni fa, ma la ditta ha chiuso. Speriamo di aprire il cantiere in primavera, ha detto
    il sindaco, se i soldi ci sono e se la regione li manda in tempo per le gare.""",
    "Indonesian": """Jembatan lama di atas sungai ditutup sejak Senin untuk semua kendaraan karena ada retak pada kabel.
    Pekerjaan seharusnya dimulai dua tahun lalu tetapi perusahaan itu bangkrut. Kami berharap bisa mulai pada musim
    kemarau, kata wali kota, jika uang dari pemerintah pusat datang tepat waktu dan tidak ada masalah
    lain tahun ini.""",
    "Danish": """Den gamle bro over floden er lukket siden mandag for al trafik, fordi der er en revne i et kabel.
    Arbejdet skulle have startet for to aar siden, men firmaet gik konkurs. Vi haaber at det kan begynde til foraaret,
    sagde han, hvis pengene kommer i tide, og hvis der ikke er andre problemer med broen.""",
    "Swahili": """Daraja la zamani juu ya mto limefungwa tangu Jumatatu kwa magari yote kwa sababu ya ufa. Kazi ilipaswa
    kuanza miaka miwili iliyopita lakini kampuni ilifilisika. Tunatumaini kuanza wakati wa kiangazi, alisema, kama fedha
    kutoka serikali kuu zitafika kwa wakati mwaka huu na hakuna matatizo mengine ya vibali
    vya ujenzi wa daraja jipya la mji huo mwaka ujao.""",
}


@pytest.mark.parametrize("language", FEW_ACCENTS)
def test_a_language_with_few_accents_is_not_scored_as_english(language):
    texts = FEW_ACCENTS[language].split(". ")
    assert languages.choose_tokenizer(texts) == languages.WORDS
    entry = summarisation.score_summaries(texts, texts, texts)
    assert entry["tokenizer"] == languages.WORDS and entry["support"]["mean"] is None
    stems = metrics.rouge_rows(["running", *texts], ["runs", *texts])["rouge1"]
    assert stems[0] == 0 and metrics.rouge_rows(["running"], ["runs"])["rouge1"] == [100], "no English stemmer"


@pytest.mark.parametrize("name", ["examples", "emotions-sample", "pairs-sample", "topics-sample"])
def test_the_texts_of_the_course_are_english_in_sets_of_any_size(name):
    rows, _ = read_rows(DATASETS[name])
    texts = [text for row in rows["all"] for key, text in row.items() if isinstance(text, str) and key != "id"]
    for size in (1, 4, 8, 64):
        sets = ["\n".join(texts[start : start + size]) for start in range(0, len(texts), size)]
        accents = [text for text in sets if languages.choose_tokenizer([text]) != languages.USUAL]
        assert not [text for text in accents if text.isascii()] and len(accents) <= len(sets) // 20


def test_english_titles_and_notes_are_english():
    titles = ["Sparse attention for long documents", "On the limits of routing", "Fast decoding with draft models"] * 5
    notes = [
        "Patient denies fever, chills, cough and chest pain.",
        "No known allergies. Takes aspirin 81 mg daily.",
    ] * 8
    assert {languages.choose_tokenizer(texts) for texts in (titles, notes, ["word"] * 40)} == {languages.USUAL}


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
    assert table.loc["copy", "novel bigrams, %"] == ("n/a" if language in UNSPACED else "0")
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
