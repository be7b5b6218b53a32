"""Floor 4. Fine-tuning methods: one table from a name to what trains."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from summkit.config import Profile
from summkit.data import templates
from summkit.errors import SummkitError, check_known
from summkit.models import loading


@dataclass(frozen=True)
class Method:
    """One way to fine-tune: what trains, in words, and the function (model, profile) → model that prepares it.

    `own_weights`: the model's own weights train, not an adapter beside them; they must not be quantised.
    """

    trains: str
    prepare: Callable
    own_weights: bool = False


def apply_method(model, profile: Profile):
    """`model` made ready to train by the profile's method; what does not train is frozen.

    Raises SummkitError for an unknown method, one that the model has no layers for, and one that would train weights
    in a precision that cannot be trained.
    """
    check_known("method", profile.method, METHODS)
    method = METHODS[profile.method]
    if method.own_weights and profile.precision != "fp32":
        raise SummkitError(
            f"method {profile.method!r} trains the model's own weights, which needs precision='fp32', not "
            f"{profile.precision!r}; an adapter ('lora') trains beside weights of any precision"
        )
    if profile.method == "qlora" and profile.precision not in ("nf4", "nf4-single"):
        raise SummkitError(f"method 'qlora' is LoRA over 4-bit weights: precision='nf4', not {profile.precision!r}")
    if profile.gradient_checkpointing:
        model.enable_input_require_grads()  # frozen embeddings would cut the graph that checkpointing recomputes
    return method.prepare(model, profile)


def target_layers(model, targets: str) -> list[str]:
    """Names of the layers for `targets`: "attention", "all-linear", or the names themselves, comma-separated.

    Raises SummkitError where the model has no such layers, listing those it has.
    """
    found = loading.linear_layers(model)
    if targets == "all-linear":
        return sorted(found)
    wanted = loading.linear_layers(model, "att") if targets == "attention" else targets.split(",")
    missing = [name for name in wanted if name not in found]
    if missing or not wanted:
        raise SummkitError(f"no layers {targets!r} in this model; linear layers there are: {', '.join(sorted(found))}")
    return sorted(wanted)


def blocks(model):
    """The decoder's blocks in order: the one list of its modules that is as long as it has layers.

    Raises SummkitError where there is none, listing the parts there are.
    """
    import torch

    wanted, inside = model.config.num_hidden_layers, model
    if loading.is_encoder_decoder(model):
        inside, config = model.get_decoder(), model.config
        wanted = getattr(config, "num_decoder_layers", None) or config.decoder_layers  # T5's name, and BART's
    for module in inside.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == wanted:
            return module
    parts = ", ".join(sorted({type(module).__name__ for module in model.modules()}))
    raise SummkitError(f"no list of {wanted} blocks in this model: its last one cannot be told; parts: {parts}")


def _lora(**variant):
    def prepare(model, profile: Profile):
        from peft import LoraConfig, get_peft_model

        transposed = any(type(module).__name__ == "Conv1D" for module in model.modules())  # GPT-2's linear layer
        config = LoraConfig(
            r=profile.rank, lora_alpha=profile.alpha, lora_dropout=profile.dropout, task_type=_task(model),
            target_modules=target_layers(model, profile.targets), fan_in_fan_out=transposed, **variant,
        )  # fmt: skip
        return get_peft_model(model, config)

    return prepare


def _task(model) -> str:
    return "SEQ_2_SEQ_LM" if loading.is_encoder_decoder(model) else "CAUSAL_LM"


def _prompt(model, profile: Profile, from_text: bool = True):
    """Virtual tokens before every input. From a text they begin as its tokens' embeddings, else at random."""
    from peft import PromptTuningConfig, get_peft_model

    if any(loading.padding(model).values()):
        raise SummkitError(
            f"method {profile.method!r}: the sparse attention of {profile.model} would not know the virtual tokens; "
            "use 'lora', or 'frozen-encoder'"
        )
    config = PromptTuningConfig(
        task_type=_task(model), num_virtual_tokens=profile.virtual_tokens, num_transformer_submodules=1
    )  # of an encoder-decoder the encoder reads them: peft would make as many again for the decoder, and use none
    prepared = get_peft_model(model, config)
    weight = prepared.prompt_encoder["default"].embedding.weight
    if from_text and not weight.is_meta:
        tokenizer = loading.load_tokenizer(profile.model)
        ids = tokenizer(templates.INSTRUCTION, add_special_tokens=False)["input_ids"]
        ids = (ids * math.ceil(len(weight) / len(ids)))[: len(weight)]
        weight.data.copy_(model.get_input_embeddings().weight.data[ids])
    return prepared


def _random_prompt(model, profile: Profile):
    return _prompt(model, profile, from_text=False)


def _head(model, profile: Profile):
    """Where the head is tied to the input embedding (GPT-2, SmolLM2), that trains with it: they are one tensor."""
    model.requires_grad_(False)
    model.get_output_embeddings().requires_grad_(True)
    return model


def _last_block(model, profile: Profile):
    _head(model, profile)
    blocks(model)[-1].requires_grad_(True)
    return model


def _full(model, profile: Profile):
    return model.requires_grad_(True)


def _frozen_embeddings(model, profile: Profile):
    """Where the head is tied to them, it stays as it is with them: they are one tensor."""
    model.requires_grad_(True)
    model.get_input_embeddings().requires_grad_(False)
    return model


def _frozen_encoder(model, profile: Profile):
    """The words' embeddings stay too, and a head that is tied to them: the encoder reads with them."""
    if not loading.is_encoder_decoder(model):
        raise SummkitError(
            f"method 'frozen-encoder' needs an encoder-decoder, and {profile.model} is a decoder: use "
            "'frozen-embeddings', 'last-block' or 'lora'"
        )
    model.requires_grad_(True)
    model.get_encoder().requires_grad_(False)
    return model


def _frozen_encoder_layers(model, profile: Profile):
    """The words' embeddings train: the way back goes through the whole encoder all the same."""
    _frozen_encoder(model, profile)
    model.get_input_embeddings().requires_grad_(True)
    return model


METHODS = {
    "prompt": Method("virtual tokens before the input, begun as the instruction's words", _prompt),
    "prompt-random": Method("virtual tokens before the input, begun at random", _random_prompt),
    "lora": Method("low-rank matrices beside the linear layers", _lora()),
    "rslora": Method("LoRA scaled by alpha over the root of the rank", _lora(use_rslora=True)),
    "dora": Method("LoRA for the direction of each weight, and its length apart", _lora(use_dora=True)),
    "qlora": Method("LoRA beside weights in four bits", _lora()),
    "head": Method("the output head, and the input embedding where they are tied", _head, own_weights=True),
    "last-block": Method("the head and the last block", _last_block, own_weights=True),
    "full": Method("every weight", _full, own_weights=True),
    "frozen-embeddings": Method("every weight but the words' embeddings", _frozen_embeddings, own_weights=True),
    "frozen-encoder": Method("an encoder-decoder's decoder alone", _frozen_encoder, own_weights=True),
    "frozen-encoder-layers": Method(
        "an encoder-decoder's decoder and the words' embeddings", _frozen_encoder_layers, own_weights=True
    ),
}
