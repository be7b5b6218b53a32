"""Export a trained model as a folder that other programs can serve, or in CTranslate2's format.

The folder of `merge_adapter` is in the Hugging Face format, which transformers 4 and 5, `transformers serve`,
`vllm serve DIR` and others load; llama.cpp's `convert_hf_to_gguf.py DIR` turns it into a GGUF file. Programs must use
the prompt of the training, which is "head" + text + "tail" of the folder's summkit.json. With the template "chat" a
chat endpoint makes the same prompt from a system message (the instruction) and a user message (the text).
`Served` asks a server that has it. The folder of `to_ctranslate2` is fast on a CPU; `Exported` loads it. `python -m
summkit summarize` does both.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from summkit import files, progress
from summkit.data import templates
from summkit.errors import SummkitError, check_known
from summkit.inference.generation import Prompter, Summary, decoder_start
from summkit.inference.server import Server
from summkit.models import loading
from summkit.models.methods import METHODS
from summkit.training import checkpoints

if TYPE_CHECKING:
    from transformers import PreTrainedModel

QUANTIZATIONS = ("float32", "int8")
_WEIGHTS = "model.bin"  # CTranslate2's
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def merge_adapter(adapter: str | Path, out: str | Path) -> Path:
    """Merge an adapter into its base model, and write the result atomically to a new folder.

    The base model is loaded again in the compute dtype of the training, never in 4 bits, where rounding would lose
    part of the adapter. So an adapter that was trained with 4-bit weights gives slightly different answers when merged.

    Args:
        adapter: The adapter's folder.
        out: The new folder.

    Returns:
        The new folder.

    Raises:
        SummkitError: The adapter is a tuned prompt, which changes no weights; `checkpoints.read_settings` rejects the
            folder; `out` already exists or cannot be written.
    """
    settings = checkpoints.read_settings(adapter)
    name = settings["model"]
    if METHODS.find(settings["method"]).prompt_tuning:
        raise SummkitError(f"{adapter} is a tuned prompt: it has no weights to merge; use the adapter folder instead")
    with files.new_folder(out) as folder:
        settings["precision"] = _PRECISIONS[settings["compute_dtype"]]
        base = loading.load_model(name, settings["precision"], device="cpu")
        model = checkpoints.load_adapter(base, adapter, name)
        if hasattr(model, "peft_config"):  # otherwise its own weights were trained
            with progress.clock("merging"):
                model = model.merge_and_unload()
        broken = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
        if broken:
            raise SummkitError(
                f"{adapter} cannot be merged: {broken} holds NaN or infinity; train it again with a lower learning_rate"
            )
        _save(model, settings, folder)
    return Path(out)


def to_ctranslate2(adapter: str | Path, out: str | Path, quantization: str = "float32") -> Path:
    """Merge an adapter, convert it to CTranslate2's format, and write the result atomically to a new folder.

    Args:
        adapter: The adapter's folder.
        out: The new folder.
        quantization: "float32", or "int8", which takes a quarter of the space and rounds the weights.

    Returns:
        The new folder.

    Raises:
        SummkitError: As for `merge_adapter`; CTranslate2 is missing, does not support the model or computes different
            float32 logits; the model is an encoder-decoder, which `Exported` does not support.
    """
    check_known("quantization", quantization, QUANTIZATIONS)
    _require_ctranslate2()
    with (
        files.new_folder(out) as folder,
        # Windows removes no file whose weights are mapped.
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-", ignore_cleanup_errors=True) as parent,
    ):
        merged = merge_adapter(adapter, Path(parent) / "merged")
        name = checkpoints.settings_in(merged)["model"]
        if json.loads((merged / "config.json").read_text(encoding="utf-8")).get("is_encoder_decoder"):
            raise SummkitError(
                f"{name} is an encoder-decoder, but this export supports decoders only: use the format 'hf'"
            )
        _convert(merged, folder, "float32", name)
        difference = _logits_difference(merged, folder)  # before anything is rounded
        if not difference <= 0.01:  # or NaN; converters may silently omit parts of an unusual architecture
            raise SummkitError(
                f"CTranslate2 computes {name} differently: its logits are off by {difference:.0%}; use the format 'hf'"
            )
        if quantization != "float32":
            _convert(merged, folder, quantization, name)
    return Path(out)


def is_exported(folder: str | Path) -> bool:
    """Whether `to_ctranslate2` wrote `folder`."""
    return all((Path(folder) / name).is_file() for name in (_WEIGHTS, checkpoints.SETTINGS))


class Exported(Prompter):
    """A model from `to_ctranslate2`, which summarises with the prompts of the training and greedy decoding."""

    seq2seq = False

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load the folder. Raises SummkitError if it is not an export or is broken, or if CTranslate2 is missing."""
        if not is_exported(folder):
            raise SummkitError(f"{folder} is not in CTranslate2's format: make one with `python -m summkit export`")
        _require_ctranslate2()
        import ctranslate2

        try:
            generator = ctranslate2.Generator(str(folder), device="auto")
        except RuntimeError as error:
            raise SummkitError(f"{folder} is broken ({error}): export it again") from None
        return cls.from_folder(generator, folder)

    def summarize(self, documents: Sequence[str]) -> list[Summary]:
        """Summarise documents, in order. Raises SummkitError with the number of a document that cannot be used."""
        return self.answer(self.encode(documents), self._generate, "CTranslate2")

    def _generate(self, rows: list[dict]) -> list[list[int]]:
        """Return the new token ids of each row, including EOS if the model wrote it."""
        results = self.model.generate_batch(
            [self.tokenizer.convert_ids_to_tokens(row["input_ids"]) for row in rows],
            max_length=self.max_new_tokens,
            include_prompt_in_result=False,
            end_token=list(self.end_tokens),
            return_end_token=True,
        )
        return [result.sequences_ids[0] for result in results]


class Served(Prompter):
    """A folder of `merge_adapter` behind a server that completes token ids, such as `vllm serve DIR`.

    The server gets the token ids of the prompts, so the template and the cuts are those of the training. Answers are
    greedy, and `batch_size` texts are asked at once.
    """

    seq2seq = False
    name = ""  # of the model on the server

    @classmethod
    def load(cls, folder: str | Path, base_url: str) -> Self:
        """Load the prompt and the tokenizer in the folder; the weights are those of the server's model of this name.

        Raises:
            SummkitError: `folder` is not an export, or the URL is invalid.
        """
        served = cls.from_folder(Server(base_url), folder)
        served.name = Path(folder).resolve().name
        served.name = next((name for name in served.model.models() if Path(name).name == served.name), served.name)
        return served

    def summarize(self, documents: Sequence[str]) -> list[Summary]:
        """Summarise documents, in order.

        Raises:
            SummkitError: A document cannot be used; or as for `Server.post`; or the server completes no token ids.
            Interrupted: The user stopped it.
        """
        from multiprocessing.pool import ThreadPool  # its threads are daemons: Ctrl-C does not wait for a slow server

        rows = self.encode(documents)
        with ThreadPool(self.batch_size) as pool:
            return self.answer(rows, lambda batch: pool.imap(self._complete, batch), "server", len(rows))

    def _complete(self, row: dict) -> list[int]:
        """Return new token ids, with an end token if the model ended the answer: the server's text, encoded again."""
        ids = row["input_ids"]
        body = {"model": self.name, "prompt": ids, "max_tokens": self.max_new_tokens, "temperature": 0.0}
        reply = self.model.post("/completions", body)
        try:
            [choice], read = reply.json()["choices"], reply.json()["usage"]["prompt_tokens"]
            if read != len(ids):
                raise ValueError(f"{read} tokens were read of {len(ids)}")
            new = self.tokenizer(choice["text"], add_special_tokens=False)["input_ids"]
            return new + [self.end_tokens[0]] * (choice["finish_reason"] == "stop")
        except (ValueError, LookupError, TypeError) as error:
            said = f"{self.model.base_url} does not complete token ids ({error}); it answers"
            raise SummkitError(f"{said}: {self.model.quoted(reply.text)}") from None


def _save(model: PreTrainedModel, settings: dict, folder: Path) -> None:
    asked = Prompter.from_settings(model, loading.load_tokenizer(settings["model"]), settings)
    # The base model's own configuration may set lengths and penalties that were not used in training.
    model.generation_config = decoder_start(
        model, max_new_tokens=asked.max_new_tokens, do_sample=False, **asked.special_tokens()
    )
    head = model.get_output_embeddings()
    scaled = getattr(model.config, "scale_decoder_outputs", model.config.model_type != "mt5")
    if not scaled and head.weight is model.get_input_embeddings().weight:
        head.weight = type(head.weight)(head.weight.detach().clone())  # transformers 4 scales what a tied head reads
        model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
    asked.tokenizer.save_pretrained(folder)
    prompt = {"head": asked.template.head, "tail": asked.template.tail, "end_tokens": list(asked.end_tokens)}
    settings = settings | prompt
    files.write_text(folder / checkpoints.SETTINGS, json.dumps(settings, indent=2, ensure_ascii=False))
    for name, change in (("config.json", _older_config), ("tokenizer_config.json", _older_tokenizer)):
        values = change(files.read_mapping(folder / name, "configuration"))
        files.write_text(folder / name, json.dumps(values, indent=2, ensure_ascii=False))


def _older_config(config: dict) -> dict:
    """Add the names by which transformers 4 knows settings, such as RoPE's, for which it would take its defaults."""
    config = {key: _older_config(value) if key == "text_config" else value for key, value in config.items()}
    if "num_local_experts" in config:
        config.setdefault("num_experts", config["num_local_experts"])
    if config.get("model_type") == "granitemoehybrid":
        kinds = [kind.replace("linear_attention", "mamba") for kind in config["layer_types"]]
        config["layer_types"] = [kind.removeprefix("full_") for kind in kinds]
    if limits := config.get("time_step_limit"):
        config["time_step_limit"] = [float(one["__float__"]) if isinstance(one, dict) else one for one in limits]
    rope = config.get("rope_parameters") or {}
    # Models with two kinds of layers have settings for each: those of full attention have the usual names.
    full = rope.get("full_attention", rope)
    if full.get("rope_type") == "proportional":  # Gemma 4's, which transformers 4 does not know
        return config
    if "rope_theta" in full:
        kind = full.get("rope_type", "default")
        scaling = {key: value for key, value in full.items() if key not in ("rope_theta", "partial_rotary_factor")}
        if config["model_type"] == "phi3":  # takes three keys and no other
            scaling = {"type": kind, **{key: full.get(key) for key in ("short_factor", "long_factor")}}
        config |= {"rope_theta": full["rope_theta"], "rope_scaling": None if kind == "default" else scaling}
    if "partial_rotary_factor" in full:
        config["partial_rotary_factor"] = full["partial_rotary_factor"]
    if config.get("model_type", "").startswith("gpt_neox"):
        config |= {"rotary_emb_base": full["rope_theta"], "rotary_pct": full["partial_rotary_factor"]}
    if "sliding_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    return config


def _older_tokenizer(config: dict) -> dict:
    """Return a tokenizer's settings by the names of transformers 4, which transformers 5 reads too."""
    tokens = config.get("extra_special_tokens")
    if isinstance(tokens, list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    return config


def _convert(merged: Path, folder: Path, quantization: str, name: str) -> None:
    from ctranslate2.converters import TransformersConverter

    left_out = {"config.json", "generation_config.json"}
    others = [path.name for path in merged.iterdir() if path.name not in left_out and "safetensors" not in path.name]
    try:
        converter = TransformersConverter(str(merged), copy_files=others)
        converter.convert(str(folder), quantization=quantization, force=True)
    except (ValueError, NotImplementedError, AttributeError) as error:
        raise SummkitError(f"CTranslate2 cannot convert {name}: {error}; the format 'hf' takes any model") from None
    # CTranslate2 rejects null, so a missing token gets the name of EOS. Our prompts do not use it.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {key: config["eos_token"] for key in ("bos_token", "unk_token") if config[key] is None}
    files.write_text(folder / "config.json", json.dumps(config, indent=2))


def _logits_difference(merged: Path, converted: Path) -> float:
    """Return the largest difference between the two models' logits, as a share of the largest logit."""
    import ctranslate2
    import torch

    tokenizer = loading.load_tokenizer(str(merged))
    ids = (tokenizer(templates.INSTRUCTION)["input_ids"] * 20)[:256]
    logits = ctranslate2.Generator(str(converted)).forward_batch([tokenizer.convert_ids_to_tokens(ids)])
    with torch.no_grad():
        expected = loading.load_model(str(merged), device="cpu")(torch.tensor([ids])).logits[0].numpy()
    converted_logits = np.array(logits)[0][:, : expected.shape[1]]  # (tokens, vocabulary)
    return float(np.abs(converted_logits - expected).max() / np.abs(expected).max())


def _require_ctranslate2() -> None:
    if importlib.util.find_spec("ctranslate2") is None:
        raise SummkitError("ctranslate2 is not installed: pip install 'summkit[export]'")
