"""The exercises, and typical wrong answers with the checks that each of them fails and what that costs."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
BOOKS = {
    "-".join(path.relative_to(ROOT).parts[:-2]): path
    for path in sorted([*ROOT.glob("task*/EXERCISES/*.ipynb"), *ROOT.glob("task*/*/EXERCISES/*.ipynb")])
}
# Wrong answer → assignment, what stands in the solution, what stands there instead, {cell: points that it costs}.
WRONG = {
    "labels-not-shifted": ("task3", "logits[:-1], labels[1:]", "logits, labels", {"loss-shift": 5}),
    "prompt-not-masked": ("task3", "[IGNORE] * len(prompt_ids)", "prompt_ids", {"row-mask": 4}),
    "eos-forgotten": ("task3", "answer_ids + [eos_id]", "answer_ids", {"row-eos": 4}),
    "pads-on-the-right": (
        "task3",
        "[pad_id] * (longest - len(row)) + row for",
        "row + [pad_id] * (longest - len(row)) for",
        {"left-pad": 5},
    ),
    "softmax-over-the-batch": ("task3", "dim=-1, keepdim", "dim=0, keepdim", {"softmax-rows": 4}),
    "input-changed": (
        "task3",
        "    pads = length - len(tokens)",
        "    pads = length - len(tokens)\n    prompt_ids += answer_ids",
        {"row-unchanged": 3},
    ),
    "scale-forgotten": ("task3", "self.scale * (x", "(x", {"lora-path": 6}),
    "b-not-zero": ("task3", "torch.zeros(base.out_features", "torch.ones(base.out_features", {"lora-start": 5}),
    "no-bias-correction": ("task3", " / (1 - betas[0] ** t)", "", {"adamw-first": 6}),
    "top-p-too-few": ("task3", "values, dim=-1) - values", "values, dim=-1)", {"top-p": 7}),
    "never-stops": ("task3", "new[-1] == eos_id", "False", {"greedy-eos": 4}),
}


def changed(path, old, new):
    """The notebook at `path` as text, with `old` replaced by `new` in its solutions."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    count = 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["metadata"].get("nbgrader", {}).get("solution"):
            count += source.count(old)
            cell["source"] = source.replace(old, new)
    assert count, f"no solution has {old!r}"
    return json.dumps(notebook)
