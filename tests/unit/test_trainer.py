"""Training on a tiny random model: which loss, what is counted, and what a killed, broken or foreign run leads to."""

import contextlib
import dataclasses
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
from pathlib import Path

import datasets
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from summkit.config import choose_profile
from summkit.data import batching, templates, tokenisation
from summkit.errors import SummkitError
from summkit.inference import generation
from summkit.models import loading, methods
from summkit.models.tiny import tiny_llama
from summkit.training import checkpoints, fit, mean_loss, save_adapter, summary_loss
from tests import warm

ROOT = Path(__file__).parents[2]
SMOKE = dataclasses.replace(choose_profile("smoke"), evaluations_per_epoch=3)
PLAIN = dataclasses.replace(SMOKE, precision="fp32", optimizer="adamw_torch", dropout=0.0)
TOKENIZER = loading.tiny_tokenizer()
TEMPLATE = templates.build_template("instruction", TOKENIZER, "Sum up.")


pytestmark = pytest.mark.usefixtures("one_thread")


def rows(number, seed=0, longest=60):
    """Encoded pairs of random letters; articles of all lengths."""
    draw = random.Random(seed)
    pairs = [
        ("x" * draw.randint(5, longest), "".join(draw.choices("abc ", k=draw.randint(4, 9)))) for _ in range(number)
    ]
    encoded = [tokenisation.encode(TEMPLATE, TOKENIZER, *pair, max_length=200, max_new_tokens=16) for pair in pairs]
    return datasets.Dataset.from_list(encoded)


def adapted(profile=SMOKE):
    transformers.set_seed(0)
    return methods.apply_method(loading.load_model(profile.model, profile.precision), profile)


def run(out, profile=SMOKE, train=None, **settings):
    """A training of six steps: (result, the adapter's bytes)."""
    train, validation = train or rows(24), rows(6, seed=1)
    result = fit(adapted(profile), TOKENIZER, train, validation, profile, seed=0, out_dir=out, **settings)
    return result, (Path(result.adapter) / "adapter_model.safetensors").read_bytes()


def losses(result):
    return [{k: e[k] for k in ("step", "loss", "eval_loss", "learning_rate") if k in e} for e in result.history]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("unbroken"))


@pytest.fixture
def finished(unbroken, tmp_path):
    """A copy of the unbroken run's folder, to be damaged."""
    return shutil.copytree(Path(unbroken[0].adapter).parent, tmp_path / "run")


def by_hand(model, encoded):
    """Mean loss over the summaries' tokens: every row alone, all logits, no library code."""
    total = count = 0
    for row in encoded:
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            chances = model(ids, use_cache=False).logits[0].log_softmax(-1)
        for place, label in enumerate(row["labels"]):
            if label != -100:
                total, count = total - float(chances[place - 1, label]), count + 1
    return total / count


# The loss


def test_the_loss_is_the_full_computations_and_its_logits_the_summarys():
    model, seen = tiny_llama(), []
    batch = batching.Collator(TOKENIZER)(list(rows(5)))
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    loss = summary_loss(model, batch)
    full = model(**batch).loss
    kept = int((batch["labels"] != tokenisation.IGNORE).sum())
    assert abs(float(loss) - float(full)) < 1e-6
    assert seen[0][-2] == kept and seen[0][:-1].numel() == kept
    assert seen[1][:-1].numel() == batch["input_ids"].numel()
    loss.backward()
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(**batch).loss.backward()
    assert all(torch.allclose(a, p.grad, atol=1e-6) for a, p in zip(ours, model.parameters(), strict=True))


def test_mean_loss_counts_every_token_once_and_leaves_the_mode():
    model, encoded = tiny_llama().train(), rows(7)
    for batch_size in (1, 3, 7):
        assert mean_loss(model, encoded, TOKENIZER, batch_size) == pytest.approx(by_hand(model, encoded), abs=1e-5)
    assert model.training


def test_mean_loss_leaves_the_mode_after_an_error(monkeypatch):
    model = tiny_llama().train()
    monkeypatch.setattr(model, "forward", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mean_loss(model, rows(2), TOKENIZER)
    assert model.training


def test_mean_loss_without_a_summary_token_says_so():
    bare = [tokenisation.encode(TEMPLATE, TOKENIZER, "A ferry.", None, max_length=200, max_new_tokens=16)]
    masked = rows(2).map(lambda row: {"labels": [tokenisation.IGNORE] * len(row["labels"])})
    for encoded in (bare, masked, []):
        with pytest.raises(SummkitError, match=f"no summary token in {len(encoded)} rows"):
            mean_loss(tiny_llama(), encoded, TOKENIZER)


def test_trainer_sees_the_masked_labels(tmp_path):
    """Mistake 1: a collator that writes the inputs over the labels makes every loss one over the prompt too."""
    train, profile = rows(6), dataclasses.replace(PLAIN, batch_size=6)
    before = by_hand(tiny_llama(), train)
    model = adapted(profile)
    result = fit(model, TOKENIZER, train, rows(5, seed=1), profile, seed=0, out_dir=tmp_path)
    assert result.steps == 1 and losses(result)[0]["loss"] == pytest.approx(
        before, abs=1e-4
    )  # the adapter starts at zero
    assert result.eval_loss == pytest.approx(by_hand(model.eval(), rows(5, seed=1)), abs=1e-5)


def test_accumulated_batches_weigh_every_token_the_same(tmp_path):
    train = rows(8)
    whole, parts = (dataclasses.replace(PLAIN, batch_size=b, gradient_accumulation=g) for b, g in ((8, 1), (2, 4)))
    found = [run(tmp_path / str(p.batch_size), p, train)[0] for p in (whole, parts)]
    assert [result.steps for result in found] == [1, 1]
    assert losses(found[0])[0]["loss"] == pytest.approx(losses(found[1])[0]["loss"], abs=1e-4)


def test_the_end_is_learned(tmp_path):
    """Mistake 2: without EOS among the labels a model that knows the sentence by heart still goes on after it."""
    pair = ("A ferry.", "ab")
    row = tokenisation.encode(TEMPLATE, TOKENIZER, *pair, max_length=200, max_new_tokens=16)
    profile = dataclasses.replace(PLAIN, learning_rate=5e-3, epochs=20, evaluations_per_epoch=1, batch_size=4)
    model = adapted(profile)
    pairs = datasets.Dataset.from_list([row] * 16)
    fit(model, TOKENIZER, pairs, pairs.select([0]), profile, seed=0, out_dir=tmp_path)
    found = generation.summarize(model, TOKENIZER, TEMPLATE, [pair[0]], max_length=200, max_new_tokens=16)[0]
    learned = sum(label != tokenisation.IGNORE for label in row["labels"])
    assert (found.text, found.ended, found.tokens) == ("ab", True, learned)


# What is counted


def test_tokens_and_padding_are_counted_and_length_grouping_saves_padding(tmp_path):
    train = rows(96, longest=140)
    lengths = list(train["length"])
    result, _ = run(tmp_path, PLAIN, train)
    assert (result.steps, result.tokens) == (24, sum(lengths))
    order = random.Random(0).sample(range(96), 96)
    at_random = batching.padding_fraction([order[n : n + 4] for n in range(0, 96, 4)], lengths)
    best = batching.padding_fraction(batching.length_sorted_batches(lengths, 4), lengths)
    assert best - 1e-9 <= result.padding_fraction < at_random / 2


def test_early_stopping_keeps_the_best(tmp_path):
    profile = dataclasses.replace(PLAIN, learning_rate=3.0, patience=1, epochs=4, evaluations_per_epoch=6)
    result, _ = run(tmp_path, profile)
    assert result.stopped_early and result.best_step < result.steps < 24
    best = next(e["eval_loss"] for e in result.history if e["step"] == result.best_step and "eval_loss" in e)
    assert result.eval_loss == best == min(e["eval_loss"] for e in result.history if "eval_loss" in e)


def test_the_record_has_what_the_schema_asks_for(unbroken):
    from summkit.reporting import records

    assert set(unbroken[0].record()) == set(records.SECTIONS["training"])


# Killed, interrupted, damaged

KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}]
from tests.unit import test_trainer as t
def kill(history):
    if history[-1]["step"] == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
t.torch.set_num_threads(1)
t.run({out!r}, on_log=kill)
"""


def test_killed_at_any_step_and_resumed_it_is_the_same_run(unbroken, tmp_path):
    step = random.SystemRandom().randint(1, 6)
    code = KILLED.format(root=str(ROOT), step=step, out=str(tmp_path))
    killed = subprocess.run([warm.python(), "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    result, adapter = run(tmp_path, resume=True)
    assert result.resumed_from == (None if step < 3 else f"checkpoint-{2 * ((step - 1) // 2)}"), (
        f"killed at step {step}"
    )
    assert losses(result) == losses(unbroken[0]), f"killed at step {step}"
    assert adapter == unbroken[1], f"killed at step {step}"
    assert (result.tokens, result.padding_fraction) == (unbroken[0].tokens, unbroken[0].padding_fraction)


def stopped_at(step):
    """What takes a run down at `step`, with nothing saved after it."""

    def kill(history):
        if history[-1]["step"] == step:
            raise MemoryError

    return kill


PATIENT = dataclasses.replace(SMOKE, patience=50)
# It learns nothing, so the first evaluation is the best one, and the third the last.
IMPATIENT = dataclasses.replace(SMOKE, learning_rate=1e-30, patience=2, epochs=3)


@pytest.mark.parametrize(
    ("profile", "steps", "resumed_from"),
    [
        (dataclasses.replace(PATIENT, epochs=2), (9, 11), "checkpoint-10"),  # twice in the same epoch
        (dataclasses.replace(PATIENT, epochs=3), (7, 16), "checkpoint-14"),  # at an epoch's end, and in the last one
        (dataclasses.replace(PATIENT, epochs=1.5, batch_size=2, gradient_accumulation=2), (9,), "checkpoint-8"),
    ],
)
def test_a_run_broken_in_later_epochs_sees_the_rows_in_the_same_order(tmp_path, profile, steps, resumed_from):
    whole, adapter = run(tmp_path / "whole", profile)
    for step in steps:
        with pytest.raises(MemoryError):
            run(tmp_path / "broken", profile, on_log=stopped_at(step), resume=True)
    result, again = run(tmp_path / "broken", profile, resume=True)
    assert result.resumed_from == resumed_from and losses(result) == losses(whole)
    assert again == adapter and result.tokens == whole.tokens


def test_early_stopping_goes_on_counting(tmp_path):
    whole, _ = run(tmp_path / "whole", IMPATIENT)
    with pytest.raises(MemoryError):
        run(tmp_path / "broken", IMPATIENT, on_log=stopped_at(5))
    result, _ = run(tmp_path / "broken", IMPATIENT, resume=True)
    assert result.resumed_from == "checkpoint-4" and whole.stopped_early and result.stopped_early
    assert (result.steps, losses(result)) == (whole.steps, losses(whole))


@pytest.mark.parametrize("profile", [IMPATIENT, dataclasses.replace(SMOKE, epochs=1.5)])
def test_a_run_that_was_over_is_trained_no_further(tmp_path, profile):
    whole, adapter = run(tmp_path, profile)
    result, again = run(tmp_path, profile, resume=True)
    assert (result.resumed_from, result.steps, result.stopped_early) == (
        f"checkpoint-{whole.steps}",
        whole.steps,
        whole.stopped_early,
    )
    assert again == adapter and result.train_loss == whole.train_loss and result.tokens == whole.tokens


def interrupt_at(step):
    def interrupt(history):
        if history[-1]["step"] == step and "loss" in history[-1]:
            raise KeyboardInterrupt

    return interrupt


def test_ctrl_c_saves_the_adapter_so_far_and_resumes(unbroken, tmp_path, caplog):
    result, adapter = run(tmp_path, on_log=interrupt_at(4))
    assert result.interrupted and not result.stopped_early and result.seconds > 0
    assert "interrupted at step 4: the current adapter is saved" in caplog.text
    assert len(adapter) == len(unbroken[1]) and adapter != unbroken[1]
    assert checkpoints.read_settings(result.adapter)["model"] == SMOKE.model
    result, adapter = run(tmp_path, resume=True)
    assert result.resumed_from == "checkpoint-2" and adapter == unbroken[1] and losses(result) == losses(unbroken[0])


def test_a_moved_run_ends_with_the_best_checkpoint_too(tmp_path):
    """Mistaken once: the best checkpoint was looked for where the folder had been, and the last one taken."""
    profile = dataclasses.replace(PLAIN, learning_rate=3.0, patience=50, evaluations_per_epoch=6)
    whole, adapter = run(tmp_path / "whole", profile)
    assert whole.best_step < 5, "else the test says nothing"
    with pytest.raises(MemoryError):
        run(tmp_path / "before", profile, on_log=stopped_at(6))
    (tmp_path / "before").rename(tmp_path / "after")
    result, again = run(tmp_path / "after", profile, resume=True)
    assert (result.best_step, result.eval_loss) == (whole.best_step, whole.eval_loss) and again == adapter
    shutil.rmtree(tmp_path / "after" / "adapter")
    (tmp_path / "after").rename(tmp_path / "ended")  # as after a kill between the last checkpoint and the adapter
    assert run(tmp_path / "ended", profile, resume=True)[1] == adapter


# A loss that is no number, and cells that run twice


def broken_model():
    """A model whose first loss is no number."""
    model = adapted(PLAIN)
    next(weight for name, weight in model.named_parameters() if "1.mlp.down_proj.base_layer" in name).data.fill_(
        torch.nan
    )
    return model


def test_a_loss_that_is_not_finite_stops_the_training_and_saves_nothing(tmp_path):
    """Mistaken once: exit 0, a made-up mean loss in the record, and an adapter of NaN."""
    profile = dataclasses.replace(PLAIN, learning_rate=1e30, evaluations_per_epoch=6)
    given = (TOKENIZER, rows(24), rows(6, seed=1))
    with pytest.raises(SummkitError, match=r"loss is (nan|inf).*: lower learning_rate=1e\+30\. If"):
        fit(adapted(profile), *given, profile, seed=0, out_dir=tmp_path)
    with pytest.raises(SummkitError, match=r"the training loss is nan.*the model itself is broken"):
        fit(broken_model(), *given, PLAIN, seed=0, out_dir=tmp_path)
    assert not (tmp_path / "adapter").exists() and not list(tmp_path.glob("checkpoint-*"))


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(finished):
    model = adapted()
    next(weight for weight in model.parameters() if weight.requires_grad).data.fill_(float("nan"))
    with pytest.raises(SummkitError, match="the trained weights hold NaN or infinity"):
        save_adapter(model, finished / "adapter", SMOKE)
    path = finished / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).fill_(float("inf"))
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(SummkitError, match="adapter holds NaN or infinity: train it again"):
        checkpoints.load_adapter(loading.load_model("tiny-llama", "nf4"), finished / "adapter", "tiny-llama")


def test_the_training_cell_twice_gives_the_same_adapter_twice(tmp_path, caplog):
    """Mistaken once: the second run began from the first one's weights, and said nothing."""
    model = adapted()
    given = (TOKENIZER, rows(24), rows(6, seed=1), SMOKE)
    first, second = (fit(model, *given, seed=0, out_dir=tmp_path / str(number)) for number in range(2))
    assert losses(first) == losses(second)
    one, other = (Path(result.adapter, "adapter_model.safetensors").read_bytes() for result in (first, second))
    assert one == other and caplog.text.count("it starts again from its first weights") == 1
    stopped = fit(model, *given, seed=0, out_dir=tmp_path / "2", on_log=interrupt_at(4))
    assert stopped.interrupted and stopped.steps == 4
    limits = {"max_length": 200, "max_new_tokens": 4}
    assert generation.summarize(model, TOKENIZER, TEMPLATE, ["A ferry."], **limits)[0].tokens
    assert losses(fit(model, *given, seed=0, out_dir=tmp_path / "2")) == losses(first)


def test_the_record_of_an_earlier_run_goes_with_its_adapter(finished, monkeypatch):
    """Mistaken once: a run that failed after its training left a new adapter beside the numbers of the old one."""
    record = finished / "run.json"
    record.write_text("{}")
    monkeypatch.setattr(checkpoints, "check_room", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(finished)
    assert record.exists(), "the old adapter is still there"
    monkeypatch.undo()
    run(finished)
    assert not record.exists()


def test_a_model_of_its_own_weights_trained_twice_says_that_it_goes_on(tmp_path, caplog):
    profile = dataclasses.replace(PLAIN, method="head", epochs=0.5)
    model = adapted(profile)
    for number in range(2):
        fit(model, TOKENIZER, rows(8), rows(2, seed=1), profile, seed=0, out_dir=tmp_path / str(number))
        assert ("continues from there: load it again for a fresh start" in caplog.text) == bool(number)
    with pytest.raises(SummkitError, match="load the base model to ask it"), loading.adapter_off(model):
        pass


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", checkpoints.MANIFEST])
def test_a_checkpoint_cut_off_is_left_out_and_the_one_before_used(unbroken, finished, name, caplog):
    broken = finished / "checkpoint-6" / name
    broken.write_bytes(broken.read_bytes()[:40])
    assert checkpoints.last_whole_checkpoint(finished).name == "checkpoint-4"
    assert "checkpoint-6 is incomplete" in caplog.text
    if name == "optimizer.pt":
        result, adapter = run(finished, resume=True)
        assert (
            result.resumed_from == "checkpoint-4" and adapter == unbroken[1] and losses(result) == losses(unbroken[0])
        )


def test_a_missing_file_counts_as_cut_off(finished):
    (finished / "checkpoint-6" / "trainer_state.json").unlink()
    (finished / "checkpoint-4" / checkpoints.MANIFEST).unlink()
    assert checkpoints.last_whole_checkpoint(finished) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [({"learning_rate": 5e-4}, "learning_rate was 0.001, now 0.0005"), ({"rank": 8}, "rank was 16, now 8")],
)
def test_other_settings_are_refused(finished, change, said):
    with pytest.raises(SummkitError, match=said):
        run(finished, dataclasses.replace(SMOKE, **change), resume=True)
    assert (finished / "checkpoint-6").is_dir(), "nothing is lost"


def test_other_rows_or_another_seed_are_refused_and_other_test_rows_are_not():
    same = checkpoints.fingerprint(SMOKE, 0, rows(4), rows(2))
    assert checkpoints.fingerprint(SMOKE, 0, rows(4, seed=5), rows(2))["training rows"] != same["training rows"]
    assert checkpoints.fingerprint(SMOKE, 1, rows(4), rows(2)) != same
    assert checkpoints.fingerprint(dataclasses.replace(SMOKE, test_rows=3, reason="x"), 0, rows(4), rows(2)) == same


def test_without_resume_an_earlier_runs_checkpoints_do_not_stay(finished):
    checkpoints.clear_after(finished, finished / "checkpoint-4")
    assert [path.name for path in finished.glob("checkpoint-*")] == ["checkpoint-4"]
    checkpoints.clear_after(finished, None)
    assert not list(finished.glob("checkpoint-*")) and (finished / "adapter").is_dir()


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_a_pickle_in_a_checkpoint_is_not_executed(finished, tmp_path, name):
    marker, checkpoint = tmp_path / "executed", finished / "checkpoint-4"
    shutil.rmtree(finished / "checkpoint-6")
    (checkpoint / name).write_bytes(pickle.dumps(Evil(marker)))
    manifest = json.loads((checkpoint / checkpoints.MANIFEST).read_text())
    manifest["files"][name] = (checkpoint / name).stat().st_size
    (checkpoint / checkpoints.MANIFEST).write_text(json.dumps(manifest))
    with contextlib.suppress(pickle.UnpicklingError):
        run(finished, resume=True)
    assert not marker.exists()


def test_an_adapter_is_replaced_whole(finished, monkeypatch):
    def killed(*_, **__):
        raise OSError("no space")

    model, before = adapted(), (finished / "adapter" / "adapter_model.safetensors").read_bytes()
    monkeypatch.setattr(model, "save_pretrained", killed)
    with pytest.raises(OSError, match="no space"):
        save_adapter(model, finished / "adapter", SMOKE)
    assert (finished / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_saving_asks_nothing_of_the_hub_and_leaves_the_environment(tmp_path, monkeypatch):
    """Mistaken once: peft asks for the base's configuration at each save, and without a network waits for it."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("asked the network"))
    hub = "peft.utils.save_and_load.check_file_exists_on_hf_hub"
    monkeypatch.setattr(hub, lambda *_, **__: pytest.fail("asked the Hub"))
    model, environment = adapted(), dict(os.environ)
    model.peft_config["default"].base_model_name_or_path = "someone/some-model"
    seen = []
    data = (TOKENIZER, rows(8), rows(4, seed=1), SMOKE)
    fit(model, *data, seed=0, out_dir=tmp_path, on_log=lambda _: seen.append(dict(os.environ)))
    assert list(tmp_path.glob("checkpoint-*")) and all(now == environment for now in [*seen, dict(os.environ)])
    again = checkpoints.load_adapter(loading.load_model("tiny-llama", "nf4"), tmp_path / "adapter", "tiny-llama")
    again.peft_config["default"].base_model_name_or_path = "someone/some-model"
    save_adapter(again, tmp_path / "again", SMOKE)
    saved = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == SMOKE.model  # the profile's, which other machines can find


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_disk_without_room_for_the_checkpoints_is_said_before_the_first_step(tmp_path, monkeypatch, method):
    """Mistaken once: torch's writer says of a full disk that it is at an unexpected position."""
    profile = dataclasses.replace(PLAIN, method=method)
    given = (TOKENIZER, rows(24), rows(6, seed=1), profile)
    fit(adapted(profile), *given, seed=0, out_dir=tmp_path)
    taken = sum(path.stat().st_size for path in (tmp_path / "checkpoint-6").rglob("*.safetensors"))
    taken += (tmp_path / "checkpoint-6" / "optimizer.pt").stat().st_size
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: usage._replace(free=int(2.7 * taken)))
    with pytest.raises(SummkitError, match="no space in .*new: three checkpoints take .* GB are free; free some space"):
        fit(adapted(profile), *given, seed=0, out_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: usage._replace(free=int(3.3 * taken)))
    fit(adapted(profile), *given, seed=0, out_dir=tmp_path / "new")
