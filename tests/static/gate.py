"""Rules for notebooks: each takes a Book and yields what is wrong, with the number of the cell. Needs no torch.

RULES maps the name of a rule to its function. Cells are counted from 1.
"""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from functools import cached_property
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).parents[2]
TAGS = {"parameters", "nbval-skip", "nbval-check-output"}
BYTES = 1_000_000
EXERCISES = "EXERCISES"  # the folder of exercises; they are no chapters, and have rules of their own


class Book:
    """A notebook as read: `cells` is a list of (number, cell), `code` and `text` are the two kinds of them."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.nb = nbformat.read(self.path, as_version=4)
        self.cells = list(enumerate(self.nb.cells, 1))
        self.code = [(number, cell) for number, cell in self.cells if cell.cell_type == "code"]
        self.text = [(number, cell) for number, cell in self.cells if cell.cell_type == "markdown"]

    def tagged(self, tag: str) -> list:
        return [(number, cell) for number, cell in self.code if tag in tags(cell)]

    @cached_property
    def importing(self) -> list[int]:
        """Numbers of the cells that import, the install cell aside."""
        kinds = (ast.Import, ast.ImportFrom)
        seen = ((number, parse(cell)) for number, cell in self.code if "nbval-skip" not in tags(cell))
        return [number for number, tree in seen if tree and any(isinstance(node, kinds) for node in ast.walk(tree))]

    def set_up(self) -> set[int]:
        """Cells that need no reason of their own: install, imports, parameters."""
        marked = self.tagged("nbval-skip") + self.tagged("parameters")
        return {number for number, _ in marked} | set(self.importing[:1])


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def python(cell) -> str:
    """The cell as plain Python: magics and shell lines turned into calls."""
    return TransformerManager().transform_cell(cell.source)


def parse(cell) -> ast.Module | None:
    try:
        return ast.parse(python(cell))
    except SyntaxError:
        return None


def words(cell, *wanted: str) -> list[str]:
    """Those of `wanted` (regular expressions, case ignored) that the cell's source lacks."""
    return [word for word in wanted if not re.search(word, cell.source, re.IGNORECASE)]


def texts(output) -> list[str]:
    """Everything in one output that a reader reads as text; pictures are left out."""
    data = output.get("data", {})
    shown = [value for kind, value in data.items() if not kind.startswith("image/") or "svg" in kind]
    parts = [output.get("text", ""), *shown]
    return [part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in parts]


# The anatomy, in the order of the cells


def valid(book):
    # Read the file itself, and check ids separately: nbformat repairs a repeated cell id when it reads one.
    raw = json.loads(book.path.read_text(encoding="utf-8"))
    ids = [cell.get("id") for cell in raw.get("cells", [])]
    if len(set(ids)) < len(ids) or None in ids:
        yield "two cells have the same id, or a cell has none: save the notebook in JupyterLab"
        return
    try:
        nbformat.validate(raw)
    except nbformat.ValidationError as error:
        yield f"not a valid notebook: {str(error).splitlines()[0]}"


def title(book):
    _, cell = book.cells[0]
    if cell.cell_type != "markdown" or not re.match(r"# \w", cell.source):
        yield "cell 1: must be a title, '# …'"
    wanted = (r"colab\.research\.google\.com", r"kaggle\.com", r"\d+\s*min", r"\bcpu\b", r"\bt4\b")
    for word in words(cell, *wanted):
        yield f"cell 1: the title cell lacks {word} (badges for Colab and Kaggle, minutes on cpu and t4)"


def aims(book):
    _, cell = book.cells[1]
    if cell.cell_type != "markdown":
        yield "cell 2: must be text that says what you will do, learn and need"
    for word in words(cell, r"\byou\b", r"\bdo\b", r"\blearn\b", r"\bneed\b"):
        yield f"cell 2: 'what you will do, learn, need' lacks {word}"


def install(book):
    found = book.tagged("nbval-skip")
    if len(found) != 1:
        yield f"{len(found)} cells are tagged nbval-skip; exactly one is needed, the install cell"
        return
    number, cell = found[0]
    if book.importing and number > book.importing[0]:
        yield f"cell {number}: move the install cell before the imports"
    if not _guarded(parse(cell)):
        yield f"cell {number}: besides imports, the install cell may have only an 'if' for Colab or Kaggle"
    if cell.outputs:
        yield f"cell {number}: the install cell has an output"


def _guarded(tree) -> bool:
    """Whether everything but imports and names is inside an `if` for Colab or Kaggle."""
    return tree is not None and bool(tree.body) and all(_harmless(node) for node in tree.body)


def _harmless(node) -> bool:
    if isinstance(node, ast.If):
        return not node.orelse and re.search("colab|kaggle", ast.unparse(node.test), re.IGNORECASE) is not None
    if isinstance(node, ast.Assign):
        return not any(isinstance(part, ast.Call) for part in ast.walk(node))
    return isinstance(node, (ast.Import, ast.ImportFrom))


def imports(book):
    if not book.importing:
        yield "no cell imports anything"
    for number in book.importing[1:]:
        yield f"cell {number}: imports belong in cell {book.importing[0]}, with the others"


def parameters(book):
    found = book.tagged("parameters")
    if len(found) != 1:
        yield f"{len(found)} cells are tagged parameters; exactly one is needed"
        return
    number, cell = found[0]
    if book.importing and number < book.importing[0]:
        yield f"cell {number}: move the parameters after the imports"
    names = []
    for node in getattr(parse(cell), "body", []):
        names.append(_parameter_name(node))
        yield from (
            f"cell {number}, line {node.lineno}: {problem}" for problem in _parameter_problems(node, cell.source)
        )
    if not names or len(set(names)) < len(names):
        yield f"cell {number}: there are no parameters, or one of them occurs twice"


def _parameter_name(node) -> str | None:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else None


def _parameter_problems(node, source):
    if not isinstance(node, (ast.Assign, ast.AnnAssign)) or _parameter_name(node) is None:
        yield "only lines of the form NAME = literal may be parameters"
        return
    try:
        ast.literal_eval(node.value)
    except (ValueError, TypeError):
        yield f"{_parameter_name(node)} is computed, not a literal: compute it in the next cell"
    commented = {token.start[0] for token in _tokens(source) if token.type == tokenize.COMMENT}
    if not commented & set(range(node.lineno - 1, node.end_lineno + 1)):
        yield f"{_parameter_name(node)} has no comment"
    if source.splitlines()[node.lineno - 1].count("=") > 1:
        yield "two '=' on one line: papermill does not recognise such a parameter"


def _tokens(source: str):
    return tokenize.generate_tokens(io.StringIO(source).readline)


def headings(book):
    source = "\n".join(cell.source for _, cell in book.text)
    places = []
    for heading in ("summary", "exercises", "references"):
        found = list(re.finditer(rf"^#+ +{heading}\b", source, re.IGNORECASE | re.MULTILINE))
        if not found:
            yield f"no heading '{heading.capitalize()}'"
        places += [match.start() for match in found[-1:]]
    if places != sorted(places):
        yield "the headings must come in the order Summary, Exercises, References"


def record(book):
    number, cell = book.code[-1] if book.code else (0, None)
    calls = [node.func for node in ast.walk(parse(cell) or ast.Module([], [])) if isinstance(node, ast.Call)]
    if "finish" not in {getattr(func, "attr", getattr(func, "id", "")) for func in calls}:
        yield f"cell {number}: the last code cell must end the run: run.finish(…)"


# Code and text


def parses(book):
    for number, cell in book.code:
        if parse(cell) is None or not cell.source.strip():
            yield f"cell {number}: empty, or not Python"


def ruff(book):
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "--config"]
    done = subprocess.run([*command, ROOT / "pyproject.toml", book.path], capture_output=True, text=True)
    if done.returncode:
        yield from (line.replace(str(book.path), "") for line in (done.stdout + done.stderr).splitlines()[:10])


def why(book):
    for number, _ in book.code:
        if number not in book.set_up() and (number == 1 or book.nb.cells[number - 2].cell_type != "markdown"):
            yield f"cell {number}: the cell before it must be text that says why"


def known_tags(book):
    for number, cell in book.cells:
        for tag in set(tags(cell)) - TAGS:
            yield f"cell {number}: unknown tag {tag}; known: {', '.join(sorted(TAGS))}"
        if re.search(r"^\s*#\s*(NBVAL_|PYTEST_VALIDATE)", cell.source, re.MULTILINE):
            yield f"cell {number}: use a tag, not a comment"


def safe(book):
    for number, cell in book.code:
        for match in re.finditer(r"\w*pickle\w*|trust_remote_code|weights_only\s*=\s*False", cell.source):
            yield f"cell {number}: {match.group()}"


# What a run left behind


def kernel(book):
    spec = book.nb.metadata.get("kernelspec", {})
    if spec.get("name") != "python3" or spec.get("display_name") not in ("Python 3", "Python 3 (ipykernel)"):
        yield f"the kernel is {dict(spec)}; it must be python3, 'Python 3'"
    if book.nb.metadata.get("language_info", {}).get("name") != "python":
        yield "language_info must name python, otherwise ruff skips the notebook"
    for key in set(book.nb.metadata) - {"kernelspec", "language_info", "summkit"}:
        yield f"remove the metadata {key} from the notebook"
    for number, cell in book.cells:
        for key in set(cell.metadata) - ({"tags", "nbgrader"} if EXERCISES in book.path.parts else {"tags"}):
            yield f"cell {number}: remove the metadata {key}"


_PATHS = re.compile(
    r"(?<![\w.:/~-])/(?:mnt|srv|opt|work|workspace|content|root|home|tmp|Users)(?![\w-])|[A-Za-z]:\\+Users|site-packages"
)


def paths(book):
    for number, cell in book.cells:
        for place in [cell.source, *(text for output in cell.get("outputs", []) for text in texts(output))]:
            if found := _PATHS.search(place):
                yield f"cell {number}: the path of a machine, {place[found.start() : found.start() + 40]!r}"


_DEBRIS = re.compile(r"\r|%\||\dit/s|\d\s?s/it|\x1b")


def debris(book):
    for number, output in _outputs(book):
        for found in {match for text in texts(output) for match in _DEBRIS.findall(text)}:
            yield f"cell {number}: left over from a progress bar or a terminal, {found!r}"


def svg(book):
    for number, output in _outputs(book):
        if "image/svg+xml" in output.get("data", {}) or any("<svg" in text for text in texts(output)):
            yield f"cell {number}: an SVG; figures must be PNG"


def described(book):
    """A figure has an alternative text, for those who cannot see it: `run.show_figure` takes one."""
    for number, output in _outputs(book):
        if "image/png" in output.get("data", {}) and not output.metadata.get("image/png", {}).get("alt"):
            yield f"cell {number}: a figure without alternative text"


def errors(book):
    for number, output in _outputs(book):
        if output.output_type == "error":
            yield f"cell {number}: an error was saved in the outputs, {output.ename}"


def _outputs(book):
    return [(number, output) for number, cell in book.code for output in cell.outputs]


def size(book):
    bytes_ = book.path.stat().st_size
    if bytes_ >= BYTES:
        yield f"{bytes_:,} bytes; it must be below {BYTES:,}"


def counts(book):
    last = 0
    for number, cell in book.code:
        skipped = "nbval-skip" in tags(cell) and cell.execution_count is None
        if not skipped and cell.execution_count != last + 1:
            yield f"cell {number}: execution count {cell.execution_count} after {last}: restart and run all"
        last = last if skipped else cell.execution_count or last


def checked(book):
    """A cell that nbval compares needs an output that is not only a picture; otherwise nothing is compared."""
    if not book.tagged("nbval-check-output"):
        yield "no cell is tagged nbval-check-output"
    for number, cell in book.tagged("nbval-check-output"):
        compared = [output for output in cell.outputs if output.get("name") != "stderr" and any(texts(output))]
        if not compared or cell.execution_count is None:
            yield f"cell {number}: tagged nbval-check-output, but it has no output to compare"


RULES = {
    rule.__name__: rule
    for rule in (
        valid,
        title,
        aims,
        install,
        imports,
        parameters,
        headings,
        record,
        parses,
        ruff,
        why,
        known_tags,
        safe,
        kernel,
        paths,
        debris,
        svg,
        described,
        errors,
        size,
        counts,
        checked,
    )
}


def solutions(book):
    """What nbgrader needs to make a student version: solutions to remove, checks with points, one id a cell."""
    graded = [(number, cell, cell.metadata["nbgrader"]) for number, cell in book.cells if "nbgrader" in cell.metadata]
    names = [mark["grade_id"] for _, _, mark in graded]
    if len(set(names)) < len(names):
        yield "two cells have the same grade_id"
    points = sum(mark.get("points", 0) for _, _, mark in graded if mark["grade"])
    if points != 100:
        yield f"the points add up to {points}; they must be 100"
    for number, cell, mark in graded:
        if mark["solution"] and "### BEGIN SOLUTION" not in cell.source:
            yield f"cell {number}: nothing between ### BEGIN SOLUTION and ### END SOLUTION to take out"
        if mark["grade"] and not mark["solution"] and not {"assert"} & set(cell.source.split()):
            yield f"cell {number}: this check asserts nothing"
        for part in ("SOLUTION", "HIDDEN TESTS"):
            if cell.source.count(f"### BEGIN {part}") != cell.source.count(f"### END {part}"):
                yield f"cell {number}: each ### BEGIN {part} needs its ### END {part}"
    for number, cell in book.code:
        if "nbgrader" not in cell.metadata and re.search("### (BEGIN|END) ", cell.source):
            yield f"cell {number}: a solution or a hidden check in a cell that nbgrader does not know"


def folded(book):
    if not any("<details><summary>" in cell.source for _, cell in book.text):
        yield "no task has a hint, <details><summary>…"


def bare(book):
    for number, cell in book.code:
        if cell.outputs or cell.execution_count is not None:
            yield f"cell {number}: clear the outputs; the solutions are run by the tests"


EXERCISE_RULES = {
    rule.__name__: rule
    for rule in (valid, install, imports, parameters, parses, ruff, known_tags, safe, kernel, paths, size)
} | {rule.__name__: rule for rule in (solutions, folded, bare)}


def notebooks(exercises: bool = False) -> list[Path]:
    """Every chapter, study and template of the repository, or every exercise; what git ignores is left out."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.ipynb"))
    ignored = {"runs", "build"}
    kept = (p for p in found if p.parts[0] not in ignored and not any(part.startswith(".") for part in p.parts))
    return sorted(path for path in kept if (EXERCISES in path.parts) is exercises)
