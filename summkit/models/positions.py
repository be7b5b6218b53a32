"""Floor 4. How many tokens a model has positions for: what asks for more is refused, before a GPU crashes on it."""

from summkit import progress
from summkit.errors import SummkitError
from summkit.models import loading


def position_limits(model) -> tuple[int | None, int | None]:
    """How many tokens an encoder-decoder's encoder and decoder have positions for; None for any number, as in T5.

    Of a decoder nothing is said: most count positions without a limit.
    """
    config = getattr(model, "module", model).config
    if not loading.is_encoder_decoder(model):
        return None, None
    both = getattr(config, "max_position_embeddings", None)  # BART's and BigBird's name; LED has one for each
    return tuple(getattr(config, f"max_{part}_position_embeddings", both) for part in ("encoder", "decoder"))


def check_positions(model, max_length: int, max_new_tokens: int) -> None:
    """Raise SummkitError, naming the option, where an encoder-decoder has no positions for so many tokens."""
    asked = {"max_length": max_length + loading.virtual_tokens(model), "max_new_tokens": max_new_tokens}
    for (option, tokens), most in zip(asked.items(), position_limits(model), strict=True):
        if most is not None and tokens > most:
            kind = getattr(model, "module", model).config.model_type
            raise SummkitError(f"{option}={tokens}: this model ({kind}) has positions for {most:,}; set it lower")


def writable(rows, model):
    """Encoded rows without those whose summary is longer than an encoder-decoder's decoder can write; says how many.

    Whole data sets have rows whose "summary" is a text of its own: one of them would end a training, hours into it.
    Raises SummkitError where no row is left.
    """
    most = position_limits(model)[1]
    if most is None:
        return rows
    kept = [number for number, labels in enumerate(rows["labels"]) if len(labels) <= most]
    longer = len(rows) - len(kept)
    found = f"{longer:,} of {len(rows):,} summaries are longer than the {most:,} tokens that the model can write"
    if not kept:
        raise SummkitError(f"{found}: no row is left")
    if longer and progress.first_process():
        print(f"{found}: these rows are left out", flush=True)
    return rows.select(kept) if longer else rows
