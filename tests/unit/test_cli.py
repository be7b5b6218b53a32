"""The command line as a user meets it: exit codes, messages without a traceback, and training without a notebook."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from summkit import __version__, cli, config
from summkit.cli import main
from summkit.config import PROFILES, choose_profile
from summkit.errors import SummkitError
from summkit.inference import LongSummary
from summkit.models.tiny import tiny_llama, tiny_tokenizer
from summkit.offline import hub
from summkit.recipes import finetune, notebooks
from summkit.training.checkpoints import ASKING, read_settings
from tests import warm
from tests.conftest import hear_ctrl_c

PACKAGE = Path(__file__).parents[2]
ARTICLE = "The bridge over the Marran was closed on Monday. A crack was found in a cable. Drivers go through Ashby."
# What a training of the profile smoke leaves beside its adapter.
ASKED = {key: getattr(choose_profile("smoke"), key) for key in ASKING}


def call(*arguments: str, stdin: str | bytes = "", check: int | None = 0, **environment: str):
    """Run `summkit …` in its own process and return (stdout, stderr); nothing it does may end in a traceback."""
    given = os.environ | {"PYTHONPATH": str(PACKAGE)} | environment
    content = stdin if isinstance(stdin, bytes) else stdin.encode()
    done = subprocess.run(
        [warm.python(), "-m", "summkit", *arguments], input=content, env=given, capture_output=True, timeout=600
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err and done.returncode == check, err
    return out, err


def refused(capsys, *arguments: str) -> str:
    """The message with which a wrong call is refused, exit code 2."""
    assert main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == "" or said.out.startswith("profile ")
    return said.err


def test_help_answers_at_once():
    code = "import sys, time\nfrom summkit.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(time.process_time(), {'torch', 'papermill', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE, check=True)
    seconds, loaded = done.stdout.splitlines()[-1].split(maxsplit=1)
    assert loaded == "set()" and float(seconds) < 0.3


def test_a_command_that_is_misspelt_is_suggested(capsys):
    assert refused(capsys, "summarise", "a.txt").endswith("; did you mean 'summarize'?\n")
    assert "did you mean" not in refused(capsys, "xyzzy")
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"summkit {__version__}\n"


@pytest.mark.parametrize(
    "command", ["doctor", "list", "run", "train", "sweep", "summarize", "label", "export", "report"]
)
def test_the_help_of_every_command_has_an_example_that_can_be_read(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    example = capsys.readouterr().out.partition("example:\n  summkit ")[2].splitlines()[0]
    words = shlex.split(example)
    assert words[0] == command and cli._parser(command).parse_args(words).command is getattr(cli, f"_{command}")


def test_the_list_is_in_the_courses_order_and_fits_into_80_columns(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line for line in lines if not line.startswith(" ")]
    first = ["notebooks/00_how_a_language_model_writes", "task1/xsum", "task2", "task3", "task1/agnews"]
    assert names[:5] == first
    assert max(map(len, lines)) <= 80


def test_doctor_says_what_this_machine_has(capsys, monkeypatch):
    monkeypatch.setattr(config, "detect_hardware", lambda: config.Hardware("cpu", "2 CPU cores", 16 * 10**9))
    monkeypatch.setattr(hub, "_answers", lambda seconds: False)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert main(["doctor"]) == 0
    out, error = capsys.readouterr()
    assert "Warning" not in error
    lines = out.splitlines()
    assert lines[0].startswith(f"summkit {__version__}, Python 3.") and "torch 2" in lines[0]
    assert lines[1] == "machine: 2 CPU cores, 16.0 GB of memory"
    assert any(line.startswith("disk: ") and "GB free for runs" in line for line in lines)
    assert "Hugging Face Hub: https://huggingface.co does not answer within 2.5 s" in lines
    fits = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert fits["smoke"].endswith("GB planned, fits") and fits["cpu"].endswith("GB planned, fits")
    assert fits["gpu"].endswith("GB planned, needs a GPU") and fits["t4"].endswith("needs a GPU")


@pytest.mark.parametrize(
    ("text", "value"),
    [("A=1", 1), ("A=1e-4", 1e-4), ("A=x=y", "x=y"), ("A=true", True), ("A=None", None), ("A=", ""), ("A='2'", "2")],
)
def test_a_parameter_is_read_as_a_literal(text, value):
    from summkit.cli import _values

    assert _values([text]) == {"A": value}
    assert _values(["A={[1]:2}"]) == {"A": "{[1]:2}"}
    texts = {"MODEL": "2024", "DATA": "1e3", "dataset": "true!", "INSTRUCTION": "[1]", "summary_column": "007"}
    assert _values([f"{name}={value}" for name, value in texts.items()]) == texts, "a text stays as it is written"
    assert _values(["MODEL='a b'", "DOCUMENT_COLUMN=null"]) == {"MODEL": "a b", "DOCUMENT_COLUMN": None}
    for wrong in ("A", "=1", "A B=1"):
        with pytest.raises(SummkitError, match="NAME=VALUE is needed"):
            _values([wrong])


def test_wrong_calls_of_run_report_and_summarize(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUMMKIT_ROOT", str(PACKAGE))
    assert "task1/xsum, task2, task3" in refused(capsys, "run", "task9")
    assert "unknown parameter 'SEEED'; known: " in refused(capsys, "run", "task2", "-p", "SEEED=1")
    assert "cannot read the run record none/run.json" in refused(capsys, "report", "none")
    Path("run.json").write_text("{}")
    assert "cannot read the run record earlier.json/run.json" in refused(capsys, "report", "earlier.json")
    Path("run.json").unlink()
    both = ("c.json", "--resume", "--overwrite")
    assert "--resume continues an earlier run and --overwrite replaces it" in refused(capsys, "train", *both)
    monkeypatch.setenv("SUMMKIT_PROFILE", "smok")
    assert "unknown SUMMKIT_PROFILE 'smok'; known: auto, cpu, gpu, smoke, t4; did you" in refused(
        capsys, "run", "task2"
    )
    monkeypatch.setenv("SUMMKIT_PROFILE", "smoke")
    monkeypatch.setenv("SUMMKIT_DATA_DIR", "moved")
    assert "SUMMKIT_DATA_DIR moved: no such file or folder" in refused(capsys, "run", "task2")
    label = ("label", "rows.jsonl", "--out", "labels.jsonl", "--url", "http://127.0.0.1:9/v1", "--model", "m")
    assert refused(capsys, *label) == "summkit: rows.jsonl: No such file or directory\n"
    assert "--rename seed: NAME=VALUE is needed" in refused(capsys, *label, "--rename", "seed")
    Path("ours").mkdir()
    Path("ours/model.bin").touch()
    Path("ours/summkit.json").write_text(json.dumps(ASKED))
    Path("empty.txt").write_text(" \n")
    Path("binary").write_bytes(b"\xfa\xfe\x00\x01")
    Path("nul.txt").write_text("a\0b")
    ask = ("summarize", "--adapter", "ours")
    assert "empty.txt: empty; there is no text" in refused(capsys, *ask, "empty.txt")
    assert "gone.txt: No such file" in refused(capsys, *ask, "gone.txt")
    assert "cannot be read as text in UTF-8" in refused(capsys, *ask, "binary")
    assert "nul.txt: NUL or half a character" in refused(capsys, *ask, "nul.txt")
    assert ".: Is a directory" in refused(capsys, *ask, ".")
    assert "unknown strategy 'last'; known: chunks, " in refused(capsys, *ask, "--strategy", "last")
    assert "unknown decoding 'best'" in refused(capsys, *ask, "--decoding", "best")
    Path("good.txt").write_text(ARTICLE)
    assert "adapter none: no such folder" in refused(capsys, "summarize", "--adapter", "none", "good.txt")
    assert os.listdir() != [] and not Path("runs").exists()


def test_an_empty_summary_is_a_failure_that_names_its_row_and_loses_no_other(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ours").mkdir()
    Path("ours/model.bin").touch()
    Path("ours/summkit.json").write_text(json.dumps(ASKED | {"document_column": "Artikel"}))
    Path("rows.csv").write_text("text,Artikel,Andere\nno,Fog.,a\nno,Rain.,b\n")
    asked = []

    def answers(_, texts, *rest, **options):
        asked.append(texts)
        return [LongSummary(text, True, True, "whole", 3) for text in ("", "It rained.")]

    monkeypatch.setattr("summkit.inference.Exported.load", lambda folder: None)
    monkeypatch.setattr("summkit.inference.summarize_long", answers)
    assert main(["summarize", "rows.csv", "--adapter", "ours"]) == 1
    out, err = capsys.readouterr()
    assert out == "\nIt rained.\n" and asked == [("Fog.", "Rain.")], "the column is the one of the training"
    assert err.startswith("summkit: no summary, and an empty line, for rows.csv, row 1: try --decoding beam, ")
    main(["summarize", "rows.csv", "--adapter", "ours", "--document-column", "andere"])
    assert asked[-1] == ("a", "b")


def test_an_output_folder_below_a_file_or_of_another_user_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("c.json").write_text('{"profile": "smoke", "out": "file/run"}')
    said = refused(capsys, "train", "c.json")
    assert "cannot make the run folder file/run: " in said and said.endswith("; choose another with out\n")
    monkeypatch.setattr("summkit.files.os.access", lambda *_: False)  # root may write everywhere
    assert "the run folder theirs: Permission denied" in refused(capsys, "train", "c.json", "-p", "out=theirs")


def test_the_doctor_says_its_first_line_before_anything_heavy_is_imported():
    code = """
import sys
from summkit.cli import main
class Out:
    def write(self, text):
        raise SystemExit(f"{text[:7]} {sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules))}")
    def flush(self):
        pass
sys.stdout = Out()
main(["doctor"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE)
    assert done.stderr.splitlines()[-1] == "summkit []"


def small_project(folder: Path) -> None:
    """Files as the README's own-data section names them, and a model's folder."""
    rows = [f"Bridge {n} in Ashby was shut. A cable had a crack;Bridge {n} is shut." for n in range(24)]
    (folder / "news.csv").write_text("\n".join(["text;summary", *rows]))
    (folder / "artikel.csv").write_text("\n".join(["Artikel;Zusammenfassung", *rows]), encoding="utf-8-sig")
    (folder / "article.txt").write_text(ARTICLE)
    tiny_llama().save_pretrained(folder / "models" / "mine")
    tiny_tokenizer().save_pretrained(folder / "models" / "mine")


def test_an_adapter_finds_its_base_and_its_column_from_any_folder(one_thread, tmp_path, monkeypatch, capsys, caplog):
    project = tmp_path / "project"
    project.mkdir()
    small_project(project)
    config = {"profile": "smoke", "model": "models/mine", "data": "artikel.csv", "out": "runs/one"}
    config |= {"train_rows": 8, "validation_rows": 2, "test_rows": 2, "max_new_tokens": 8}
    config |= {"document_column": "Artikel", "summary_column": "Zusammenfassung"}
    (project / "c.json").write_text(json.dumps(config))
    monkeypatch.chdir(project)
    monkeypatch.setattr(finetune.hub, "require_hub", lambda what: pytest.fail(f"{what} was asked for"))
    assert main(["train", "c.json"]) == 0
    settings = json.loads(Path("runs/one/adapter/summkit.json").read_text())
    base = str(project / "models" / "mine")
    assert (settings["model"], settings["model_from_here"]) == (base, "../../../models/mine")
    assert json.loads(Path("runs/one/adapter/adapter_config.json").read_text())["base_model_name_or_path"] == base

    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    main(["summarize", "project/artikel.csv", "--adapter", "project/runs/one/adapter"])
    out, err = capsys.readouterr()
    assert out.count("\n") == 24 and (err == "" or err.startswith("summkit: no summary, and an empty line, for"))
    said = refused(capsys, "summarize", "project/news.csv", "--adapter", "project/runs/one/adapter")
    assert "row 1: no column for the text (see --document-column); there are: text, summary; known: Artikel" in said

    project.rename(tmp_path / "moved")
    adapter = tmp_path / "moved" / "runs" / "one" / "adapter"
    assert read_settings(adapter)["model"] == str(tmp_path / "moved" / "models" / "mine")
    assert f"is not in {base}, and is read from ../../../models/mine" in caplog.text
    (tmp_path / "moved" / "models").rename(tmp_path / "gone")
    said = refused(capsys, "summarize", "moved/article.txt", "--adapter", str(adapter))
    assert f"model {base}: no such folder; if an adapter's base moved, set model in its summkit.json" in said
    settings["model"] = "gone/mine"
    (adapter / "summkit.json").write_text(json.dumps(settings))
    assert read_settings(adapter)["model"] == "gone/mine", "as the message says"


def test_the_readmes_commands_for_own_data_run_as_they_are_written(one_thread, tmp_path):
    small_project(tmp_path)
    command = tmp_path / "bin" / "summkit"  # as `pip install` puts it on the path
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(warm.python())} -m summkit "$@"\n')
    command.chmod(0o755)
    section = (PACKAGE / "README.md").read_text().partition("## Use your own data")[2].partition("\n## ")[0]
    blocks = [block.partition("```")[0] for block in section.split("```bash\n")[1:]]
    assert len(blocks) == 3 and "doctor" in blocks[0] and "MODEL=models/mine" in blocks[1]
    given = {"PYTHONPATH": str(PACKAGE), "SUMMKIT_ROOT": str(PACKAGE), "SUMMKIT_PROFILE": "smoke"}
    given |= {"HF_HUB_OFFLINE": "1", "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}
    for block in blocks:
        done = subprocess.run(
            ["bash", "-e", "-c", block], env=os.environ | given, cwd=tmp_path, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        # A model with random weights may write nothing, which `summarize` says.
        assert done.returncode == 0 or "no summary, and an empty line, for article.txt" in done.stderr, done.stderr
    assert (tmp_path / "runs" / "meine" / "task3" / "adapter").is_dir()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "a JSON object is needed"),
        ('{"profile": "smoke", "seed": 0, "seed": 1}', "'seed' is there twice"),
        ('{"profile": "huge"}', "unknown profile 'huge'"),
        ('{"profile": "smoke", "learning_rat": 1}', "unknown option 'learning_rat'; known: alpha, batch_size"),
        (
            '{"profile": "smoke", "learning_rate": "fast"}',
            "option learning_rate='fast': input should be a valid number",
        ),
        ('{"profile": "smoke", "learning_rate": -1}', "learning_rate=-1: input should be greater than 0"),
        ('{"profile": "smoke", "train_rows": 2.5}', "train_rows=2.5: input should be a valid integer"),
        ('{"profile": "smoke", "batch_size": true}', "batch_size=True: input should be a valid integer"),
        ('{"profile": "smoke", "seed": "x"}', "seed='x': input should be a valid integer"),
        (
            '{"profile": "smoke", "task": "news"}',
            "unknown task 'news'; known: agnews, costs, goemotions, long, methods, mnli, primer",
        ),
        ('{"profile": "smoke", "task": ["agnews"]}', "task=['agnews']: input should be a valid string"),
        ('{"profile": "smoke", "task": null}', "task=None: input should be a valid string"),
        ('{"profile": "smoke", "out": 3}', "out=3: input should be a valid string"),
        ('{"profile": "smoke", "watch": "all"}', "watch='all': input should be a valid integer"),
        ('{"profile": "smoke", "watch": -1}', "watch=-1: input should be greater than or equal to 0"),
        ('{"profile": "smoke", "watch": 2, "task": "agnews"}', "watch=2: only a model that writes summaries"),
        (
            '{"profile": "smoke", "score": ["test"], "task": "agnews"}',
            "only a model that writes summaries can be asked",
        ),
        ('{"profile": "smoke", "wording": "nws"}', "c.json: unknown wording 'nws'; known: dialogue"),
        ('{"profile": "smoke", "template": "chatt"}', "c.json: unknown template 'chatt'; known: chat"),
        ('{"profile": "smoke", "method": "lor"}', "c.json: unknown method 'lor'; known: dora"),
        (
            '{"profile": "smoke", "track": "neptune"}',
            "option track='neptune': input should be '', 'trackio', 'wandb' or 'mlflow'",
        ),
        ('{"profile": "smoke", "data": "gone"}', "data gone: no such file or folder"),
        ('{"profile": "smoke", "name": "my run"}', "c.json: unknown option 'name'; known: alpha, "),
        ('{"profile": "smoke", "dropout": 1.5}', "c.json: option dropout=1.5: input should be less than 1"),
        ('{"profile": "smoke", "gradient_accumulation": 0}', "gradient_accumulation=0: input should be greater than"),
        ('{"profile": "smoke", "compute_dtype": "bf16"}', "input should be 'float32', 'float16' or 'bfloat16'"),
        (
            '{"profile": "smoke", "optimizer": "adamw_8bit_paged"}',
            "optimizer='adamw_8bit_paged': input should be 'adamw",
        ),
        ('{"profile": "smoke", "seed": -1}', "c.json: seed=-1: input should be greater than or equal to 0"),
        ('{"profile": "smoke", "score": ["all"]}', "score.0='all': input should be 'train', 'validation' or 'test'"),
        ('{"profile": "smoke", "patience": -1}', "patience=-1: input should be greater than or equal to 1"),
        ('{"profile": "smoke", "targets": ["q_proj"]}', "targets=['q_proj']: input should be a valid string\n"),
        ('{"profile": "smoke", "min_words": 9, "max_words": 3}', "max_words=3: must be at least min_words"),
    ],
)
def test_a_wrong_configuration_is_refused(capsys, tmp_path, monkeypatch, config, said):
    monkeypatch.chdir(tmp_path)
    Path("c.json").write_text(config)
    assert said in refused(capsys, "train", "c.json")
    assert os.listdir() == ["c.json"]
    assert "gone.json: No such file" in refused(capsys, "train", "gone.json")


def test_null_is_a_value_and_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"profile": "cpu", "max_words": null}', encoding="utf-8-sig")
    assert finetune.read_configuration(path, {})[1].max_words is None
    assert finetune.read_configuration(path, {"max_words": 99})[1].max_words == 99


def test_numbers_with_an_exponent_are_numbers_in_yaml(tmp_path):
    """YAML 1.1 takes 2e-4, without a point, for a text."""
    path = tmp_path / "c.yaml"
    path.write_text("profile: smoke\nlearning_rate: 2e-4\nepochs: 1E+1\n")
    profile = finetune.read_configuration(path, {})[1]
    assert (profile.learning_rate, profile.epochs) == (2e-4, 10)


def test_a_configuration_may_be_yaml(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("profile: smoke\nseed: 3  # of the split\n")
    settings, profile = finetune.read_configuration(path, {})
    assert (settings.seed, profile.name) == (3, "smoke")


def test_help_lists_the_options_with_what_they_are(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    listed = capsys.readouterr().out.partition("options of CONFIG:\n")[2]
    assert stop.value.code == 0 and "  seed  " in listed and "LoRA's rank" in listed
    assert all(line.split()[1:] for line in listed.splitlines()), "each option says what it is"


def test_what_a_call_says_stands_in_place_of_the_configuration(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.json").write_text('{"profile": "huge", "seed": 1}')
    assert "unknown profile 'huge'" in refused(capsys, "train", "c.json", "-p", "seed=2")
    assert "watch=-1: input should be greater" in refused(
        capsys, "train", "c.json", "-p", "profile=smoke", "-p", "watch=-1"
    )
    assert "unknown option 'sed'" in refused(capsys, "train", "c.json", "-p", "profile=smoke", "-p", "sed=2")
    assert "NAME=VALUE is needed" in refused(capsys, "train", "c.json", "-p", "seed")
    assert Path("c.json").read_text() == '{"profile": "huge", "seed": 1}'


def test_every_profile_passes_its_own_checks():
    for name in PROFILES:
        assert choose_profile(name, learning_rate=1).learning_rate == 1  # a whole number will do


def test_train_stop_resume_and_summarize(one_thread, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SUMMKIT_DATA_DIR", raising=False)
    config = {"profile": "smoke", "out": "mine", "epochs": 4, "max_length": 240, "evaluations_per_epoch": 1}
    Path("c.json").write_text(json.dumps(config | {"patience": 99}))
    given = os.environ | {"PYTHONPATH": str(PACKAGE)}
    command = [warm.python(), "-m", "summkit", "train", "c.json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=given, preexec_fn=hear_ctrl_c, **pipes)
    try:
        end = time.monotonic() + 300
        while not Path("mine/checkpoint-6/complete.json").is_file() and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = (text.decode() for text in process.communicate(timeout=300))
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in err
    assert "summkit: interrupted: the adapter so far is in mine/adapter; --resume continues from there" in err
    assert "interrupted at step" in err and Path("mine/adapter/adapter_model.safetensors").is_file()
    stopped = json.loads(Path("mine/run.json").read_text())["training"]
    assert stopped["interrupted"] and 6 <= stopped["steps"] < 24

    assert main(["train", "c.json", "--resume"]) == 0
    out = capsys.readouterr().out
    done = json.loads(Path("mine/run.json").read_text())
    assert done["training"]["steps"] == 24 and done["training"]["resumed_from"].startswith("checkpoint-")
    assert done["stage"] == "train" and done["model"]["footprint_bytes"] > 0 and "record: mine\n" in out

    Path("a.txt").write_text(ARTICLE * 10)
    Path("b.txt").write_text(ARTICLE)
    ask = ["summarize", "--adapter", "mine/adapter"]
    out, err = call(*ask, "a.txt", "b.txt", check=1)  # a model with random weights: its answers are empty
    assert out == "\n\n" and "no summary, and an empty line, for a.txt, b.txt: try " in err
    assert err.startswith("a.txt: too long for the model, its first ") and "Warning" not in err
    Path("rows.jsonl").write_text(json.dumps({"abstract": ARTICLE * 20}) + "\n" + json.dumps({"text": "Rain."}))
    assert main([*ask, "rows.jsonl", "--strategy", "chunks"]) == 1
    out, err = capsys.readouterr()
    assert out.count("\n") == 2 and "row 1: too long for the model, " in err and " chunks of at most " in err
    assert "row 2: too long" not in err and "Warning" not in err


def test_train_ends_with_a_table_examples_and_the_command_that_asks_the_adapter(
    one_thread, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    config = {"profile": "smoke", "train_rows": 8, "validation_rows": 4, "test_rows": 4, "max_new_tokens": 8}
    Path("c.json").write_text(json.dumps(config | {"out": "my runs/one", "score": ["test"]}))
    assert main(["train", "c.json"]) == 0
    out = capsys.readouterr().out
    record = json.loads(Path("my runs/one/run.json").read_text())
    assert list(record["scores"]) == ["lead1", "lead3", "zero_shot", "fine_tuned"]
    assert len(record["details"]["examples"]) == 3 and set(record["details"]["laps"]) == {
        "set up", "zero-shot", "training", "summaries"
    }  # fmt: skip
    assert all(f"\n{name} " in out for name in ("lead-1", "lead-3", "zero-shot", "fine-tuned"))
    command = shlex.split(out.splitlines()[-1].removeprefix("ask it: "))
    assert command[-2:] == ["--adapter", "my runs/one/adapter"] and command[0] in (sys.executable, "summkit")
    assert "my runs/one has an earlier run" in refused(capsys, "train", "c.json")

    config |= {"out": "two", "score": ["test"], "baselines": False}
    Path("c.json").write_text(json.dumps(config))
    assert main(["train", "c.json"]) == 0
    again = json.loads(Path("two/run.json").read_text())
    assert list(again["scores"]) == ["fine_tuned"] and again["scores"]["fine_tuned"] == record["scores"]["fine_tuned"]
    assert again["training"]["eval_loss"] == record["training"]["eval_loss"], "asking first changes no training"


LABELS = {"profile": "smoke", "out": "mine", "train_rows": 8, "validation_rows": 4, "test_rows": 4, "batch_size": 4}


@pytest.mark.parametrize(("task", "rows"), [("agnews", "topics"), ("mnli", "pairs")])
def test_train_on_labels_without_a_notebook(one_thread, tmp_path, monkeypatch, capsys, task, rows):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SUMMKIT_DATA_DIR", raising=False)
    monkeypatch.setattr(finetune.hub, "require_hub", lambda what: pytest.fail(f"{what} was asked for"))
    Path("c.json").write_text(json.dumps(LABELS | {"task": task}))
    assert main(["train", "c.json"]) == 0
    record = json.loads(Path("mine/run.json").read_text())
    data = {key: record["data"][key] for key in ("id", "source", "train", "validation", "test")}
    assert data == {"id": f"{rows}-sample", "source": "code", "train": 8, "validation": 4, "test": 4}
    assert record["training"]["steps"] == 2 and record["training"]["eval_loss"] > 0 and record["stage"] == "train"
    assert json.loads(Path("mine/adapter/summkit.json").read_text())["task"] == task
    Path("a.txt").write_text(ARTICLE)
    capsys.readouterr()
    said = refused(capsys, "summarize", "--adapter", "mine/adapter", "a.txt")
    assert f"mine/adapter was trained for the task '{task}', which is classification, not summarisation" in said


def test_train_on_a_folder_with_classes_of_its_own(one_thread, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("rows").mkdir()
    rows = [{"comment": f"It was day {n}.", "labels": ["Rain", "sun"]} for n in range(16)]
    Path("rows/all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("rows/classes.txt").write_text("Sun\nRain\n")
    Path("c.json").write_text(json.dumps(LABELS | {"task": "goemotions", "data": "rows"}))
    assert main(["train", "c.json"]) == 0
    record = json.loads(Path("mine/run.json").read_text())
    assert (record["data"]["id"], record["data"]["source"]) == ("local", "local")
    assert record["training"]["steps"] == 4, "eight rows of two labels, four a step"
    Path("rows/classes.txt").write_text("Sun\nFog\n")
    assert "mine has an earlier run (run.json, adapter), which is not overwritten: --res" in refused(
        capsys, "train", "c.json"
    )
    assert "all:1: label 'Rain' is outside the schema: 0 Sun, 1 Fog" in refused(
        capsys, "train", "c.json", "--overwrite"
    )


def test_what_a_task_needs_of_the_hub_is_asked_at_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(finetune.hub, "require_hub", asked.append)
    for name, task in (("smoke", "agnews"), ("cpu", "agnews"), ("cpu", "goemotions"), ("cpu", "mnli")):
        finetune.ask_for_hub(choose_profile(name, task=task), None)
    assert asked == []
    profile = choose_profile("t4", task="mnli")
    finetune.ask_for_hub(profile, None)
    finetune.ask_for_hub(profile, str(tmp_path))
    assert asked == ["model microsoft/phi-2", "data set nyu-mll/multi_nli", "model microsoft/phi-2"]


def test_a_reader_that_has_gone_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    given = os.environ | {"PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(
        [sys.executable, "-m", "summkit", "list"], env=given, cwd=PACKAGE, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_command_that_was_interrupted_says_so(monkeypatch, capsys):
    """Mistaken once for an empty line: an exception without words is true."""

    def interrupted(*arguments, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks, "stages", interrupted)
    assert main(["list"]) == 130 and capsys.readouterr().err.strip() == "summkit: interrupted"
