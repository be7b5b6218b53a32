"""Make a sparse encoder from a full one: copy the weights of a T5 into LongT5 with local attention.

Each token of the encoder attends to `local_radius` tokens on either side, so the work is linear in the length of the
text, not quadratic (Guo et al., 2022: LongT5). The weights do not change: for a text shorter than the window, LongT5
computes the same as T5.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path


def from_t5(folder_in: Path, folder_out: Path, local_radius: int = 127) -> None:
    """Convert a T5 to LongT5: write one safetensors file, config.json and the tokenizer.

    LongT5 scales the decoder's output by 1/√d_model before the head. A T5 with tied head and embedding does the same. A
    T5 with a separate head (T5 1.1, Flan-T5) does not, so its head is multiplied by √d_model here.

    Args:
        folder_in: The folder of the T5 in transformers' format.
        folder_out: The folder to write; it may already exist.
        local_radius: Number of tokens on either side that a token attends to.
    """
    from safetensors.torch import load_file, save_file

    config = json.loads((folder_in / "config.json").read_text(encoding="utf-8"))
    weights = {_renamed(name): tensor for name, tensor in load_file(folder_in / "model.safetensors").items()}
    if "lm_head.weight" in weights:
        weights["lm_head.weight"] = weights["lm_head.weight"] * math.sqrt(config["d_model"])
    shutil.copytree(folder_in, folder_out, dirs_exist_ok=True)
    save_file(weights, folder_out / "model.safetensors", {"format": "pt"})
    # "Tied" makes the loader scale outputs. Since head and embedding differ, it still loads both.
    config |= {"model_type": "longt5", "architectures": ["LongT5ForConditionalGeneration"], "tie_word_embeddings": True}
    config |= {"encoder_attention_type": "local", "local_radius": local_radius, "scale_decoder_outputs": True}
    (folder_out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _renamed(name: str) -> str:
    return name.replace(".SelfAttention.", ".LocalSelfAttention.") if name.startswith("encoder.") else name
