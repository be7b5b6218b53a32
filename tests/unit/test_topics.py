"""Topics: what is read out of an answer, what is refused and why, merging, the adapter's wording."""

import json
import random
from dataclasses import replace

import pytest

from summkit.config import PROFILES, choose_profile
from summkit.data import templates
from summkit.data.formats import file_rows
from summkit.data.registry import SETS
from summkit.distillation import topics
from summkit.errors import SummkitError
from summkit.evaluation import metrics, summarisation
from summkit.evaluation.tables import score_table
from summkit.inference import generation
from summkit.models import loading, methods
from summkit.recipes import finetune
from summkit.reporting import records, report, tables
from summkit.training import checkpoints

WORDING = templates.WORDINGS["topics"]
INSTRUCTION = WORDING.instruction
DOCUMENT = (
    "We study how graph neural networks can learn to predict the toxicity of small molecules before any of them is "
    "made in a laboratory, and compare them with forests of decision trees."
)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Graph Networks; drug  design;Toxicity.", ["graph networks", "drug design", "toxicity"]),
        ("Topics: a; b; A ;b.", ["a", "b"]),
        ("The main topics: a; b", ["the main topics: a", "b"]),
        ("**Main topics:** a; b", ["a", "b"]),
        ("a, b and c, d", ["a", "b and c", "d"]),
        ("a, b; c", ["a, b", "c"]),
        ("1. Graph networks\n2) Drug design\n(3) 3D vision", ["graph networks", "drug design", "3d vision"]),
        ("1. Graph networks 2. Drug design, fast 3. GPT-2", ["graph networks", "drug design, fast", "gpt-2"]),
        ("- a\n* “b”\n• 'c'\n\n", ["a", "b", "c"]),
        ("- a - b - c", ["a", "b", "c"]),
        ("state-of-the-art models, 2. 5 bits", ["state-of-the-art models", "5 bits"]),
        ("one phrase", ["one phrase"]),
        ("Café; 東京; naïve Bayes", ["café", "東京", "naïve bayes"]),
        (" ; ;; 12; --- ;\n", []),
        ("", []),
    ],
)
def test_topics_are_read(answer, found):
    assert topics.parse_topics(answer) == found


def test_what_is_read_is_written_and_read_again():
    generator = random.Random(0)
    letters = 'ab C;,\n.-*1)"“é '
    for _ in range(500):
        found = topics.parse_topics("".join(generator.choices(letters, k=generator.randrange(40))))
        kept = found[:5]
        again = topics.parse_topics(topics.canonical_topics(found)) if len(kept) > 1 else kept
        assert again == kept and len(set(found)) == len(found)
        assert all(topic and topic == topic.strip() == topic.lower() for topic in found)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("graph neural networks; toxicity; decision trees", None),
        ("toxicity prediction", None),
        ("", "empty"),
        (" \n;", "empty"),
        ("42", "empty"),
        (None, "off-format"),
        ("Name the main topics of the following abstract", "echo"),
        ("graph networks; two to five short phrases, separated", "echo"),
        (DOCUMENT, "echo"),
        ("predict the toxicity of small molecules before any of them is made", "echo"),
        ("this paper is about many things that people may find of interest", "off-format"),
        ("a; b; c; d; e; f; g; h; i", "off-format"),
        ("a; b; c; d; e; f; g; h", None),
        ("a; b; one two three four five six seven eight nine", "off-format"),
        ("models; models; models; toxicity", None),
        ("; ".join(["models"] * 30), "duplicates"),
        ("models; toxicity; models; trees", None),
    ],
)
def test_an_answer_is_used_or_refused_with_a_reason(answer, reason):
    text, said = topics.topic_label(DOCUMENT, answer, WORDING)
    assert said == reason
    assert text == (None if reason else topics.canonical_topics(topics.parse_topics(answer)))


def test_what_an_answer_has_from_the_examples_is_left_out():
    shown = replace(
        WORDING, examples=(("Beds and wards are nodes of a hospital.", "hospital waiting; graph networks"),)
    )
    document = "Graphs of proteins, and networks that fold them."
    found = topics.topic_label(document, "Hospital waiting; protein folding; graph networks; beds", shown)
    assert found == ("protein folding; graph networks", None)  # "networks" stands in the document too
    assert topics.topic_label(document, "hospital waiting; beds", shown) == (None, "echo")


def test_a_good_answer_survives_as_its_topics():
    assert topics.topic_label(DOCUMENT, "Toxicity, Graph networks.") == ("toxicity; graph networks", None)


def test_tables_and_reports_show_the_columns_where_a_system_has_them(tmp_path):
    names = [*metrics.ROUGE_TYPES, "bleu3", "similarity", "topic_f1", "words"]
    entry = {name: {"mean": 82.5, "low": 70.0, "high": 90.0} for name in names} | {"ended_by_eos": None, "n": 4}
    frame = score_table({"student": entry, "title": entry})
    rouge = ["ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum"]
    assert list(frame.columns) == [*rouge, "BLEU-3", "similarity", "topic F1", "words", "ended by EOS, %"]
    assert frame.loc["student", "topic F1"].startswith("82.5 [")
    texts = ["A bridge shut.", "Rain fell."]
    old = score_table({"lead1": summarisation.score_summaries(texts, texts, texts)})
    assert not {"BLEU-3", "similarity", "topic F1"} & set(old.columns) and len(old.columns) == 8
    record = records.new_record("notebooks/02", "smoke", 0)
    records.fill_record(record, "scores", student=entry, few_shot=entry)
    apart = {name: {"difference": 5.0, "low": 1.0, "high": 9.0} for name in names}
    records.fill_record(record, "details", differences={"student_minus_few_shot": apart})
    records.write_record(record, tmp_path / "run.json")
    page = report.report_page(records.read_record(tmp_path / "run.json"))
    assert "| BLEU-3 | similarity | topic F1 |" in page and "points of topic F1" in page and "BLEU-3 points" in page
    assert "topic F1" in tables.scores_table(record["scores"])


def test_the_wording_goes_with_the_adapter(tmp_path):
    profile = choose_profile("smoke", task="topics", precision="fp32")
    assert (profile.wording, profile.task, profile.kind) == ("topics", "topics", "summarisation")
    model = methods.apply_method(loading.load_model(profile.model), profile)
    folder = checkpoints.save_adapter(model, tmp_path / "adapter", profile)
    prompt = generation.Summarizer.load(folder).template.prompt("A text.")
    assert prompt == f"Instruction: {INSTRUCTION}\nAbstract: A text.\nTopics:"
    settings = json.loads((folder / checkpoints.SETTINGS).read_text())
    del settings["wording"]  # as adapters were saved before there were several
    (folder / checkpoints.SETTINGS).write_text(json.dumps(settings))
    assert checkpoints.read_settings(folder)["wording"] == "news"
    assert "Summarize the following news article" in generation.Summarizer.load(folder).template.prompt("A text.")
    (folder / checkpoints.SETTINGS).write_text(json.dumps(settings | {"wording": "poem"}))
    with pytest.raises(SummkitError, match="unknown wording 'poem'; known: dialogue, .*, topics"):
        generation.Summarizer.load(folder)


def test_training_asks_in_the_profiles_wording():
    for wording, start in (("topics", INSTRUCTION), ("title", "Write the title of")):
        profile = choose_profile("smoke", task="topics", wording=wording)
        splits, template, rows = finetune._load(profile, loading.tiny_tokenizer(), 0, None)
        assert template.head.startswith(f"Instruction: {start}") and rows == (splits.train, splits.validation)


def test_every_profile_has_its_topics():
    for name in PROFILES:
        profile = choose_profile(name, task="topics")
        assert profile.kind == "summarisation" and profile.wording in templates.WORDINGS
        assert profile.teacher_precision in ("", *loading.PRECISIONS) and bool(profile.teacher) == (
            name in ("t4", "gpu")
        )
    assert choose_profile("cpu").wording == "news"


def test_the_chapters_examples_are_good_answers():
    rows = list(file_rows(SETS / "topic_examples.jsonl"))
    assert len(rows) == 5 and all(set(row) == {"abstract", "topics", "title"} for row in rows)
    assert all(topics.topic_label(row["abstract"], row["topics"]) == (row["topics"], None) for row in rows)


def test_control_characters_are_no_part_of_a_topic():
    assert topics.parse_topics("graph\x1b[0m networks;\rtoxi\x00city\n\x07") == ["graph [0m networks", "toxi city"]
