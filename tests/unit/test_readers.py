"""Dialogues: two files of the index as rows, the real ones where they are cached, SAMSum's columns, their wording."""

import csv
import json

import pytest

from summkit.config import choose_profile
from summkit.data import SPLITS, readers, summarisation, templates
from summkit.data.splits import text_key
from summkit.models import loading
from summkit.offline import assets

SPOKEN = 'Doctor: How  old are you? \r\n Patient: Fifty, ünd "well".\n\nDoctor: Good.  '
TURNS = 'Doctor: How old are you?\nPatient: Fifty, ünd "well".\nDoctor: Good.'


@pytest.fixture
def files(tmp_path):
    """A CSV as MTS-Dialog's and a JSON file as ACI-Bench's, of four rows each that were made up here."""
    columns = ["ID", "section_header", "section_text", "dialogue"]
    with open(tmp_path / "validation.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows([n, "CC", f"Visit {n},\nwell. ", f"{SPOKEN} {n}"] for n in range(4))
    visits = [
        {"src": f"[doctor] hi .\n[patient] {n} ?", "tgt": f"PLAN\n\nRest {n}.\n", "file": f"D{n}"} for n in range(4)
    ]
    (tmp_path / "test.json").write_text(json.dumps(visits), encoding="utf-8")
    return {"mts-dialog": tmp_path / "validation.csv", "aci-bench": tmp_path / "test.json"}


def test_a_conversation_has_a_turn_a_line(files):
    rows = readers.mts_dialog(files["mts-dialog"])
    assert rows[2] == {"id": "2", "document": f"{TURNS} 2", "summary": "Visit 2,\nwell."} and len(rows) == 4
    rows = readers.aci_bench(files["aci-bench"])
    assert rows[3] == {"id": "D3", "document": "[doctor] hi .\n[patient] 3 ?", "summary": "PLAN\n\nRest 3."}


@pytest.mark.parametrize(("name", "summary"), [("mts-dialog", "Visit {}, well."), ("aci-bench", "PLAN Rest {}.")])
def test_the_embedded_sets_are_read_by_name(files, monkeypatch, name, summary):
    monkeypatch.setattr(assets, "fetch", files.__getitem__)
    monkeypatch.delenv("SUMMKIT_DATA_DIR", raising=False)
    profile = choose_profile("cpu", task="costs", dataset=name, train_rows=2, validation_rows=1, test_rows=1)
    splits = summarisation.load_summaries(profile)
    assert splits.source == "embedded" and splits.counts() == {"train": 2, "validation": 1, "test": 1, "dropped": {}}
    rows = [row for split in SPLITS for row in getattr(splits, split)]
    assert sorted(row["summary"] for row in rows) == [summary.format(n) for n in range(4)]
    assert all(row["document"].count("\n") for row in rows) and len({row["id"] for row in rows}) == 4


@pytest.mark.parametrize("name", ["mts-dialog", "aci-bench"])
def test_they_come_in_the_archive_of_the_sample_of_news(name):
    one, other = assets.ASSETS["xsum-sample"], assets.ASSETS[name]
    assert (other.package, other.version, other.sha256) == (one.package, one.version, one.sha256)
    assert "CC BY 4.0" in other.licence


@pytest.mark.skipif(not assets.is_cached("mts-dialog"), reason="the cache does not hold mts-dialog")
def test_the_cached_pieces_of_visits_are_whole(monkeypatch):
    rows = readers.mts_dialog(assets.fetch("mts-dialog"))
    assert len(rows) == len({row["id"] for row in rows}) == len({text_key(row) for row in rows}) == 100
    assert all(row["summary"] and 6 <= len(row["document"].split()) <= 630 for row in rows)
    monkeypatch.delenv("SUMMKIT_DATA_DIR", raising=False)
    profile = choose_profile("cpu", task="costs")
    wanted = {split: getattr(profile, f"{split}_rows") for split in SPLITS}
    assert summarisation.load_summaries(profile).counts() == wanted | {"dropped": {}}
    set_aside = 6 * profile.batch_size * profile.gradient_accumulation  # notebook 04 measures them first
    assert sum(wanted.values()) + set_aside == 100


@pytest.mark.skipif(not assets.is_cached("aci-bench"), reason="the cache does not hold aci-bench")
def test_the_cached_visits_are_whole():
    rows = readers.aci_bench(assets.fetch("aci-bench"))
    assert len(rows) == len({row["id"] for row in rows}) == len({text_key(row) for row in rows}) == 40
    for row in rows:
        assert row["document"].startswith(("[doctor] ", "[patient] ")) and row["document"].count("\n[") > 20
        assert 690 < len(row["document"].split()) < 2400 and 150 < len(row["summary"].split()) < 800


def test_a_folder_in_samsums_form_stands_in(tmp_path):
    for split, start in {"train": 10, "validation": 20, "test": 30}.items():
        rows = [{"id": f"138{n}-1", "dialogue": f"Ann: {n}?\r\nBo: Yes", "summary": f"Bo says {n}."}
                for n in range(start, start + 3)]  # fmt: skip
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    profile = choose_profile("t4", task="costs", validation_rows=3, test_rows=3)
    splits = summarisation.load_summaries(profile, data=tmp_path)
    assert splits.source == "local" and set(splits.test["id"]) == {"13830-1", "13831-1", "13832-1"}
    assert splits.test[0]["document"].startswith("Ann: 3") and splits.test[0]["summary"].startswith("Bo says 3")


def test_a_conversation_is_asked_about_in_one_sentence():
    wording = templates.get_wording("dialogue")
    assert wording.instruction.count(".") == 1 and wording.instruction.endswith(".")
    tokenizer = loading.tiny_tokenizer()
    said = templates.build_template("instruction", tokenizer, wording).render("A: Hi.", "A greets.")
    assert said == f"Instruction: {wording.instruction}\nConversation: A: Hi.\nNote: A greets."
    assert templates.build_template("prefix", tokenizer, wording).prompt("A: Hi.") == f"{wording.instruction} A: Hi."
