"""Model families: one entry for each `model_type` that needs special treatment, most of them in families.yaml.

A family without an entry needs no special treatment. A plugin adds its own with `FAMILIES.add`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from summkit.files import read_mapping
from summkit.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Positions = tuple[int | None, int | None]
_TABLE = read_mapping(Path(__file__).with_name("families.yaml"), "families")


def _sparse_length(config: PreTrainedConfig) -> int:
    """Return the shortest batch that BigBird reads sparsely: a shorter one switches it to full attention for good."""
    if config.attention_type != "block_sparse":
        return 0
    return (5 + 2 * config.num_random_blocks) * config.block_size + 1


def _positions(config: PreTrainedConfig) -> Positions:
    """Return the positions of encoder and decoder: BART and BigBird set one number for both, LED two, T5 none."""
    both = getattr(config, "max_position_embeddings", None)
    if not config.is_encoder_decoder:
        return both if config.model_type in _TABLE["table of positions"] else None, None
    encoder = getattr(config, "max_encoder_position_embeddings", both)
    decoder = getattr(config, "max_decoder_position_embeddings", both)
    return encoder, decoder


@dataclass(frozen=True)
class Family:
    """The special treatment of the models of one `model_type`.

    Attributes:
        overflows_in_fp16: Whether activations exceed fp16's largest number, 65,504, so that the loss becomes NaN.
        global_first: Whether the first token of each row needs global attention.
        shortest_batch: Configuration → the smallest length of a batch in tokens; 0 for any length.
        positions: Configuration → the number of positions of encoder and decoder; None for no limit. A decoder's
            prompt and answer together are its first number.
        refused: Why this library cannot train such models; "" if it can.
    """

    overflows_in_fp16: bool = False
    global_first: bool = False
    shortest_batch: Callable[[PreTrainedConfig], int] = lambda config: 0
    positions: Callable[[PreTrainedConfig], Positions] = _positions
    refused: str = ""


FAMILIES: Registry[Family] = Registry("model family")
for _name in _TABLE["overflows in fp16"]:
    FAMILIES.add(_name, Family(overflows_in_fp16=True))
for _name, _reason in _TABLE["refused"].items():
    FAMILIES.add(_name, Family(refused=_reason))
FAMILIES.add("led", Family(global_first=True))
FAMILIES.add("bigbird_pegasus", Family(shortest_batch=_sparse_length))


def family_of(model: PreTrainedModel | PreTrainedConfig) -> Family:
    """Return the family of a model or of its configuration, or the default family.

    Example:
        >>> from transformers import LEDConfig, LlamaConfig
        >>> family_of(LEDConfig()).global_first, family_of(LlamaConfig()).global_first
        (True, False)
    """
    config = getattr(model, "config", model)
    return FAMILIES.get(config.model_type, Family())
