"""The pairs that the profile smoke learns from: enough of them, of one shape, and no summary copied from its text."""

import json
import re
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "summkit" / "data" / "sets" / "examples.jsonl"
ROWS = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]


def test_sixty_rows_and_no_two_alike():
    assert [row["id"] for row in ROWS] == [f"example-{number:03d}" for number in range(1, 61)]
    assert all(list(row) == ["id", "document", "summary"] for row in ROWS)
    assert len({row["document"] for row in ROWS}) == len({row["summary"] for row in ROWS}) == 60


def test_each_is_a_short_article_and_one_sentence():
    assert all(50 <= len(row["document"].split()) <= 110 for row in ROWS)
    assert all(len(re.findall(r"[.!?](?:\s|$)", row["summary"])) == 1 for row in ROWS)


def test_no_six_words_in_a_row_are_copied():
    for row in ROWS:
        words, document = row["summary"].lower().split(), " ".join(row["document"].lower().split())
        assert not [w for i in range(len(words) - 5) if (w := " ".join(words[i : i + 6])) in document], row["id"]
