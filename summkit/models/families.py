"""Model families: a row in families.yaml for each `model_type` that needs special treatment.

A family without a row needs none. A plugin adds its own with `FAMILIES.add`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from summkit.files import read_mapping
from summkit.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Family:
    """The special treatment of the models of one `model_type`.

    Attributes:
        overflows_in_fp16: Whether activations exceed fp16's largest number, 65,504, so that the loss becomes NaN.
        global_first: Whether the first token of each row needs global attention.
        table_of_positions: Whether a decoder looks its positions up in a table, so that a longer row fails.
        refused: Why this library cannot train such models; "" if it can.
    """

    overflows_in_fp16: bool = False
    global_first: bool = False
    table_of_positions: bool = False
    refused: str = ""


_ROWS = read_mapping(Path(__file__).with_suffix(".yaml"), "families")
FAMILIES: Registry[Family] = Registry("model family", {name: Family(**row) for name, row in _ROWS.items()})


def family_of(model: PreTrainedModel | PreTrainedConfig) -> Family:
    """Return the family of a model or of its configuration, or the default family.

    Example:
        >>> from transformers import LEDConfig, LlamaConfig
        >>> family_of(LEDConfig()).global_first, family_of(LlamaConfig()).global_first
        (True, False)
    """
    config = getattr(model, "config", model)
    return FAMILIES.get(config.model_type, Family())


def shortest_batch(config: PreTrainedConfig) -> int:
    """Return the shortest batch that BigBird reads sparsely; a shorter one switches it to full attention for good."""
    if getattr(config, "attention_type", "") != "block_sparse":  # any other model
        return 0
    return (5 + 2 * config.num_random_blocks) * config.block_size + 1


def positions(config: PreTrainedConfig) -> tuple[int | None, int | None]:
    """Return the number of positions of encoder and decoder; None for no limit.

    BART and BigBird set one number for both, LED two, T5 none. A decoder's prompt and answer together are its first.
    """
    both = getattr(config, "max_position_embeddings", None)
    if not config.is_encoder_decoder:
        return both if family_of(config).table_of_positions else None, None
    encoder = getattr(config, "max_encoder_position_embeddings", both)
    decoder = getattr(config, "max_decoder_position_embeddings", both)
    return encoder, decoder
