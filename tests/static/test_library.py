"""What holds for every module of the library. Needs no torch; the order of the packages is import-linter's to check."""

import ast
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "summkit"
SLOW = {
    "accelerate",
    "bitsandbytes",
    "codecarbon",
    "ctranslate2",
    "datasets",
    "deepspeed",
    "evaluate",
    "gguf",
    "ipywidgets",
    "matplotlib",
    "onnx",
    "openai",
    "pandas",
    "papermill",
    "peft",
    "pyarrow",
    "pypdf",
    "rouge_score",
    "sacrebleu",
    "scipy",
    "seaborn",
    "sentence_transformers",
    "sklearn",
    "torch",
    "trackio",
    "transformers",
    "wandb",
}


def dotted(path: Path) -> str:
    """summkit/data/templates.py → summkit.data.templates"""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


TREES = {dotted(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = sorted(set(TREES) - {"summkit.__main__"})


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of everything that is imported anywhere in `tree`; `from a import b` counts as a and a.b."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ("summkit" if node.level else "") + (f".{node.module}" if node.level and node.module else "")
            module = module or node.module
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def outside_functions(tree: ast.Module) -> ast.Module:
    """A copy of `tree` without functions' bodies and imports for types: what runs when the module is imported."""

    class Hollow(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            node.body = [ast.Pass()]
            return node

        visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

        def visit_If(self, node):
            return None if ast.unparse(node.test) == "TYPE_CHECKING" else node

    return Hollow().visit(ast.parse(ast.unparse(tree)))


def slow_imports(tree: ast.Module) -> set[str]:
    return {dotted.split(".")[0] for dotted in imported(outside_functions(tree))} & SLOW


def unsafe(tree: ast.AST) -> list[str]:
    """Loads of pickled objects, and code from the Hub."""
    found = sorted({name for name in imported(tree) if name.split(".")[0] in {"pickle", "cPickle", "dill", "joblib"}})
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        named = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
        if named.get("trust_remote_code", False) is not False:
            found.append(f"line {call.lineno}: trust_remote_code")
        if named.get("allow_pickle", False) is not False or named.get("weights_only", True) is not True:
            found.append(f"line {call.lineno}: a pickle")
    return found


@pytest.mark.parametrize("name", TREES)
def test_no_slow_import_at_the_top_of_a_module(name):
    assert slow_imports(TREES[name]) == set()


@pytest.mark.parametrize("name", TREES)
def test_no_pickle_and_no_code_from_the_hub(name):
    assert unsafe(TREES[name]) == []


@pytest.mark.parametrize("name", TREES)
def test_the_docstring_says_what_the_module_is_for(name):
    assert ast.get_docstring(TREES[name])


def test_functions_stay_short():
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = [
        node.end_lineno - node.lineno + 1
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]
    assert statistics.median(lengths) <= 14


@pytest.mark.parametrize("names", [[], MODULES], ids=["the package", "every module"])
def test_importing_is_quick_and_quiet(names):
    code = (
        "import importlib, json, sys, time\n"
        f"for name in {['summkit', *names]}: importlib.import_module(name)\n"
        "print(json.dumps([time.process_time(), sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (done.returncode, done.stderr) == (0, "")
    seconds, loaded = json.loads(done.stdout)  # fails where an import prints
    assert SLOW & set(loaded) == set()
    assert seconds < 1.5


def test_these_checks_see_what_they_look_for():
    assert slow_imports(ast.parse("try:\n    import torch.nn\nexcept ImportError:\n    pass")) == {"torch"}
    assert slow_imports(ast.parse("class A:\n    def f(self):\n        import torch")) == set()
    assert unsafe(ast.parse("import pickle")) and unsafe(ast.parse("f(trust_remote_code=True)"))
    assert unsafe(ast.parse("torch.load(p, weights_only=False)")) and not unsafe(ast.parse("torch.load(p)"))
