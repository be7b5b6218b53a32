"""The study of costs as the profile t4 runs it: BART and SAMSum, three CSV files, through a Hub.

A local Hub holds a tiny BART and a few rows under the real names. Overrides are for size, and for a machine without a
GPU, alone.
"""

import json

import pandas as pd

from tests.unit.test_encoder_decoders import bart_tokenizer, tiny
from tests.unit.test_hub_stages import call

SMALL = {
    "profile": "t4", "task": "costs", "compute_dtype": "float32", "train_rows": 4, "validation_rows": 2,
    "test_rows": 2, "batch_size": 2, "gradient_accumulation": 1, "max_length": 200, "max_new_tokens": 16,
    "out": "mine", "score": ["test"],
}  # fmt: skip


def test_bart_learns_conversations_through_a_hub(local_hub, tmp_path):
    model = local_hub.folder("models", "facebook/bart-base")
    tiny("bart").save_pretrained(model)
    bart_tokenizer().save_pretrained(model)
    rows = [{"id": f"138{n}", "dialogue": f"Ann: Is it {n}?\r\nBo: Yes", "summary": f"It is {n}."} for n in range(9)]
    rows[0]["dialogue"] = None  # as one of the real training rows
    for split, part in {"train": rows[:5], "validation": rows[5:7], "test": rows[7:]}.items():
        pd.DataFrame(part).to_csv(local_hub.folder("datasets", "knkarthick/samsum") / f"{split}.csv", index=False)
    here = tmp_path / "here"
    here.mkdir()
    (here / "c.json").write_text(json.dumps(SMALL))
    done = call([["train", "c.json"]], local_hub.environment(tmp_path / "home"), here)
    assert done.returncode == 0, done.stderr
    assert "profile t4 (asked for by name): facebook/bart-base, fp32 weights" in done.stdout

    record = json.loads((here / "mine" / "run.json").read_text())
    counts = {"train": 4, "validation": 2, "test": 2, "dropped": {"not text": 1}}
    assert record["data"] == {"id": "knkarthick/samsum", "source": "hub"} | counts
    assert record["training"]["steps"] == 2 and record["training"]["eval_loss"] > 0
    assert 0 < record["model"]["trainable"] < record["model"]["parameters"], "adapters in BART's attention"
    assert record["scores"]["fine_tuned"]["n"] == 2
