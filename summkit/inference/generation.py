"""Generate summaries with a model or a saved adapter, in batches of documents of similar length."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from summkit import files, progress
from summkit.config import detect_hardware
from summkit.data import batching, templates, tokenisation
from summkit.data.checks import reason_unusable
from summkit.data.support import best_supported
from summkit.errors import Interrupted, SummkitError, check_known
from summkit.inference import engines, sampling
from summkit.inference.prefill import Prefill
from summkit.models import families, loading
from summkit.registry import Registry
from summkit.training import checkpoints

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

# Settings of transformers' GenerationConfig by name. A plugin adds its own with `DECODINGS.add`. If several answers to
# a document are asked for (`num_return_sequences`), `best_supported` chooses one.
DECODINGS: Registry[dict[str, Any]] = Registry(
    "decoding",
    {
        "greedy": {"do_sample": False},
        "no-repeat": {"do_sample": False, "no_repeat_ngram_size": 3},  # small models repeat themselves in long answers
        "beam": {"do_sample": False, "num_beams": 4},
        "nucleus": {"do_sample": True, "top_p": 0.9, "temperature": 0.7, "repetition_penalty": 1.1},
        # Without a penalty for repetition, which would also keep the document's own names out of the summary.
        "supported": {"do_sample": True, "top_p": 0.9, "top_k": 0, "temperature": 0.5, "num_return_sequences": 8},
    },
)
# The marks around what a model thinks before it answers: tags, and those of Mistral, Kimi and gpt-oss.
_TAG = "(?:seed:)?(?:think|thinking|thought|reasoning)"
_THINKING = re.compile(rf"<{_TAG}>|\[THINK\]|◁think▷|<\|channel\|>analysis", re.IGNORECASE)
_THOUGHT = re.compile(rf"</{_TAG}>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>", re.IGNORECASE)


@dataclass(frozen=True)
class Summary:
    """A model's answer.

    Attributes:
        text: The answer in one line, up to the first end-of-sequence token (EOS), without what the model thought.
        ended: Whether the answer ended with EOS.
        tokens: The number of generated tokens, including EOS.
        cut: The number of the document's tokens that were cut.
        prompt_tokens: The number of tokens in the prompt, including instruction and examples.
        thought: Whether the model thought before its answer, or until the last token, and the text is then empty.
    """

    text: str
    ended: bool
    tokens: int
    cut: int = 0
    prompt_tokens: int = 0
    thought: bool = False


@dataclass
class Prompter:
    """A model with its tokenizer, prompt template and limits.

    Attributes:
        model: The model that writes the answers.
        tokenizer: The model's tokenizer.
        template: The prompt template.
        max_length: Tokens of prompt and answer together, or of the prompt of an encoder-decoder.
        max_new_tokens: The largest number of tokens in an answer.
        batch_size: Documents that are answered together.
        end_tokens: The tokens that end an answer. Empty: the tokenizer's EOS, and those that the model's own generation
            settings name: a chat model often ends its turns with another token.
    """

    model: Any
    tokenizer: Tokenizer
    template: templates.Template
    max_length: int
    max_new_tokens: int
    batch_size: int = 16
    end_tokens: Sequence[int] = ()
    _bar: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.end_tokens:
            own = getattr(getattr(loading.unwrapped(self.model), "generation_config", None), "eos_token_id", None)
            ids = [self.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
            self.end_tokens = list(dict.fromkeys(token for token in ids if token is not None))

    @classmethod
    def from_settings(cls, model: Any, tokenizer: Tokenizer, settings: dict) -> Self:
        """Use the prompt and limits of the training, from the `settings` that `checkpoints.read_settings` returns."""
        wording = templates.get_wording(settings["wording"], settings["instruction"])
        template = templates.build_template(settings["template"], tokenizer, wording)
        limits = (settings["max_length"], settings["max_new_tokens"])
        return cls(model, tokenizer, template, *limits, end_tokens=settings.get("end_tokens", ()))

    @classmethod
    def from_folder(cls, model: Any, folder: str | Path) -> Self:
        """Use the prompt, limits and tokenizer in the folder of an exported model."""
        settings = checkpoints.settings_in(Path(folder))
        settings |= files.read_mapping(Path(folder) / checkpoints.SETTINGS, "settings")
        if "head" not in settings:
            raise SummkitError(f"{folder} is not an exported model: make one with `python -m summkit export`")
        return cls.from_settings(model, loading.load_tokenizer(str(folder)), settings)

    def special_tokens(self) -> dict[str, Any]:
        """Return the ids that end an answer, BOS and padding by their names in GenerationConfig."""
        ends = list(self.end_tokens) if len(self.end_tokens) > 1 else next(iter(self.end_tokens), None)
        others = {f"{kind}_token_id": getattr(self.tokenizer, f"{kind}_token_id") for kind in ("pad", "bos")}
        return {"eos_token_id": ends} | others

    @property
    def seq2seq(self) -> bool:
        """Whether the model is an encoder-decoder."""
        return loading.is_encoder_decoder(self.model)

    @property
    def window(self) -> int:
        """The number of document tokens that fit into the prompt; a longer document is cut."""
        limits = (self.max_length, self.max_new_tokens)
        return tokenisation.window(self.template, self.tokenizer, *limits, seq2seq=self.seq2seq)

    def encode(self, documents: Sequence[str]) -> list[dict]:
        """Encode each document with `tokenisation.encode`. Raises SummkitError with the number of an unusable one."""
        for number, document in enumerate(documents, 1):
            if reason := reason_unusable(document):
                raise SummkitError(f"document {number}: {reason}; there is no text to summarise")
        prompt = (self.template, self.tokenizer)
        limits = (self.max_length, self.max_new_tokens)
        return [tokenisation.encode(*prompt, text, None, *limits, seq2seq=self.seq2seq) for text in documents]

    def answer(self, rows: list[dict], write: engines.Writer, title: str, together: int = 0) -> list[Summary]:
        """Return summaries of encoded rows, in order.

        Args:
            rows: Rows of `encode`.
            write: Maps a batch, longest row first, to the new token ids of each row.
            title: What the progress bar says.
            together: Rows of a batch; 0: `batch_size`.

        Raises:
            Interrupted: The user stopped it. The model is as it was before.
        """
        answers: dict[int, Summary] = {}
        # Some chat formats open the thinking in the prompt: what the model writes is then a thought until it closes it.
        before = "<think>" if _THINKING.search(_THOUGHT.split(self.template.tail)[-1]) else ""
        batches = batching.length_sorted_batches([row["length"] for row in rows], together or self.batch_size)
        counted = {"total": len(rows), "unit": "text", "miniters": 0, "mininterval": 0.5}  # drawn between texts, too
        with progress.bar(desc=f"summaries ({title})", leave=False, **counted) as self._bar:
            try:
                for batch in batches:
                    for number, ids in zip(batch, write([rows[number] for number in batch]), strict=True):
                        about = (rows[number]["cut"], rows[number]["length"], self.end_tokens, before)
                        answers[number] = read_answer(self.tokenizer, ids, *about)
                        self._bar.update(1)
            except KeyboardInterrupt:
                raise Interrupted(f"interrupted: {len(answers)} of {len(rows)} texts were answered") from None
        return [answers[number] for number in range(len(rows))]

    def count_tokens(self) -> Callable[[], None]:
        """Return a function for each new token of a batch; the progress bar shows their number."""
        numbers = count(1)

        def show() -> None:
            self._bar.set_postfix_str(f"token {next(numbers)} of at most {self.max_new_tokens}", refresh=False)
            self._bar.update(0)  # drawn twice a second

        return show


class Summarizer(Prompter):
    """Summarises with a model or a saved adapter.

    Example:
        >>> from summkit import data, models
        >>> tokenizer = models.load_tokenizer("tiny-llama")
        >>> template = data.build_template("instruction", tokenizer)
        >>> model = models.load_model("tiny-llama")  # random weights: it writes nonsense
        >>> summarizer = Summarizer(model, tokenizer, template, max_length=256, max_new_tokens=8)
        >>> [summary] = summarizer.summarize(["The bridge opened on Monday."])
        >>> (summary.cut, summary.tokens <= 8)
        (0, True)
    """

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load the adapter in `folder` on a fresh copy of its base model.

        Raises:
            SummkitError: `folder` is not an adapter that `training` saved, or its weights are truncated.
        """
        settings = checkpoints.read_settings(folder)
        name = settings["model"]
        tokenizer = loading.load_tokenizer(name)
        base = loading.load_model(name, settings["precision"], _compute_dtype(settings["compute_dtype"], name))
        return cls.from_settings(checkpoints.load_adapter(base, folder, name), tokenizer, settings)

    def summarize(
        self,
        documents: Sequence[str],
        decoding: str = "greedy",
        base: bool = False,
        seed: int = 0,
        temperature: float = 0.0,
        reuse_head: bool = False,
        engine: str = "batches",
        merge: bool | None = None,
    ) -> list[Summary]:
        """Summarise documents; a progress bar counts them.

        Args:
            documents: The texts. A text that does not fit into `max_length` is cut at the end.
            decoding: A name in DECODINGS. "supported" writes eight answers and takes the one with the fewest names and
                numbers that the document lacks; of equals, the one that agrees most with the others.
            base: Answer as the base model, with the adapter off. Zero-shot answers stay so after a training.
            seed: Seed for sampling. Samples also depend on the batches.
            temperature: Above 0, each token is sampled from all tokens at this temperature, instead of `decoding`.
            reuse_head: Read the part of the template before the document only once for all documents, which saves time
                if examples make it long. The answers are the same, unless rounding decides between two tokens, as with
                different batch sizes.
            engine: A name in `engines.ENGINES`: how a GPU is kept busy. All but "batches" are for decoders, without
                beams, `reuse_head` and prompt tuning; "continuous" is for greedy answers.
            merge: Answer with a plain copy of packed layers, the adapter merged (see `engines.merged`). None: on a GPU
                whose free memory is twice the copy's. The model is unchanged afterwards.

        Returns:
            One Summary for each document, in the same order.

        Raises:
            SummkitError: The decoding is unknown; a document cannot be used; an encoder-decoder has too few positions;
                the head cannot be reused: with beams, with prompt tuning, in an encoder, or in a model whose cache
                drops keys and values; the model computes NaN or infinity; or `base` is set and the model's own
                weights were trained.
            Interrupted: The user stopped it. The model is as it was before.
        """
        import torch

        settings = _generation_settings(decoding, temperature)
        settings = settings | self._engine(engine, settings, reuse_head)
        rows = [row | {"document": text} for row, text in zip(self.encode(documents), documents, strict=True)]
        torch.manual_seed(seed)
        with loading.adapter_off(self.model) if base else nullcontext(), ready_to_answer(self.model, merge) as model:
            loading.check_positions(self.model, self.max_length, self.max_new_tokens)
            title = f"temperature {temperature}" if temperature else decoding
            if engine == "continuous":
                limits = {"max_new_tokens": self.max_new_tokens} | self.special_tokens()
                with engines.continuous(model, rows, self.batch_size, limits) as write:
                    return self.answer(rows, write, title, len(rows))
            read = Prefill(self, settings, reuse_head)
            return self.answer(rows, lambda batch: self._write(batch, read, settings), title)

    def _write(self, batch: list[dict], read: Prefill, settings: dict[str, Any]) -> list[list[int]]:
        """Return new token ids for each row; of several answers, those of the best one."""
        if settings.get("num_return_sequences", 1) == 1:
            return self._generate(read(batch), settings)
        chosen = []
        for row, answers in zip(batch, self._candidates(batch, read, settings), strict=True):
            texts = [read_answer(self.tokenizer, ids, 0, ends=self.end_tokens).text for ids in answers]
            chosen.append(answers[best_supported(texts, row["document"])])
        return chosen

    def _candidates(self, batch: list[dict], read: Prefill, settings: dict[str, Any]) -> list[list[list[int]]]:
        """Return the new token ids of several answers to each row."""
        if read.in_groups:
            prompts = read(batch)
            if read.in_groups:
                limits = (self.max_new_tokens, self.end_tokens)
                return sampling.draw(self.model, prompts, settings, *limits, self.count_tokens()).tolist()
        answers = settings["num_return_sequences"]
        size = max(1, self.batch_size // answers)  # `generate` copies a prompt for each answer
        found = []
        for first in range(0, len(batch), size):
            ids = self._generate(read(batch[first : first + size]), settings)
            found += [ids[start : start + answers] for start in range(0, len(ids), answers)]
        return found

    def _engine(self, engine: str, settings: dict[str, Any], reuse_head: bool) -> dict[str, Any]:
        """Return the further settings of an engine, if it suits the model and the other options."""
        from transformers import CompileConfig

        check_known("engine", engine, engines.ENGINES)
        if engine == "batches":
            return {}
        several = {"num_beams", "num_return_sequences"} & settings.keys()
        if self.seq2seq or loading.virtual_tokens(self.model) or several or reuse_head:
            raise SummkitError(f"engine {engine!r} has no encoder, beams, tuned prompt or reuse_head: use 'batches'")
        if engine == "continuous" and (settings["do_sample"] or not sampling.suits(self.model, settings)):
            raise SummkitError("engine 'continuous' gives greedy answers, of models with position_ids: use 'batches'")
        made = engines.ENGINES[engine]
        return made | {key: CompileConfig(**value) for key, value in made.items() if key == "compile_config"}

    def _generate(self, tensors: dict[str, Any], settings: dict) -> list[list[int]]:
        """Return new token ids, (rows, at most max_new_tokens), with padding after EOS."""
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        config = GenerationConfig(**settings, max_new_tokens=self.max_new_tokens, **self.special_tokens())
        size = len(tensors["input_ids"]) * settings.get("num_return_sequences", 1)
        if "cache_implementation" in settings:  # one shape for all batches: what was recorded for one serves for all
            fill = torch.arange(self.batch_size).clamp(max=size - 1)
            tensors = {name: tensor[fill] for name, tensor in tensors.items()}
        show_token = self.count_tokens()

        def each_token(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            sampling.check_finite(scores)
            show_token()
            return scores

        how: dict[str, Any] = {"generation_config": config, "logits_processor": LogitsProcessorList([each_token])}
        with torch.inference_mode():
            if loading.virtual_tokens(self.model) and not self.seq2seq:
                return self.model.base_model.generate(**_with_tuned_prompt(self.model, tensors), **how).tolist()
            output = self.model.generate(**tensors, **how)  # (rows, tokens)
        # A decoder's output begins with the prompt, an encoder-decoder's with its start token.
        return output[:size, 1 if self.seq2seq else tensors["input_ids"].shape[1] :].tolist()


def summarize(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    template: templates.Template,
    documents: Sequence[str],
    *,
    max_length: int,
    max_new_tokens: int,
    batch_size: int = 16,
    **options: Any,
) -> list[Summary]:
    """Summarise documents with a model; see `Prompter` for the arguments and `Summarizer.summarize` for the options."""
    summarizer = Summarizer(model, tokenizer, template, max_length, max_new_tokens, batch_size)
    return summarizer.summarize(documents, **options)


def _generation_settings(decoding: str, temperature: float) -> dict[str, Any]:
    """Return settings of transformers' GenerationConfig."""
    settings = DECODINGS.find(decoding)
    if not temperature:
        return settings
    if decoding != "greedy" or not 0 < temperature < float("inf"):
        raise SummkitError(
            f"temperature={temperature} with decoding={decoding!r}: use a temperature of 0, or one above 0 together "
            "with the decoding 'greedy', which it replaces"
        )
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


def _compute_dtype(trained_in: str, name: str) -> str:
    """Return the compute dtype for this machine: half precision is too slow on a CPU, and bf16 on an old GPU."""
    machine = detect_hardware()
    if machine.device != "cuda":
        return "float32"
    if trained_in != "bfloat16" or machine.bf16:
        return trained_in
    return "float32" if families.family_of(loading.load_config(name)).overflows_in_fp16 else "float16"


@contextmanager
def ready_to_answer(model: PreTrainedModel, merge: bool | None = None) -> Iterator[PreTrainedModel]:
    """Put the model into evaluation mode with a cache, and always restore its state afterwards.

    Yields the model without peft's wrapper.

    With `merge`, or by default where `engines.copy_fits`, a plain copy of packed layers answers.

    In training mode a model generates gibberish. The model's own generation settings are dropped except for the start
    tokens of its decoder; otherwise `generate` would use its lengths, penalties and beams for settings we do not give.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    was_training = model.training
    config = loading.text_config(model)
    use_cache = getattr(config, "use_cache", None)
    own_settings = base.generation_config
    try:
        model.eval()
        config.use_cache = True
        base.generation_config = decoder_start(base)
        merge = engines.copy_fits(base) if merge is None else merge
        with engines.merged(base) if merge else loading.unpacked(model):
            yield base
    except KeyboardInterrupt as stop:
        raise Interrupted(str(stop) or "interrupted: there is no answer; the model is as it was before") from None
    finally:
        base.generation_config = own_settings
        config.use_cache = use_cache
        model.train(was_training)


def decoder_start(model: PreTrainedModel, **settings: Any) -> GenerationConfig:
    """Return a GenerationConfig of `settings` and, for an encoder-decoder, the start tokens of its decoder."""
    from transformers import GenerationConfig

    if loading.is_encoder_decoder(model):
        for name in ("decoder_start_token_id", "forced_bos_token_id"):
            settings[name] = getattr(model.generation_config, name, None)
        if settings["decoder_start_token_id"] is None:
            settings["decoder_start_token_id"] = model.config.decoder_start_token_id
    return GenerationConfig(**settings)


def _with_tuned_prompt(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return embeddings in the order of training: left padding, the tuned prompt, then each row's tokens.

    peft would put the prompt before the padding. The gap between prompt and tokens would change the logits.
    """
    import torch

    mask = tensors["attention_mask"]  # (rows, tokens)
    prompts = model.get_prompt(batch_size=len(mask))  # (rows, virtual tokens, width)
    words = model.get_input_embeddings()(tensors["input_ids"])  # (rows, tokens, width)
    rows = [
        torch.cat([row[:padding], prompt.to(row.dtype), row[padding:]])
        for row, prompt, padding in zip(words, prompts, (mask == 0).sum(dim=1).tolist(), strict=True)
    ]
    longer = torch.cat([mask, mask.new_ones(len(mask), prompts.shape[1])], dim=1)  # the zeros stay on the left
    return {"inputs_embeds": torch.stack(rows), "attention_mask": longer}


def without_thinking(text: str) -> str | None:
    """Return the answer in a model's text, without what it thought before; None if the text is nothing but thinking.

    Example:
        >>> without_thinking("<think>Rain, a river.</think> The river rose.")
        'The river rose.'
        >>> without_thinking("<think>Rain, a") is None
        True
    """
    answer = _THINKING.split(_THOUGHT.split(text)[-1])[0]
    return text if answer == text else answer.strip() or None


def read_answer(
    tokenizer: Tokenizer, ids: list[int], cut: int, prompt_tokens: int = 0, ends: Sequence[int] = (), before: str = ""
) -> Summary:
    """Decode new token ids into a Summary, up to the first of `ends` (by default EOS); `before` precedes them."""
    ends = ends or [tokenizer.eos_token_id]
    size = next((number for number, token in enumerate(ids) if token in ends), len(ids))
    ended = size < len(ids)
    text = before + tokenizer.decode(ids[:size], skip_special_tokens=True)
    answer = without_thinking(text)
    return Summary(" ".join((answer or "").split()), ended, size + ended, cut, prompt_tokens, thought=answer != text)
