"""Solutions pass every check, and wrong answers fail theirs: the cells are run here, without nbgrader and a kernel."""

import json
import os
from unittest.mock import patch

import pytest

from tests.wrong_answers import BOOKS, WRONG, lost, wrong


def failed_checks(text):
    """{graded cell: its points} of the checks that fail when the code cells of a notebook run in order."""
    failed, names = {}, {}
    with patch.dict(os.environ, {"SUMMKIT_PROFILE": "smoke"}):
        for cell in json.loads(text)["cells"]:
            mark = cell["metadata"].get("nbgrader", {})
            if cell["cell_type"] != "code":
                continue
            try:
                exec("".join(cell["source"]), names)
            except Exception:
                assert mark.get("grade"), "a cell that is no check failed"
                failed[mark["grade_id"]] = mark["points"]
    return failed


@pytest.mark.parametrize("name", BOOKS)
def test_a_solution_passes_every_check(name, one_thread):
    assert failed_checks(BOOKS[name].read_text(encoding="utf-8")) == {}


@pytest.mark.parametrize(("name", "mistake"), WRONG)
def test_a_wrong_answer_fails_its_checks_and_no_others(name, mistake, one_thread):
    assert failed_checks(wrong(name, mistake)) == lost(name, mistake)
