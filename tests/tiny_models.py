"""Tiny models of random weights, and tokenizers, of the classes that published ones have; made in code."""

import string

from summkit.models.loading import auto_class, tiny_tokenizer

# Encoder-decoders over the vocabulary of `tiny_tokenizer`: kind → configuration class, values.
_SIZES = {"vocab_size": 264, "d_model": 32, "eos_token_id": 0, "pad_token_id": 1}
_T5 = _SIZES | {"d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 1}
_BART = _SIZES | {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "bos_token_id": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "decoder_start_token_id": 0,
}
CONFIGS = {
    "t5": ("T5Config", _T5),
    "longt5": ("LongT5Config", _T5 | {"encoder_attention_type": "local", "local_radius": 15}),
    "longt5-global": (
        "LongT5Config",
        _T5
        | {
            "encoder_attention_type": "transient-global",
            "local_radius": 15,
            "global_block_size": 4,
            "feed_forward_proj": "gated-gelu",
        },
    ),
    "bart": ("BartConfig", _BART | {"max_position_embeddings": 512}),
    "led": (
        "LEDConfig",
        _BART
        | {
            "attention_window": 16,
            "max_encoder_position_embeddings": 512,
            "max_decoder_position_embeddings": 256,
        },
    ),
    "bigbird": (
        "BigBirdPegasusConfig",
        _BART
        | {
            "max_position_embeddings": 512,
            "attention_type": "block_sparse",
            "block_size": 8,
            "num_random_blocks": 1,
            "decoder_start_token_id": 1,
        },
    ),
}
_PHI = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
    "partial_rotary_factor": 0.5,
}


def config(kind: str, **changes):
    """The configuration of CONFIGS with `changes`."""
    import transformers

    name, values = CONFIGS[kind]
    return getattr(transformers, name)(**values | changes)


def build(config, seed: int = 0):
    """A model of `config`, the same for the same seed."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return auto_class(config).from_config(config)


def published(kind: str, seed: int = 0):
    """A model of PUBLISHED and its tokenizer: the published one's class, special tokens and numbers for them."""
    tokenizer_made, config_made = PUBLISHED[kind]
    tokenizer = tokenizer_made()
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return build(config_made(vocab_size=len(tokenizer), **special), seed), tokenizer


def plain_tokenizer(bos: bool = False):
    """Bytes, EOS that nothing appends, no pad token and no chat template: phi-2's way, and with `bos` GPT-2's."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.chat_template = None
    if bos:
        tokenizer.bos_token = tokenizer.eos_token
    return tokenizer


def led_tokenizer():
    """BART's way: bytes between <s> and </s>."""
    from tokenizers import pre_tokenizers
    from transformers import LEDTokenizer

    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "<mask>"]
    return LEDTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])


def t5_tokenizer():
    """SentencePiece: a space belongs to the word after it, the first word gets one, several are one; </s> at last."""
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=_pieces("<pad>", "</s>", "<unk>"), extra_ids=2)


def pegasus_tokenizer():
    """As T5's, with Pegasus's special tokens."""
    from transformers import PegasusTokenizer

    return PegasusTokenizer(vocab=_pieces("<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk>"), offset=3)


def _pieces(*special: str) -> list[tuple[str, float]]:
    letters = "▁" + string.ascii_letters + string.digits + ".,:'"
    words = ["▁The", "▁the", "▁bridge", "▁fell"]
    return [*((token, 0.0) for token in special), *((word, -1.0) for word in words), *((c, -3.0) for c in letters)]


def _phi(**numbers):
    from transformers import PhiConfig

    return PhiConfig(**_PHI | numbers)


def _gpt2(**numbers):
    from transformers import GPT2Config

    return GPT2Config(n_embd=64, n_layer=2, n_head=4, **numbers)


# The kind → tokenizer, and the configuration from numbers of tokens. `decoder_start_token_id` is the published one's.
PUBLISHED = {
    "phi": (plain_tokenizer, _phi),
    "gpt2": (lambda: plain_tokenizer(bos=True), _gpt2),
    "led": (led_tokenizer, lambda **numbers: config("led", decoder_start_token_id=2, **numbers)),
    "bigbird": (pegasus_tokenizer, lambda **numbers: config("bigbird", decoder_start_token_id=2, **numbers)),
    "longt5": (t5_tokenizer, lambda **numbers: config("longt5-global", decoder_start_token_id=0, **numbers)),
}
