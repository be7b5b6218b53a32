"""Floor 3. Load a tokenizer and a model at a precision, and look at what was loaded: footprint, parameters, layers.

A model is named by its Hub id, by an embedded asset's name, or by one of TINY ("tiny-llama", and the encoder-decoder
"tiny-t5"): random weights and a byte-level tokenizer made in `tiny`, for tests and CI.
"""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from summkit.errors import SummkitError, check_known
from summkit.models.tiny import TINY, tiny_llama, tiny_t5, tiny_tokenizer
from summkit.offline import assets, hub

__all__ = [
    "PRECISIONS", "TINY", "auto_class", "clear_errors", "footprint", "is_encoder_decoder", "linear_layers",
    "load_model", "load_tokenizer", "overflows_in_fp16", "padding", "parameter_report", "tiny_llama", "tiny_t5",
    "tiny_tokenizer", "unpacked", "virtual_tokens",
]  # fmt: skip

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "nf4", "nf4-single")


def load_tokenizer(name: str):
    """The tokenizer of model `name`, with a pad token."""
    from transformers import AutoTokenizer

    if name in TINY:
        return tiny_tokenizer(ends_inputs=name == "tiny-t5")
    with clear_errors(name):
        tokenizer = AutoTokenizer.from_pretrained(_where(name), trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(name: str, precision: str = "fp32", compute_dtype: str = "float32", device: str | None = None):
    """The model `name` on `device` (default: the first GPU, or the CPU), its weights in `precision`.

    "nf4" quantises the constants of the blocks too (double quantisation), "nf4-single" does not, "int8" is LLM.int8().
    `compute_dtype` ("float32", "float16", "bfloat16") is what quantised weights are multiplied in. Its configuration
    says whether it is a decoder or an encoder-decoder. Raises SummkitError for a T5 in fp16.
    """
    import torch

    check_known("precision", precision, PRECISIONS)
    if "fp16" in (precision, compute_dtype.replace("float", "fp")) and overflows_in_fp16(name):
        raise SummkitError(
            f"model {name}: a T5's numbers are too large for fp16, and its loss becomes NaN: use "
            "compute_dtype='bfloat16' (on a GPU of compute capability 8.0 or more) or 'float32', with the precision "
            "'nf4' or 'fp32'"
        )
    # Under torchrun each process has a GPU of its own.
    device = device or (f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    settings = {"dtype": _weight_dtype(precision, compute_dtype), "device_map": {"": device}}
    settings |= {"trust_remote_code": False, "use_safetensors": True}  # left to itself, it would ask, and take pickles
    if precision in ("nf4", "nf4-single", "int8"):
        settings["quantization_config"] = _quantization(precision, compute_dtype)
    if name in TINY:
        with tempfile.TemporaryDirectory() as folder:
            TINY[name]().save_pretrained(folder)
            return _never_repacked(_from_pretrained(folder, settings))
    with clear_errors(name):
        return _never_repacked(_from_pretrained(_where(name), settings))


def _from_pretrained(where, settings: dict):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(where, trust_remote_code=False)
    model = auto_class(config).from_pretrained(where, config=config, **settings)
    head = model.get_output_embeddings()
    if head is not None and head.weight is not model.get_input_embeddings().weight:
        model.config.tie_word_embeddings = False  # T5's may say otherwise: the next tie_weights() would believe it
    return model


def auto_class(config):
    """The transformers class that loads or builds a model of this configuration with its head for writing."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def is_encoder_decoder(model) -> bool:
    """Whether an encoder reads the prompt and a decoder writes the summary: T5, BART, LED; with or without adapters."""
    return bool(getattr(getattr(model, "module", model).config, "is_encoder_decoder", False))


def padding(model) -> dict:
    """What `features.Collator` has to be told beside the tokenizer and the side, for this model's batches.

    LED reads its first token globally. BigBird's encoder turns to full attention at a batch too short for its blocks,
    and stays there for all later ones: such a batch is made as long as it takes.
    """
    config = getattr(model, "module", model).config
    if not is_encoder_decoder(model):
        return {}
    sparse = getattr(config, "attention_type", "") == "block_sparse"
    shortest = (5 + 2 * config.num_random_blocks) * config.block_size + 1 if sparse else 0
    return {"global_first": config.model_type == "led", "shortest": shortest}


def _never_repacked(model):
    """On CPUs with AVX512-BF16, bitsandbytes rewrites 4-bit weights for a bf16 kernel in the first evaluation.

    That rounds the constants for good, and the kernel has no backward: training after an evaluation would go on
    without gradients, and without a word.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def footprint(model) -> dict[str, int]:
    """Bytes of the weights as they lie in memory, by kind: quantised, their constants, everything else."""
    parts = {"quantised weights": 0, "quantisation constants": 0, "unquantised weights": 0}
    # An int8 layer holds its scales beside the weight, and from its first forward on in its own state.
    moved = {id(m.weight): m.state.SCB for m in model.modules() if type(m).__name__ == "Linear8bitLt"}
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        rows = getattr(parameter, "SCB", None)
        rows = moved.get(id(parameter)) if rows is None else rows
        size = parameter.numel() * parameter.element_size()
        parts["unquantised weights" if state is None and rows is None else "quantised weights"] += size
        parts["quantisation constants"] += _constants_bytes(state) if state is not None else _bytes(rows)
    return parts


def _constants_bytes(state) -> int:
    nested = _constants_bytes(state.state2) if getattr(state, "nested", False) else 0
    return _bytes(state.absmax) + _bytes(state.code) + nested


def _bytes(tensor) -> int:
    return 0 if tensor is None else tensor.numel() * tensor.element_size()


def parameter_report(model) -> dict[str, int]:
    """{"parameters", "trainable"}: weights as numbers, whether or not two of them share a byte."""
    total = trainable = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        count = state.shape.numel() if state is not None else parameter.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return {"parameters": total, "trainable": trainable}


def linear_layers(model, within: str = "") -> dict[str, int]:
    """The linear layers an adapter can target: last part of the name → how many; the head is not among them.

    `within` keeps those whose parent's name holds it, in whatever case: "att" finds the attention's projections.
    """
    import torch

    head = model.get_output_embeddings()
    found: dict[str, int] = {}
    for path, module in model.named_modules():
        parent, _, name = path.rpartition(".")
        linear = isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
        if linear and module is not head and within in parent.lower():
            found[name] = found.get(name, 0) + 1
    return found


def virtual_tokens(model) -> int:
    """How many tokens prompt tuning puts before every input of `model`; 0 for every other method, and with it off."""
    model = getattr(model, "module", model)
    config = getattr(model, "peft_config", {}).get("default")
    if config is None or not config.is_prompt_learning or model._adapters_disabled:
        return 0
    return config.num_virtual_tokens


@contextmanager
def unpacked(model):
    """For as long as it lasts, 4-bit layers on a CPU multiply with a float32 copy of their own weights.

    The values are the same, so the outputs are; what is saved is unpacking every weight again for every token, most of
    the time that generation from a 4-bit model takes on a CPU. Costs 4 bytes a weight. On a GPU it does nothing: there
    the 4-bit kernels are fast and memory is short.
    """
    layers = [m for m in model.modules() if _packed(m) and m.weight.device.type == "cpu" and "forward" not in vars(m)]
    for layer in layers:
        layer.forward = _unpacked_forward(layer)
    try:
        yield model
    finally:
        for layer in layers:
            del layer.forward


def _packed(module) -> bool:
    # peft's own Linear4bit wraps this one and adds the adapter: replacing that forward would leave the adapter out.
    return type(module).__name__ == "Linear4bit" and type(module).__module__.startswith("bitsandbytes")


def _unpacked_forward(layer):
    import bitsandbytes.functional
    import torch

    weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(torch.float32)
    return lambda hidden: torch.nn.functional.linear(hidden, weight.to(hidden.dtype), layer.bias)


def overflows_in_fp16(name: str) -> bool:
    """Whether the model `name` has to compute in bf16 or fp32: T5 and its like, whose sums exceed fp16's 65,504."""
    from transformers import AutoConfig

    with clear_errors(name):
        known = name in TINY
        config = TINY[name]().config if known else AutoConfig.from_pretrained(_where(name), trust_remote_code=False)
    return config.model_type in ("t5", "mt5", "umt5", "longt5")


def _where(name: str) -> str | Path:
    if name in assets.ASSETS:
        return assets.embedded_model(name)
    if Path(name).is_dir():
        return Path(name)
    hub.require_hub(f"model {name}")
    return name


def _weight_dtype(precision: str, compute_dtype: str):
    import torch

    full = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    return full[precision] if precision in full else getattr(torch, compute_dtype)


def _quantization(precision: str, compute_dtype: str):
    from transformers import BitsAndBytesConfig

    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_use_double_quant=precision == "nf4",
    )  # fmt: skip


@contextmanager
def clear_errors(name: str):
    """Turns what loading a broken or missing model raises into a SummkitError of one line."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise SummkitError(f"model {name} could not be loaded: {str(error).strip().splitlines()[0]}") from None
