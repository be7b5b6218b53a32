"""Cells as a reader runs them: each one twice, after the stop button, in another order, on rows of one's own.

The notebooks run here with the profile smoke, in this process. Two are made smaller by their own parameters, since each
of their trainings is a process: notebook 01 compares two methods with one seed, and notebook 04 trains two ways.
"""

import ast
import contextlib
import functools
import importlib
import io
import json
import re
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import summkit as sk
from summkit import progress
from summkit.cli import main
from summkit.errors import Interrupted
from summkit.reporting import records
from summkit.training import trainer
from tests import warm
from tests.static import gate

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = "notebooks/01_fine_tuning_methods.ipynb"
TOPICS = "notebooks/02_topic_distillation.ipynb"
COSTS = "notebooks/04_what_training_costs.ipynb"
LONG = "notebooks/03_long_documents.ipynb"
AGNEWS = "task1/agnews/NOTEBOOK/task_1_1.ipynb"
SMALL = {
    METHODS: {"METHODS": ["lora", "prompt"], "SEEDS": [0]},
    COSTS: {"WAYS": "LoRA", "MOST_ROUNDS": 1},
}
# Cells whose output holds what was measured: there the numbers may differ.
MEASURES = r"Meter\(|perf_counter|process_time|measure_steps|in_own_process|measure\("
# What a cell says that finds its work done and leaves it.
REUSED = "has its record, left as it is|asked about 0 rows"


class Kernel:
    """Runs the cells of one notebook in one namespace, in the order in which the test asks for them."""

    def __init__(self, path, **parameters):
        book = gate.Book(gate.ROOT / path)
        self.cells = [cell for _, cell in book.code if "nbval-skip" not in gate.tags(cell)]
        self.parameters = {"PROFILE": "smoke"} | parameters
        self.names = {"__name__": "__main__"}

    def run(self, cell) -> str:
        """Run a cell and return what it prints and shows, with 0 for seconds and minutes."""
        body = gate.parse(cell).body
        last = body.pop() if isinstance(body[-1], ast.Expr) and not cell.source.endswith(";") else None
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(ast.Module(body, []), "cell", "exec"), self.names)
            shown = last and eval(compile(ast.Expression(last.value), "cell", "eval"), self.names)
            if shown is not None:
                print(repr(shown))
        if "parameters" in gate.tags(cell):
            self.names |= self.parameters
        return re.sub(r"[\d.]+(?= (s|min)\b)", "0", said.getvalue())

    def find(self, part: str):
        """The only cell whose source has this part."""
        (cell,) = [cell for cell in self.cells if part in cell.source]
        return cell

    def run_until(self, part: str):
        """Run the cells before the one whose source has this part, and return that one."""
        last = self.find(part)
        for cell in self.cells[: self.cells.index(last)]:
            self.run(cell)
        return last

    def run_after(self, cell) -> dict:
        """Run the cells after this one, and return the record that the last one writes."""
        for other in self.cells[self.cells.index(cell) + 1 :]:
            self.run(other)
        return records.read_record(self.names["run"].folder / "run.json")

    def form(self) -> dict:
        """The names with their values, but for floats, and objects of which only the class is told."""
        return {name: form(value) for name, value in self.names.items() if not name.startswith("_")}

    def lines(self) -> dict:
        """The lines of each text file in the run's folder."""
        folder = self.names["run"].folder if "run" in self.names else Path("none")
        files = [path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".csv", ".txt", ".md")]
        return {str(path.relative_to(folder)): len(path.read_bytes().splitlines()) for path in files}


def form(value):
    if isinstance(value, dict):
        return {str(key): form(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [form(part) for part in value]
    return value if isinstance(value, (str, int)) else type(value).__name__


def without_numbers(value) -> str:
    return re.sub(r"-?\d[\d.,]*(e[-+]\d+)?|[\s.]+", " 0 ", str(value))


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A reader's folder; what notebooks set for the whole process is put back."""
    for name in ("SUMMKIT_COUNTRY", "SUMMKIT_PRICE_PER_HOUR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("SUMMKIT_HEADLESS", "1")
    monkeypatch.delenv("SUMMKIT_RUN_DIR", raising=False)
    monkeypatch.setattr("sys.executable", warm.python())  # of kernels and trainings
    monkeypatch.chdir(tmp_path)
    with pd.option_context("display.max_colwidth", 50), plt.rc_context():
        yield tmp_path
    plt.close("all")


@pytest.fixture
def stop(monkeypatch):
    """Press the stop button at the given call of a function."""

    def press(place, name, at):
        calls = []
        real = getattr(place, name)

        def counted(*args, **settings):
            calls.append(name)
            if len(calls) == at:
                raise KeyboardInterrupt
            return real(*args, **settings)

        monkeypatch.setattr(place, name, counted)
        return calls

    return press


@pytest.mark.parametrize("path", gate.notebooks(), ids=str)
def test_every_cell_may_be_run_twice(path, reader):
    kernel = Kernel(path, **SMALL.get(str(path), {}))
    for cell in kernel.cells:
        first, form_first, lines_first = kernel.run(cell), kernel.form(), kernel.lines()
        second, form_second, lines_second = kernel.run(cell), kernel.form(), kernel.lines()
        if re.search(REUSED, second):
            continue
        if re.search(MEASURES, cell.source):
            first, second, form_first, form_second = map(without_numbers, (first, second, form_first, form_second))
        assert second == first, cell.source
        assert form_second == form_first, cell.source
        assert lines_second == lines_first, cell.source


@pytest.mark.parametrize(
    ("path", "load", "ask"),
    [
        (AGNEWS, "model = sk.models.load_model", "before = sk.inference"),
        ("task1/goemotions/NOTEBOOK/task_1_2.ipynb", "model = sk.models.load_model", "zero_test = "),
        ("task1/mnli/NOTEBOOK/task_1_3.ipynb", "model = sk.models.load_model", "before = sk.inference"),
        ("task3/NOTEBOOK/task_3.ipynb", "model = sk.models.apply_method", "usual = summarizer.summarize"),
    ],
)
def test_a_model_that_is_not_trained_is_not_taken_for_one_that_is(path, load, ask, reader):
    kernel = Kernel(path)
    asking = kernel.run_until(ask)
    kernel.run(asking)
    kernel.run(kernel.find(load))
    with pytest.raises(AssertionError, match="run the training cell first"):
        kernel.run(asking)


@pytest.mark.parametrize(
    ("path", "step", "again"),
    [
        (AGNEWS, 3, "Run this cell again"),
        (LONG, 1, "set RESUME = True and run this cell again"),
        (TOPICS, 1, "set RESUME = True and run the page again"),
        (COSTS, 1, "set RESUME = True and run this cell again"),
    ],
)
def test_after_a_stop_in_the_training_the_page_asks_the_adapter_so_far(path, step, again, reader, stop):
    kernel = Kernel(path, LONGEST=200)
    training = kernel.run_until("sk.training.fit(")
    stop(trainer, "summary_loss", step)
    said = kernel.run(training)
    assert "Stopped: the " in said and again in said
    record = kernel.run_after(training)
    assert record["training"]["interrupted"] and record["training"]["steps"] == step - 1
    assert record["scores"]


def test_after_a_stop_among_techniques_and_systems_what_was_measured_is_kept(reader, stop):
    kernel = Kernel(LONG, LONGEST=200)
    techniques = kernel.run_until("sk.resources.measure_steps")
    stop(sk.resources, "measure_steps", 3)
    said = kernel.run(techniques)
    assert "Stopped at checkpointing" in said and "Run this cell again" in said
    systems = kernel.find("sk.inference.summarize_long(who, documents")
    between = kernel.cells[kernel.cells.index(techniques) + 1 : kernel.cells.index(systems)]
    for cell in between:
        kernel.run(cell)
    stop(sk.inference, "summarize_long", 3)
    with pytest.raises(KeyboardInterrupt):
        kernel.run(systems)
    record = kernel.run_after(systems)
    assert set(record["details"]["techniques"]) == {"mixed precision", "plain", "accumulation"}
    assert {"first", "lead_and_end"} < set(record["scores"]) and "extract" not in record["scores"]


def test_after_a_stop_among_trials_the_complete_rounds_are_used(reader):
    kernel = Kernel(COSTS, WAYS="LoRA", ROUNDS=2)
    measuring = kernel.run_until("measured, failed = measure(schedule")
    kernel.names["in_own_process"] = functools.partial(interrupt, kernel.names["in_own_process"], [], 4)
    said = kernel.run(measuring)
    assert "Stopped in round 2: complete rounds are used. Run this cell again" in said
    record = kernel.run_after(measuring)
    assert len(record["details"]["trials"]["short rows"]) == 2
    assert record["details"]["short rows"]["time"]["LoRA"]["verdict"] == "cannot be said: one round has no spread"
    assert len(record["details"]["trials"]["long rows"]) == 4


def test_a_way_that_cannot_be_measured_is_left_out_with_its_reason(reader):
    kernel = Kernel(COSTS, WAYS="LoRA;accumulation", ROUNDS=2)
    measuring = kernel.run_until("measured, failed = measure(schedule")
    real = kernel.names["in_own_process"]

    def short_of_memory(settings, rows):
        if settings.gradient_accumulation > 1:
            raise RuntimeError("out of memory")
        return real(settings, rows)

    kernel.names["in_own_process"] = short_of_memory
    assert "accumulation is left out: RuntimeError: out of memory" in kernel.run(measuring)
    record = kernel.run_after(measuring)
    assert set(record["details"]["short rows"]["memory"]) == {"plain", "LoRA"}
    assert "out of memory" in record["details"]["left out"]["accumulation"]
    assert "low" in record["details"]["short rows"]["memory"]["LoRA"]


def test_a_grid_that_was_stopped_goes_on_when_its_cell_is_run_again(reader, stop):
    kernel = Kernel(METHODS, **SMALL[METHODS])
    grid = kernel.run_until("grid_runs = train_all(")
    calls = stop(subprocess, "run", 2)
    with pytest.raises(Interrupted, match="stopped in run 2 of 2: the runs before it are kept. Run this cell again"):
        kernel.run(grid)
    (done,) = reader.rglob("run.json")
    made = done.stat().st_mtime_ns
    said = kernel.run(grid)
    assert said.count("validation loss") == 2 and len(calls) == 3, "a run that was finished is not trained again"
    assert done.stat().st_mtime_ns == made


def test_after_a_stop_among_seeds_the_methods_are_compared_with_the_seeds_that_all_have(reader, stop):
    kernel = Kernel(METHODS, **SMALL[METHODS] | {"SEEDS": [0, 1]})
    more = kernel.run_until("trained[seed] = ")
    stop(subprocess, "run", 2)
    said = kernel.run(more)
    assert "Seed 1 stopped in run 2 of 2" in said and "The cells below use 1 of 2 seeds" in said
    details = kernel.run_after(more)["details"]
    assert details["rows"]["test"]["lora"].keys() == {"seed 0"}
    assert details["answer"]["prompt minus lora"]["spread over seeds"] == 0


@pytest.fixture
def shell():
    """IPython, which runs the cells of a notebook."""
    config = Config()
    config.HistoryManager.enabled = False
    yield InteractiveShell.instance(config=config)
    InteractiveShell.clear_instance()
    progress._stopped.clear()


@pytest.mark.parametrize(
    ("path", "parameters", "stopped", "needed", "place", "name", "at"),
    [
        (METHODS, SMALL[METHODS], "grid_runs = train_all(", "points = {", "subprocess", "run", 2),
        (TOPICS, {}, "labels = job(to_learn", "from_examples(", "summkit.distillation.labelling", "append", 3),
    ],
)  # fmt: skip
def test_a_cell_below_one_that_was_stopped_names_it(
    path, parameters, stopped, needed, place, name, at, reader, shell, capsys
):
    kernel = Kernel(path, **parameters)
    cell = kernel.run_until(stopped)
    shell.user_ns.update(kernel.names)
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module(place)
        patch.setattr(module, name, functools.partial(interrupt, getattr(module, name), calls := [], at))
        assert isinstance(shell.run_cell(cell.source).error_in_exec, KeyboardInterrupt)
    assert len(calls) == at
    capsys.readouterr()
    below = kernel.cells[kernel.cells.index(cell) + 1]
    assert needed in below.source
    assert not shell.run_cell(below.source).success
    first = cell.source.partition("\n")[0]
    said = f"A cell above was stopped: run it again, then this one. It begins: {first}"
    assert said in capsys.readouterr().out
    assert shell.run_cell(cell.source).success and shell.run_cell(below.source).success


def interrupt(real, calls, at, *arguments, **options):
    """Press the stop button at the given call."""
    calls.append(arguments)
    if len(calls) == at:
        raise KeyboardInterrupt
    return real(*arguments, **options)


def table(path, rows):
    """A table as a spreadsheet writes it: a BOM, semicolons, German headings."""
    lines = [";".join(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def recorded(out, stage):
    return json.loads((out / stage / "run.json").read_text())


def test_the_first_chapter_runs_on_a_table_of_ones_own(reader):
    rows = [("Nr", "Bericht", "Kurzfassung")]
    rows += [
        (f"{n}", f"Am Montag wurde Brücke {n} über die Aue geprüft. Ein Riss fiel auf.", f"Brücke {n} hat einen Riss.")
        for n in range(24)
    ]
    data = table(reader / "meine Berichte.csv", rows)
    columns = ["-p", "DOCUMENT_COLUMN=bericht", "-p", "SUMMARY_COLUMN=Kurzfassung"]
    assert main(["run", "task1/xsum", "--profile", "smoke", "--out", "mine", "-p", f"DATA={data}", *columns]) == 0
    record = recorded(reader / "mine", "task1/xsum")
    assert (record["data"]["id"], record["data"]["source"]) == ("local", "local")
    assert sum(record["data"][name] for name in sk.data.SPLITS) == 24
    assert str(reader) not in (reader / "mine/task1/xsum/run.json").read_text()


def test_a_study_of_labels_runs_on_a_table_of_ones_own(reader):
    kinds = ("Brücken", "Fähren")
    rows = [("Meldung", "Rubrik")]
    rows += [(f"Heute ging es um {kinds[n % 2]}, sagte Rat {n}.", kinds[n % 2]) for n in range(30)]
    data = table(reader / "Meldungen.csv", rows)
    columns = ["-p", "DOCUMENT_COLUMN=Meldung", "-p", "LABEL_COLUMN=Rubrik"]
    assert main(["run", "task1/agnews", "--profile", "smoke", "--out", "mine", "-p", f"DATA={data}", *columns]) == 0
    record = recorded(reader / "mine", "task1/agnews")
    assert record["data"]["id"] == "local" and sorted(record["details"]["classes"]) == list(kinds)
    assert set(record["scores"]) >= {"tfidf", "zero_shot", "fine_tuned"}


def test_the_second_chapter_takes_a_folder_as_its_model(reader):
    folder = reader / "my models" / "mine"
    sk.models.tiny_llama().save_pretrained(folder)
    sk.models.tiny_tokenizer().save_pretrained(folder)
    assert main(["run", "task2", "--profile", "smoke", "--out", "mine", "-p", f"MODEL={folder}"]) == 0
    record = recorded(reader / "mine", "task2")
    assert (record["model"]["id"], record["model"]["source"]) == ("mine", "local")
