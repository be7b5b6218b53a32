"""Floor 4. Fine-tuning methods: one table from a name to what trains."""

from summkit import models
from summkit.errors import SummkitError, check_known
from summkit.profiles import Profile


def apply(model, profile: Profile):
    """`model` made ready to train by the profile's method; what does not train is frozen."""
    check_known("method", profile.method, METHODS)
    if profile.gradient_checkpointing:
        model.enable_input_require_grads()  # frozen embeddings would cut the graph that checkpointing recomputes
    return METHODS[profile.method](model, profile)


def target_layers(model, targets: str) -> list[str]:
    """Names of the layers for `targets`: "attention", "all-linear", or the names themselves, comma-separated.

    Raises SummkitError where the model has no such layers, listing those it has.
    """
    found = models.linear_layers(model)
    if targets == "all-linear":
        return sorted(found)
    wanted = models.linear_layers(model, "attn") if targets == "attention" else targets.split(",")
    missing = [name for name in wanted if name not in found]
    if missing or not wanted:
        raise SummkitError(f"no layers {targets!r} in this model; linear layers there are: {', '.join(sorted(found))}")
    return sorted(wanted)


def _lora(model, profile: Profile):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=profile.rank, lora_alpha=profile.alpha, lora_dropout=profile.dropout, task_type="CAUSAL_LM",
        target_modules=target_layers(model, profile.targets),
    )  # fmt: skip
    return get_peft_model(model, config)


METHODS = {"lora": _lora}
