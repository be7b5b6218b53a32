"""On a GPU: training and answering in half precision, resuming after a kill, memory as planned, every notebook.

`make test-gpu` runs them. What they compare is compared with the CPU's tests elsewhere, or with a second run here.
"""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from summkit.config import choose_profile, detect_hardware
from summkit.recipes import notebooks
from summkit.reporting import records

ROOT = Path(__file__).parents[2]
SMALL = {"profile": "smoke", "train_rows": 48, "validation_rows": 8, "test_rows": 4, "dropout": 0.0}
TEXTS = ["A short text.", "The bridge over the Marran opened on Monday after a year of work. " * 2, "Rain."]
LIMITS = {"max_length": 320, "max_new_tokens": 12}


def needs_bf16(dtype):
    if dtype == "bfloat16" and not detect_hardware().bf16:
        pytest.skip("this GPU has no bf16")


def train(folder, *more, **settings):
    """Train in a process of its own, as a user does, and return the record."""
    config = folder / f"{folder.name}.json"
    config.write_text(json.dumps(SMALL | {"out": str(folder / "run")} | settings))
    command = [sys.executable, "-m", "summkit", "train", str(config), *more]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return records.read_record(folder / "run" / "run.json")


def environment():
    return os.environ | {"TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("precision", ["nf4", "int8"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_trains_and_answers_in_half_precision_with_checkpointing(tmp_path, precision, dtype):
    """float16 goes through the GradScaler: a loss of NaN would stop the training."""
    needs_bf16(dtype)
    settings = {"precision": precision, "compute_dtype": dtype, "gradient_checkpointing": True, "score": ["test"]}
    record = train(tmp_path, epochs=2, **settings)
    assert record["environment"]["device"] == detect_hardware().name
    assert record["resources"]["peak_device_bytes"] > 1e6
    trained = record["training"]
    assert math.isfinite(trained["train_loss"]) and trained["eval_loss"] < math.log(264)  # of guessing a byte
    assert record["scores"]["fine_tuned"]["n"] == 4


def test_half_precision_learns_what_fp32_learns(tmp_path):
    losses = {}
    for dtype in ("float32", "float16", *(["bfloat16"] if detect_hardware().bf16 else [])):
        folder = tmp_path / dtype
        folder.mkdir()
        losses[dtype] = train(folder, compute_dtype=dtype, epochs=2)["training"]["eval_loss"]
    assert losses == pytest.approx(dict.fromkeys(losses, losses["float32"]), rel=0.02)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_option_for_speed_learns_the_same(tmp_path, dtype):
    """Each alone and all together; the report says that it was on."""
    needs_bf16(dtype)
    import transformers

    from summkit.models import loading, methods
    from summkit.training import fit
    from tests.unit.test_trainer import TOKENIZER, rows

    alone = {"pure_compute_dtype": True, "packing": True, "compile_from_steps": 1}
    together = alone | {"pad_to_multiple_of": 64, "gradient_checkpointing": True}
    if importlib.util.find_spec("liger_kernel"):
        alone["fused_kernels"] = True
    losses = {}
    for name, some in ({"none": {}, "all": together} | {name: {name: value} for name, value in alone.items()}).items():
        profile = choose_profile("smoke", compute_dtype=dtype, optimizer="adamw_torch_fused", dropout=0.0, **some)
        transformers.set_seed(0)
        model = methods.apply_method(loading.load_model("tiny-llama", "nf4", dtype), profile)
        made = fit(model, TOKENIZER, rows(24), rows(6, seed=1), profile, seed=0, out_dir=tmp_path / name)
        assert made.speed == dict.fromkeys(some.keys() & alone.keys(), "on"), name
        losses[name] = made.eval_loss
    assert losses == pytest.approx(dict.fromkeys(losses, losses["none"]), rel=0.02)


def test_what_was_killed_is_resumed(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    settings = {"compute_dtype": "float16", "epochs": 3}
    whole = train(tmp_path / "whole", **settings)
    folder = tmp_path / "killed"
    config = folder / "killed.json"
    config.write_text(json.dumps(SMALL | {"out": str(folder / "run")} | settings))
    command = [sys.executable, "-m", "summkit", "train", str(config)]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as victim:
        ends = time.monotonic() + 240
        while not list((folder / "run").glob("checkpoint-*/complete.json")) and time.monotonic() < ends:
            time.sleep(0.02)
        victim.send_signal(signal.SIGKILL)
    resumed = train(folder, "--resume", **settings)
    assert resumed["training"]["resumed_from"]
    for key in ("steps", "tokens"):
        assert resumed["training"][key] == whole["training"][key]
    # Kernels add in any order: not bit for bit, as on a CPU.
    assert resumed["training"]["eval_loss"] == pytest.approx(whole["training"]["eval_loss"], rel=0.01)


@pytest.fixture(scope="module")
def phi(tmp_path_factory):
    """A folder with a model of phi's kind, large enough that its parts decide, and a tokenizer of bytes."""
    import torch
    from transformers import PhiConfig

    from summkit.models import loading

    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 12, "num_attention_heads": 16}
    folder = tmp_path_factory.mktemp("phi")
    with torch.device("cuda"):
        model = loading.auto_class(PhiConfig()).from_config(PhiConfig(**sizes), dtype=torch.float16)
    model.save_pretrained(folder)
    loading.tiny_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_training_takes_the_memory_that_was_planned(phi, tmp_path, checkpointing):
    import datasets

    from benchmarks.gpu import made_up
    from summkit.data import templates, tokenisation
    from summkit.models import loading, methods
    from summkit.resources import Meter, memory, release_memory
    from summkit.training.trainer import fit

    own = {"model": phi, "compute_dtype": "float16", "max_length": 512, "max_new_tokens": 64, "batch_size": 8}
    profile = choose_profile("t4", **own, gradient_accumulation=1, gradient_checkpointing=checkpointing)
    tokenizer = loading.load_tokenizer(phi)
    rows = datasets.Dataset.from_list(made_up(profile, 24)["rows"])
    template = templates.summary_template(profile, tokenizer)
    encoded = tokenisation.encode_rows(rows, template, tokenizer, profile.max_length, profile.max_new_tokens)
    model = methods.apply_method(loading.load_model(phi, "nf4", "float16"), profile)
    release_memory()
    with Meter(energy=False) as meter:
        fit(model, tokenizer, encoded, encoded.select([0]), profile, seed=0, out_dir=tmp_path)
    plan = memory.plan_training(model.config, **memory.plan_settings(profile, device="cuda"))
    # torch does not count CUDA's own context.
    assert meter.peak_device_bytes == pytest.approx(plan.total - plan["framework"], rel=0.1), plan.rows()


@pytest.mark.parametrize("precision", ["nf4", "fp32"])
def test_every_way_to_answer_writes_the_same(precision):
    """In fp32, where two tokens hardly ever tie."""
    from summkit.data import templates
    from summkit.inference import engines, generation
    from summkit.models import loading, methods

    tokenizer = loading.load_tokenizer("tiny-llama")
    template = templates.build_template("instruction", tokenizer)
    profile = choose_profile("smoke", precision=precision, dropout=0.0)
    model = methods.apply_method(loading.load_model("tiny-llama", precision), profile)
    assert model.device.type == "cuda" and engines.copy_fits(model.get_base_model())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    asked = (model, tokenizer, template, TEXTS)
    expected = generation.summarize(*asked, merge=False, **LIMITS)
    assert generation.summarize(*asked, base=True, **LIMITS) != expected
    for engine in engines.ENGINES:
        for size in (1, 2, 3):
            found = generation.summarize(*asked, engine=engine, batch_size=size, **LIMITS)
            assert found == expected, (engine, size)


def test_a_gpus_energy_is_read_from_its_meter():
    pytest.importorskip("codecarbon")
    pytest.importorskip("pynvml")
    import torch

    from summkit.resources import Meter

    with Meter() as meter:
        numbers = torch.randn(4096, 4096, device="cuda")
        ends = time.monotonic() + 3
        while time.monotonic() < ends:
            numbers @ numbers
        torch.cuda.synchronize()
    watts = meter.energy_parts["measured"] * 3.6e6 / meter.wall_seconds
    assert 10 < watts < 3000


@pytest.mark.parametrize("name", list(notebooks.stages()))
def test_a_notebook_runs_on_the_gpu(name, tmp_path):
    folder = notebooks.run_notebooks([name], "smoke", tmp_path / "run")
    record = records.read_record(folder / name / "run.json")
    assert record["environment"]["device"] == detect_hardware().name
