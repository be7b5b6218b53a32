"""The benchmarks run, all contestants do the same work, and the tables come from the records.

Contestants run in this process: libraries are then imported once. That a process of its own works too, the ceiling
shows.
"""

import importlib.util
import json
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import contestant, generation, gpu, growth, harness, page, startup, training
from benchmarks.__main__ import main
from summkit.errors import SummkitError
from summkit.reporting import records

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = Namespace(smoke=True, rounds=1, threads=1, million=False, from_clone=False)
ON_GPU = {"minutes": 8, "python": None, "only": None}
SPREAD = {"median", "low", "high"}


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Contestants run in this process, with the files that a process of their own would get."""
    count = iter(range(1000))

    def start(benchmark, name, work, threads, **_):
        folder = tmp_path / f"contestant-{next(count)}"
        folder.mkdir()
        (folder / "work.json").write_text(json.dumps(work | {"folder": str(folder), "threads": threads}))
        try:
            contestant.main(benchmark, name, folder / "work.json", folder / "result.json")
        except Exception as error:
            raise SummkitError(f"{name} failed: {type(error).__name__}") from error
        return json.loads((folder / "result.json").read_text())

    monkeypatch.setattr(harness, "start", start)
    monkeypatch.setattr(harness, "own", start)


def written(record: dict, folder: Path) -> dict:
    """The record after a trip through a file: nothing in it is a machine's path, or no number."""
    return records.read_record(records.write_record(record, folder / "a.json"))


def ran(record: dict) -> dict:
    entries = record["details"]["contestants"]
    return {name: entry for name, entry in entries.items() if "absent" not in entry}


def installed(*needs: str) -> bool:
    return all(importlib.util.find_spec(name) for name in needs)


def test_training_contestants_see_the_same_tokens_in_as_many_steps(here, tmp_path):
    record = written(training.run(OPTIONS), tmp_path)
    entries = ran(record)
    assert {"summkit", "tutorial"} <= set(entries)
    assert not installed("trl") or set(entries) == set(training.CONTESTANTS)
    assert len({entry["tokens_seen"] for entry in entries.values()}) == 1
    assert {entry["steps"] for entry in entries.values()} == {2}
    losses = [entry["loss"] for entry in entries.values()]
    assert max(losses) - min(losses) < 0.05
    work = record["details"]["work"]
    # The recipe pads each row to the limit; this library computes little that is not a token.
    assert entries["tutorial"]["positions"] == work["rows"] * work["max_length"]
    assert work["tokens"] <= entries["summkit"]["positions"] < 1.1 * work["tokens"]
    check_form(record, entries)


def check_form(record: dict, entries: dict) -> None:
    machine = record["details"]["machine"]
    assert machine["processor"] and machine["cores"] >= 1 and machine["memory_bytes"] > 0
    assert machine["processor"] in record["environment"]["device"] or machine["gpu"]
    assert set(record["details"]["ceiling"]["sgemm_flop_per_second"]) == SPREAD
    for entry in entries.values():
        assert len(entry["rounds"]) == 1 and set(entry["cpu_seconds"]) == set(entry["peak_rss_bytes"]) == SPREAD
        assert entry["cpu_seconds"]["low"] > 0 and entry["about"]


def test_generation_contestants_answer_alike(here, tmp_path):
    record = written(generation.run(OPTIONS), tmp_path)
    entries = ran(record)
    assert {"summkit", "one by one", "transformers batches"} <= set(entries)
    assert not installed("ctranslate2") or {"ctranslate2 fp32", "ctranslate2 int8"} <= set(entries)
    rows = record["details"]["work"]["rows"]
    for name, entry in entries.items():
        assert entry["same_answers"] == rows or name in ("ctranslate2 int8", "llama.cpp")
    assert entries["one by one"]["steps"] == entries["one by one"]["new_tokens"] > entries["summkit"]["steps"]
    assert "answers" not in json.dumps(record["details"]["contestants"]["summkit"]["rounds"])
    check_form(record, entries)


def test_growth_counts_rows_and_tokens(here, tmp_path):
    record = written(growth.run(OPTIONS), tmp_path)
    rows, length, batch, answers = record["details"]["contestants"].values()
    assert rows["rounds"][0]["train"] == 90 and rows["file_bytes"] > 30_000 and rows["own_bytes"] >= 0
    assert length["tokens"] == 128 and batch["tokens"] == 2 * growth.STEP_LENGTH and answers["tokens"] > 0
    check_form(record, ran(record))


def test_own_memory_leaves_out_what_is_of_files(tmp_path):
    import mmap

    size = 2**26
    (tmp_path / "file").write_bytes(b"x" * size)
    with (
        growth.OwnMemory() as own,
        open(tmp_path / "file", "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert all(mapped[page] for page in range(0, size, mmap.PAGESIZE))
        time.sleep(0.1)
    with growth.OwnMemory() as read_whole:
        held = (tmp_path / "file").read_bytes()
        time.sleep(0.1)
    assert own.grown_bytes is None or own.grown_bytes < size / 4 < len(held) <= read_whole.grown_bytes


def test_a_gpu_is_measured_only_where_there_is_one(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(harness, "gpu_name", lambda: None)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert main(["gpu", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err.count("not measured, no GPU here") == 1 and "`make gpu` or `python -m benchmarks gpu`" in said.out
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(gpu, "WARM_UP", 1)
    monkeypatch.setattr(gpu, "STEPS", 1)
    monkeypatch.setattr(gpu, "REPEATS", 2)


def test_the_gpu_benchmark_measures_training_and_answers_and_goes_on(here, few_steps, monkeypatch, tmp_path):
    monkeypatch.setattr(records, "git_commit", lambda: "abc")  # the same version in both calls
    only = ["phi-2: summkit before", "phi-2: answer: merged, graphs", "llama-3.2-3b: answer: packed"]
    options = Namespace(**vars(OPTIONS) | ON_GPU | {"out": tmp_path, "only": only[:1]})
    begun = written(gpu.run(options), tmp_path)["details"]
    trained = begun["contestants"][only[0]]["results"]
    assert set(trained) == set(gpu.WAYS) and gpu.unfinished({"details": begun}) == 0
    full, mixed = trained["16 rows"], trained["16 rows of all lengths, checkpointing"]
    limit = begun["works"]["phi-2"]["max_length"]
    assert full["tokens"] == 2 * limit > mixed["tokens"]  # two rows a step here
    assert full["cold_seconds"] > 0 and set(full["step_seconds"]) == SPREAD and full["share_of_ceiling"] > 0
    assert full["planned_bytes"] > 0 and any("mm" in operator for operator, _, _ in full["operators"])
    assert full["loss"] == pytest.approx(trained["16 rows, checkpointing"]["loss"], abs=1e-3)
    # The same command goes on: what has been measured is not measured again.
    options.only = only
    monkeypatch.setitem(gpu.CONTESTANTS, "summkit before", harness.Contestant(lambda work: 1 / 0, "again"))
    record = written(gpu.run(options), tmp_path)
    entries = record["details"]["contestants"]
    assert list(entries) == only and entries[only[0]]["results"] == trained
    for name, merged in ((only[1], True), (only[2], False)):
        answers = entries[name]["results"]
        assert set(answers) == {"4 at once", "one by one"}
        tokens = begun["works"]["phi-2"]["max_new_tokens"]
        assert answers["4 at once"]["new_tokens"] == 4 * tokens
        assert answers["one by one"]["new_tokens"] == gpu.TEXTS * tokens, merged
    text = page.tables(tmp_path)
    assert "| summkit before, 4 rows, checkpointing |" in text and "| answer: packed, one by one |" in text


def test_a_gpu_contestant_without_time_or_option_says_so(here, few_steps, monkeypatch, tmp_path):
    """An option of a lever that this version lacks is a row that says why, and so is a library that is not here."""
    options = Namespace(**vars(OPTIONS) | ON_GPU | {"out": tmp_path, "only": ["phi-2: answer: packed"], "minutes": 0})
    record = gpu.run(options)
    assert gpu.unfinished(record) == 1 and "the same command goes on" in page._gpu_tables(record["details"])[2]
    work = gpu._work("phi-2", tmp_path, options)
    with pytest.raises(SummkitError, match="no option no_such_option"):
        gpu.summkit(work, gpu.ONE, no_such_option=1)
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    assert gpu._result("unsloth", work, options, 0.0) == {"absent": "not installed here: unsloth"}


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("no-python", "unsloth cannot be started by no-python: No such file or directory"),
        (sys.executable, "unsloth failed: ModuleNotFoundError: No module named 'unsloth'"),
    ],
)
def test_a_python_without_unsloth_is_one_sentence(tmp_path, python, said):
    options = Namespace(**vars(OPTIONS) | ON_GPU | {"python": python})
    work = gpu._work("llama-3.2-3b", tmp_path, options)
    assert gpu._result("unsloth", work, options, 0.0) == {"absent": said}


def test_what_the_goals_compare_comes_first_and_all_contestants_come():
    order = gpu._order()
    assert len(order) == len(set(order)) == len(gpu.SHAPES) * len(gpu.CONTESTANTS)
    assert order[:3] == [("phi-2", name) for name in ("summkit before", "summkit", "trl padding-free")]
    singles = [name.startswith("before +") for _, name in order]
    assert singles == sorted(singles) and any(singles)
    assert gpu._BEFORE["optimizer"] == "paged_adamw_8bit" and gpu._BEFORE["logging_steps"] == 1
    assert gpu._BEFORE.keys() == gpu._ALL.keys() and not set(gpu._BEFORE.items()) & set(gpu._ALL.items())


def test_libraries_are_imported_once_but_for_one_that_starts_cuda():
    code = "import sys; from benchmarks import gpu; gpu._import_once(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=harness.ROOT, capture_output=True, text=True, check=True)
    seen = set(done.stdout.split())
    assert {"torch", "accelerate", "datasets", "transformers.models.phi.modeling_phi"} <= seen
    assert "bitsandbytes" not in seen


def test_where_cuda_has_started_no_process_is_forked(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(harness, "start", lambda *args, **_: args)
    assert harness.own("gpu", "summkit", {}, 1) == ("gpu", "summkit", {}, 1)


def test_a_forked_contestant_returns_its_results_says_its_error_and_ends_in_time(monkeypatch):
    def sleep(work):
        time.sleep(60)

    some = {"good": lambda work: {"x": work["x"]}, "bad": lambda work: {}["no"], "slow": sleep}
    monkeypatch.setattr(gpu, "CONTESTANTS", {name: harness.Contestant(run, "") for name, run in some.items()})
    assert harness.own("gpu", "good", {"x": 3}, 1) == {"x": 3}
    with pytest.raises(SummkitError, match="bad failed: KeyError"):
        harness.own("gpu", "bad", {}, 1)
    started = time.monotonic()
    with pytest.raises(SummkitError, match="no time was left"):
        harness.own("gpu", "slow", {}, 1, timeout=0.3)
    assert time.monotonic() - started < 20


def test_starting_in_processes_of_their_own(tmp_path):
    names = ("python", "summkit --help")
    few = {name: startup.CONTESTANTS[name] for name in names}
    found = harness.compete("startup", few, {}, rounds=1, threads=1)
    python, library = (found["contestants"][name] for name in names)
    assert 0 < python["cpu_seconds"]["median"] < library["cpu_seconds"]["median"]
    assert found["ceiling"]["sgemm_flop_per_second"]["median"] > 1e8 < found["ceiling"]["read_bytes_per_second"]["low"]


def test_a_contestant_that_cannot_run_is_a_row_that_says_why(monkeypatch, tmp_path):
    def start(benchmark, name, work, threads):
        if name == "bad":
            raise SummkitError("bad failed: it fell over")
        return dict.fromkeys(harness.RATES, 1.0) if benchmark == "ceiling" else {"cpu_seconds": 2.0}

    monkeypatch.setattr(harness, "start", start)
    one = harness.Contestant(print, "about")
    some = {"good": one, "bad": one, "absent": harness.Contestant(print, "about", "no_such_module")}
    found = harness.compete("training", some, {}, rounds=3, threads=1)["contestants"]
    assert len(found["good"]["rounds"]) == 3 and found["good"]["cpu_seconds"]["median"] == 2.0
    assert found["bad"] == {"about": "about", "rounds": [], "absent": "bad failed: it fell over"}
    text = page.table(found, page.STARTED)
    assert "not measured: bad failed: it fell over" in text and "not installed here: no_such_module" in text
    monkeypatch.setattr(harness, "start", lambda b, n, w, t: start(b, "bad" if b != "ceiling" else n, w, t))
    with pytest.raises(SummkitError, match="fell over"):  # not where it is the library itself
        harness.compete("training", {"summkit": one}, {}, rounds=1, threads=1)


def test_each_round_begins_with_another(monkeypatch):
    order = []
    monkeypatch.setattr(harness, "start", lambda b, name, w, t: order.append(name) or {})
    some = {name: harness.Contestant(print, "") for name in "abc"} | {"long": harness.Contestant(print, "", once=True)}
    harness.compete("training", some, {}, rounds=2, threads=1)
    assert order == ["ceiling", "a", "b", "c", "long", "ceiling", "b", "c", "a"]


def test_a_process_that_fails_says_why_without_this_machines_paths():
    with pytest.raises(SummkitError, match="nobody failed: KeyError: 'nobody'"):
        harness.start("ceiling", "nobody", {}, threads=1)
    assert harness._last_line("x\nFileNotFoundError: '/home/me/a.txt' is gone") == "FileNotFoundError: '…' is gone"


def test_from_clone_says_what_failed(monkeypatch, tmp_path):
    def command(*arguments, **_):
        if arguments[0] == "make":
            return startup_command(sys.executable, "-c", "raise SystemExit(3)")
        return startup_command(sys.executable, "-c", "pass")

    startup_command = startup.command
    monkeypatch.setattr(startup, "command", command)
    found = startup.from_clone(tmp_path)
    assert set(found) == {"clone", "absent"} and found["absent"] == "install failed (3)"
    assert page._clone(found).endswith("wall time: clone 0 s, not measured (install failed (3)).")


def test_the_page_is_made_of_the_records_and_keeps_what_is_written_by_hand(tmp_path):
    found = {"contestants": {}, "ceiling": dict.fromkeys(harness.RATES, dict.fromkeys(SPREAD, 2e9))}
    found["contestants"]["summkit"] = {"about": "this", "cpu_seconds": {"median": 7.0, "low": 6.0, "high": 9.0}}
    record = harness.record("startup", "cpu", 1, from_clone={"absent": "not asked for"}, **found)
    records.write_record(record, tmp_path / "results" / "startup.json")
    readme = tmp_path / "README.md"
    readme.write_text(f"by hand\n{page.BEGIN}old\n{page.END}tail\n")
    page.publish(tmp_path / "results", readme)
    text = readme.read_text()
    assert text.startswith("by hand\n") and text.endswith("tail\n") and "old" not in text
    assert "7.00 (6.00 to 9.00)" in text and record["environment"]["device"] in text and "sgemm 2 GFLOP/s" in text
    page.publish(tmp_path / "results", readme)
    assert readme.read_text() == text
    readme.write_text("no marks")
    with pytest.raises(SummkitError, match="the two marks"):
        page.publish(tmp_path / "results", readme)


def test_the_committed_page_is_what_its_records_make():
    text = (page.HERE / "README.md").read_text(encoding="utf-8")
    assert text.partition(page.BEGIN)[2].partition(page.END)[0] == "\n" + page.tables(page.HERE / "results")


def test_the_table_of_profiles_says_which_cards_have_records(tmp_path):
    text = (page.HERE.parent / "docs" / "running.md").read_text(encoding="utf-8")
    assert f"| measured on | CPUs | CPUs | {page.cards('t4')} | {page.cards('gpu')} |" in text
    found = {"works": {}, "contestants": {}, "ceiling": {}}
    record = harness.record("gpu", "t4", 1, **found)
    record["environment"]["device"] = "Tesla T4"
    records.write_record(record, tmp_path / "gpu-tesla-t4.json")
    assert page.cards("t4", tmp_path) == "Tesla T4" and "no card yet" in page.cards("gpu", tmp_path)


def test_an_unknown_benchmark_is_refused(capsys):
    assert main(["trainning"]) == 2
    assert "training" in capsys.readouterr().err


def test_the_ceiling_is_measured_in_a_process_of_its_own():
    assert set(harness.start("ceiling", "ceiling", {}, threads=1)) == set(harness.RATES)


def committed(benchmark):
    """What the contestants of a committed record took: one machine's, without a GPU."""
    path = next((page.HERE / "results").glob(f"{benchmark}-*.json"))
    return records.read_record(path)["details"]["contestants"]


def median(entry, key="cpu_seconds"):
    return entry[key]["median"]


def test_training_leads_in_time_and_memory_and_saw_the_same_tokens():
    found = committed("training")
    ours, others = found.pop("summkit"), [e for name, e in found.items() if not name.startswith("summkit")]
    assert len(others) == 4 and {entry["tokens_seen"] for entry in others} == {ours["tokens_seen"]}
    assert all(median(entry) > 1.3 * median(ours) for entry in others)
    assert all(median(entry, "peak_rss_bytes") > 1.2 * median(ours, "peak_rss_bytes") for entry in others)
    assert median(found["tutorial"]) > 2 * median(ours)
    assert all(abs(entry["loss"] - ours["loss"]) < 0.02 for entry in others)


def test_generation_leads_at_the_same_precision_with_the_same_answers():
    found = committed("generation")
    ours = found["summkit"]
    for name in ("one by one", "transformers batches", "ctranslate2 fp32"):
        assert median(found[name]) > 1.1 * median(ours), name
    assert median(found["one by one"]) > 2.5 * median(ours)
    assert ours["same_answers"] == found["one by one"]["same_answers"]


def test_memory_hardly_grows_with_rows():
    found = committed("growth")
    small, large = (found[f"summkit, {rows} rows"] for rows in ("100,000", "1,000,000"))
    assert large["file_bytes"] > 9 * small["file_bytes"] > 40e6
    assert large["own_bytes"] - small["own_bytes"] < 200 * 900_000, "bytes a row; the row itself has 415"
