"""Readers that turn the files of one data set into rows; the set's file in `sets/` names its reader."""

from __future__ import annotations

from pathlib import Path

from summkit.data.formats import FileRows, file_rows

jsonl = FileRows  # of a set whose rows need no change


def mts_dialog(path: Path) -> list[dict]:
    """Read MTS-Dialog's CSV as rows {"id", "document", "summary"}: part of a visit and a section of the note."""
    return [_conversation(row["ID"], row["dialogue"], row["section_text"]) for row in file_rows(path)]


def aci_bench(path: Path) -> list[dict]:
    """Read ACI-Bench's JSON as rows {"id", "document", "summary"}: a whole visit and its whole note."""
    return [_conversation(visit["file"], visit["src"], visit["tgt"]) for visit in file_rows(path)]


def _conversation(name: str, dialogue: str, note: str) -> dict:
    """Put one turn on each line, and normalise white space."""
    turns = (" ".join(line.split()) for line in dialogue.splitlines())
    return {"id": name, "document": "\n".join(filter(None, turns)), "summary": note.strip()}


def bbc_topics(path: Path) -> list[dict]:
    """Read articles whose topic is the folder in their name, as in "business/001"."""
    return [{"id": row["name"], "label": row["name"].split("/")[0], **row} for row in file_rows(path)]


def rte_and_cb(rte: Path, cb: Path) -> list[dict]:
    """Read RTE and CommitmentBank as one set of two classes: neutral and contradiction become "not entailment"."""
    import datasets

    columns = {"sentence1": "premise", "sentence2": "hypothesis"}
    read = datasets.Dataset.from_file
    tables = {"rte": read(str(rte)).rename_columns(columns), "cb": read(str(cb))}
    return [
        row | {"id": f"{name}-{row['idx']}", "label": int(row["label"] > 0)}
        for name, table in tables.items()
        for row in table
    ]
