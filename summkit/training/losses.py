"""Floor 4. The loss of a model that writes summaries: over the summary's tokens alone, each of them counting once."""

from summkit.data import tokenisation
from summkit.models import loading


def mean_loss(model, encoded, tokenizer, batch_size: int = 8) -> float:
    """Mean loss over all summary tokens of `encoded`, each token counting once whatever batch it came in. In nats."""
    import torch

    rows = list(encoded)
    collate = tokenisation.Collator(tokenizer, **loading.padding(model))
    was_training = model.training
    model.eval()
    total = tokens = 0.0
    with torch.no_grad(), loading.unpacked(model):
        for batch in tokenisation.length_sorted_batches([row["length"] for row in rows], batch_size):
            inputs = {name: value.to(model.device) for name, value in collate([rows[n] for n in batch]).items()}
            count = int((inputs["labels"] != tokenisation.IGNORE).sum())
            total += float(summary_loss(model, inputs, num_items_in_batch=1))
            tokens += count
    model.train(was_training)
    return total / tokens


def summary_loss(model, inputs: dict, num_items_in_batch=None):
    """Cross entropy on the summary's tokens, the head applied to no other position.

    The same value as over all positions with the prompt masked (tested), with less memory and, where the vocabulary is
    large, a fifth less work. `inputs`: what `features.Collator` makes. With `num_items_in_batch` the sum is divided by
    it, else by the batch's own number of summary tokens. Of an encoder-decoder the decoder reads the summary shifted by
    one, and has no other positions.
    """
    import torch

    if loading.is_encoder_decoder(model):
        return _seq2seq_loss(model, dict(inputs), num_items_in_batch)
    labels = inputs["labels"]
    shifted = torch.nn.functional.pad(labels, (0, 1), value=tokenisation.IGNORE)[:, 1:]
    keep = shifted != tokenisation.IGNORE  # positions that predict a summary token
    keep = torch.nn.functional.pad(
        keep, (loading.virtual_tokens(model), 0)
    )  # prompt tuning puts its tokens before the input
    extra = {} if num_items_in_batch is None else {"num_items_in_batch": num_items_in_batch}
    return model(
        **inputs, logits_to_keep=keep, shift_labels=shifted[shifted != tokenisation.IGNORE], use_cache=False, **extra
    ).loss


def _seq2seq_loss(model, inputs: dict, num_items_in_batch=None):
    """Computed here: the models' own loss is the batch's mean, which would weigh a short batch's tokens more."""
    import torch

    labels = inputs.pop("labels")
    shift = getattr(model, "module", model).prepare_decoder_input_ids_from_labels
    logits = model(**inputs, decoder_input_ids=shift(labels), use_cache=False).logits.float()
    total = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=tokenisation.IGNORE, reduction="sum"
    )
    return total / ((labels != tokenisation.IGNORE).sum() if num_items_in_batch is None else num_items_in_batch)
