"""Data: every kind of bad row is dropped, counted and named; splits share no document; a folder stands in for a set."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from summkit.config import choose_profile
from summkit.data import SPLITS, DataSet, Splits, sources, summarisation
from summkit.data.sentences import excerpt
from summkit.errors import SummkitError
from summkit.offline import assets, hub

NUL, HALF = "a \0 byte", "half a face: \ud83d"
BIG = "x" * 2_000_000
BAD = [("", "empty"), (" \n\t\u2003", "empty"), (None, "not text"), (7, "not text"), (["a", 1], "not text")]
BAD += [(BIG, "over 1,000,000 characters"), (HALF, "NUL or half a character"), (NUL, "NUL or half a character")]


def pair(n: int, **given) -> dict:
    return {
        "id": f"r{n}",
        "document": f"Bridge {n} was closed at dawn.",
        "summary": f"A crack shut bridge {n}.",
    } | given


def write(folder: Path, rows, name="all.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def read(folder, seed=0, **options) -> Splits:
    options = {"train_rows": 100, "validation_rows": 1, "test_rows": 1} | options
    return summarisation.load_summaries(choose_profile("smoke", **options), seed, folder)


def all_rows(splits) -> list[dict]:
    return [row for name in SPLITS for row in getattr(splits, name)]


@pytest.mark.parametrize("column", ["document", "summary"])
@pytest.mark.parametrize(("text", "reason"), BAD, ids=lambda value: repr(value)[:12])
def test_a_bad_row_is_dropped_with_reason_and_number(tmp_path, column, text, reason):
    splits = read(write(tmp_path, [pair(1), pair(2, **{column: text}), pair(3), pair(4)]))
    assert splits.dropped == {reason: ["all:2"]}
    assert splits.counts() == {"train": 1, "validation": 1, "test": 1, "dropped": {reason: 1}}
    assert {row["id"] for row in all_rows(splits)} == {"r1", "r3", "r4"}


def test_a_row_that_lacks_the_column_is_dropped_wherever_it_stands(tmp_path):
    splits = read(write(tmp_path, [{"id": "r0"}, pair(1), pair(2), pair(3)]))
    assert splits.dropped == {"not text": ["all:1"]} and len(all_rows(splits)) == 3


def talk(n: int, *more: tuple[str, object]) -> list[dict]:
    said = [*more, ("user", pair(n)["document"]), ("assistant", pair(n)["summary"])]
    return [{"role": role, "content": content} for role, content in said]


def in_parts(turns: list[dict]) -> list[dict]:
    return [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in turns]


CHATS = {
    "JSON text": lambda n: {"messages": json.dumps(talk(n))},
    "as Python prints it": lambda n: {"messages": str(talk(n))},
    "in parts": lambda n: {"messages": in_parts(talk(n))},
    "parts as text": lambda n: {"Messages ": json.dumps(in_parts(talk(n)))},
    "question left open": lambda n: {"conversation": [*talk(n), {"role": "user", "content": "And then?"}]},
    "other roles": lambda n: {"conversations": [
        {"from": "Human", "value": pair(n)["document"]}, {"from": "model", "value": pair(n)["summary"]}
    ]},
    "prompt and completion": lambda n: {"prompt": talk(n)[:1], "completion": talk(n)[1:]},
}  # fmt: skip


@pytest.mark.parametrize("form", CHATS)
def test_chats_of_any_form_are_read(tmp_path, form):
    splits = read(write(tmp_path, [CHATS[form](n) for n in range(6)]))
    found = {(row["document"], row["summary"]) for row in all_rows(splits)}
    assert splits.dropped == {} and found == {(pair(n)["document"], pair(n)["summary"]) for n in range(6)}


def test_messages_that_are_not_used_are_said(tmp_path, caplog):
    write(tmp_path, [{"messages": talk(n, ("system", "Be brief."))} for n in range(4)])
    read(tmp_path)
    assert "messages not used, by role: {'system': 4}" in caplog.text
    caplog.clear()
    more = (("user", "Hello."), ("assistant", "Hello!"))
    write(tmp_path, [{"messages": talk(n, *more)} for n in range(4)])
    assert all(row["document"].startswith("Bridge") for row in all_rows(read(tmp_path)))
    assert "messages not used, by role: {'user': 4, 'assistant': 4}" in caplog.text
    caplog.clear()
    read(write(tmp_path, [{"messages": talk(n)} for n in range(4)]))
    assert "not used" not in caplog.text


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (talk(1)[:1], "not text"),
        ([talk(1)[0], {"role": "assistant", "content": [{"type": "image", "text": None}]}], "not text"),
        (json.dumps(talk(1)[:1]), "not text"),
        ("[{'role': 'user', 'content': 'It rained.'} {'role': 'assistant'}]", "summary equals document"),
        ([{"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "It rained."}], "not text"),
    ],
)
def test_a_chat_without_question_and_answer_is_dropped(tmp_path, broken, reason):
    rows = [{"messages": talk(n)} for n in range(4)]
    assert read(write(tmp_path, [*rows, {"messages": broken}])).dropped == {reason: ["all:5"]}


@pytest.mark.parametrize("name", ["Instruction", " INSTRUCTION", "system", "System_Prompt"])
def test_an_instruction_in_the_rows_is_said(tmp_path, caplog, name):
    write(tmp_path, [pair(n) | {name: "Be brief."} for n in range(4)])
    read(tmp_path)
    assert f"the column {name!r} is not used; the option instruction" in caplog.text
    caplog.clear()
    read(tmp_path, instruction="Be brief.")
    write(tmp_path, [{name: pair(n)["document"], "summary": pair(n)["summary"]} for n in range(4)])
    read(tmp_path, document_column=name)
    assert "is not used" not in caplog.text


@pytest.mark.parametrize("missing", ["document", "summary"])
def test_a_missing_column_names_those_that_are_there(tmp_path, missing):
    rows = [{("body" if key == missing else key): value for key, value in pair(n).items()} for n in range(4)]
    with pytest.raises(SummkitError, match=rf"column for the {missing}.*there are: .*body.*known: .*{missing}"):
        read(write(tmp_path, rows))


@pytest.mark.parametrize(
    "columns", [("article", "highlights"), ("dialogue", "summary"), ("article", "abstract"), ("abstract", "title")]
)
def test_other_sets_column_names_are_known(tmp_path, columns):
    rows = [dict(zip(columns, (pair(n)["document"], pair(n)["summary"]), strict=True)) for n in range(4)]
    row = read(write(tmp_path, rows)).test[0]
    assert (
        row["document"].startswith("Bridge") and row["summary"].startswith("A crack") and row["id"].startswith("all:")
    )


def test_an_abstract_is_one_paragraph_where_its_title_is_asked_for(tmp_path):
    rows = [{"title": f"T {n}", "abstract": f" We look at bridge {n}.\nIt is\n\nold. ", "id": n} for n in range(4)]
    row = read(write(tmp_path, rows)).test[0]
    assert row["document"] == f"We look at bridge {row['id']}. It is old." and row["summary"] == f"T {row['id']}"
    rows = [{"article": f"Long {n}.\nText.", "abstract": "Short."} for n in range(4)]
    row = read(write(tmp_path / "long", rows)).test[0]
    assert row["document"].endswith(".\nText.") and row["summary"] == "Short."


@pytest.mark.skipif(not assets.is_cached("arxiv-abstracts"), reason="the cache does not hold arxiv-abstracts")
def test_the_embedded_abstracts_are_documents_and_their_titles_summaries():
    splits = summarisation.load_summaries(choose_profile("cpu", task="topics"))
    assert splits.source == "embedded" and [len(getattr(splits, name)) for name in SPLITS] == [96, 16, 72]
    assert set(splits.dropped) == {"over 130 words", "under 40 words"}
    for row in all_rows(splits):
        assert 40 <= len(row["document"].split()) <= 130 > len(row["summary"]) / 2 and "\n" not in row["document"]


@pytest.mark.skipif(not assets.is_cached("plos-papers"), reason="the cache does not hold plos-papers")
def test_the_embedded_papers_are_long_documents_with_their_headings_and_abstracts_the_summaries():
    profile = choose_profile("cpu", task="long")
    splits = summarisation.load_summaries(profile)
    wanted = {name: getattr(profile, f"{name}_rows") for name in SPLITS}
    assert splits.source == "embedded" and splits.counts() == {**wanted, "dropped": {}}
    for row in all_rows(splits):
        assert set(row) == {"id", "document", "summary"} and row["id"].startswith("10.1371/journal.")
        assert len(row["document"].split()) > 1500 and row["document"].count("\n") > 5
        assert len(row["summary"].split()) <= 400 and "\n" not in row["summary"]


def test_nothing_left_is_an_error_that_counts_the_reasons(tmp_path):
    with pytest.raises(SummkitError, match=r"nothing is left of 3 rows; dropped: empty \(2\), not text \(1\)"):
        read(write(tmp_path, [pair(1, summary=""), pair(2, document=" "), pair(3, document=None)]))
    with pytest.raises(SummkitError, match="no rows"):
        read(write(tmp_path, []))


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(3, [1, 1, 1]), (4, [2, 1, 1]), (40, [21, 6, 13]), (60, [30, 10, 20]), (250, [154, 32, 64]), (400, [270, 32, 64])],
)
def test_sizes_follow_what_there_is(tmp_path, caplog, count, sizes):
    wanted = {"train_rows": 270, "validation_rows": 32, "test_rows": 64}
    splits = read(write(tmp_path, [pair(n) for n in range(count)]), **wanted)
    assert [len(getattr(splits, name)) for name in SPLITS] == sizes
    warned = f"too few rows for the profile (test {sizes[2]} of 64, validation {sizes[1]} of 32, train {sizes[0]} of"
    assert (warned in caplog.text) is (count < 250)


def test_files_of_their_own_are_used_whole_where_they_are_small(tmp_path, caplog):
    for name, count in {"train": 9, "test": 5}.items():
        write(tmp_path, [pair(n + len(name) * 100) for n in range(count)], f"{name}.jsonl")
    splits = read(tmp_path, validation_rows=32, test_rows=64)
    assert [len(getattr(splits, name)) for name in SPLITS] == [5, 4, 5]
    assert "has no split 'validation': its rows are taken from the training rows" in caplog.text


@pytest.mark.parametrize("count", [1, 2])
def test_each_split_needs_a_row(tmp_path, count):
    with pytest.raises(SummkitError, match=rf"no row is left for it; {count} rows? (is|are) left after the checks"):
        read(write(tmp_path, [pair(n) for n in range(count)]))


def test_a_document_in_two_splits_stays_in_test_then_validation(tmp_path):
    same = [pair(n, document=text) for n, text in enumerate(["One text.", " one  TEXT.", "One text."])]
    for n, name in enumerate(SPLITS):
        write(
            tmp_path,
            [pair(10 + n), same[n], pair(20, document="Another text.") if n < 2 else pair(13)],
            f"{name}.jsonl",
        )
    splits = read(tmp_path, validation_rows=2, test_rows=3)
    assert splits.dropped == {"duplicate document": ["validation:2", "train:2", "train:3"]}
    assert "One text." in splits.test["document"] and "Another text." in splits.validation["document"]
    documents = [" ".join(row["document"].lower().split()) for row in all_rows(splits)]
    assert len(documents) == len(set(documents))


def test_asking_for_more_training_rows_moves_no_other_row(tmp_path):
    write(tmp_path, [pair(n) for n in range(40)])
    few, many = (read(tmp_path, train_rows=n, validation_rows=5, test_rows=6) for n in (3, 29))
    assert list(few.test["id"]) == list(many.test["id"]) and list(few.validation["id"]) == list(many.validation["id"])
    assert list(many.train["id"])[:3] == list(few.train["id"])
    assert set(many.train["id"]) | set(many.validation["id"]) | set(many.test["id"]) == {f"r{n}" for n in range(40)}
    other = read(tmp_path, seed=1, validation_rows=5, test_rows=6)
    assert list(other.test["id"]) != list(few.test["id"])


def test_word_limits_drop_by_reason(tmp_path):
    rows = [pair(n) for n in range(3)] + [pair(8, document="Short."), pair(9, document="word " * 30)]
    splits = read(write(tmp_path, rows), min_words=3, max_words=20)
    assert splits.dropped == {"under 3 words": ["all:4"], "over 20 words": ["all:5"]}
    assert read(tmp_path, min_words=0, max_words=None).dropped == {}


def test_text_is_trimmed_and_a_summary_is_one_line(tmp_path):
    splits = read(write(tmp_path, [pair(n, document=f"\n One {n}.\nTwo. ", summary=" A\n b.\t") for n in range(3)]))
    assert all(row["summary"] == "A b." and row["document"].endswith(".\nTwo.") for row in all_rows(splits))


def test_an_id_that_cannot_be_written_becomes_the_rows_number(tmp_path):
    splits = read(write(tmp_path, [pair(1, id=None), pair(2, id=HALF), pair(3, id=12)]))
    assert {row["id"] for row in all_rows(splits)} == {"all:1", "all:2", "12"}


def test_the_folder_may_be_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SUMMKIT_DATA_DIR", str(write(tmp_path, [pair(n) for n in range(4)])))
    assert read(None).source == "local"


def test_gzip_byte_order_mark_and_blank_lines_are_read(tmp_path):
    lines = "\ufeff" + "\n\n".join(json.dumps(pair(n)) for n in range(4))
    with gzip.open(tmp_path / "all.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines)
    assert len(all_rows(read(tmp_path))) == 4


@pytest.mark.parametrize(
    ("content", "about"),
    [
        (b'{"a": 1}\n\n{"document": "a", "summary"', "line 3: cannot be read as JSON"),
        (b'{"document": "a", "summary": "\xff"}', "after line 0: cannot be read as text in UTF-8"),
        (b'["a", "b"]\n', "row 1: a JSON object"),
        (b"[" * 200_000, "line 1: cannot be read as JSON"),
    ],
    ids=["cut off", "not UTF-8", "a list", "deep"],
)
def test_a_broken_file_is_named(tmp_path, content, about):
    (tmp_path / "all.jsonl").write_bytes(content)
    with pytest.raises(SummkitError, match=rf"all\.jsonl, {about}"):
        read(tmp_path)


def test_a_broken_archive_is_named(tmp_path):
    whole = gzip.compress("".join(json.dumps(pair(n)) + "\n" for n in range(99)).encode())
    for content in (b"no archive", whole[: len(whole) // 2], whole[:20] + b"\xff" * 40 + whole[60:]):
        (tmp_path / "all.jsonl.gz").write_bytes(content)
        with pytest.raises(SummkitError, match=r"all\.jsonl\.gz"):
            read(tmp_path)


def test_a_folder_must_hold_three_files_or_one(tmp_path):
    with pytest.raises(SummkitError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(SummkitError, match="no file of rows is here"):
        read(tmp_path)
    for name in ("test.jsonl", "validation.jsonl"):
        write(tmp_path, [pair(1)], name)
    with pytest.raises(SummkitError, match="has no split 'train'; it has: test, validation"):
        read(tmp_path)


def test_the_examples_are_whole_and_made_here():
    splits = summarisation.load_summaries(choose_profile("smoke", train_rows=1000))
    assert splits.source == "code" and splits.dropped == {} and len(all_rows(splits)) == 60


def test_a_set_from_the_hub_lacks_a_split(monkeypatch):
    import datasets

    monkeypatch.setattr(hub, "require_hub", lambda what: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: {"validation": [], "test": []})
    with pytest.raises(SummkitError, match=r"no split 'train'; it has: validation, test"):
        summarisation.load_summaries(choose_profile("t4"))


@pytest.mark.parametrize("there", [("train",), ("train", "test")])
def test_what_a_set_of_the_hub_lacks_is_taken_from_its_training_rows(monkeypatch, there):
    import datasets

    made = {name: datasets.Dataset.from_list([pair(10 * n + i) for i in range(9)]) for n, name in enumerate(there)}
    monkeypatch.setattr(hub, "require_hub", lambda what: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: made)
    splits = summarisation.load_summaries(
        choose_profile("t4", min_words=0, train_rows=3, validation_rows=2, test_rows=4)
    )
    ids = {name: {int(id[1:]) // 10 for id in getattr(splits, name)["id"]} for name in SPLITS}
    assert ids == {"train": {0}, "validation": {0}, "test": {len(there) - 1}}
    assert len({row["id"] for row in all_rows(splits)}) == 9


def test_rows_of_the_hub_are_read_as_they_come(monkeypatch):
    import datasets

    made = {name: datasets.Dataset.from_list([pair(10 * n + i) for i in range(4)]) for n, name in enumerate(SPLITS)}
    monkeypatch.setattr(hub, "require_hub", lambda what: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: made)
    splits = summarisation.load_summaries(choose_profile("t4", min_words=0, validation_rows=2, test_rows=2))
    assert splits.source == "hub" and splits.counts() == {"train": 4, "validation": 2, "test": 2, "dropped": {}}


def test_splits_and_config_of_a_hubs_set_may_have_other_names(monkeypatch):
    import datasets

    asked, there = [], {"train": [pair(1)], "validation_matched": [pair(2)], "unused": []}
    monkeypatch.setattr(hub, "require_hub", asked.append)
    monkeypatch.setattr(datasets, "load_dataset", lambda *names: asked.append(names) or there)
    splits = {"train": "train", "test": "validation_matched"}
    rows = sources.read_hub(DataSet(name="a/b", source="hub", configuration="simplified", splits=splits))
    assert rows == {"train": [pair(1)], "test": [pair(2)]} and asked == ["data set a/b", ("a/b", "simplified")]
    with pytest.raises(SummkitError, match="data set a/b has no split 'dev'; it has: train, validation_matched"):
        sources.read_hub(DataSet(name="a/b", source="hub", splits={"train": "dev"}))


def test_the_hubs_papers_have_two_configurations_and_the_whole_documents_are_asked_for(monkeypatch):
    import datasets

    asked = []
    made = {name: datasets.Dataset.from_list([
        {"article": f"Part {n} of {name}.\nMore.", "abstract": f"Short {n}."} for n in range(4)
    ]) for name in SPLITS}  # fmt: skip
    monkeypatch.setattr(hub, "require_hub", lambda what: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda *names: asked.append(names) or made)
    profile = choose_profile("gpu", task="long", min_words=0, validation_rows=1, test_rows=1)
    row = summarisation.load_summaries(profile).test[0]
    assert asked == [("ccdv/arxiv-summarization", "document")]
    assert row["document"].endswith("of test.\nMore.") and row["summary"].startswith("Short ")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak counts in kilobytes there")
def test_memory_stays_flat_however_many_rows_there_are(tmp_path):
    """Each of 18,000 further rows of 2 kB takes less than half of that; as lists and tables it was 18 kB."""
    code = """
import resource, sys
from summkit.config import choose_profile
from summkit.data import SPLITS, DataSet, Splits, sources, summarisation
for folder in sys.argv[1:]:
    splits = summarisation.load_summaries(choose_profile("smoke", train_rows=10**6), data=folder)
    print(len(splits.train), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    folders = [tmp_path / "few", tmp_path / "many"]
    for folder, count in zip(folders, (2000, 20_000), strict=True):
        write(folder, (pair(n, document=f"Bridge {n}. " * 160) for n in range(count)))
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *map(str, folders)], env=variables, check=True,
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    (few, before), (many, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (few, many) == (1984, 19_984) and (after - before) * 1024 < 18_000 * 1000


def test_an_excerpt_is_short():
    assert excerpt("one two  three", 2) == "one two […]" and excerpt("one two", 2) == "one two"
    assert excerpt("桥" * 500, 2) == "桥" * 40 + " […]"
