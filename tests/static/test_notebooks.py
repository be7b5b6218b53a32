"""Every notebook keeps every rule, and every rule notices a notebook that breaks it."""

import ast
import json
import re
import subprocess
import sys

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.static import gate

BADGES = "https://colab.research.google.com/x https://kaggle.com/x"


@pytest.mark.parametrize("rule", gate.RULES)
@pytest.mark.parametrize("path", gate.notebooks(), ids=str)
def test_notebook(path, rule):
    assert list(gate.RULES[rule](gate.Book(gate.ROOT / path))) == []


@pytest.mark.parametrize("folder", ["task1/xsum", "task2", "task3"])
def test_every_stage_has_a_notebook(folder):
    assert list((gate.ROOT / folder / "NOTEBOOK").glob("*.ipynb"))


# What a notebook uses → the parameters that a reader can then set; None means the profile's value.
SETTABLE = {
    r"": ("PROFILE", "SEED", "OPTIONS"),
    r"\bload_(summaries|labels)\(": ("DATASET", "DATA", "DOCUMENT_COLUMN"),
    r"\bload_summaries\(": ("SUMMARY_COLUMN",),
    r"\bload_labels\(": ("LABEL_COLUMN",),
    r'task="mnli"': ("SECOND_COLUMN",),
    r"\bload_(model|tokenizer)\(profile\.model": ("MODEL",),
    r"\b(summary|label)_template\(profile": ("INSTRUCTION", "MAX_LENGTH", "MAX_NEW_TOKENS"),
    r"\bsplits\.train\b": ("TRAIN_ROWS",),
    r'\bsplits\.test\b(?!\["id"\])': ("TEST_ROWS",),
}
NOT_OPTIONS = {"PROFILE", "SEED", "DATA", "OPTIONS"}


def parameters_and_code(path):
    """The parameters of a notebook with their values, and the source of its other cells."""
    book = gate.Book(gate.ROOT / path)
    ((number, cell),) = book.tagged("parameters")
    values = {line.targets[0].id: ast.literal_eval(line.value) for line in gate.parse(cell).body}
    return values, "\n".join(other.source for place, other in book.code if place != number)


@pytest.mark.parametrize("path", gate.notebooks(), ids=str)
def test_a_notebook_takes_the_parameters_that_apply(path):
    values, code = parameters_and_code(path)
    wanted = {name for use, names in SETTABLE.items() if re.search(use, code) for name in names}
    assert sorted(wanted - set(values)) == []
    assert values["OPTIONS"] == {}
    options = wanted - NOT_OPTIONS - ({"TRAIN_ROWS"} if path.stem == "template" else set())
    assert {name: values[name] for name in options if values[name] is not None} == {}
    assert [name for name in options if f'"{name.lower()}": {name}' not in code] == []


@pytest.mark.parametrize("path", gate.notebooks(), ids=str)
def test_every_parameter_is_read(path):
    values, code = parameters_and_code(path)
    assert [name for name in values if not re.search(rf"\b{name}\b", code)] == []


@pytest.mark.parametrize("path", gate.notebooks(), ids=str)
def test_a_notebook_says_which_run_its_text_speaks_of(path):
    told = gate.Book(gate.ROOT / path).cells[1][1].source
    assert "**Your own rows" in told and "committed here" in told and "`DATA`" in told


def test_the_gate_needs_no_torch():
    code = "import sys, tests.static.gate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=gate.ROOT).returncode == 0


def code(source, *tags, outputs=()):
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {}, outputs=list(outputs))


def good():
    """A notebook that passes every rule, as nbformat's object."""
    printed = new_output("stream", name="stdout", text="12 rows\n")
    cells = [
        new_markdown_cell(f"# Look at twelve rows\n{BADGES}\n\n2 min on cpu, 3 min on t4"),
        new_markdown_cell("You will do this, learn that, and need nothing. It comes first."),
        code('import os\n\nif "KAGGLE_URL_BASE" in os.environ:\n    %pip install -q summkit', "nbval-skip"),
        code("import summkit as sk"),
        code('profile = "auto"  # smoke, cpu, t4, gpu\n# rows to look at\nrows = 12', "parameters"),
    ]
    for number in range(9):
        cells += [new_markdown_cell(f"Why {number}."), code(f"rows + {number}")]
    cells += [
        new_markdown_cell("Counted."),
        code('print(rows, "rows")', "nbval-check-output", outputs=[printed]),
        new_markdown_cell("## Summary\n\n## Exercises\n\n## References"),
        code('sk.start("x", profile).finish()'),
    ]
    for number, cell in enumerate((c for c in cells if c.cell_type == "code" and "nbval-skip" not in gate.tags(c)), 1):
        cell.execution_count = number
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernelspec, "language_info": {"name": "python"}})


def by_tag(nb, tag):
    return next(cell for cell in nb.cells if tag in gate.tags(cell))


def source(index, text):
    """A breaker that gives cell `index` (from 0) another source."""
    return lambda nb: nb.cells[index].update(source=text)


def output(**shown):
    """A breaker that puts one output under the first ordinary code cell."""
    kind = "display_data" if "data" in shown else shown.pop("kind", "stream")
    return lambda nb: nb.cells[6].outputs.append(new_output(kind, **shown))


def tag(index, name):
    return lambda nb: nb.cells[index].metadata.update(tags=[name])


INSTALL, IMPORTS, PARAMETERS, WHY, CODE, CHECKED, LAST = 2, 3, 4, 5, 6, 24, 26
BROKEN = [
    ("valid", lambda nb: nb.cells[0].update(id=nb.cells[1].id)),
    ("valid", lambda nb: nb.cells[0].update(source=7)),
    ("title", source(0, f"Look at rows {BADGES} 2 min cpu t4")),
    ("title", source(0, "# Look at rows\n2 min on cpu, t4")),
    ("title", source(0, f"# Look at rows\n{BADGES}, quick on cpu, t4")),
    ("aims", source(1, "You will do this and learn that.")),
    ("aims", lambda nb: nb.cells.__setitem__(1, code("rows"))),
    ("install", source(INSTALL, "%pip install -q summkit")),
    ("install", source(INSTALL, 'import os\nif os.environ.get("CI"):\n    print("no")')),
    ("install", source(INSTALL, 'import os\nif "KAGGLE" in os.environ:\n    pass\nelse:\n    print("here")')),
    ("install", tag(INSTALL, "parameters")),
    ("install", tag(CODE, "nbval-skip")),
    ("install", lambda nb: nb.cells.insert(IMPORTS, nb.cells.pop(INSTALL))),
    ("imports", source(CODE, "import json\n\njson.dumps(rows)")),
    ("imports", source(CODE, "def f():\n    import json\n    return json")),
    ("parameters", source(PARAMETERS, "rows = 12")),
    ("parameters", source(PARAMETERS, "rows = 12\n\nprofile = 'auto'  # the profile")),
    ("parameters", source(PARAMETERS, "rows = 12  # rows\nhalf = rows // 2  # derived")),
    ("parameters", source(PARAMETERS, 'name = f"x"  # made')),
    ("parameters", source(PARAMETERS, "rows = 12  # as in x=12")),
    ("parameters", source(PARAMETERS, "a = b = 12  # two")),
    ("parameters", source(PARAMETERS, "rows = 12  # rows\nrows = 13  # rows")),
    ("parameters", source(PARAMETERS, "rows = 12  # rows\nprint(rows)  # look")),
    ("parameters", source(PARAMETERS, "")),
    ("parameters", tag(CODE, "parameters")),
    ("parameters", lambda nb: nb.cells.insert(IMPORTS, nb.cells.pop(PARAMETERS))),
    ("headings", source(25, "## Summary\n## References")),
    ("headings", source(25, "## References\n## Summary\n## Exercises")),
    ("record", source(LAST, "print(sk)")),
    ("record", lambda nb: nb.cells.append(code("rows"))),
    ("parses", source(CODE, "print(rows")),
    ("parses", source(CODE, "\n")),
    ("ruff", source(CODE, "unknown_name + 1")),
    ("ruff", source(IMPORTS, "import json\n\nimport summkit as sk")),
    ("why", lambda nb: nb.cells.pop(WHY)),
    ("known_tags", tag(CODE, "raises-exception")),
    ("known_tags", tag(CODE, "nbval-check-outputs")),
    ("known_tags", source(CODE, "# NBVAL_SKIP\nrows")),
    ("safe", source(CODE, "import pickle")),
    ("safe", source(CODE, 'load("x", trust_remote_code=True)')),
    ("kernel", lambda nb: nb.metadata.kernelspec.update(name="mine")),
    ("kernel", lambda nb: nb.metadata.kernelspec.update(display_name=".venv (3.11)")),
    ("kernel", lambda nb: nb.metadata.pop("language_info")),
    ("kernel", lambda nb: nb.metadata.update(papermill={"duration": 1})),
    ("kernel", lambda nb: nb.cells[CODE].metadata.update(execution={"started": "x"})),
    ("paths", source(WHY, "See /home/me/notes.")),
    ("paths", source(CODE, 'open("/tmp/x")')),
    ("paths", output(name="stdout", text="saved to /Users/me/out")),
    ("paths", output(name="stdout", text=r"saved to C:\Users\me")),
    ("paths", output(data={"text/plain": "PosixPath('/mnt/x')"})),
    ("debris", output(name="stdout", text="a\rb")),
    ("debris", output(name="stderr", text="50%|#####     | 5/10")),
    ("svg", output(data={"image/svg+xml": "<svg/>"})),
    ("svg", output(data={"text/html": "<div><svg></svg></div>"})),
    ("described", output(data={"image/png": "AAAA"})),
    ("errors", output(kind="error", ename="ValueError", evalue="x", traceback=[])),
    ("size", output(name="stdout", text="x" * 1_000_000)),
    ("counts", lambda nb: nb.cells[CODE].update(execution_count=None)),
    ("counts", lambda nb: nb.cells[CODE].update(execution_count=7)),
    ("checked", lambda nb: nb.cells[CHECKED].update(outputs=[])),
    ("checked", lambda nb: nb.cells[CHECKED].outputs[0].update(name="stderr")),
    ("checked", lambda nb: nb.cells[CHECKED].update(execution_count=None)),
    ("checked", lambda nb: nb.cells[CHECKED].metadata.clear()),
]


def written(nb, folder):
    path = folder / "book.ipynb"
    path.write_text(json.dumps(nb), encoding="utf-8")  # nbformat.write would repair what is broken
    return gate.Book(path)


@pytest.mark.parametrize("rule", gate.RULES)
def test_a_good_notebook_passes(rule, tmp_path):
    assert list(gate.RULES[rule](written(good(), tmp_path))) == []


@pytest.mark.parametrize(
    ("rule", "broken"), BROKEN, ids=[f"{number}-{rule}" for number, (rule, _) in enumerate(BROKEN)]
)
@pytest.mark.filterwarnings("ignore::nbformat.warnings.DuplicateCellId")
def test_a_bad_notebook_fails(rule, broken, tmp_path):
    nb = good()
    broken(nb)
    assert list(gate.RULES[rule](written(nb, tmp_path)))


def test_every_rule_has_a_notebook_that_breaks_it():
    assert {rule for rule, _ in BROKEN} == set(gate.RULES)


def test_pictures_are_not_searched_for_paths(tmp_path):
    nb = good()
    output(data={"image/png": "AAA+/tmp+/root=="})(nb)
    assert list(gate.paths(written(nb, tmp_path))) == []
