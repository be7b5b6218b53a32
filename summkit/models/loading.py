"""Load a tokenizer and a model at a precision, and inspect them: footprint, parameters, layers, positions.

A model is named by its Hub id, by an embedded asset's name, by a folder, or by one of TINY ("tiny-llama", and the
encoder-decoder "tiny-t5"), which `tiny` makes with random weights and a byte-level tokenizer for tests and CI.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from summkit import progress
from summkit.config import Precision, detect_hardware
from summkit.errors import SummkitError, check_known
from summkit.models.families import family_of, positions, shortest_batch
from summkit.models.tiny import TINY, tiny_tokenizer
from summkit.offline import assets, hub

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

PRECISIONS = get_args(Precision)
FOUR_BITS = ("nf4", "nf4-single")
BLOCK = 64  # weights that share a constant in 4 bits
_log = logging.getLogger(__name__)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model, with a pad token.

    Args:
        name: The model: a Hub id, an embedded asset, a folder, or one of TINY.

    Returns:
        The tokenizer. Its pad token is the end-of-sequence token if the model has no other.

    Raises:
        SummkitError: The model does not exist or is broken, its tokenizer has no end-of-sequence token, or the Hub does
            not answer.

    Example:
        >>> load_tokenizer("tiny-llama").pad_token
        '<|pad|>'
    """
    from transformers import AutoTokenizer

    if name in TINY:
        return tiny_tokenizer(ends_inputs=name == "tiny-t5")
    with _located(name) as location:
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise SummkitError(f"the tokenizer of {name} has no token that ends a text: set eos_token in its configuration")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    name: str, precision: str = "fp32", compute_dtype: str = "float32", device: str | None = None
) -> PreTrainedModel:
    """Load a decoder or an encoder-decoder with its weights at a precision.

    Args:
        name: The model: a Hub id, an embedded asset, a folder, or one of TINY.
        precision: One of PRECISIONS. "nf4" also quantises the constants of the blocks (double quantisation),
            "nf4-single" does not; "int8" is LLM.int8().
        compute_dtype: The dtype of products with quantised weights: "float32", "float16" or "bfloat16".
        device: The device of the model; None: the first GPU (under torchrun, the one of this process), or the CPU.
            Apple's GPU takes no quantised weights: bitsandbytes trains them on the CPU.

    Returns:
        The model, in evaluation mode.

    Raises:
        SummkitError: The model or the precision does not exist, the model is broken or of a kind that cannot be
            trained here, the Hub does not answer, or the model overflows in fp16.

    Example:
        >>> model = load_model("tiny-llama", "nf4")
        >>> footprint(model)["quantised weights"]  # bytes: half of 73,728 weights
        36864
    """
    import torch
    from transformers import AutoConfig

    check_known("precision", precision, PRECISIONS)
    quantised = precision in (*FOUR_BITS, "int8")
    dtype = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}.get(precision, compute_dtype)
    settings: dict[str, Any] = {"dtype": getattr(torch, dtype), "device_map": {"": device or choose_device(quantised)}}
    settings |= {"trust_remote_code": False, "use_safetensors": True}  # by default it may prompt, or read pickles
    if quantised:
        settings["quantization_config"] = _quantization(precision, compute_dtype)
    with _located(name) as location, progress.clock(f"loading {Path(name).name}"):
        config = AutoConfig.from_pretrained(location, trust_remote_code=False)
        check_config(config, name, dtype, compute_dtype)
        model = auto_class(config).from_pretrained(location, config=config, **settings)
    head = model.get_output_embeddings()
    if head is not None and head.weight is not model.get_input_embeddings().weight:
        model.config.tie_word_embeddings = False  # T5's config may set it: tie_weights() would then tie them
    misread = 0
    for module in model.modules():
        # On CPUs with AVX512-BF16, bitsandbytes would rewrite 4-bit weights for a bf16 kernel in the first evaluation.
        # That rounds the constants permanently, and the kernel has no backward: training would have no gradients.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
            misread += module.weight.device.type == "cpu" and module.in_features % BLOCK > 0
    if misread:
        _log.warning(
            f"{Path(name).name}: on a CPU, bitsandbytes reads the 4-bit weights of {misread} layers wrongly, because "
            f"their inputs are no multiple of {BLOCK}; choose precision fp32 or int8, or a GPU"
        )
    return model


def choose_device(quantised: bool = False) -> str:
    """Return the device that a model's weights are loaded onto; a Mac's GPU takes no quantised ones."""
    import torch

    if torch.cuda.is_available():  # also on ROCm
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return "cpu" if quantised else detect_hardware().device


def check_config(config: PreTrainedConfig, name: str, *dtypes: str) -> None:
    """Check by the configuration alone, before weights are downloaded, that a model can be trained here.

    Args:
        config: The model's configuration.
        name: The model's name, for messages.
        dtypes: The dtypes of weights and computation.

    Raises:
        SummkitError: It cannot; the message says what can.
    """
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    family = family_of(config)
    reason = family.refused
    reads_only = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if reads_only and not config.is_encoder_decoder:
        reason = "it reads a text in both directions and writes none"  # BERT and the like
    elif type(config) not in auto_class(config)._model_mapping:  # as `from_pretrained` looks
        reason = "it is not a language model"
    if reason:
        raise SummkitError(
            f"model {name} ({config.model_type}) cannot be trained: {reason}; use a decoder such as Llama, Qwen or "
            "Gemma, or an encoder-decoder such as T5 or BART"
        )
    if "float16" in dtypes and family.overflows_in_fp16:
        raise SummkitError(
            f"model {name}: {config.model_type} models overflow in fp16, and the loss becomes NaN: use "
            "compute_dtype='bfloat16' (on a GPU of compute capability 8.0 or more) or 'float32', with the "
            "precision 'nf4' or 'fp32'"
        )


def public_name(name: str) -> str:
    """Return the name by which any machine finds a model: an embedded one's id on the Hub, else the name itself.

    Example:
        >>> public_name("smollm2-135m-instruct")
        'HuggingFaceTB/SmolLM2-135M-Instruct'
    """
    return assets.ASSETS[name].hub_id or name if name in assets.ASSETS else name


def load_config(name: str) -> PreTrainedConfig:
    """Load only the configuration of a model.

    Raises:
        SummkitError: There is no such model, it is broken, or the Hub does not answer.
    """
    from transformers import AutoConfig

    with _located(name) as location:
        return AutoConfig.from_pretrained(location, trust_remote_code=False)


@contextmanager
def _located(name: str) -> Iterator[str | Path]:
    """Yield the folder or Hub id from which transformers loads the model `name`; errors become SummkitErrors."""
    # Windows removes no file whose weights are mapped.
    with clear_errors(name), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if name in TINY:
            TINY[name]().save_pretrained(folder)
            yield folder
        elif name in assets.ASSETS:
            yield assets.embedded_model(name)
        else:
            check_there(name)
            yield name


def check_there(name: str) -> None:
    """Check that a model is embedded or a folder, or that the Hub answers.

    Raises:
        SummkitError: It is the path of no folder, or the Hub does not answer.
    """
    if name in {*TINY, *assets.ASSETS} or Path(name).is_dir():
        return
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1:
        raise SummkitError(f"model {name}: no such folder; if an adapter's base moved, set model in its summkit.json")
    hub.require_hub(f"model {name}")


def hub_folder(name: str) -> str:
    """Return the cached folder of a model on the Hub, fetched if needed, for when a folder here has the same name."""
    from huggingface_hub import snapshot_download

    with clear_errors(name):
        return snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"])


def own_folder(name: str) -> Path | None:
    """Return the absolute path of a model that is a folder of the user's; None for any other."""
    return Path(name).absolute() if name not in {*TINY, *assets.ASSETS} and Path(name).is_dir() else None


def auto_class(config: PreTrainedConfig) -> Any:
    """Return the transformers class that loads or builds a model of this configuration with its language head."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def text_config(model: torch.nn.Module) -> Any:
    """Return the configuration of the part that writes text: models that also see have a nested one."""
    config = unwrapped(model).config
    return getattr(config, "text_config", config)


def unwrapped(model: torch.nn.Module) -> PreTrainedModel:
    """Return the model without the wrapper of DistributedDataParallel, if there is one."""
    return getattr(model, "module", model)


def is_encoder_decoder(model: torch.nn.Module) -> bool:
    """Whether the model is an encoder-decoder such as T5, BART or LED, with or without adapters."""
    return bool(getattr(unwrapped(model).config, "is_encoder_decoder", False))


def padding(model: torch.nn.Module) -> dict[str, Any]:
    """Return the arguments of `data.Collator` that depend on the model.

    Returns:
        {"global_first", "shortest"}, which ask for nothing in most families.
    """
    config = unwrapped(model).config
    return {"global_first": family_of(config).global_first, "shortest": shortest_batch(config)}


def check_positions(model: torch.nn.Module, max_length: int, max_new_tokens: int) -> None:
    """Check that a model has enough positions; on a GPU, too few would crash the process.

    Args:
        model: The model, or its configuration.
        max_length: Tokens of prompt and summary, or of an encoder-decoder's prompt.
        max_new_tokens: Tokens of a summary.

    Raises:
        SummkitError: It has too few; the message names the option.
    """
    config = getattr(unwrapped(model), "config", model)
    encoder, decoder = positions(config)
    virtual = virtual_tokens(model)
    read = f"max_length={max_length}" + (f" and {virtual} virtual tokens" if virtual else "")
    limits = ((read, max_length + virtual, encoder), (f"max_new_tokens={max_new_tokens}", max_new_tokens, decoder))
    for option, tokens, most in limits:
        if most is not None and tokens > most:
            raise SummkitError(f"{option}: this model ({config.model_type}) has positions for {most:,}; set it lower")


def writable_rows(rows: Dataset, model: torch.nn.Module) -> Dataset:
    """Drop encoded rows whose summary is longer than an encoder-decoder's decoder can write.

    Large data sets have rows whose "summary" is a whole text. One such row could stop a training after hours.

    Args:
        rows: Encoded rows, as `data.encode_rows` makes them.
        model: The model to train.

    Returns:
        The remaining rows. A warning gives the number of dropped rows.

    Raises:
        SummkitError: No row is left.
    """
    _, most = positions(unwrapped(model).config)
    if most is None:
        return rows
    short = [number for number, labels in enumerate(rows["labels"]) if len(labels) <= most]
    if len(short) == len(rows):
        return rows
    longer = f"{len(rows) - len(short):,} of {len(rows):,} summaries are longer"
    count = f"{longer} than the {most:,} tokens that the model can write"
    if not short:
        raise SummkitError(f"{count}: no row is left")
    if progress.first_process():
        _log.warning("%s: these rows are left out", count)
    return rows.select(short)


def footprint(model: torch.nn.Module) -> dict[str, int]:
    """Return the bytes of the weights in memory, by kind.

    Returns:
        Bytes of "quantised weights", of their "quantisation constants", and of "unquantised weights".

    Example:
        >>> footprint(load_model("tiny-llama"))["unquantised weights"]  # 4 bytes each
        363776
    """
    parts = {"quantised weights": 0, "quantisation constants": 0, "unquantised weights": 0}
    # An int8 layer stores its scales beside the weight, and after its first forward pass in its own state.
    moved = {id(m.weight): m.state.SCB for m in model.modules() if type(m).__name__ == "Linear8bitLt"}
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        scales = getattr(parameter, "SCB", None)
        scales = moved.get(id(parameter)) if scales is None else scales
        constants = [] if scales is None else [scales]
        while state is not None:  # of NF4, and with double quantisation also of its constants
            constants += [state.absmax, state.code]
            state = state.state2 if state.nested else None
        parts["quantised weights" if constants else "unquantised weights"] += parameter.nbytes
        parts["quantisation constants"] += sum(tensor.nbytes for tensor in constants)
    return parts


def parameter_report(model: torch.nn.Module) -> dict[str, int]:
    """Count all weights of a model, and those that train.

    Returns:
        {"parameters", "trainable"}: numbers of weights, even if two of them share a byte.

    Example:
        >>> parameter_report(load_model("tiny-llama", "nf4"))["parameters"]
        90944
    """
    total = trainable = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        count = state.shape.numel() if state is not None else parameter.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return {"parameters": total, "trainable": trainable}


def linear_layers(model: PreTrainedModel, within: str = "") -> dict[str, int]:
    """Count the linear layers that an adapter can target.

    Args:
        model: The model.
        within: Count only layers whose parent's name or class contains this, in any case: "att" for the attention's
            projections.

    Returns:
        Last part of the layer's name → number of such layers.

    Example:
        >>> linear_layers(load_model("tiny-llama"), "att")
        {'q_proj': 2, 'k_proj': 2, 'v_proj': 2, 'o_proj': 2}
    """
    return dict(Counter(path.rpartition(".")[2] for path in adaptable_layers(model, within)[0]))


def adaptable_layers(model: PreTrainedModel, within: str = "") -> tuple[list[str], list[str]]:
    """Find the paths of the linear layers that an adapter can target, and of those that it cannot.

    It cannot target the output head, the parts that read images or sound, routers, layers of a list, which have numbers
    in place of names, and the layers of a state-space mixer such as Mamba's whose weights its kernels read past any
    adapter.
    """
    import torch

    modules = dict(model.named_modules())
    head = model.get_output_embeddings()
    text: Any = model if is_encoder_decoder(model) or text_config(model) is model.config else model.get_decoder()
    inside = set(text.modules())
    found: tuple[list[str], list[str]] = ([], [])
    for path, module in modules.items():
        if not (isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"):
            continue
        above, _, name = path.rpartition(".")
        parent = modules[above]
        past = hasattr(parent, "A_log") and hasattr(parent, "D") and name in ("out_proj", "dt_proj")
        router = "router" in type(module).__name__.lower()  # Llama 4's has two outputs
        if module is head or module not in inside or past or router or name.isdigit():
            found[1].append(path)
        elif within in above.lower() or within in type(parent).__name__.lower():
            found[0].append(path)
    return found


def virtual_tokens(model: torch.nn.Module) -> int:
    """Count the tokens that prompt tuning puts before every input; 0 for other methods, and with the adapter off."""
    peft_model: Any = unwrapped(model)
    config = getattr(peft_model, "peft_config", {}).get("default")
    if config is None or not config.is_prompt_learning or peft_model._adapters_disabled:
        return 0
    return config.num_virtual_tokens


@contextmanager
def adapter_off(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Ask the base model while the block runs: the adapter is off, if the model has one.

    Raises:
        SummkitError: A training changed the model's own weights, so the base model is not there.

    Example:
        >>> with adapter_off(load_model("tiny-llama")) as base:
        ...     parameters = parameter_report(base)["parameters"]
    """
    has_adapter = hasattr(model, "disable_adapter")
    if getattr(model, "was_trained", False) and not has_adapter:
        raise SummkitError("this training changed the model's own weights: load the base model to ask it")
    with model.disable_adapter() if has_adapter else nullcontext():
        yield model


@contextmanager
def unpacked(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Use float32 copies of the weights of 4-bit layers on a CPU while the block runs.

    The outputs are the same. Otherwise all weights are unpacked again for each token, which takes most of the time of
    generation with a 4-bit model on a CPU. The copies take 4 bytes per weight. On a GPU this does nothing, since 4-bit
    kernels are fast there and memory is scarce.

    Example:
        >>> model = load_model("tiny-llama", "nf4")
        >>> with unpacked(model):
        ...     output = model(input_ids=load_tokenizer("tiny-llama")("Rain.", return_tensors="pt")["input_ids"])
    """
    layers = [m for m in model.modules() if _packed(m) and m.weight.device.type == "cpu" and "forward" not in vars(m)]
    try:
        for layer in layers:
            layer.forward = _unpacked_forward(layer)
        yield model
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)  # not yet there if this was interrupted


def _packed(module: torch.nn.Module) -> bool:
    # peft's own Linear4bit wraps this one and adds the adapter: replacing that forward would leave the adapter out.
    return type(module).__name__ == "Linear4bit" and type(module).__module__.startswith("bitsandbytes")


def _unpacked_forward(layer: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    import bitsandbytes.functional
    import torch

    weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(torch.float32)
    return lambda hidden: torch.nn.functional.linear(hidden, weight.to(hidden.dtype), layer.bias)


def _quantization(precision: str, compute_dtype: str) -> BitsAndBytesConfig:
    from transformers import BitsAndBytesConfig

    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": compute_dtype}
    return BitsAndBytesConfig(bnb_4bit_use_double_quant=precision == "nf4", **nf4)


@contextmanager
def clear_errors(name: str) -> Iterator[None]:
    """Turn the errors of loading a broken or missing model into a SummkitError of one line."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    odd = (TypeError, LookupError, AttributeError, ArithmeticError, ImportError, StrictDataclassError)
    try:
        yield
    except (OSError, ValueError, SafetensorError, *odd) as error:
        named = " ".join(f"{type(error).__name__}: {error}".split())
        reason = named if isinstance(error, odd) else str(error).strip().splitlines()[0]
        advice = "" if Path(name).is_dir() else hub.offline_advice()
        raise SummkitError(f"model {name} could not be loaded: {reason}{advice}") from None
