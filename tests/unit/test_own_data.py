"""Own rows: every usual format and layout of files, column and label is read; what is unclear is an error."""

import csv
import gzip
import json

import datasets
import pandas
import pytest

from summkit.config import choose_profile
from summkit.data import SPLITS, checks, find_dataset, formats, load_labels, load_summaries
from summkit.errors import SummkitError
from summkit.offline import hub

ROWS = [
    {"document": f"Bridge {n}, the old one,\nwas shut; at dawn.", "summary": f"Bridge {n} is “shut”."}
    for n in range(12)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def table(rows=ROWS, separator=",", encoding="utf-8", start="") -> bytes:
    import io

    text = io.StringIO(newline="")
    written = csv.DictWriter(text, rows[0], delimiter=separator)
    written.writeheader()
    written.writerows(rows)
    return (start + text.getvalue()).encode(encoding)


def read(data, **options):
    sizes = {"train_rows": 100, "validation_rows": 1, "test_rows": 1}
    return load_summaries(choose_profile("smoke", **sizes | options), 0, data)


def texts(splits) -> set[tuple[str, str]]:
    return {(row["document"], row["summary"]) for name in SPLITS for row in getattr(splits, name)}


def write_parquet(path, rows=ROWS):
    pandas.DataFrame(rows).to_parquet(path)


FILES = {
    "lines.jsonl": LINES.encode(),
    "lines.ndjson": LINES.encode(),
    "utf16.jsonl": LINES.encode("utf-16"),
    "mark.jsonl": b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode(),
    "packed.jsonl.gz": gzip.compress(LINES.encode()),
    "list.json": json.dumps(ROWS).encode(),
    "list.jsonl": json.dumps(ROWS).encode(),
    "lines.json": LINES.encode(),
    "pretty.jsonl": "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    "pretty.json.gz": gzip.compress(json.dumps(ROWS, indent=1).encode()),
    "comma.csv": table(),
    "semicolon.CSV": table(separator=";", encoding="utf-8-sig"),
    "quoted.csv": table(separator=";")
    .replace(b"document;", b'"document";"Stadt, Land";', 1)
    .replace(b"dawn.;", b"dawn.;x;")
    .replace(b'dawn.";', b'dawn.";x;'),
    "excel.csv": table(separator=";", start="sep=;\r\n"),
    "utf16.csv": table(separator="\t", encoding="utf-16"),
    "tabs.tsv": table(separator="\t"),
    "packed.csv.gz": gzip.compress(table()),
    "packed.csv": gzip.compress(table()),
    "unpacked.jsonl.gz": LINES.encode(),
    "little.csv": table(encoding="utf-16-le"),
    "big.jsonl": LINES.encode("utf-16-be"),
    "columns.json": json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}).encode(),
    "pandas.json": pandas.DataFrame(ROWS).to_json().encode(),
    "records.json": json.dumps({"version": "1", "data": ROWS}, indent=1).encode(),
    "rows.json.gz": gzip.compress(json.dumps({"rows": ROWS}).encode()),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("named", ["file", "folder"])
def test_a_file_of_any_usual_format_is_read(tmp_path, name, named):
    (tmp_path / name).write_bytes(FILES[name])
    (tmp_path / f"._{name}").write_bytes(b"\0\5\x16\7")  # as macOS writes it
    (tmp_path / "README.md").write_text("no rows")
    splits = read(tmp_path / name if named == "file" else tmp_path)
    assert splits.source == "local" and splits.dropped == {}
    assert {(a.replace("\r\n", "\n"), b) for a, b in texts(splits)} == {tuple(row.values()) for row in ROWS}


def test_parquet_and_what_datasets_saved(tmp_path):
    write_parquet(tmp_path / "all.parquet")
    assert len(texts(read(tmp_path))) == 12
    made = datasets.Dataset.from_list(ROWS)
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=made.select(range(9)), test=made.select(range(9, 12))).save_to_disk(tmp_path / "two")
    assert len(texts(read(tmp_path / "one"))) == 12
    splits = read(tmp_path / "two", test_rows=3)
    assert {row["summary"] for row in splits.test} == {row["summary"] for row in ROWS[9:]}
    next((tmp_path / "one").glob("*.arrow")).unlink()
    with pytest.raises(SummkitError, match="one: written by save_to_disk, but a part is missing or broken"):
        read(tmp_path / "one")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1, but no more")
    with pytest.raises(SummkitError, match=r"bad\.parquet: cannot be read as Parquet"):
        read(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (("train", "validation", "test"), (4, 4, 4)),
        (("train", "val", "test"), (4, 4, 4)),
        (("train", "dev", "test"), (4, 4, 4)),
        (("news-train", "news_valid", "news.test"), (4, 4, 4)),
        (("train", "", "test"), (3, 1, 4)),
        (("train", "val", ""), (3, 4, 1)),
        (("train-00000-of-00002", "train-00001-of-00002", "test"), (7, 1, 4)),
        (("train/part", "validation/part", "test/part"), (4, 4, 4)),
    ],
)
def test_splits_are_told_by_the_names_of_files(tmp_path, caplog, names, sizes):
    for number, name in enumerate(filter(None, names)):
        path = tmp_path / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(table(ROWS[4 * number : 4 * number + 4]))
    splits = read(tmp_path, validation_rows=4 if sizes[1] == 4 else 1, test_rows=4 if sizes[2] == 4 else 1)
    assert tuple(len(getattr(splits, name)) for name in SPLITS) == sizes
    assert ("taken from the training rows" in caplog.text) is (1 in sizes)


@pytest.mark.parametrize(
    ("names", "about"),
    [
        (("train.jsonl", "train.jsonl.gz", "test.jsonl"), "one file for train is needed.*found: .*train.jsonl.gz"),
        (("train.csv", "train.jsonl"), "one file for train"),
        (("val.csv", "validation.csv", "train.csv"), "one file for validation"),
        (("a.csv", "b.csv"), "one file is needed, or train, validation and test; found: a.csv, b.csv"),
        (("val.csv", "test.csv"), "has no split 'train'; it has: test, validation"),
        (("rows.xlsx",), r"no file of rows is here; the formats are \.jsonl, .*\.csv"),
        ((), "no file of rows is here"),
        (("english/train-00000-of-00001.csv", "german/train-00000-of-00001.csv"), "one file for train"),
        (("train-00000-of-00001.jsonl", "train-00000-of-00001.jsonl.gz"), "one file for train"),
    ],
)
def test_what_is_unclear_is_an_error(tmp_path, names, about):
    for name in names:
        content = table() if ".csv" in name else LINES.encode()
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(SummkitError, match=about):
        read(tmp_path)


@pytest.mark.parametrize("about", ["dataset_info.json", "dataset_infos.json", "dataset-metadata.json"])
def test_what_describes_a_set_beside_its_files_is_not_its_rows(tmp_path, about):
    """A download of a set has such a file beside its rows or above them, but is not what `save_to_disk` writes."""
    (tmp_path / about).write_text('{"description": "News of Ashby.", "features": {}}')
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    assert len(texts(read(tmp_path))) == 12
    (tmp_path / "rows.csv").write_bytes(table(ROWS[:9]))
    assert len(texts(read(tmp_path))) == 9


def test_parts_that_are_not_there_are_counted(tmp_path, caplog):
    (tmp_path / "train-00000-of-00003.csv").write_bytes(table())
    read(tmp_path)
    assert "1 of 3 parts of train are here" in caplog.text


def test_two_saved_splits_of_one_kind_are_refused_and_others_named(tmp_path, caplog):
    made = datasets.Dataset.from_list(list(ROWS))
    datasets.DatasetDict(train=made, dev=made, validation=made).save_to_disk(tmp_path / "two")
    with pytest.raises(SummkitError, match="one split for validation is needed; there are: train, dev, validation"):
        read(tmp_path / "two")
    datasets.DatasetDict(train=made, extra=made).save_to_disk(tmp_path / "extra")
    assert len(texts(read(tmp_path / "extra"))) == 12 and "the split 'extra' is not used" in caplog.text


def test_a_file_of_no_split_is_named_and_not_used(tmp_path, caplog):
    for number, name in enumerate(("train", "test", "notes")):
        (tmp_path / f"{name}.csv").write_bytes(table(ROWS[4 * number : 4 * number + 4]))
    assert len(texts(read(tmp_path))) == 5 and "notes.csv: in no split, and not used" in caplog.text


@pytest.mark.parametrize(
    ("content", "about"),
    [
        ("Bäche;Flüsse\nä;ö\n".encode("cp1252"), "rows.csv, after line 0: .*UTF-8.*save it as UTF-8"),
        (b'document,summary\nA, b, c,d\n', "rows.csv, line 2: more fields than headings: a text with ',' in it"),
        (b'document,summary\nA,b\n"C,d\ne,f\ng,h\n', "rows.csv, line 3: unexpected end of data.* is doubled"),
        (b'sep=;\nText;Kurz\nA;b\n"C\nD";e\n"He said "no".";f\n', "line 6: ';' expected after '\"'.* is doubled"),
        (b'sep=,\ndocument,summary\n"A\nB",c\n"D\nE\nF",g,h\n', "rows.csv, line 5: more fields than headings"),
        (b"", "rows.csv: no rows, or only a line of headings"),
        (b"document,summary\n", "rows.csv: no rows, or only a line of headings"),
        (b"text,text,summary\na,b,c\n", "rows.csv, line 1: two columns have the same name: 'text'"),
        (b"Text;Kurz\na;b\n", r"no column for the summary; there are: Text \(the document\), Kurz; known"),
        (b"text\na\n", r"for the summary; there are: text \(the document\); .* name it with summary_column"),
        (b'"document,summary"\n"a,b"\n', "'document,summary' looks like several columns: check what"),
        (b"text (de, en);kurz\na;b\n", "en.;kurz; .*' en.;kurz' looks like several columns: check what is between"),
        pytest.param(b"a," * 99_999 + b"b\n1\n", "two columns have the same name: 'a'$", id="the same names"),
        pytest.param(
            ",".join(f"c{n}" for n in range(99_999)).encode() + b"\n1\n",
            "c29 and 99,969 more; known: document",
            id="many names",
        ),
        (b"PK\3\4\x14\0\6\0", "rows.csv is a spreadsheet or a zip archive: save it as CSV UTF-8, or unpack it"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "rows.csv, after line 0: .*in a spreadsheet: as CSV UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\n", "rows.csv is a pointer of Git LFS: .*git lfs pull"),
        pytest.param(b"\0" * 900, "rows.csv is not text: most of its bytes are zero", id="zeros"),
        pytest.param(table(encoding="utf-32"), "rows.csv is not text: most of its bytes are zero", id="UTF-32"),
        pytest.param(
            gzip.compress(table() * 99)[:-99],
            r"rows.csv, after line \d+: cannot be read .*Compressed file ended .* copy it again",
            id="cut",
        ),
    ],
)  # fmt: skip
def test_a_broken_table_is_named(tmp_path, content, about):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(SummkitError, match=about):
        read(tmp_path)


def test_a_row_with_a_zero_is_dropped_alone(tmp_path):
    (tmp_path / "rows.csv").write_bytes(table().replace(b"Bridge 3,", b"Bridge\0 3,"))
    assert read(tmp_path).dropped == {"NUL or half a character": ["all:4"]}


@pytest.mark.parametrize(
    ("name", "value", "about"),
    [
        ("a.json", {"train": ROWS, "test": ROWS}, r"a.json is one object of lists .train 12, test 12.: .* a file each"),
        ("a.json", {"document": ["a", "b"], "summary": ["c"]}, r"one object of lists .document 2, summary 1.: columns"),
        ("a.json", ROWS[0], "no row is left for it; 1 row is left after the checks"),
        ("a.json", ROWS[0] | {"people": [{"name": "Ann"}]}, "1 row is left"),
        ("a.json", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "1 row is"),
        ("a.jsonl", {"dialogue": ["a", "b"], "summary": ["c", "d"]}, "1 row is left"),
        ("a.jsonl", {"document": "a", "summary": ""}, r"all: nothing is left of 1 row; dropped: empty .1."),
        ("a.xlsx", 1, "no file of rows is here; the formats are .*; save a spreadsheet as CSV UTF-8"),
    ],
)
def test_an_object_alone_in_its_file(tmp_path, name, value, about):
    (tmp_path / name).write_text(json.dumps(value))
    with pytest.raises(SummkitError, match=about):
        read(tmp_path / name)


def test_columns_are_named_by_options_whatever_their_case(tmp_path):
    rows = [{"Überschrift": row["summary"], "Artikel": row["document"], "summary": "no"} for row in ROWS]
    (tmp_path / "rows.csv").write_bytes(table(rows, ";", "utf-8-sig"))
    named = {"document_column": "artikel", "summary_column": "ÜBERSCHRIFT"}
    assert ("Bridge 3 is “shut”." in {b for _, b in texts(read(tmp_path, **named))}) is True
    with pytest.raises(SummkitError, match="there are: Überschrift, Artikel, summary; known: Text; name it with docu"):
        read(tmp_path, document_column="Text")
    rows = [{"Document": row["document"], " Summary": row["summary"]} for row in ROWS]
    (tmp_path / "rows.csv").write_bytes(table(rows))
    assert len(texts(read(tmp_path))) == 12


@pytest.mark.parametrize("name", ["text", " TEXT"])
def test_the_column_that_is_named_is_not_taken_for_the_other_one_too(tmp_path, name):
    rows = [{"text": row["summary"], "abstract": row["document"]} for row in ROWS]
    (tmp_path / "rows.csv").write_bytes(table(rows))
    assert {b for _, b in texts(read(tmp_path, summary_column=name))} == {row["summary"] for row in ROWS}


def chat(row, role="role", content="content", user="user", assistant="assistant"):
    said = [("system", "Be brief."), (user, row["document"]), (assistant, row["summary"])]
    return [{role: who, content: text} for who, text in said]


@pytest.mark.parametrize("kind", ["messages", "conversations", "instruction", "prompt", "turns"])
def test_rows_of_chats_and_instructions(tmp_path, caplog, kind):
    make = {
        "messages": lambda row: {"messages": chat(row)},
        "conversations": lambda row: {"conversations": chat(row, "from", "value", "human", "gpt")},
        "instruction": lambda row: {"instruction": "Sum up.", "input": row["document"], "output": row["summary"]},
        "prompt": lambda row: {"prompt": row["document"], "completion": row["summary"]},
        "turns": lambda row: {"dialogue": row["document"].split("\n"), "summary": row["summary"]},
    }[kind]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(make(row)) + "\n" for row in ROWS))
    assert texts(read(tmp_path)) == {tuple(row.values()) for row in ROWS}
    assert ("'instruction' is not used" in caplog.text) is (kind == "instruction")


@pytest.mark.parametrize("options", [{}, {"document_column": "Verlauf"}, {"summary_column": "verlauf"}])
def test_chats_are_recognised_under_any_name(tmp_path, options):
    rows = [{"Verlauf": None, "Nr": 0}] + [{"Verlauf": chat(row), "Nr": n} for n, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = read(tmp_path, **options)
    assert texts(splits) == {tuple(row.values()) for row in ROWS} and splits.dropped == {"not text": ["all:1"]}


@pytest.mark.parametrize("missing", ["", None, float("nan")])
def test_a_missing_value_drops_its_row_alone(tmp_path, missing):
    rows = [row | ({"summary": missing} if number == 3 else {}) for number, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [*read(tmp_path).dropped.values()] == [["all:4"]]
    write_parquet(tmp_path / "rows.parquet", rows)
    assert [*read(tmp_path / "rows.parquet").dropped.values()] == [["all:4"]]


def test_words_that_mean_nothing_elsewhere_are_texts(tmp_path):
    rows = [row | {"summary": word} for row, word in zip(ROWS, ["NA", "null", "None", "nan", "007"], strict=False)]
    (tmp_path / "rows.csv").write_bytes(table(rows))
    assert {b for _, b in texts(read(tmp_path))} == {"NA", "null", "None", "nan", "007"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("这座桥在周一重新开放，市长说维修花了两年时间。", 21),
        ("橋は月曜日に閉鎖された。", 11),
        ("สะพานปิดแล้ว", 3),
        ("다리는 월요일에 닫혔다.", 3),
        ("Мост закрыт с понедельника.", 4),
        ("The bridge at 南京 is shut — again.", 8),
    ],
)
def test_words_are_counted_in_any_script(text, words):
    assert checks.count_words(text) == words


@pytest.mark.parametrize("name", ["cpu", "t4"])
def test_word_limits_fit_a_script_without_spaces(tmp_path, name):
    rows = [
        {"document": f"这座桥在周一重新开放，市长说维修花了两年时间。{n}" * 5, "summary": f"桥{n}开放。"}
        for n in range(9)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert load_summaries(choose_profile(name), 0, tmp_path).dropped == {}


def labelled(tmp_path, values, task="agnews", **options):
    rows = [{"text": f"Text {number}.", "label": value} for number, value in enumerate(values * 3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"train_rows": 100, "validation_rows": 1, "test_rows": 1}
    return load_labels(choose_profile("smoke", task=task, **sizes | options), 0, tmp_path)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["spam", "ham"], ("ham", "spam")),
        ([True, False], ("False", "True")),
        ([7, 10.0, 8], ("7", "8", "10")),
        (["7", "10"], ("7", "10")),
        (["Sports", "1", 2.0, "world"], ("World", "Sports", "Business", "Sci/Tech")),
    ],
)
def test_labels_that_are_not_the_tasks_are_their_own_classes(tmp_path, values, classes):
    assert labelled(tmp_path, values).schema.classes == classes


def test_several_labels_may_be_one_text(tmp_path):
    splits = labelled(tmp_path, ["0,3", "[1, 2]", "admiration", "2|4", "[]"], "goemotions")
    found = sorted(row["labels"] for name in SPLITS for row in getattr(splits, name))
    assert found == sorted([[0, 3], [1, 2], [0], [2, 4]] * 3)


def test_rows_outside_the_word_limits_name_the_options(tmp_path):
    (tmp_path / "rows.csv").write_bytes(table())
    with pytest.raises(SummkitError, match="dropped: under 40 words \\(12\\); widen min_words and max_words"):
        load_summaries(choose_profile("cpu"), 0, tmp_path)


def test_rows_that_are_all_the_same_are_counted_as_duplicates(tmp_path):
    (tmp_path / "rows.csv").write_bytes(table([ROWS[0]] * 7))
    with pytest.raises(SummkitError, match="1 row is left .*; dropped: duplicate document \\(6\\); add rows$"):
        read(tmp_path)


def test_a_path_is_not_a_set_of_the_hub_nor_the_other_way_round(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_bytes(table())
    with pytest.raises(SummkitError, match="data set rows.csv is a path on this machine: name it by the option data"):
        read(None, dataset="rows.csv")
    with pytest.raises(SummkitError, match="data org/news: no such file or folder .a set of the Hub is named by the"):
        read("org/news")


def test_a_missing_label_drops_its_row_and_a_wrong_column_is_refused(tmp_path):
    splits = labelled(tmp_path, ["spam", "ham", float("nan"), "", None])
    assert {reason: len(rows) for reason, rows in splits.dropped.items()} == {"no label": 9}
    with pytest.raises(SummkitError, match="too many labels in 'label'; name another column with label_column"):
        labelled(tmp_path, [f"Text {number}" for number in range(101)])
    with pytest.raises(SummkitError, match="two or more different class names"):
        labelled(tmp_path, ["spam"])


def test_labels_and_pairs_of_a_table(tmp_path):
    rows = [{"Frage": f"Was {n}?", "Antwort": "Nichts.", "Klasse": n % 2 + 0.0} for n in range(12)]
    (tmp_path / "rows.csv").write_bytes(table(rows, ";"))
    (tmp_path / "classes.txt").write_text("ja\nnein\n")
    named = {"document_column": "Frage", "second_column": "Antwort", "label_column": "Klasse"}
    profile = choose_profile("smoke", task="mnli", train_rows=9, validation_rows=1, test_rows=1, **named)
    splits = load_labels(profile, 0, tmp_path / "rows.csv")
    assert splits.schema.words == ("ja", "nein") and {row["second"] for row in splits.train} == {"Nichts."}


def test_names_of_classes_come_with_a_saved_set(tmp_path):
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["Ham", "Spam"]))
    rows = [{"text": f"Text {number}.", "label": number % 2} for number in range(12)]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved")
    profile = choose_profile("smoke", task="agnews", train_rows=9, validation_rows=1, test_rows=1)
    assert load_labels(profile, 0, tmp_path / "saved").schema.classes == ("Ham", "Spam")


def test_a_test_split_whose_labels_are_kept_back_is_taken_from_training(tmp_path, caplog):
    for split, label in {"train": 1, "validation": 0, "test": -1}.items():
        rows = [{"text": f"Text {number} of {split}.", "label": number % 2 * label or label} for number in range(8)]
        (tmp_path / f"{split}.csv").write_bytes(table(rows))
    (tmp_path / "classes.txt").write_text("no\nyes\n")
    profile = choose_profile("smoke", task="agnews", train_rows=4, validation_rows=2, test_rows=3)
    splits = load_labels(profile, 0, tmp_path)
    assert all("of train" in row["document"] for row in splits.test) and "its rows have no labels" in caplog.text


def test_a_set_of_the_hub_is_named_with_configuration_and_revision(monkeypatch):
    asked = []

    def load(name, configuration=None, revision=None):
        asked.append((name, configuration, revision))
        return {"train": datasets.Dataset.from_list(ROWS[:8]), "dev": datasets.Dataset.from_list(ROWS[8:])}

    monkeypatch.setattr(hub, "require_hub", lambda what: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    splits = read(None, dataset="org/news:german@v2", validation_rows=4)
    assert asked == [("org/news", "german", "v2")] and len(splits.validation) == 4
    assert find_dataset("EdinburghNLP/xsum@abc").revision == "abc"
    with pytest.raises(SummkitError, match="examples is not on the Hub"):
        find_dataset("examples:german")


@pytest.mark.parametrize(
    ("error", "about"),
    [
        (ValueError("Config name is missing. Pick one among: ['a', 'b']"), r"\['a', 'b'\]; name one as org/x:CONF"),
        (datasets.exceptions.DatasetGenerationError("An error occurred"), "could not be read from the Hub: An error"),
        (KeyError("odd"), "could not be read from the Hub: 'odd'"),
    ],
)  # fmt: skip
def test_a_set_of_the_hub_that_cannot_be_read(monkeypatch, error, about):
    def fail(*names):
        raise error

    monkeypatch.setattr(hub, "require_hub", lambda what: None)
    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(SummkitError, match=about):
        read(None, dataset="org/x")


def test_a_large_table_is_read_row_by_row(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(table())
    rows = formats.FileRows(path)
    assert len(rows) == 12 and iter(rows) is not iter(rows) and rows.column_names == ["document", "summary"]
