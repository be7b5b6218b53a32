"""Greedy summaries of the same documents with the same weights: this library and its alternatives.

Measured from text to text, including tokenisation but not loading and conversion.
"""

import tempfile
from pathlib import Path

from benchmarks import harness, training, workload
from benchmarks.harness import Contestant
from summkit.config import Profile

DOCUMENTS = {"smoke": 8, "real": 32}


def prepare(work: dict) -> dict:
    """The model as folders that all contestants read: merged, and in CTranslate2's format in fp32 and int8."""
    from summkit.inference import export
    from summkit.models import loading, methods
    from summkit.training import checkpoints

    harness.quiet()
    profile, made = Profile(**work["profile"]), Path(work["made"])
    model = methods.apply_method(loading.load_model(profile.model), profile)  # LoRA begins as nothing: the base answers
    adapter = checkpoints.save_adapter(model, made / "adapter", profile)
    export.merge_adapter(adapter, made / "merged")
    if harness.version("ctranslate2"):
        for name in export.QUANTIZATIONS:
            export.to_ctranslate2(adapter, made / name, name)
    return workload.sizes(model.get_base_model())


def _loaded(work: dict):
    """(profile, tokenizer, model, documents, positions): positions grows by what the model is given."""
    from summkit.models import loading

    harness.quiet()
    folder = str(Path(work["made"]) / "merged")
    tokenizer, model, positions = loading.load_tokenizer(folder), loading.load_model(folder), []
    model.get_input_embeddings().register_forward_pre_hook(lambda module, ids: positions.append(ids[0].numel()))
    return Profile(**work["profile"]), tokenizer, model.eval(), [row["document"] for row in work["rows"]], positions


def _result(taken: dict, answers: list[tuple[str, int]], batches: list[list[int]], **more) -> dict:
    """`answers`: (text, tokens with EOS) of each document. `batches`: documents that were answered together."""
    steps = sum(max(answers[number][1] for number in batch) for batch in batches)
    texts = [" ".join(text.split()) for text, _ in answers]
    return taken | {"answers": texts, "new_tokens": sum(tokens for _, tokens in answers), "steps": steps} | more


def summkit(work: dict) -> dict:
    """`generation.summarize`: batches of similar length, their prompts read without padding."""
    from summkit.data import batching, templates
    from summkit.inference import generation

    profile, tokenizer, model, documents, positions = _loaded(work)
    template = templates.summary_template(profile, tokenizer)
    limits = {"max_length": profile.max_length, "max_new_tokens": profile.max_new_tokens}
    size = profile.generation_batch_size
    found, taken = harness.measure(
        lambda: generation.summarize(model, tokenizer, template, documents, batch_size=size, **limits)
    )
    batches = batching.length_sorted_batches([answer.prompt_tokens for answer in found], size)
    return _result(taken, [(one.text, one.tokens) for one in found], batches, positions=sum(positions))


def _transformers(work: dict, batch_size: int) -> dict:
    import torch

    profile, tokenizer, model, _, positions = _loaded(work)
    prompts = [row["prompt"] for row in work["rows"]]
    batches = [list(range(n, min(n + batch_size, len(prompts)))) for n in range(0, len(prompts), batch_size)]

    def answer() -> list[tuple[str, int]]:
        answers = []
        for batch in batches:
            texts = [prompts[number] for number in batch]
            inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left").to(model.device)
            inputs.pop("token_type_ids", None)
            with torch.inference_mode():
                output = model.generate(**inputs, max_new_tokens=profile.max_new_tokens, do_sample=False)
            answers += [_read(tokenizer, ids) for ids in output[:, inputs["input_ids"].shape[1] :].tolist()]
        return answers

    answers, taken = harness.measure(answer)
    return _result(taken, answers, batches, positions=sum(positions))


def _read(tokenizer, ids: list[int]) -> tuple[str, int]:
    """Return the text before the first EOS, and its number of tokens including EOS."""
    ended = tokenizer.eos_token_id in ids
    ids = ids[: ids.index(tokenizer.eos_token_id)] if ended else ids
    return tokenizer.decode(ids, skip_special_tokens=True), len(ids) + ended


def one_by_one(work: dict) -> dict:
    """`model.generate` in a loop over the documents."""
    return _transformers(work, 1)


def as_they_come(work: dict) -> dict:
    """`model.generate` on batches in the documents' order, padded to the longest of each."""
    return _transformers(work, work["profile"]["generation_batch_size"])


def _ctranslate2(work: dict, quantization: str) -> dict:
    from summkit.data import batching
    from summkit.inference import export

    profile, documents = Profile(**work["profile"]), [row["document"] for row in work["rows"]]
    asked = export.Exported.load(Path(work["made"]) / quantization)
    asked.batch_size = profile.generation_batch_size
    found, taken = harness.measure(lambda: asked.summarize(documents))
    batches = batching.length_sorted_batches([answer.prompt_tokens for answer in found], asked.batch_size)
    return _result(taken, [(answer.text, answer.tokens) for answer in found], batches)


def ctranslate2_fp32(work: dict) -> dict:
    """This library's export, `summkit export --format ctranslate2`."""
    return _ctranslate2(work, "float32")


def ctranslate2_int8(work: dict) -> dict:
    """The same with weights and matrix products in int8: other numbers, so now and then other words."""
    return _ctranslate2(work, "int8")


def llama_cpp(work: dict) -> dict:
    """The embedded model's own file: 4 bits that the fp32 weights of the others were unpacked from. One by one."""
    import llama_cpp

    from summkit.models import loading
    from summkit.offline import assets

    profile = Profile(**work["profile"])
    if profile.model not in assets.ASSETS:
        raise ValueError(f"there is no GGUF file of {profile.model}")
    tokenizer = loading.load_tokenizer(profile.model)
    limits = {"n_ctx": profile.max_length, "n_threads": work["threads"], "n_threads_batch": work["threads"]}
    model = llama_cpp.Llama(str(assets.fetch(profile.model)), **limits, verbose=False)

    def answer() -> list[tuple[str, int]]:
        return [_read(tokenizer, _continued(model, tokenizer, row["prompt"], profile)) for row in work["rows"]]

    answers, taken = harness.measure(answer)
    return _result(taken, answers, [[number] for number in range(len(answers))])


def _continued(model, tokenizer, prompt: str, profile: Profile) -> list[int]:
    ids = []
    for token in model.generate(tokenizer(prompt)["input_ids"], temp=0.0, repeat_penalty=1.0):
        ids.append(token)
        if token == tokenizer.eos_token_id or len(ids) == profile.max_new_tokens:
            break
    return ids


CONTESTANTS = {
    "summkit": Contestant(summkit, "this library: batches of similar length, read without padding"),
    "one by one": Contestant(one_by_one, "transformers, a document at a time"),
    "transformers batches": Contestant(as_they_come, "transformers, batches as the documents come"),
    "ctranslate2 fp32": Contestant(ctranslate2_fp32, "this library's export, fp32", "ctranslate2"),
    "ctranslate2 int8": Contestant(ctranslate2_int8, "this library's export, int8", "ctranslate2"),
    "llama.cpp": Contestant(llama_cpp, "the same weights in the 4 bits they were published in", "llama_cpp"),
}
WEIGHT_BYTES = {"ctranslate2 int8": 1, "llama.cpp": 0.625}  # of the others 4; Q4_1 has 20 bytes for 32 weights


def run(options) -> dict:
    """The record of this benchmark. `options`: smoke, rounds, threads."""
    work = workload.make(workload.profile(options.smoke), "test", DOCUMENTS["smoke" if options.smoke else "real"])
    with tempfile.TemporaryDirectory() as folder:
        work |= {"made": folder}
        sizes = harness.start("generation", "prepare", work, options.threads)
        found = harness.compete("generation", CONTESTANTS, work, options.rounds, options.threads)
    expected = next(iter(found["contestants"]["one by one"]["rounds"]), {}).get("answers")
    for name, entry in found["contestants"].items():
        texts = [r.pop("answers") for r in entry["rounds"]]  # of articles that are not ours to publish
        if texts:
            entry |= {key: entry["rounds"][-1].get(key) for key in ("new_tokens", "steps", "positions")}
            entry["same_answers"] = expected and sum(a == b for a, b in zip(texts[-1], expected, strict=True))
            flop = 2.0 * (sizes["body"] * (work["prompt_tokens"] + entry["new_tokens"]))
            flop += 2.0 * sizes["head"] * entry["new_tokens"]
            entry |= training.speed(entry | {"positions": None}, entry["new_tokens"], flop, found["ceiling"])
            entry |= _reading(entry, name, sizes, found["ceiling"])
    work["tokens"] = work["prompt_tokens"]
    return harness.record("generation", work["profile"]["name"], options.threads, work=workload.summary(work), **found)


def _reading(entry: dict, name: str, sizes: dict, ceiling: dict) -> dict:
    """Return the share of memory speed: each decoding step reads every weight once."""
    if entry["device_seconds"] is not None:  # the memory that is measured is the processor's
        return {"share_of_memory_speed": None}
    read = entry["steps"] * (sizes["body"] + sizes["head"]) * WEIGHT_BYTES.get(name, 4)
    return {"share_of_memory_speed": read / entry["cpu_seconds"]["median"] / ceiling["read_bytes_per_second"]["median"]}
