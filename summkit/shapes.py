"""Floor 4. A decoder's shape without its weights: built on the meta device, from configurations that need no Hub."""

from dataclasses import dataclass

from summkit import models
from summkit.errors import SummkitError, check_known


@dataclass(frozen=True)
class Shape:
    """What the arithmetic needs of a decoder. `linears`: (name, inputs, outputs, parent) of each but the head."""

    layers: int
    hidden: int
    queries: int  # heads × head width
    keys: int  # key-value heads × head width
    heads: int
    intermediate: int
    vocabulary: int
    norms: int  # as wide as the hidden state, in one block
    gated: bool
    activation: str
    residual_dropout: bool
    attention_dropout: bool
    parameters: tuple[int, ...]
    linears: tuple[tuple[str, int, int, str], ...]


def known_config(name: str):
    """The configuration of a model that the tutorial names, without the Hub. SummkitError for any other name."""
    import transformers

    check_known("configuration", name, KNOWN)
    kind, values = KNOWN[name]
    return getattr(transformers, kind)(**values)


_LLAMA_3 = {
    "vocab_size": 128256, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}  # fmt: skip
KNOWN = {
    "microsoft/phi-2": ("PhiConfig", {
        "vocab_size": 51200, "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "partial_rotary_factor": 0.4, "resid_pdrop": 0.1,
        "hidden_act": "gelu_new", "bos_token_id": 50256, "eos_token_id": 50256,
    }),
    "gpt2": ("GPT2Config", {}),
    "smollm2-135m-instruct": ("LlamaConfig", {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rope_theta": 100000.0,
        "tie_word_embeddings": True,
    }),
    "meta-llama/Meta-Llama-3-8B-Instruct": ("LlamaConfig", _LLAMA_3 | {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    }),
    "meta-llama/Meta-Llama-3-70B-Instruct": ("LlamaConfig", _LLAMA_3 | {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
    }),
}  # fmt: skip


def on_meta(model):
    """`model` (a known name, a configuration, or a model of which the configuration is taken) without any weights."""
    import torch

    config = known_config(model) if isinstance(model, str) else getattr(model, "config", model)
    with torch.device("meta"):
        return models.auto_class(config).from_config(config)


def shape_of(meta) -> Shape:
    """The shape of a dense causal decoder built by `on_meta`. Raises SummkitError for an encoder-decoder."""
    import torch

    if models.is_encoder_decoder(meta):
        name = meta.config.model_type
        raise SummkitError(f"the memory of an encoder-decoder ({name}) is not planned yet: measure a step")
    config, head = meta.config, meta.get_output_embeddings()
    linears = []
    for path, module in meta.named_modules():
        parent, _, name = path.rpartition(".")
        if isinstance(module, torch.nn.Linear) and module is not head:
            linears.append((name, *module.weight.shape[::-1], parent))
        elif type(module).__name__ == "Conv1D":  # GPT-2's linear layer holds the transpose
            linears.append((name, *module.weight.shape, parent))
    hidden, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    width = getattr(config, "head_dim", None) or hidden // heads
    norms = [m for m in meta.modules() if "Norm" in type(m).__name__ and tuple(m.weight.shape) == (hidden,)]
    return Shape(
        layers=layers, hidden=hidden, heads=heads, queries=heads * width,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * width,
        intermediate=max(i for _, i, o, _ in linears if o == hidden), vocabulary=config.vocab_size,
        norms=round(len(norms) / layers), gated=any("gate" in name for name, *_ in linears),
        activation=getattr(config, "hidden_act", None) or getattr(config, "activation_function", ""),
        residual_dropout=bool(getattr(config, "resid_pdrop", 0)),
        attention_dropout=bool(getattr(config, "attention_dropout", 0) or getattr(config, "attn_pdrop", 0)),
        parameters=tuple(p.numel() for p in meta.parameters()), linears=tuple(linears),
    )  # fmt: skip
