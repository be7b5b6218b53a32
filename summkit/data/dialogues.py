"""Floor 0. Conversations at the doctor's with the notes written of them: the files of MTS-Dialog and ACI-Bench as rows.

Both are under CC BY 4.0: Ben Abacha et al., "An Empirical Study of Clinical Note Generation from Doctor-Patient
Encounters", EACL 2023; Yim et al., "ACI-BENCH", Scientific Data 10, 2023.
"""

import csv
import json
from pathlib import Path


def mts_dialog(path: Path) -> list[dict]:
    """MTS-Dialog's CSV as rows {"id", "document", "summary"}: a piece of a visit, and one section of the note."""
    with open(path, encoding="utf-8", newline="") as table:
        return [_row(row["ID"], row["dialogue"], row["section_text"]) for row in csv.DictReader(table)]


def aci_bench(path: Path) -> list[dict]:
    """ACI-Bench's JSON as such rows: a whole visit, and the whole note."""
    visits = json.loads(path.read_text(encoding="utf-8"))
    return [_row(visit["file"], visit["src"], visit["tgt"]) for visit in visits]


def _row(name: str, dialogue: str, note: str) -> dict:
    """A turn a line, without the spaces around it that MTS-Dialog has in places."""
    turns = (" ".join(line.split()) for line in dialogue.splitlines())
    return {"id": name, "document": "\n".join(filter(None, turns)), "summary": note.strip()}
