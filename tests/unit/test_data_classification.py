"""Labelled sets: every kind of bad row is dropped and named, or refused; splits share no text; what the package ships
is what it says."""

import json
from collections import Counter
from pathlib import Path

import datasets
import pytest

from summkit.config import PROFILES, TASKS, choose_profile
from summkit.data import DATASETS, SPLITS, Schema, classification, tokenisation
from summkit.data.formats import file_rows
from summkit.data.registry import SETS
from summkit.data.splits import text_key
from summkit.errors import SummkitError
from summkit.inference import label_scores
from summkit.models import loading
from summkit.offline import assets

NEWS = DATASETS["fancyzhx/ag_news"].labels
STUDIES = sorted(classification.LABEL_TASKS)
LABELLED = sorted(name for name, data_set in DATASETS.items() if data_set.labels)


def news(n: int, **given) -> dict:
    return {"id": f"r{n}", "text": f"Bridge {n} was closed at dawn.", "label": n % 4} | given


def pair(n: int, **given) -> dict:
    return {"premise": f"Bridge {n} was closed.", "hypothesis": "A bridge is shut.", "label": n % 3} | given


def write(folder: Path, rows, name="all.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def read(folder, task="agnews", seed=0, **options) -> classification.LabelledSplits:
    options = {"train_rows": 100, "validation_rows": 1, "test_rows": 1} | options
    return classification.load_labels(choose_profile("smoke", task=task, **options), seed, folder)


def all_rows(splits) -> list[dict]:
    return [row for name in SPLITS for row in getattr(splits, name)]


def packaged(name: str) -> list[dict]:
    return list(file_rows(SETS / f"{name}.jsonl"))


@pytest.mark.parametrize(
    ("value", "found"),
    [(0, [0]), (3, [3]), ("Sports", [1]), (" sci/tech ", [3]), ([2], [2]), (["World", 0], [0]), ([3, 1], [1, 3]),
     (None, []), (-1, []), ([], []), (1.0, [1]), ("2", [2]), ("3.0", [3]), ("", []), (float("nan"), [])],
)  # fmt: skip
def test_labels_are_numbers_or_names_or_lists_of_them(value, found):
    assert classification.label_numbers(value, NEWS, "all:1") == found


@pytest.mark.parametrize(
    "value", [4, -2, True, False, 1.5, "weather", "7", [0, 9], [None], [True], [-1], [[0]], {"label": 0}]
)
def test_a_label_outside_the_schema_is_refused_with_row_and_classes(value):
    known = r"is outside the schema: 0 World, 1 Sports, 2 Business, 3 Sci/Tech"
    with pytest.raises(SummkitError, match=rf"all:7: label .*{known}"):
        classification.label_numbers(value, NEWS, "all:7")


def test_several_labels_are_refused_where_one_is_asked(tmp_path):
    assert classification.label_numbers([1, "Sports"], NEWS, "all:2", several=False) == [1]
    write(tmp_path, [news(n) for n in range(9)] + [news(9, label=[2, 0])])
    with pytest.raises(SummkitError, match=r"all:10: 2 labels, \[0, 2\]; this task takes one label a row"):
        read(tmp_path)
    assert [0, 2] in [row["labels"] for row in all_rows(read(tmp_path, "goemotions"))]


@pytest.mark.parametrize("label", [None, -1, []])
def test_a_row_without_a_label_is_dropped(tmp_path, label):
    splits = read(write(tmp_path, [news(n) for n in range(8)] + [news(8, label=label)]))
    assert splits.dropped == {"no label": ["all:9"]} and splits.counts()["dropped"] == {"no label": 1}
    assert {row["id"] for row in all_rows(splits)} == {f"r{n}" for n in range(8)}


@pytest.mark.parametrize(
    ("text", "reason"), [(" \n", "empty"), (None, "not text"), (7, "not text"), ("a\0b", "NUL or half a character")]
)
@pytest.mark.parametrize(("task", "column"), [("agnews", "text"), ("mnli", "premise"), ("mnli", "hypothesis")])
def test_an_unusable_text_is_dropped(tmp_path, task, column, text, reason):
    rows = [(pair if task == "mnli" else news)(n) for n in range(12)]
    rows[5][column] = text
    assert read(write(tmp_path, rows), task).dropped == {reason: ["all:6"]}


@pytest.mark.parametrize(
    ("task", "column", "kind"),
    [("agnews", "text", "document"), ("goemotions", "label", "label"), ("mnli", "premise", "document"),
     ("mnli", "hypothesis", "second"), ("mnli", "label", "label")],
)  # fmt: skip
def test_a_missing_column_names_those_that_are_there(tmp_path, task, column, kind):
    rows = [(pair if task == "mnli" else news)(n) for n in range(6)]
    write(tmp_path, [{("body" if key == column else key): value for key, value in row.items()} for row in rows])
    with pytest.raises(SummkitError, match=rf"all: no column for the {kind}; there are: .*body.*; known: .*{column}"):
        read(tmp_path, task)


@pytest.mark.parametrize("columns", [("document", "labels"), ("comment", "label"), ("sentence", "label")])
def test_other_sets_column_names_are_known(tmp_path, columns):
    rows = [dict(zip(columns, (news(n)["text"], n % 4), strict=True)) for n in range(12)]
    row = read(write(tmp_path, rows)).test[0]
    assert row["document"].startswith("Bridge") and row["second"] == "" and row["id"].startswith("all:")


def test_columns_of_a_pair(tmp_path):
    rows = [{"sentence1": f" One {n}. ", "sentence2": " Two.\n", "label": "Neutral"} for n in range(4)]
    row = read(write(tmp_path, rows), "mnli").test[0]
    assert row["document"].startswith("One") and (row["second"], row["labels"]) == ("Two.", [1])


def test_an_id_that_cannot_be_written_becomes_the_rows_number(tmp_path):
    splits = read(
        write(tmp_path, [news(n) for n in range(8)] + [news(0, id="\ud83d", text="x"), news(1, id=5, text="y")])
    )
    assert {row["id"] for row in all_rows(splits)} - {f"r{n}" for n in range(8)} == {"all:9", "5"}


def test_a_copy_is_dropped_and_every_copy_with_another_label(tmp_path):
    rows = [news(n) for n in range(8)]
    rows += [news(8, text=" bridge 0 was CLOSED at  dawn. ", label=0), news(9, text=rows[1]["text"], label=2)]
    splits = read(write(tmp_path, rows + [news(n) for n in range(10, 14)]))
    assert splits.dropped == {"same text with other labels": ["all:2", "all:10"], "duplicate document": ["all:9"]}
    assert not {"r1", "r9"} & {row["id"] for row in all_rows(splits)}


def test_a_premise_may_stand_in_several_pairs(tmp_path):
    rows = [pair(0, hypothesis=f"Claim {n}.", label=n % 3) for n in range(6)] + [
        pair(0, hypothesis="Claim 5.", label=2)
    ]
    splits = read(write(tmp_path, rows), "mnli")
    assert splits.dropped == {"duplicate document": ["all:7"]} and len(all_rows(splits)) == 6


def test_the_only_row_of_a_class_is_dropped_where_one_label_is_asked(tmp_path):
    write(tmp_path, [news(n, label=n % 3) for n in range(9)] + [news(9, label=3)])
    assert read(tmp_path).dropped == {"the only row of its class": ["all:10"]}
    assert read(tmp_path, "goemotions").dropped == {}


def test_nothing_left_is_an_error_that_counts_the_reasons(tmp_path):
    with pytest.raises(SummkitError, match=r"nothing is left of 2 rows; dropped: no label \(1\), empty \(1\)"):
        read(write(tmp_path, [news(1, label=-1), news(2, text="")]))
    with pytest.raises(SummkitError, match="all.jsonl: no rows"):
        read(write(tmp_path, []))
    with pytest.raises(SummkitError, match=r"test: no row is left for it; 0 rows are left after the checks"):
        read(write(tmp_path, [news(n) for n in range(4)]))  # four classes, a row each


def test_a_text_in_two_splits_stays_in_test_then_validation(tmp_path):
    for n, name in enumerate(SPLITS):
        write(
            tmp_path, [news(4 * n + i, label=0) for i in range(4)] + [news(99, text="Same.", label=0)], f"{name}.jsonl"
        )
    splits = read(tmp_path, validation_rows=4, test_rows=5)
    assert splits.dropped == {"duplicate document": ["validation:5", "train:5"]} and "Same." in splits.test["document"]


@pytest.mark.parametrize("task", STUDIES)
def test_more_training_rows_move_no_other_row_and_splits_share_no_text(task):
    few, many = (classification.load_labels(choose_profile("smoke", task=task, train_rows=n)) for n in (9, 30))
    for split in ("validation", "test"):
        assert getattr(few, split).to_list() == getattr(many, split).to_list()
    assert many.train.to_list()[:9] == few.train.to_list()
    keys = [text_key(row) for row in all_rows(many)]
    assert len(keys) == len(set(keys)) == 30 + 10 + 16
    other = classification.load_labels(choose_profile("smoke", task=task), seed=1)
    assert other.test["document"] != many.test["document"]


def test_a_folder_brings_its_own_classes(tmp_path, monkeypatch):
    write(tmp_path, [news(n, label=["Rain", "snow", 1][n % 3]) for n in range(9)])
    (tmp_path / "classes.txt").write_text("\ufeffRAIN\n\n Snow \n", encoding="utf-8")
    monkeypatch.setenv("SUMMKIT_DATA_DIR", str(tmp_path))
    splits = read(None)
    assert splits.schema == Schema(("RAIN", "Snow"), ("rain", "snow")) and splits.source == "local"
    assert Counter(row["labels"][0] for row in all_rows(splits)) == {0: 3, 1: 6}
    instruction = classification.label_template(
        choose_profile("smoke", task="agnews"), loading.tiny_tokenizer(), splits.schema
    ).head
    assert "article: rain or snow." in instruction


@pytest.mark.parametrize("content", [b"", b"one\n", b"one\n\nONE\n", b"one\ntwo\nTwo \n", b"one\nt\xffo\n"])
def test_bad_classes_are_refused(tmp_path, content):
    (write(tmp_path, [news(n) for n in range(9)]) / "classes.txt").write_bytes(content)
    with pytest.raises(SummkitError, match=r"classes\.txt"):
        read(tmp_path)


def test_a_folder_without_classes_has_those_of_the_hubs_set(tmp_path):
    assert read(write(tmp_path, [news(n) for n in range(9)])).schema == NEWS
    with pytest.raises(SummkitError, match="no such file or folder"):
        read(tmp_path / "gone")


def test_what_has_no_labels_is_refused():
    with pytest.raises(SummkitError, match="unknown task with labels 'summary'; known: agnews, goemotions, mnli"):
        classification.load_labels(choose_profile("smoke"))
    with pytest.raises(SummkitError, match="unknown data set with labels 'examples'; known: bbc-topics, emotions"):
        classification.load_labels(choose_profile("smoke", task="agnews", dataset="examples"))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", PROFILES)
def test_every_task_has_settings_in_every_profile(name, task):
    profile = choose_profile(name, task=task)
    kind = "classification" if task in STUDIES else "summarisation"
    assert (profile.name, profile.task, profile.kind) == (name, task, kind)
    if task in STUDIES:
        assert profile.dataset in LABELLED and profile.min_words == 0


@pytest.mark.parametrize("task", STUDIES)
def test_the_instruction_names_the_words_where_the_task_does(task):
    schema = DATASETS[classification.LABEL_TASKS[task]].labels
    for name in ("instruction", "chat"):
        profile = choose_profile("smoke", task=task, template=name)
        template = classification.label_template(profile, loading.tiny_tokenizer(), schema)
        assert "{words}" not in template.head and bool(template.middle) is (task == "mnli")
        named = ", ".join(schema.words[:-1]) + f" or {schema.words[-1]}"
        assert (named in template.head) is (task != "goemotions")


def test_a_row_of_several_labels_is_trained_on_once_for_each():
    rows = datasets.Dataset.from_list([
        {"id": "a", "document": "One.", "second": "", "labels": [1, 3]},
        {"id": "b", "document": "Two.", "second": "Three.", "labels": [0]},
    ])  # fmt: skip
    made = classification.labels_as_text(rows, NEWS)
    assert made.column_names == ["document", "second", "summary"]
    assert [tuple(row.values()) for row in made] == [
        ("One.", "", "sports"), ("One.", "", "technology"), ("Two.", "Three.", "world"),
    ]  # fmt: skip


@pytest.mark.parametrize("task", STUDIES)
def test_no_label_of_a_trial_needs_more_than_an_answers_room(task):
    """A longer one would take its room from the text in training: where a text is cut would tell its label."""
    profile = choose_profile("smoke", task=task)
    schema, tokenizer = DATASETS[profile.dataset].labels, loading.tiny_tokenizer()
    template = classification.label_template(profile, tokenizer, schema)
    assert max(map(len, label_scores.label_tokens(template, tokenizer, schema.words))) + 1 <= profile.max_new_tokens
    splits = classification.load_labels(profile)
    for row in classification.labels_as_text(splits.train, schema):
        limits = (profile.max_length, profile.max_new_tokens, row["second"])
        trained, asked = (
            tokenisation.encode(template, tokenizer, row["document"], answer, *limits)
            for answer in (row["summary"], None)
        )
        assert trained["input_ids"][: asked["length"]] == asked["input_ids"]


@pytest.mark.parametrize("name", LABELLED)
def test_no_word_of_a_schema_begins_another(name):
    schema, tokenizer = DATASETS[name].labels, loading.tiny_tokenizer()
    template = classification.label_template(choose_profile("smoke", task="agnews", dataset=name), tokenizer, schema)
    assert len(label_scores.label_tokens(template, tokenizer, schema.words)) == len(schema.classes) == len(schema.words)


@pytest.mark.parametrize(("name", "classes"), [("topics", 4), ("pairs", 3)])
def test_the_small_samples_are_balanced_and_without_copies(name, classes):
    rows = packaged(name)
    assert Counter(row["label"] for row in rows) == dict.fromkeys(range(classes), 60 // classes)
    splits = classification.load_labels(choose_profile("smoke", task={"topics": "agnews", "pairs": "mnli"}[name]))
    assert splits.source == "code" and splits.dropped == {}


def test_the_emotions_are_many_and_together_with_four_planned_bad_texts():
    rows, profile = packaged("emotions"), choose_profile("cpu", task="goemotions")
    assert len(rows) >= 200 and sum(len(row["labels"]) > 1 for row in rows) > len(rows) / 2
    counts = Counter(label for row in rows for label in row["labels"])
    assert set(counts) == set(range(28)) and min(counts.values()) >= 8
    assert len({row["id"] for row in rows}) == len(rows)
    texts = Counter(" ".join(row["text"].lower().split()) for row in rows)
    assert sorted(texts.values())[-5:] == [1, 2, 2, 2, 2], "two copies, and two texts with other labels"
    splits = classification.load_labels(profile)
    assert {reason: len(taken) for reason, taken in splits.dropped.items()} == {
        "same text with other labels": 4, "duplicate document": 2,
    }  # fmt: skip
    assert len(all_rows(splits)) == len(rows) - 6


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """A place for files that `assets.fetch` hands out by name."""
    monkeypatch.delenv("SUMMKIT_DATA_DIR", raising=False)
    monkeypatch.setattr(assets, "fetch", lambda name: tmp_path / name)
    return tmp_path


def write_arrow(path: Path, rows) -> None:
    from datasets.arrow_writer import ArrowWriter

    with ArrowWriter(path=str(path)) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()


def test_rte_and_commitment_bank_become_two_classes(fetched):
    write_arrow(
        fetched / "rte", [{"sentence1": f"S {n}.", "sentence2": "H.", "label": n % 2, "idx": n} for n in range(6)]
    )
    write_arrow(
        fetched / "cb", [{"premise": f"P {n}.", "hypothesis": "H.", "idx": n, "label": n % 3} for n in range(6)]
    )
    profile = choose_profile("cpu", task="mnli", train_rows=8, validation_rows=2, test_rows=2)
    splits = classification.load_labels(profile)
    assert splits.source == "embedded" and splits.schema.words == ("yes", "no")
    found = {row["id"]: (row["document"], row["second"], row["labels"]) for row in all_rows(splits)}
    assert {found[f"rte-{n}"][0] for n in range(6)} == {f"S {n}." for n in range(6)}
    assert [found[f"rte-{n}"][2] for n in range(6)] == [[0], [1]] * 3
    assert [found[f"cb-{n}"][2] for n in range(6)] == [[0], [1], [1]] * 2 and found["cb-5"][:2] == ("P 5.", "H.")


def test_bbc_topics_are_the_folders_of_the_archive(fetched):
    schema = DATASETS["bbc-topics"].labels
    rows = [{"name": f"{name}/{n:03}", "text": f"On {name}, {n}."} for name in schema.classes for n in range(3)]
    (fetched / "bbc-topics").write_text("".join(json.dumps(row) + "\n" for row in rows))
    profile = choose_profile("cpu", task="agnews", train_rows=9, validation_rows=3, test_rows=3)
    splits = classification.load_labels(profile)
    assert splits.source == "embedded" and splits.dropped == {} and len(all_rows(splits)) == 15
    for row in all_rows(splits):
        name = row["id"].split("/")[0]
        assert row["labels"] == [schema.classes.index(name)] and row["document"].startswith(f"On {name}, ")


def test_numbers_that_the_task_names_are_said(tmp_path, caplog):
    read(write(tmp_path, [news(n, label=n % 2) for n in range(30)]))
    assert "labels are read as 0 World, 1 Sports (classes.txt" in caplog.text


@pytest.mark.parametrize(
    "value", ["['World','Sports']", '["World", "Sports"]', "['World' 'Sports']", "World, Sports", "[0, 1]", "0;1",
              " [ 'World' , ] ,1"]
)  # fmt: skip
def test_several_labels_may_be_a_text(value):
    assert classification.label_numbers(value, NEWS, "all:1") == [0, 1]


def test_a_list_of_one_label_as_text_is_that_label(tmp_path):
    splits = read(write(tmp_path, [news(n, label=["['joy']", "[fear]", "joy"][n % 3]) for n in range(12)]))
    assert splits.schema.classes == ("fear", "joy")
    with pytest.raises(SummkitError, match="this task takes one label a row"):
        classification.label_numbers("['World', 'Sports']", NEWS, "all:1", several=False)


def test_names_that_differ_in_case_are_one_class(tmp_path, caplog):
    splits = read(write(tmp_path, [news(n, label=["spam", "ham", "Spam ", "HAM"][n % 4]) for n in range(12)]))
    assert splits.schema.words == ("ham", "spam") and "classes: HAM, Spam (classes.txt" in caplog.text
    assert Counter(row["labels"][0] for row in all_rows(splits)) == {0: 6, 1: 6}


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([1, 2, 3], ("1", "2", "3")),
        (["2", "1.0"], ("1", "2")),
        ([1, 3], NEWS.classes),
        ([0, 1, 2], NEWS.classes),
        ([2, 3], NEWS.classes),
    ],
)
def test_numbers_that_count_from_one_are_no_places_in_the_tasks_list(tmp_path, caplog, values, classes):
    splits = read(write(tmp_path, [news(n, label=values[n % len(values)]) for n in range(12)]))
    assert splits.schema.classes == classes
    said = f"classes: {', '.join(classes)} (classes.txt" if classes != NEWS.classes else "labels are read as "
    assert said in caplog.text


@pytest.mark.parametrize("column", ["messages", "Verlauf"])
def test_chats_have_their_label_in_the_answer(tmp_path, column):
    rows = []
    for n in range(12):
        text, kind = f"Bridge {n} opened.", ["joy", "fear"][n % 2]
        rows.append({column: [{"role": "user", "content": text}, {"role": "assistant", "content": kind}]})
    splits = read(write(tmp_path, rows))
    assert splits.schema.classes == ("fear", "joy") and splits.dropped == {}
    for row in all_rows(splits):
        assert row["labels"] == [1 - int(row["document"].split()[1]) % 2]


INSTRUCTED = [
    {"instruction": "Joy or fear?", "input": f"Bridge {n} opened.", "output": ["joy", "fear"][n % 2]} for n in range(12)
]


@pytest.mark.parametrize("keys", [("instruction", "input", "output"), ("Instruction", "prompt", "completion")])
def test_instructions_have_their_label_in_the_output(tmp_path, caplog, keys):
    splits = read(write(tmp_path, [dict(zip(keys, row.values(), strict=True)) for row in INSTRUCTED]))
    assert splits.schema.classes == ("fear", "joy") and splits.dropped == {}
    assert caplog.text.count(f"the column '{keys[0]}' is not used; the option instruction sets one for all rows") == 1
    for row in all_rows(splits):
        assert row["labels"] == [1 - int(row["document"].split()[1]) % 2]
    write(tmp_path, [row | {"label": "x"} for row in INSTRUCTED])
    assert read(tmp_path, label_column="output").schema.classes == ("fear", "joy")


def test_an_output_that_is_no_label_is_refused(tmp_path):
    write(tmp_path, [row | {"output": f"Answer {n}."} for n, row in enumerate(INSTRUCTED)])
    with pytest.raises(SummkitError, match="each row has another label in 'output'; name another column with label_c"):
        read(tmp_path)
    (tmp_path / "classes.txt").write_text("joy\nfear\n")
    with pytest.raises(SummkitError, match="all:1: label 'Answer 0.' is outside the schema: 0 joy, 1 fear"):
        read(tmp_path)
    write(tmp_path, INSTRUCTED)
    assert read(tmp_path).schema.classes == ("joy", "fear")


def test_numbers_from_one_that_the_task_does_not_have_are_classes_of_their_own(tmp_path, caplog):
    splits = read(write(tmp_path, [news(n, label=n % 5 + 1) for n in range(30)]))
    assert splits.schema.words == ("1", "2", "3", "4", "5") and "classes: 1, 2, 3, 4, 5 (classes.txt" in caplog.text
    rows = all_rows(splits)
    assert {row["labels"][0] for row in rows} == set(range(5))
    assert all(row["labels"] == [int(row["id"][1:]) % 5] for row in rows)
