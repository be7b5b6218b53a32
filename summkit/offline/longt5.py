"""Floor 0. A sparse encoder out of a full one: the weights of a T5, placed into LongT5 with local attention.

Each token of the encoder attends to `local_radius` tokens on either side, so that work grows with the text and not with
its square (Guo et al., 2022: LongT5). No weight changes: what is shorter than the window is read as T5 reads it.
"""

import json
import math
import shutil
from pathlib import Path

CONVERTER = 1  # part of a converted model's folder name: raise it where `from_t5` changes what it writes


def from_t5(folder_in: Path, folder_out: Path, local_radius: int = 127) -> None:
    """Write to `folder_out` the LongT5 of the T5 in `folder_in`: one safetensors file, config.json and a tokenizer.

    LongT5 scales what the decoder gives by 1/√d_model before the head. So does a T5 whose head is its embedding; one
    that has a head of its own (T5 1.1, Flan-T5) does not, so that head takes the factor √d_model.
    """
    from safetensors.torch import load_file, save_file

    config = json.loads((folder_in / "config.json").read_text(encoding="utf-8"))
    weights = {_placed(name): tensor for name, tensor in load_file(folder_in / "model.safetensors").items()}
    if "lm_head.weight" in weights:
        weights["lm_head.weight"] = weights["lm_head.weight"] * math.sqrt(config["d_model"])
    shutil.copytree(folder_in, folder_out)
    save_file(weights, folder_out / "model.safetensors", {"format": "pt"})
    # "Tied" is the loader's word for a scaled output; head and embedding differ, so it keeps them both.
    config |= {"model_type": "longt5", "architectures": ["LongT5ForConditionalGeneration"], "tie_word_embeddings": True}
    config |= {"encoder_attention_type": "local", "local_radius": local_radius, "scale_decoder_outputs": True}
    (folder_out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for path in folder_out.iterdir():
        path.chmod(0o644)


def _placed(name: str) -> str:
    return name.replace(".SelfAttention.", ".LocalSelfAttention.") if name.startswith("encoder.") else name
