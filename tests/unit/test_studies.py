"""A study lies in notebooks/, beside the others: its notebook and its report are put back there, and nowhere else."""

import pytest

from summkit.errors import SummkitError
from summkit.reporting import tables
from tests.unit.test_report import entry, make_run
from tools import publish

STUDY = "notebooks/01_lengths"


@pytest.fixture
def repository(tmp_path):
    """A repository with two studies, the second's report, and a README that shows a result."""
    root = tmp_path / "repository"
    for path in ("notebooks/01_lengths.ipynb", "notebooks/02_other.ipynb", "notebooks/REPORT/02_other/README.md"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("old")
    (root / "README.md").write_text("<!-- result of task3: -->\nold\n<!-- end of result -->\n")
    return root


@pytest.fixture
def run(tmp_path):
    made = make_run(tmp_path / "out" / STUDY, STUDY, scores={"fine_tuned": entry(20)}, figures=["figures/a.png"])
    (made / "01_lengths.ipynb").write_text("executed")
    return made


def test_a_study_is_put_back_beside_the_others(run, repository):
    before = {path for path in repository.rglob("*") if path.is_file()}
    page = publish.publish(run, repository)
    assert page == repository / "notebooks/REPORT/01_lengths/README.md"
    made = {path.relative_to(page.parent).as_posix() for path in page.parent.rglob("*") if path.is_file()}
    assert made == {"README.md", "run.json", "figures/a.png"}
    assert (repository / "notebooks/01_lengths.ipynb").read_text() == "executed"
    after = {path for path in repository.rglob("*") if path.is_file()}
    assert after - before == {page.parent / name for name in made} and before <= after
    assert {path.read_text() for path in before if "02_other" in str(path)} == {"old"}


def test_a_study_leaves_the_courses_result_in_the_readme(run, repository):
    before = (repository / "README.md").read_text()
    publish.publish(run, repository)
    assert (repository / "README.md").read_text() == before


@pytest.mark.parametrize("stage", ["notebooks/..", "notebooks/02_other", "notebooks/03_unknown", "notebooks"])
def test_a_run_of_another_name_replaces_nothing(tmp_path, repository, stage):
    made = make_run(tmp_path / "made", stage)
    (made / "01_lengths.ipynb").write_text("executed")
    before = {path: path.read_text() for path in repository.rglob("*") if path.is_file()}
    with pytest.raises(SummkitError, match="has no such notebook"):
        publish.publish(made, repository)
    assert {path: path.read_text() for path in repository.rglob("*") if path.is_file()} == before


def test_every_lead_is_named_alike():
    assert [tables.display_name(key) for key in ("lead1", "lead5", "lead12", "misleading1")] == [
        "lead-1",
        "lead-5",
        "lead-12",
        "misleading1",
    ]


def test_the_command_says_in_one_line_why_it_publishes_nothing(tmp_path, capsys):
    assert publish.main([str(tmp_path / "gone")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("publish: cannot read the run record ") and err.count("\n") == 1
