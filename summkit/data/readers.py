"""Readers, which turn files into rows; a data set names its reader (`reader: mts_dialog`)."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from summkit.data.checks import SECOND_COLUMNS, TEXT_COLUMNS, find_column
from summkit.data.streaming import JsonLines, read_jsonl

jsonl = JsonLines  # JSON lines as they are


def mts_dialog(path: Path) -> list[dict]:
    """Read MTS-Dialog's CSV as rows {"id", "document", "summary"}: part of a visit and a section of the note."""
    with open(path, encoding="utf-8", newline="") as table:
        return [_conversation(row["ID"], row["dialogue"], row["section_text"]) for row in csv.DictReader(table)]


def aci_bench(path: Path) -> list[dict]:
    """Read ACI-Bench's JSON as rows {"id", "document", "summary"}: a whole visit and its whole note."""
    visits = json.loads(path.read_text(encoding="utf-8"))
    return [_conversation(visit["file"], visit["src"], visit["tgt"]) for visit in visits]


def _conversation(name: str, dialogue: str, note: str) -> dict:
    """Put one turn on each line, and normalise white space."""
    turns = (" ".join(line.split()) for line in dialogue.splitlines())
    return {"id": name, "document": "\n".join(filter(None, turns)), "summary": note.strip()}


def bbc_topics(path: Path) -> list[dict]:
    """Read articles whose topic is the folder in their name, as in "business/001"."""
    return [{"id": row["name"], "label": row["name"].split("/")[0], **row} for row in read_jsonl(path)]


def rte_and_cb(rte: Path, cb: Path) -> list[dict]:
    """Read RTE and CommitmentBank as one set of two classes: neutral and contradiction become "not entailment"."""
    import datasets

    rows = []
    for name, path in {"rte": rte, "cb": cb}.items():
        table = datasets.Dataset.from_file(str(path))
        first = find_column(table.column_names, TEXT_COLUMNS, "text", name)
        second = find_column(table.column_names, SECOND_COLUMNS, "second text", name)
        rows += [
            {
                "id": f"{name}-{row['idx']}",
                "premise": row[first],
                "hypothesis": row[second],
                "label": int(row["label"] > 0),
            }
            for row in table
        ]
    return rows
