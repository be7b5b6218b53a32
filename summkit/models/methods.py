"""Fine-tuning methods: one entry for each, with the trained parts, the preparation and the requirements.

A plugin adds its own with `METHODS.add`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from summkit.config import Profile
from summkit.data import templates
from summkit.errors import SummkitError
from summkit.models import loading
from summkit.registry import Registry

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    Prepare = Callable[[PreTrainedModel, Profile], PreTrainedModel | PeftModel]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method:
    """A fine-tuning method.

    Attributes:
        trains: Description of the parts that train.
        prepare: (model, profile) → the model ready for training, with all other parts frozen. The memory planner calls
            it with a model on the meta device, which has shapes and no weights.
        own_weights: Whether the model's own weights train, instead of an adapter.
        precisions: The supported precisions out of `loading.PRECISIONS`.
        encoder_decoder: Whether the method needs an encoder-decoder.
        prompt_tuning: Whether it trains virtual tokens, which precede every input.
    """

    trains: str
    prepare: Prepare
    own_weights: bool = False
    precisions: tuple[str, ...] = loading.PRECISIONS
    encoder_decoder: bool = False
    prompt_tuning: bool = False


def apply_method(model: PreTrainedModel, profile: Profile) -> PreTrainedModel | PeftModel:
    """Prepare a model for training by the profile's method; all other weights are frozen.

    Args:
        model: The model from `load_model`. It is changed: an adapter that it has already is taken off.
        profile: Sets the method, its options and the model's precision. Adapters are initialised at random: set the
            seed first.

    Returns:
        The model itself, or wrapped in an adapter.

    Raises:
        SummkitError: The method is unknown, or does not fit the model or its precision.

    Example:
        >>> from summkit.config import choose_profile
        >>> model = apply_method(loading.load_model("tiny-llama", "nf4"), choose_profile("smoke", rank=8))
        >>> loading.parameter_report(model)["trainable"]
        16384
    """
    method = check_fits(profile.method, model, profile.precision)
    model = _without_adapter(model)
    if profile.gradient_checkpointing:
        model.enable_input_require_grads()  # otherwise frozen embeddings cut the graph that checkpointing recomputes
    return method.prepare(model, profile)


def check_model(profile: Profile) -> None:
    """Check by its configuration alone that a model can be trained as the profile says, before weights are downloaded.

    Raises:
        SummkitError: The model, its precision, its positions or the layers do not fit; or as for `load_config`.

    Example:
        >>> from summkit.config import choose_profile
        >>> check_model(choose_profile("smoke"))
    """
    import torch

    config = loading.load_config(profile.model)
    dtypes = ("float16" if profile.precision == "fp16" else "", profile.compute_dtype)
    loading.check_config(config, profile.model, *dtypes)
    loading.check_positions(config, profile.max_length, profile.max_new_tokens)
    with loading.clear_errors(profile.model), torch.device("meta"):
        meta = loading.auto_class(config).from_config(config)
    check_fits(profile.method, meta, profile.precision).prepare(meta, profile)


def _without_adapter(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return the base of a model that was prepared before, so that the preparing cell can run twice."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    for path, layer in list(base.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            above, _, name = path.rpartition(".")
            setattr(base.get_submodule(above), name, layer.get_base_layer())
    if hasattr(base, "peft_config"):
        del base.peft_config
    return base


def check_fits(name: str, model: torch.nn.Module, precision: str | None = None) -> Method:
    """Check that a method fits a model, and return the method.

    Args:
        name: The method.
        model: The model; it may be on the meta device.
        precision: The precision of its weights; None leaves it unchecked.

    Raises:
        SummkitError: The method is unknown, needs an encoder-decoder, or does not take the precision.

    Example:
        >>> check_fits("head", loading.load_model("tiny-llama")).trains
        'the output head, and the input embedding where they are tied'
    """
    method = METHODS.find(name)
    if precision is not None and precision not in method.precisions:
        wanted = " or ".join(map(repr, method.precisions))
        raise SummkitError(
            f"method {name!r} needs precision={wanted}, not {precision!r}; an adapter ('lora') works with weights "
            "of any precision"
        )
    if method.encoder_decoder and not loading.is_encoder_decoder(model):
        raise SummkitError(
            f"method {name!r} needs an encoder-decoder, but this model is a decoder: use 'frozen-embeddings', "
            "'last-block' or 'lora'"
        )
    return method


def target_layers(model: PreTrainedModel, targets: str) -> list[str]:
    """Find the layers that get adapters.

    Args:
        model: The model.
        targets: "attention", "all-linear", or names of layers, separated by commas.

    Returns:
        The last parts of the layers' names, sorted.

    Raises:
        SummkitError: The model has no such layers; the message lists its layers.

    Example:
        >>> target_layers(loading.load_model("tiny-llama"), "attention")
        ['k_proj', 'o_proj', 'q_proj', 'v_proj']
    """
    known = loading.linear_layers(model)
    if targets == "all-linear":
        return sorted(known)
    wanted = loading.linear_layers(model, "att") if targets == "attention" else targets.replace(" ", "").split(",")
    missing = [name for name in wanted if name not in known]
    if missing or not wanted:
        raise SummkitError(
            f"no layers {targets!r} in this model; its linear layers: {', '.join(sorted(known))}. Set targets to some "
            "of these, or to 'all-linear'"
        )
    return sorted(wanted)


def blocks(model: PreTrainedModel) -> torch.nn.ModuleList:
    """Return the decoder's blocks in order: the module list whose length is the number of layers.

    Raises:
        SummkitError: There is no such list; the message lists the parts of the model.
    """
    import torch

    decoder, count = model, loading.text_config(model).num_hidden_layers
    if loading.is_encoder_decoder(model):
        decoder = model.get_decoder()
        count = getattr(model.config, "num_decoder_layers", None) or model.config.decoder_layers  # T5's name, BART's
    for module in decoder.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    parts = ", ".join(sorted({type(module).__name__ for module in model.modules()}))
    raise SummkitError(f"no list of {count} blocks in this model, so its last block is unknown; parts: {parts}")


def _lora(**variant: Any) -> Prepare:
    def prepare(model: PreTrainedModel, profile: Profile) -> PeftModel:
        from peft import LoraConfig, get_peft_model

        targets = target_layers(model, profile.targets)
        kinds = loading.adaptable_layers(model)
        layers, others = ([path for path in paths if path.rpartition(".")[2] in targets] for paths in kinds)
        config = LoraConfig(
            r=profile.rank,
            lora_alpha=profile.alpha,
            lora_dropout=profile.dropout,
            task_type=_task(model),
            target_modules=targets,
            exclude_modules=others or None,
            fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),  # GPT-2's linear layer
            **variant,
        )
        try:
            prepared = get_peft_model(model, config)
        except ValueError as error:
            reason = str(error).strip().splitlines()[0]
            hint = "set dropout to 0" if "dropout" in reason else "name other layers in targets"
            raise SummkitError(f"this model cannot get adapters on {', '.join(targets)}: {reason} {hint}") from None
        adapted = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
        missed = sorted(set(layers) - adapted)
        if missed and model.device.type != "meta":
            about = f"{len(missed)} layers get no adapter, such as {missed[0]}"
            _log.warning(
                f"{about}: where the experts of a model have layers of the same names, peft adapts those alone"
            )
        return prepared

    return prepare


def _task(model: PreTrainedModel) -> str:
    return "SEQ_2_SEQ_LM" if loading.is_encoder_decoder(model) else "CAUSAL_LM"


def _prompt(from_text: bool) -> Prepare:
    """Return a function that adds virtual tokens, at random or from the wording's instruction, repeated as needed."""

    def prepare(model: PreTrainedModel, profile: Profile) -> PeftModel:
        from peft import PromptTuningConfig, get_peft_model

        if any(loading.padding(model).values()):
            raise SummkitError(
                f"method {profile.method!r}: the sparse attention of {profile.model} does not support virtual tokens; "
                "use 'lora', or 'frozen-encoder'"
            )
        count = profile.virtual_tokens
        # In an encoder-decoder only the encoder reads them: by default peft adds unused ones for the decoder.
        config = PromptTuningConfig(task_type=_task(model), num_virtual_tokens=count, num_transformer_submodules=1)
        prepared = get_peft_model(model, config)
        weight = prepared.prompt_encoder["default"].embedding.weight  # (virtual tokens, hidden)
        if from_text and not weight.is_meta:
            instruction = templates.get_wording(profile.wording, profile.instruction).instruction
            ids = loading.load_tokenizer(profile.model)(instruction, add_special_tokens=False)["input_ids"]
            ids = (ids * math.ceil(count / len(ids)))[:count]
            weight.data.copy_(model.get_input_embeddings().weight.data[ids])
        return prepared

    return prepare


_PARTS: dict[str, Callable[[Any], Any]] = {
    "everything": lambda model: model,
    "head": lambda model: model.get_output_embeddings(),
    "embeddings": lambda model: model.get_input_embeddings(),
    "encoder": lambda model: model.get_encoder(),
    "last block": lambda model: blocks(model)[-1],
}


def train_parts(*switches: str) -> Prepare:
    """Return a function that prepares a model to train some of its own weights.

    Parts may share a tensor, such as a head tied to the embeddings, or an encoder that uses the shared embeddings.

    Args:
        switches: In order, "+part" to train and "-part" to freeze: everything, head, embeddings, encoder, last block.

    Example:
        >>> model = train_parts("+everything", "-embeddings")(loading.load_model("tiny-llama"), None)
        >>> model.get_input_embeddings().weight.requires_grad
        False
    """

    def prepare(model: PreTrainedModel, profile: Profile) -> PreTrainedModel:
        model.requires_grad_(False)
        for switch in switches:
            _PARTS[switch[1:]](model).requires_grad_(switch[0] == "+")
        return model

    return prepare


def _own(trains: str, *switches: str, **needs: Any) -> Method:
    """Return a method that trains the model's own weights, which must be in fp32."""
    return Method(trains, train_parts(*switches), own_weights=True, precisions=("fp32",), **needs)


_ROWS = {
    "prompt": Method("virtual tokens initialised from the instruction", _prompt(True), prompt_tuning=True),
    "prompt-random": Method("virtual tokens initialised at random", _prompt(False), prompt_tuning=True),
    "lora": Method("low-rank matrices beside the linear layers", _lora()),
    "rslora": Method("LoRA scaled by alpha over the root of the rank", _lora(use_rslora=True)),
    "dora": Method("LoRA for the direction of each weight, and its length apart", _lora(use_dora=True)),
    "qlora": Method("LoRA beside weights in four bits", _lora(), precisions=loading.FOUR_BITS),
    "head": _own("the output head, and the input embedding where they are tied", "+head"),
    "last-block": _own("the head and the last block", "+head", "+last block"),
    "full": _own("every weight", "+everything"),
    "frozen-embeddings": _own("every weight but the token embeddings", "+everything", "-embeddings"),
    "frozen-encoder": _own("an encoder-decoder's decoder alone", "+everything", "-encoder", encoder_decoder=True),
    # The embeddings train, so the backward pass still goes through the whole encoder.
    "frozen-encoder-layers": _own(
        "an encoder-decoder's decoder and the token embeddings",
        *("+everything", "-encoder", "+embeddings"),
        encoder_decoder=True,
    ),
}
METHODS: Registry[Method] = Registry("method", _ROWS)
