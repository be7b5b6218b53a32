"""The study of methods as the profile t4 runs it: GPT-2 and CNN/DailyMail through a Hub, LoRA on c_attn and c_proj.

A local Hub holds a tiny GPT-2 and a few rows under the real names. Overrides are for size, and for a machine without a
GPU, alone.
"""

import json

from tests.unit.test_hub_stages import call

SMALL = {
    "profile": "t4", "task": "methods", "compute_dtype": "float32", "train_rows": 4, "validation_rows": 2,
    "test_rows": 2, "epochs": 1, "batch_size": 2, "gradient_accumulation": 1, "max_length": 200, "max_new_tokens": 16,
    "min_words": 0, "out": "mine", "score": ["test"],
}  # fmt: skip


def test_gpt2_learns_and_answers_through_a_hub(local_hub, tmp_path):
    local_hub.add_tiny_gpt2()
    rows = [{"article": f"Bridge {n} was closed on Monday. Nobody was hurt.", "highlights": f"Bridge {n} shut .",
             "id": f"r{n}"} for n in range(9)]  # fmt: skip
    splits = {"train": rows[:5], "validation": rows[5:7], "test": rows[7:]}
    local_hub.add_rows("abisee/cnn_dailymail", {"3.0.0": splits})
    here = tmp_path / "here"
    here.mkdir()
    (here / "c.json").write_text(json.dumps(SMALL))
    environment = local_hub.environment(tmp_path / "home")
    commands, text = [["train", "c.json"], ["summarize", "--adapter", "mine/adapter"]], "The bridge was closed. " * 3
    done = call(commands, environment, here, input=text)
    # Random weights may write nothing, which is exit code 1.
    assert done.returncode == 0 or "no summary, and an empty line" in done.stderr, done.stderr
    assert "profile t4 (asked for by name): openai-community/gpt2, fp32 weights" in done.stdout

    record = json.loads((here / "mine" / "run.json").read_text())
    data = {key: record["data"][key] for key in ("id", "source", "train", "validation", "test")}
    assert data == {"id": "abisee/cnn_dailymail", "source": "hub", "train": 4, "validation": 2, "test": 2}
    assert record["training"]["steps"] == 2 and record["training"]["eval_loss"] > 0
    rank, layers, width = 8, 2, 64
    adapted = [(width, 3 * width), (width, width), (4 * width, width)]  # c_attn, and c_proj of attention and MLP
    assert record["model"]["trainable"] == layers * sum(rank * sum(sizes) for sizes in adapted)
    adapter = json.loads((here / "mine" / "adapter" / "adapter_config.json").read_text())
    assert (sorted(adapter["target_modules"]), adapter["r"]) == (["c_attn", "c_proj"], rank)
    assert record["scores"]["fine_tuned"]["n"] == 2
    assert "/datasets/abisee/cnn_dailymail/resolve/" in " ".join(local_hub.requests)
    assert done.stdout.rpartition("--adapter mine/adapter\n")[2].count("\n") == 1, "the answer, in one line"
