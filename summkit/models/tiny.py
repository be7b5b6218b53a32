"""Floor 0. Models of random weights and their byte-level tokenizer, made in code: for tests, CI and `smoke`."""

_CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer(ends_inputs: bool = False):
    """A byte-level tokenizer of 256 bytes and a few specials, with a chat template; nothing is read from anywhere.

    With `ends_inputs` it puts EOS behind every input and has no chat template, as T5's.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    specials = ["<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={token: number for number, token in enumerate(specials + alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if ends_inputs:
        core.post_processor = processors.TemplateProcessing(f"$A {specials[0]}", special_tokens=[(specials[0], 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=specials[0], pad_token=specials[1], additional_special_tokens=specials[2:]
    )
    tokenizer.chat_template = None if ends_inputs else _CHAT
    return tokenizer


def tiny_llama(seed: int = 0):
    """A Llama of 0.1 million random weights over the vocabulary of `tiny_tokenizer`, the same for the same seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=264, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def tiny_t5(seed: int = 0):
    """A T5 of 0.05 million random weights over the same vocabulary, the same for the same seed."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=264, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
        eos_token_id=0, pad_token_id=1, decoder_start_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return T5ForConditionalGeneration(config)


TINY = {"tiny-llama": tiny_llama, "tiny-t5": tiny_t5}
