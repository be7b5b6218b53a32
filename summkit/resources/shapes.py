"""Floor 4. A model's shape without its weights: built on the meta device, from configurations that need no Hub."""

import copy
from dataclasses import dataclass

from summkit.errors import check_known
from summkit.models import loading


@dataclass(frozen=True)
class Attention:
    """How the tokens of an encoder or a decoder look at one another, where that is not the plain decoder's way.

    A token sees `window` tokens (None: all), and one more for every `stride` (0: for none). Texts are padded to a
    multiple of `block` tokens, and to `shortest`; in LongT5 (not `whole`) within the attention alone.
    `states`: how many times its queries' width a token's queries, keys, values and outputs are kept. `spread`: for how
    many keys a token's probabilities are laid out once more. `bias`: a number is added for every head, query and key.
    """

    fused: bool
    bias: bool = False
    window: int | None = None
    stride: int = 0
    block: int = 1
    shortest: int = 0
    whole: bool = True
    states: int = 4
    spread: float = 0.0


@dataclass(frozen=True)
class Shape:
    """What the arithmetic needs of a model; of an encoder-decoder, its decoder's blocks, and `encoder` the others.

    `linears`: (name, inputs, outputs, parent) of each of the whole model but the head; `unquantised`: names of those
    that keep their precision where others are quantised.
    """

    layers: int
    hidden: int
    queries: int  # heads × head width
    keys: int  # key-value heads × head width
    heads: int
    intermediate: int
    norms: int  # as wide as the hidden state, in one block
    gated: bool
    activation: str
    residual_dropout: bool
    attention_dropout: bool
    vocabulary: int = 0
    parameters: tuple[int, ...] = ()
    linears: tuple[tuple[str, int, int, str], ...] = ()
    unquantised: frozenset[str] = frozenset()
    activation_dropout: bool = False
    attention: Attention | None = None
    encoder: "Shape | None" = None


ENCODER_DECODERS = ("t5", "longt5", "bart", "led", "bigbird_pegasus")  # by the configuration's model_type


def known_config(name: str):
    """The configuration of a model that the tutorial names, without the Hub. SummkitError for any other name."""
    import transformers

    check_known("configuration", name, {*KNOWN_CONFIGS, *loading.TINY})
    if name in loading.TINY:
        return loading.TINY[name]().config
    kind, values = KNOWN_CONFIGS[name]
    return getattr(transformers, kind)(**values)


_LLAMA_3 = {
    "vocab_size": 128256, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}  # fmt: skip
_T5 = {
    "vocab_size": 32128, "d_kv": 64, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
_FLAN = _T5 | {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6}
KNOWN_CONFIGS = {
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
    "flan-t5-small": ("T5Config", _FLAN),
    "flan-t5-small-local": ("LongT5Config", _FLAN | {"encoder_attention_type": "local", "local_radius": 127}),
    "google/long-t5-tglobal-base": ("LongT5Config", _T5 | {
        "d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12, "encoder_attention_type": "transient-global",
    }),
    "allenai/led-base-16384": ("LEDConfig", {
        "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12,
        "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072, "attention_window": 1024,
    }),
    "google/bigbird-pegasus-large-arxiv": ("BigBirdPegasusConfig", {}),
}  # fmt: skip


def on_meta(model):
    """`model` (a known name, a configuration, or a model of which the configuration is taken) without any weights."""
    import torch

    config = known_config(model) if isinstance(model, str) else getattr(model, "config", model)
    own_head = _has_own_head(model, config)
    if own_head:
        config = copy.deepcopy(config)
        config.tie_word_embeddings = True  # else encoder and decoder would get embeddings of their own as well
    with torch.device("meta"):
        meta = loading.auto_class(config).from_config(config)
        if own_head:
            head = meta.get_output_embeddings()
            head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    return meta


def _has_own_head(model, config) -> bool:
    """Whether it is a T5 with a head beside its embeddings (T5 1.1, Flan-T5).

    Its configuration says that they are tied; only that outputs are not scaled is left of what its file said.
    """
    if not hasattr(config, "scale_decoder_outputs"):
        return False
    if hasattr(model, "get_output_embeddings"):
        return model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    return not (config.scale_decoder_outputs and config.tie_word_embeddings)


def shape_of(meta) -> Shape:
    """The shape of a dense decoder, or of one of ENCODER_DECODERS, built by `on_meta`; SummkitError for another."""
    whole = {
        "vocabulary": meta.config.vocab_size, "parameters": tuple(p.numel() for p in meta.parameters()),
        "linears": _linears(meta), "unquantised": frozenset(getattr(meta, "_keep_in_fp32_modules", None) or ()),
    }  # fmt: skip
    if loading.is_encoder_decoder(meta):
        check_known("encoder-decoder", meta.config.model_type, ENCODER_DECODERS)
        return Shape(**_blocks(meta, "decoder"), **whole, encoder=Shape(**_blocks(meta, "encoder")))
    config, linears = meta.config, whole["linears"]
    hidden, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    width = getattr(config, "head_dim", None) or hidden // heads
    norms = [m for m in meta.modules() if "Norm" in type(m).__name__ and tuple(m.weight.shape) == (hidden,)]
    return Shape(
        layers=layers, hidden=hidden, heads=heads, queries=heads * width,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * width,
        intermediate=max(i for _, i, o, _ in linears if o == hidden),
        norms=round(len(norms) / layers), gated=any("gate" in name for name, *_ in linears),
        activation=getattr(config, "hidden_act", None) or getattr(config, "activation_function", ""),
        residual_dropout=bool(getattr(config, "resid_pdrop", 0)),
        attention_dropout=bool(getattr(config, "attention_dropout", 0) or getattr(config, "attn_pdrop", 0)), **whole,
    )  # fmt: skip


def _linears(meta) -> tuple[tuple[str, int, int, str], ...]:
    import torch

    head, linears = meta.get_output_embeddings(), []
    for path, module in meta.named_modules():
        parent, _, name = path.rpartition(".")
        if isinstance(module, torch.nn.Linear) and module is not head:
            linears.append((name, *module.weight.shape[::-1], parent))
        elif type(module).__name__ == "Conv1D":  # GPT-2's linear layer holds the transpose
            linears.append((name, *module.weight.shape, parent))
    return tuple(linears)


def _blocks(meta, part: str) -> dict:
    """Of the "encoder" or the "decoder": what `Shape` says of blocks. T5's names for it, and BART's."""
    config, is_decoder = meta.config, part == "decoder"
    heads = getattr(config, f"{part}_attention_heads", None) or config.num_attention_heads
    t5_layers = config.num_decoder_layers if is_decoder and hasattr(config, "d_kv") else config.num_hidden_layers
    dropout = getattr(config, "dropout_rate", None)  # T5's one for all
    attention = Attention(meta.config._attn_implementation == "sdpa", hasattr(config, "relative_attention_num_buckets"))
    width = heads * (getattr(config, "d_kv", None) or config.d_model // heads)
    return {
        "layers": getattr(config, f"{part}_layers", None) or t5_layers, "hidden": config.d_model, "heads": heads,
        "queries": width, "keys": width, "norms": 3 if is_decoder else 2,  # the third is the cross-attention's
        "intermediate": getattr(config, f"{part}_ffn_dim", None) or config.d_ff,
        "gated": getattr(config, "is_gated_act", False),
        "activation": getattr(config, "dense_act_fn", None) or config.activation_function,
        "residual_dropout": bool(config.dropout if dropout is None else dropout),
        "attention_dropout": bool(config.attention_dropout if dropout is None else dropout),
        "activation_dropout": bool(config.activation_dropout if dropout is None else dropout),
        "attention": attention if is_decoder else _encoder_attention(config, attention),
    }  # fmt: skip


def _encoder_attention(config, dense: Attention) -> Attention:
    """How many times states are kept was counted in what autograd saves, and explained with the code of each model."""
    kind = getattr(config, "encoder_attention_type", None) or getattr(config, "attention_type", config.model_type)
    if kind in ("local", "transient-global"):
        # A block of queries has the keys and values of three blocks: three copies of both.
        block, stride = config.local_radius + 1, config.global_block_size if kind != "local" else 0
        return Attention(False, True, 3 * block, stride, block, whole=False, states=8)
    if kind == "led":
        # Half overlapping chunks of queries and keys are two copies, values three; then those for the global token,
        # which everyone sees beside the window and itself.
        window = config.attention_window
        window = window if isinstance(window, int) else max(window)
        return Attention(False, window=window + 2, block=window, states=12, spread=1.5 * window)
    if kind == "block_sparse":
        # Three blocks around it, the first, the last, some at random; the first and last see every token.
        random, block = config.num_random_blocks, config.block_size
        window, states = (7 + random) * block, 11 + 2 * (3 + random)
        return Attention(False, window=window, block=block, shortest=(5 + 2 * random) * block + 1, states=states)
    return dense
