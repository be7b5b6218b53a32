"""Floor 5. Summaries from a model or a saved adapter: in batches of similar length, in the order that was asked."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from summkit import checkpoints, data, features, models, profiles, progress, templates
from summkit.errors import SummkitError, check_known

DECODINGS = {
    "greedy": {"do_sample": False},
    "beam": {"do_sample": False, "num_beams": 4},
    "nucleus": {"do_sample": True, "top_p": 0.9, "temperature": 0.7, "repetition_penalty": 1.1},
}


@dataclass(frozen=True)
class Summary:
    """One answer: its text, whether the model ended it by EOS, how many tokens it took, how many were cut before."""

    text: str
    ended: bool
    tokens: int
    cut: int = 0


def summarize(
    model, tokenizer, template, documents, *, max_length: int, max_new_tokens: int, decoding: str = "greedy",
    batch_size: int = 16, seed: int = 0,
) -> list[Summary]:  # fmt: skip
    """One Summary a document, in the documents' order. A progress bar counts documents.

    Raises SummkitError for an unknown decoding, and for a document that cannot be used, by its number.
    """
    import torch

    check_known("decoding", decoding, DECODINGS)
    for number, document in enumerate(documents, 1):
        if reason := data.usable(document, "."):
            raise SummkitError(f"document {number}: {reason}; there is no text to summarise")
    rows = [features.encode(template, tokenizer, text, None, max_length, max_new_tokens) for text in documents]
    batches = features.length_sorted_batches([row["length"] for row in rows], batch_size)
    collate = features.Collator(tokenizer, side="left")
    answers: list[Summary | None] = [None] * len(rows)
    torch.manual_seed(seed)
    bar = progress.bar(total=len(rows), desc=f"summaries ({decoding})", unit="text", leave=False)
    with _answering(model), bar:
        for batch in batches:
            tensors = collate([rows[number] for number in batch])
            found = _generate(model, tokenizer, tensors, DECODINGS[decoding], max_new_tokens)
            for number, ids in zip(batch, found, strict=True):
                answers[number] = _read(tokenizer, ids, rows[number]["cut"])
            bar.update(len(batch))
    return answers


class Summarizer:
    """A model with all that asking it takes: tokenizer, template, limits in tokens. One object for the command line,
    the playground and a script."""

    def __init__(self, model, tokenizer, template, max_length: int, max_new_tokens: int, batch_size: int = 16):
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.limits = {"max_length": max_length, "max_new_tokens": max_new_tokens, "batch_size": batch_size}

    @classmethod
    def load(cls, folder) -> "Summarizer":
        """The adapter in `folder` on a fresh copy of its base model.

        Raises SummkitError where `folder` is not an adapter that `training` saved, or its weights are cut off.
        """
        from peft import PeftModel

        settings = checkpoints.read_settings(folder)
        tokenizer = models.load_tokenizer(settings["model"])
        base = models.load_model(settings["model"], settings["precision"], _compute_here(settings["compute_dtype"]))
        own = (Path(folder) / checkpoints.OWN_WEIGHTS).is_file()
        try:
            model = checkpoints.load_own_weights(base, folder) if own else PeftModel.from_pretrained(base, str(folder))
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise SummkitError(f"the adapter in {folder} does not fit {settings['model']}: {reason}") from None
        template = templates.build(settings["template"], tokenizer)
        return cls(model, tokenizer, template, settings["max_length"], settings["max_new_tokens"])

    def summarize(self, documents, decoding: str = "greedy", base: bool = False, seed: int = 0) -> list[Summary]:
        """One Summary a document, in their order; with `base`, from the model without its adapter."""
        with self.model.disable_adapter() if base else nullcontext():
            return summarize(
                self.model, self.tokenizer, self.template, documents, decoding=decoding, seed=seed, **self.limits
            )


def _compute_here(trained_in: str) -> str:
    """What this machine computes in: a GPU's half precision is unusably slow on a CPU, bf16 on an old GPU."""
    machine = profiles.hardware()
    if machine.device != "cuda":
        return "float32"
    return "float16" if trained_in == "bfloat16" and not machine.bf16 else trained_in


class _answering:
    """Evaluation mode with cache and without checkpointing, and back: in training mode a model generates gibberish."""

    def __init__(self, model):
        self.model = model

    def __enter__(self):
        self.was_training, self.cache = self.model.training, self.model.config.use_cache
        self.model.eval()
        self.model.config.use_cache = True
        self.unpacked = models.unpacked(self.model)
        self.unpacked.__enter__()

    def __exit__(self, *exception):
        self.unpacked.__exit__(*exception)
        self.model.config.use_cache = self.cache
        self.model.train(self.was_training)


def _generate(model, tokenizer, tensors, settings, max_new_tokens):
    """New token ids, (rows, at most max_new_tokens), with everything after EOS as padding."""
    import torch
    from transformers import GenerationConfig

    # A configuration of its own: the model's may carry lengths and penalties that nobody here asked for.
    config = GenerationConfig(
        **settings, max_new_tokens=max_new_tokens, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    tensors = {name: tensor.to(model.device) for name, tensor in tensors.items()}
    with torch.inference_mode():
        if models.virtual_tokens(model):
            return model.base_model.generate(**_with_prompt(model, tensors), generation_config=config).tolist()
        output = model.generate(**tensors, generation_config=config)
    return output[:, tensors["input_ids"].shape[1] :].tolist()


def _with_prompt(model, tensors: dict) -> dict:
    """Embeddings of left padding, then the tuned prompt, then each row's tokens: as the rows were trained.

    peft puts the prompt before the padding, where a decoder that reads from the left sees a gap: other logits.
    """
    import torch

    ids, mask = tensors["input_ids"], tensors["attention_mask"]
    prompt = model.get_prompt(batch_size=len(ids))
    size, words = prompt.shape[1], model.get_input_embeddings()(ids)
    pads = (mask == 0).sum(dim=1)
    rows = [torch.cat([w[:n], p.to(w.dtype), w[n:]]) for w, p, n in zip(words, prompt, pads.tolist(), strict=True)]
    longer = torch.cat([mask, mask.new_ones(len(mask), size)], dim=1)  # as many zeros on the left as before
    return {"inputs_embeds": torch.stack(rows), "attention_mask": longer}


def _read(tokenizer, ids: list[int], cut: int) -> Summary:
    ended = tokenizer.eos_token_id in ids
    if ended:
        ids = ids[: ids.index(tokenizer.eos_token_id)]
    text = " ".join(tokenizer.decode(ids, skip_special_tokens=True).split())
    return Summary(text, ended, len(ids) + ended, cut)
