"""Registries of data: one file adds a data set, from outside too; a mistake in it names the file and the key."""

import json

import pytest

from summkit.config import PROFILES, TASKS, choose_profile
from summkit.data import (
    DATASETS,
    TEMPLATES,
    WORDINGS,
    DataSet,
    Template,
    Wording,
    build_template,
    find_dataset,
    load_labels,
    load_summaries,
    register_dataset,
)
from summkit.data.checks import DOCUMENT_COLUMNS, find_column
from summkit.data.registry import SETS
from summkit.errors import SummkitError, build
from summkit.models import loading
from summkit.offline import assets


@pytest.fixture
def registries(monkeypatch):
    """What a test adds is gone after it."""
    monkeypatch.delenv("SUMMKIT_DATA_DIR", raising=False)
    kept = [(table, dict(table)) for table in (DATASETS, WORDINGS, TEMPLATES)]
    yield
    for table, entries in kept:
        table.clear()
        table.update(entries)


def write(path, text: str):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", DATASETS)
def test_each_data_set_says_what_it_is_and_on_what_terms(name):
    data_set = DATASETS[name]
    assert data_set.about and data_set.licence and data_set.wording in WORDINGS
    if data_set.source == "embedded":
        assert set(data_set.files or [name]) <= set(assets.ASSETS)
    assert (data_set.source == "hub") is ("/" in name)
    assert bool(data_set.columns) or data_set.reader != "jsonl" or name == "examples"


def test_there_is_a_file_for_each_and_a_data_set_for_each_profile():
    assert len(list(SETS.glob("*.yaml"))) == len(DATASETS)
    for task in TASKS:
        assert {choose_profile(name, task=task).dataset for name in PROFILES} <= set(DATASETS)


@pytest.mark.parametrize(("sample", "whole"), [("emotions-sample", "google-research-datasets/go_emotions"),
                                               ("topics-sample", "fancyzhx/ag_news"),
                                               ("pairs-sample", "nyu-mll/multi_nli")])  # fmt: skip
def test_a_sample_has_the_labels_of_the_whole(sample, whole):
    assert DATASETS[sample].labels == DATASETS[whole].labels and DATASETS[sample].wording == DATASETS[whole].wording


GOOD = "name: toy\nsource: code\nfiles: [rows.jsonl]\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD + "licens: MIT\n", "'licens'; known: about, columns"),
        (GOOD + "labels: {classes: [a, b], words: [a, b], wrods: []}\n", "labels.wrods=.*: unexpected"),
        (GOOD + "labels: {classes: [a, b], words: [a]}\n", "labels=.*as many words"),
        (GOOD + 'labels: {classes: [a, b], words: [a, no]}\n', "labels.words.1=False: input should be a valid"),
        (GOOD + "columns: {text: body}\n", "columns.text"),
        ("name: toy\nsource: web\n", "source='web': input should be 'code', 'embedded' or 'hub'"),
        ("source: hub\n", "name: field required|name: missing"),
        ("name: [\n", "YAML"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_mistake_names_the_file_and_the_key(tmp_path, registries, text, problem):
    with pytest.raises(SummkitError, match=rf"toy\.yaml.*({problem})"):
        register_dataset(write(tmp_path / "toy.yaml", text))
    assert "toy" not in DATASETS
    with pytest.raises(SummkitError, match=r"gone\.yaml"):
        register_dataset(tmp_path / "gone.yaml")


def test_one_file_from_outside_adds_a_data_set(tmp_path, registries):
    rows = [{"talk": f"Ann: bridge {n}?", "note": f"Ann asks about bridge {n}.", "text": "No."} for n in range(6)]
    write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    path = write(tmp_path / "toy.yaml", GOOD + "columns: {document: talk, summary: note}\n")
    assert register_dataset(str(path)) is DATASETS["toy"]
    splits = load_summaries(choose_profile("smoke", dataset="toy", train_rows=4, validation_rows=1, test_rows=1))
    assert splits.counts() == {"train": 4, "validation": 1, "test": 1, "dropped": {}} and splits.source == "code"
    assert splits.test[0]["document"].startswith("Ann: bridge")
    with pytest.raises(SummkitError, match="data set 'toy' already exists"):
        register_dataset(path)


def read_moods(path):
    return [{"text": line, "label": "sad" if "sad" in line else "glad"} for line in path.read_text().splitlines()]


def test_a_data_set_with_labels_may_bring_its_own_reader_and_question(tmp_path, registries, monkeypatch):
    write(tmp_path / "moods.txt", "".join(f"Day {n} was {'sad' if n % 2 else 'bright'}.\n" for n in range(12)))
    monkeypatch.setitem(__import__("sys").modules, "mood_plugin", __import__("types").SimpleNamespace(read=read_moods))
    WORDINGS.add("mood", Wording("Is the text {words}?", "Text", answer="Mood"))
    register_dataset(DataSet(
        name="moods", source="code", files=(str(tmp_path / "moods.txt"),), reader="mood_plugin:read", wording="mood",
        labels={"classes": ["glad", "sad"], "words": ["glad", "sad"]},
    ))  # fmt: skip
    profile = choose_profile("smoke", task="agnews", dataset="moods", train_rows=8, validation_rows=2, test_rows=2)
    splits = load_labels(profile)
    assert {tuple(row["labels"]) for row in splits.train} == {(0,), (1,)}
    from summkit.data import label_template

    template = label_template(profile, loading.tiny_tokenizer(), splits.schema)
    assert template.head == "Instruction: Is the text glad or sad?\nText: "


def test_a_column_that_a_set_states_and_lacks_is_an_error(tmp_path, registries):
    write(tmp_path / "rows.jsonl", '{"document": "a", "summary": "b"}\n')
    register_dataset(write(tmp_path / "toy.yaml", GOOD + "columns: {document: talk}\n"))
    with pytest.raises(
        SummkitError,
        match="all: no column for the document; there are: document, summary; known: talk; name",
    ):
        load_summaries(choose_profile("smoke", dataset="toy"))


def test_a_folder_takes_the_place_of_a_set_whatever_its_columns_are(tmp_path):
    rows = "".join(json.dumps({"text": f"Text {n}.", "title": f"T {n}"}) + "\n" for n in range(40))
    write(tmp_path / "rows.jsonl", rows)
    assert load_summaries(choose_profile("smoke", dataset="knkarthick/samsum"), 0, tmp_path).source == "local"


def test_an_unknown_name_is_taken_for_a_set_of_the_hub():
    assert find_dataset("org/mine").source == "hub" and find_dataset("org/mine").credit == ""


def test_a_template_can_be_added(registries):
    TEMPLATES.add("question", lambda tokenizer, wording: Template("question", "Q: ", f"\n{wording.answer}:", gap=" "))
    template = build_template("question", loading.tiny_tokenizer())
    assert template.render("Why?", "So.") == "Q: Why?\nSummary: So."


def test_a_mistake_in_wordings_names_the_key():
    with pytest.raises(SummkitError, match="unknown key in wordings.yaml: poem: 'txt'; known: answer, examples"):
        build(Wording, {"instruction": "Rhyme.", "txt": "Poem"}, "wordings.yaml: poem:")


def test_one_search_for_columns():
    assert find_column({"text": 1, "article": 2}, DOCUMENT_COLUMNS, "document", "train") == "article"
    with pytest.raises(SummkitError, match=r"^a\.jsonl, row 3: no column for the text; there are: none; known: text$"):
        find_column([], ["text"], "text", "a.jsonl, row 3")
