"""Floor 5. Summaries from a model or a saved adapter: in batches of similar length, in the order that was asked."""

from contextlib import nullcontext
from dataclasses import dataclass

from summkit import progress
from summkit.config import detect_hardware
from summkit.data import templates, tokenisation
from summkit.data.checks import reason_unusable
from summkit.errors import SummkitError, check_known
from summkit.inference import prefill
from summkit.models import families, loading
from summkit.training import checkpoints

DECODINGS = {
    "greedy": {"do_sample": False},
    "no-repeat": {"do_sample": False, "no_repeat_ngram_size": 3},  # long answers of small models go in circles else
    "beam": {"do_sample": False, "num_beams": 4},
    "nucleus": {"do_sample": True, "top_p": 0.9, "temperature": 0.7, "repetition_penalty": 1.1},
}


@dataclass(frozen=True)
class Summary:
    """One answer: its text, whether the model ended it by EOS, how many tokens it took, how many of the document's were
    cut, and how many the prompt had, instruction and examples with it.
    """

    text: str
    ended: bool
    tokens: int
    cut: int = 0
    prompt_tokens: int = 0


def summarize(
    model, tokenizer, template, documents, *, max_length: int, max_new_tokens: int, decoding: str = "greedy",
    batch_size: int = 16, seed: int = 0, temperature: float = 0.0, reuse_head: bool = False,
) -> list[Summary]:  # fmt: skip
    """One Summary a document, in the documents' order. A progress bar counts documents.

    With a `temperature` above 0 each token is drawn from all of them at that temperature, in place of `decoding`. What
    is drawn depends on the seed and on which documents share a batch.
    `reuse_head` has the template's head read once for all documents, worth it where examples make it long. The answers
    are the same, but for ties that rounding decides, as they are between one batch size and another.
    Raises SummkitError for an unknown decoding, for a document that cannot be used, by its number, and where the head
    cannot be reused: with beams, with prompt tuning, in an encoder, and in a model that keeps no plain cache. An
    encoder-decoder has to have positions for both limits.
    """
    import torch

    loading.check_positions(model, max_length, max_new_tokens)
    settings, seq2seq = _settings(decoding, temperature), loading.is_encoder_decoder(model)
    rows = prompts(template, tokenizer, documents, max_length, max_new_tokens, seq2seq)
    batches = tokenisation.length_sorted_batches([row["length"] for row in rows], batch_size)
    # An encoder's positions count from the left, and its decoder goes on from a token of its own.
    collate = tokenisation.Collator(tokenizer, side="right" if seq2seq else "left", **loading.padding(model))
    answers: list[Summary | None] = [None] * len(rows)
    torch.manual_seed(seed)
    how = f"temperature {temperature}" if temperature else decoding
    bar = progress.bar(total=len(rows), desc=f"summaries ({how})", unit="text", leave=False)
    with _answering(model), bar:
        head = tokenisation.head_ids(template, tokenizer) if reuse_head else None
        read = prefill.Prefill(model, tokenizer, collate, settings, head)
        for batch in batches:
            tensors = read([rows[number] for number in batch])
            found = _generate(model, tokenizer, tensors, settings, max_new_tokens)
            for number, ids in zip(batch, found, strict=True):
                answers[number] = read_answer(tokenizer, ids, rows[number]["cut"], rows[number]["length"])
            bar.update(len(batch))
    return answers


def prompts(
    template, tokenizer, documents, max_length: int, max_new_tokens: int, seq2seq: bool = False
) -> list[dict]:  # fmt: skip
    """Each document's row of `features.encode`. Raises SummkitError, by its number, for one that cannot be used."""
    for number, document in enumerate(documents, 1):
        if reason := reason_unusable(document):
            raise SummkitError(f"document {number}: {reason}; there is no text to summarise")
    limits = {"max_length": max_length, "max_new_tokens": max_new_tokens, "seq2seq": seq2seq}
    return [tokenisation.encode(template, tokenizer, text, None, **limits) for text in documents]


def _settings(decoding: str, temperature: float) -> dict:
    """What transformers' GenerationConfig is asked for."""
    check_known("decoding", decoding, DECODINGS)
    if not temperature:
        return DECODINGS[decoding]
    if decoding != "greedy" or not 0 < temperature < float("inf"):
        raise SummkitError(
            f"temperature={temperature} with decoding={decoding!r}: a temperature is 0, or more in place of "
            "the decoding 'greedy'"
        )
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


class Summarizer:
    """A model with all that asking it takes: tokenizer, template, limits in tokens. One object for the command line,
    the playground and a script.
    """

    def __init__(self, model, tokenizer, template, max_length: int, max_new_tokens: int, batch_size: int = 16):
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.limits = {"max_length": max_length, "max_new_tokens": max_new_tokens, "batch_size": batch_size}

    @classmethod
    def load(cls, folder) -> "Summarizer":
        """The adapter in `folder` on a fresh copy of its base model.

        Raises SummkitError where `folder` is not an adapter that `training` saved, or its weights are cut off.
        """
        settings = checkpoints.read_settings(folder)
        tokenizer = loading.load_tokenizer(settings["model"])
        name, precision, trained_in = (settings[key] for key in ("model", "precision", "compute_dtype"))
        base = loading.load_model(name, precision, _compute_here(trained_in, name))
        model = checkpoints.load_adapter(base, folder, settings["model"])
        template = templates.build_template(settings["template"], tokenizer, templates.get_wording(settings["wording"]))
        return cls(model, tokenizer, template, settings["max_length"], settings["max_new_tokens"])

    @property
    def window(self) -> int:
        """Tokens of a document that are read; the rest of a longer one is cut."""
        limits = {key: self.limits[key] for key in ("max_length", "max_new_tokens")}
        seq2seq = loading.is_encoder_decoder(self.model)
        return tokenisation.window(self.template, self.tokenizer, **limits, seq2seq=seq2seq)

    def summarize(self, documents, decoding: str = "greedy", base: bool = False, seed: int = 0) -> list[Summary]:
        """One Summary a document, in their order; with `base`, from the model without its adapter."""
        with self.model.disable_adapter() if base else nullcontext():
            return summarize(
                self.model, self.tokenizer, self.template, documents, decoding=decoding, seed=seed, **self.limits
            )


def _compute_here(trained_in: str, name: str) -> str:
    """What this machine computes in: a GPU's half precision is unusably slow on a CPU, bf16 on an old GPU."""
    machine = detect_hardware()
    if machine.device != "cuda":
        return "float32"
    if trained_in != "bfloat16" or machine.bf16:
        return trained_in
    return "float32" if families.family_of(loading.load_config(name)).overflows_in_fp16 else "float16"


class _answering:
    """Evaluation mode with cache and without checkpointing, and back: in training mode a model generates gibberish.

    Of the model's own generation settings only the tokens that its decoder begins with stay: `generate` would put all
    the others (lengths, penalties, beams) wherever ours says nothing.
    """

    def __init__(self, model):
        self.model = model
        self.base = model.get_base_model() if hasattr(model, "get_base_model") else model

    def __enter__(self):
        self.was_training, self.cache = self.model.training, self.model.config.use_cache
        self.own = self.base.generation_config
        self.model.eval()
        self.model.config.use_cache = True
        self.base.generation_config = beginning(self.base)
        self.unpacked = loading.unpacked(self.model)
        self.unpacked.__enter__()

    def __exit__(self, *exception):
        self.unpacked.__exit__(*exception)
        self.base.generation_config = self.own
        self.model.config.use_cache = self.cache
        self.model.train(self.was_training)


def beginning(model, **settings):
    """A GenerationConfig of `settings` and, for an encoder-decoder, of the tokens that its decoder begins with."""
    from transformers import GenerationConfig

    if loading.is_encoder_decoder(model):
        for name in ("decoder_start_token_id", "forced_bos_token_id"):
            settings[name] = getattr(model.generation_config, name, None)
        if settings["decoder_start_token_id"] is None:
            settings["decoder_start_token_id"] = model.config.decoder_start_token_id
    return GenerationConfig(**settings)


def _generate(model, tokenizer, tensors, settings, max_new_tokens):
    """New token ids, (rows, at most max_new_tokens), with everything after EOS as padding."""
    import torch
    from transformers import GenerationConfig

    config = GenerationConfig(
        **settings, max_new_tokens=max_new_tokens, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    seq2seq = loading.is_encoder_decoder(model)
    with torch.inference_mode():
        if loading.virtual_tokens(model) and not seq2seq:
            return model.base_model.generate(**_with_prompt(model, tensors), generation_config=config).tolist()
        output = model.generate(**tensors, generation_config=config)
    # A decoder's output begins with the prompt, an encoder-decoder's with the one token that it starts from.
    return output[:, 1 if seq2seq else tensors["input_ids"].shape[1] :].tolist()


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


def read_answer(tokenizer, ids: list[int], cut: int, prompt_tokens: int = 0) -> Summary:
    """The Summary that the new token numbers `ids` are: what stands before the first EOS, in one line."""
    ended = tokenizer.eos_token_id in ids
    if ended:
        ids = ids[: ids.index(tokenizer.eos_token_id)]
    text = " ".join(tokenizer.decode(ids, skip_special_tokens=True).split())
    return Summary(text, ended, len(ids) + ended, cut, prompt_tokens)
