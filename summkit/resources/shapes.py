"""Models without weights, built on the meta device from configurations that do not need the Hub."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from summkit.models import loading

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_TABLE = yaml.safe_load(Path(__file__).with_name("known_models.yaml").read_text(encoding="utf-8"))
KNOWN_CONFIGS: dict[str, dict[str, Any]] = {name: row for name, row in _TABLE.items() if not name.startswith("_")}


def known_config(name: str) -> PretrainedConfig:
    """Return a model's configuration: from known_models.yaml without the Hub, or else as `load_config` finds it.

    Raises:
        SummkitError: There is no such model, or the Hub does not answer.
    """
    import transformers

    if name not in KNOWN_CONFIGS:
        return loading.TINY[name]().config if name in loading.TINY else loading.load_config(name)
    values = dict(KNOWN_CONFIGS[name])
    return getattr(transformers, values.pop("class"))(**values)


def on_meta(model: str | PretrainedConfig | PreTrainedModel) -> PreTrainedModel:
    """Build a model without weights, on the meta device.

    Args:
        model: A name, a configuration, or a model whose configuration is used.

    Returns:
        The model, whose tensors have shapes but no data.

    Raises:
        SummkitError: There is no model of this name, or the Hub does not answer.
    """
    import torch

    config = known_config(model) if isinstance(model, str) else getattr(model, "config", model)
    own_head = _has_own_head(model, config)
    if own_head:
        config = copy.deepcopy(config)
        config.tie_word_embeddings = True  # otherwise encoder and decoder would get separate embeddings too
    with torch.device("meta"):
        meta = loading.auto_class(config).from_config(config)
        if own_head:
            head = meta.get_output_embeddings()
            head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    return meta


def _has_own_head(model: Any, config: PretrainedConfig) -> bool:
    """Whether the model is a T5 with a head separate from its embeddings (T5 1.1, Flan-T5).

    Its configuration says that they are tied. Only the missing scaling of outputs shows that they are not.
    """
    if not hasattr(config, "scale_decoder_outputs"):
        return False
    if hasattr(model, "get_output_embeddings"):
        return model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    return not (config.scale_decoder_outputs and config.tie_word_embeddings)
