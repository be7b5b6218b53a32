"""A sparse encoder from a full one: the weights of a T5, put into LongT5 with local attention.

Each token of the encoder attends to `local_radius` tokens on either side, so that work grows with the length of the
text and not with its square (Guo et al., 2022: LongT5). No weight changes: LongT5 reads a text that is shorter than the
window exactly as T5 does.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path


def from_t5(folder_in: Path, folder_out: Path, local_radius: int = 127) -> None:
    """Write the LongT5 of a T5: one safetensors file, config.json and the tokenizer.

    LongT5 scales the decoder's output by 1/√d_model before the head. So does a T5 whose head is its embedding; a T5
    with a head of its own (T5 1.1, Flan-T5) does not, so that head is multiplied by √d_model.

    Args:
        folder_in: The T5, as transformers saves it.
        folder_out: The folder to write; it may be there already.
        local_radius: Tokens on either side that a token attends to.
    """
    from safetensors.torch import load_file, save_file

    config = json.loads((folder_in / "config.json").read_text(encoding="utf-8"))
    weights = {_renamed(name): tensor for name, tensor in load_file(folder_in / "model.safetensors").items()}
    if "lm_head.weight" in weights:
        weights["lm_head.weight"] = weights["lm_head.weight"] * math.sqrt(config["d_model"])
    shutil.copytree(folder_in, folder_out, dirs_exist_ok=True)
    save_file(weights, folder_out / "model.safetensors", {"format": "pt"})
    # The loader takes "tied" to mean that outputs are scaled; head and embedding differ, so it keeps both.
    config |= {"model_type": "longt5", "architectures": ["LongT5ForConditionalGeneration"], "tie_word_embeddings": True}
    config |= {"encoder_attention_type": "local", "local_radius": local_radius, "scale_decoder_outputs": True}
    (folder_out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _renamed(name: str) -> str:
    return name.replace(".SelfAttention.", ".LocalSelfAttention.") if name.startswith("encoder.") else name
