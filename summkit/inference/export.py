"""Floor 6. The trained model leaves the house: as a folder that other programs serve, or in CTranslate2's format.

The folder of `merge` is served by `transformers serve`, `vllm serve DIR` and whatever else loads the Hugging Face
format; llama.cpp's `convert_hf_to_gguf.py DIR` turns it into a GGUF file. They must ask as in training: the prompt is
"head" + text + "tail" of its summkit.json. With the template "chat" a chat endpoint makes the same of a system message
(the instruction) and a user message (the text).
The folder of `ctranslate2` is quick on a CPU: `Exported` asks it, and so does `python -m summkit summarize`.
"""

import importlib.util
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from summkit import progress
from summkit.data import templates, tokenisation
from summkit.errors import SummkitError, check_known
from summkit.inference import generation
from summkit.inference.generation import Summary
from summkit.models import loading
from summkit.models.methods import METHODS
from summkit.training import checkpoints

QUANTIZATIONS = ("float32", "int8")
_WEIGHTS = "model.bin"  # CTranslate2's
_FULL = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def merge_adapter(adapter, out) -> Path:
    """The adapter folder `adapter` merged into its base model: the folder `out`, whole or not at all.

    The base is loaded again in the numbers that the training computed in, never in 4 bits: what is merged would be
    rounded away. An adapter trained beside 4-bit weights therefore answers a little differently once it is merged.
    Raises SummkitError for prompt tuning, which changes no weights, for a folder that `checkpoints.read_settings`
    refuses, and where `out` is there already or cannot be written.
    """
    settings = checkpoints.read_settings(adapter)
    if METHODS.find(settings["method"]).prompt_tuning:
        raise SummkitError(f"{adapter} is tuned by its prompt: it has no weights to merge; ask it with its adapter")
    with _whole(out) as part:
        tokenizer = loading.load_tokenizer(settings["model"])
        settings["precision"] = _FULL[settings["compute_dtype"]]
        base = loading.load_model(settings["model"], settings["precision"], device="cpu")
        model = checkpoints.load_adapter(base, adapter, settings["model"])
        _save(_merged(model, adapter), tokenizer, settings, part)
    return Path(out)


def to_ctranslate2(adapter, out, quantization: str = "float32") -> Path:
    """The adapter folder `adapter`, merged, in CTranslate2's format: the folder `out`, whole or not at all.

    "int8" takes a quarter of the space of "float32", and rounds the weights.
    Raises SummkitError as `merge` does, for a model that CTranslate2 does not know, or computes in another way (its
    logits in float32 are compared), for an encoder-decoder (its converted form answers another way than `Exported`
    asks), and where CTranslate2 is missing.
    """
    check_known("quantization", quantization, QUANTIZATIONS)
    _require_ctranslate2()
    with _whole(out) as part, tempfile.TemporaryDirectory(dir=part.parent, prefix=f"{part.name}-") as between:
        merged = merge_adapter(adapter, Path(between) / "merged")
        _require_decoder(merged)
        _convert(merged, part, "float32")
        _compare(merged, part)  # before anything is rounded
        if quantization != "float32":
            _convert(merged, part, quantization)
    return Path(out)


def _require_decoder(merged: Path) -> None:
    if json.loads((merged / "config.json").read_text(encoding="utf-8")).get("is_encoder_decoder"):
        name = checkpoints.settings_in(merged)["model"]
        raise SummkitError(
            f"{name} is an encoder-decoder, and only decoders go to CTranslate2 here: use the format 'hf'"
        )


def is_exported(folder) -> bool:
    """Whether `folder` is one of `ctranslate2`."""
    return all((Path(folder) / name).is_file() for name in (_WEIGHTS, checkpoints.SETTINGS))


class Exported:
    """A folder of `ctranslate2`, ready to be asked: with the prompts of the training, greedily."""

    def __init__(self, generator, tokenizer, template, max_length: int, max_new_tokens: int, batch_size: int = 16):
        self.generator, self.tokenizer, self.template = generator, tokenizer, template
        self.limits, self.batch_size = {"max_length": max_length, "max_new_tokens": max_new_tokens}, batch_size

    @classmethod
    def load(cls, folder) -> "Exported":
        """Raises SummkitError where `folder` is not one of `ctranslate2`, or broken, or CTranslate2 is missing."""
        if not is_exported(folder):
            raise SummkitError(f"{folder} is no model in CTranslate2's format: `python -m summkit export` makes one")
        settings = checkpoints.settings_in(Path(folder))
        _require_ctranslate2()
        import ctranslate2

        tokenizer = loading.load_tokenizer(str(folder))
        try:
            generator = ctranslate2.Generator(str(folder), device="auto")
        except RuntimeError as error:
            raise SummkitError(f"{folder} is broken ({error}): export it again") from None
        template = templates.build_template(settings["template"], tokenizer, templates.get_wording(settings["wording"]))
        return cls(generator, tokenizer, template, settings["max_length"], settings["max_new_tokens"])

    @property
    def window(self) -> int:
        """Tokens of a document that are read; the rest of a longer one is cut."""
        return tokenisation.window(self.template, self.tokenizer, **self.limits)

    def summarize(self, documents) -> list[Summary]:
        """One Summary a document, in their order. Raises SummkitError for one that cannot be used, by its number."""
        rows = generation.prompts(self.template, self.tokenizer, documents, **self.limits)
        answers: list[Summary | None] = [None] * len(rows)
        with progress.bar(total=len(rows), desc="summaries (CTranslate2)", unit="text", leave=False) as bar:
            for batch in tokenisation.length_sorted_batches([row["length"] for row in rows], self.batch_size):
                for number, ids in zip(batch, self._generate([rows[n]["input_ids"] for n in batch]), strict=True):
                    answers[number] = generation.read_answer(
                        self.tokenizer, ids, rows[number]["cut"], rows[number]["length"]
                    )
                bar.update(len(batch))
        return answers

    def _generate(self, prompts: list[list[int]]) -> list[list[int]]:
        """New token ids of each prompt, at most max_new_tokens, with EOS where the model wrote it."""
        found = self.generator.generate_batch(
            [self.tokenizer.convert_ids_to_tokens(ids) for ids in prompts],
            max_length=self.limits["max_new_tokens"], include_prompt_in_result=False,
            end_token=self.tokenizer.eos_token, return_end_token=True,
        )  # fmt: skip
        return [result.sequences_ids[0] for result in found]


def _merged(model, adapter):
    if not hasattr(model, "peft_config"):  # its own weights were trained
        return model
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # the adapter holds numbers that are none
        raise SummkitError(f"{adapter} cannot be merged: {error}") from None


def _save(model, tokenizer, settings: dict, folder: Path) -> None:
    # Of the library's own: the base's may carry lengths and penalties that the training knew nothing of.
    model.generation_config = generation.beginning(
        model, max_new_tokens=settings["max_new_tokens"], do_sample=False, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    template = templates.build_template(settings["template"], tokenizer, templates.get_wording(settings["wording"]))
    about = settings | {"head": template.head, "tail": template.tail}
    (folder / checkpoints.SETTINGS).write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")


@contextmanager
def _whole(out):
    """A folder to write into, which becomes `out` at the end, and is removed where it does not come to that."""
    out = Path(out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SummkitError(f"{out} is there already: name a new folder, or remove it")
    part = out.with_name(f"{out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        os.replace(part, out)
    except OSError as error:
        raise SummkitError(f"{out} could not be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _convert(merged: Path, folder: Path, quantization: str) -> None:
    from ctranslate2.converters import TransformersConverter

    others = {"config.json", "generation_config.json"}
    files = [p.name for p in merged.iterdir() if p.name not in others and "safetensors" not in p.name]
    try:
        TransformersConverter(str(merged), copy_files=files).convert(str(folder), quantization=quantization, force=True)
    except (ValueError, NotImplementedError, AttributeError) as error:
        name = checkpoints.settings_in(merged)["model"]
        raise SummkitError(f"CTranslate2 cannot convert {name}: {error}; the format 'hf' takes any model") from None
    _name_every_token(folder / "config.json")


def _compare(merged: Path, converted: Path) -> None:
    """A converter leaves out, without a word, what an architecture has beyond its relatives: then other logits come."""
    import ctranslate2
    import numpy
    import torch

    tokenizer = loading.load_tokenizer(str(merged))
    ids = (tokenizer(templates.INSTRUCTION)["input_ids"] * 20)[:256]
    found = ctranslate2.Generator(str(converted)).forward_batch([tokenizer.convert_ids_to_tokens(ids)])
    with torch.no_grad():
        expected = loading.load_model(str(merged), device="cpu")(torch.tensor([ids])).logits[0].numpy()
    off = numpy.abs(numpy.array(found)[0][:, : expected.shape[1]] - expected).max() / numpy.abs(expected).max()
    if off > 0.01:
        name = checkpoints.settings_in(merged)["model"]
        raise SummkitError(
            f"CTranslate2 computes {name} in another way, its logits are off by {off:.0%}: use the format 'hf'"
        )


def _require_ctranslate2() -> None:
    if importlib.util.find_spec("ctranslate2") is None:
        raise SummkitError("ctranslate2 is not installed; pip install ctranslate2")


def _name_every_token(config: Path) -> None:
    """CTranslate2 reads no null: a token that the tokenizer lacks gets the name of EOS. No prompt of ours needs it."""
    found = json.loads(config.read_text(encoding="utf-8"))
    found |= {key: found["eos_token"] for key in ("bos_token", "unk_token") if found[key] is None}
    config.write_text(json.dumps(found, indent=2), encoding="utf-8")
