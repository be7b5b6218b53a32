"""Floor 5. Labels from a language model: the log-likelihood of every label's word after a prompt, not parsed free text.

A prompt is read once for all labels: their words follow it side by side, each seeing the prompt and itself only.
"""

import math

from summkit import progress
from summkit.data import tokenisation
from summkit.errors import SummkitError
from summkit.models import loading

NEUTRAL = ("N/A", "[MASK]", "")  # content-free inputs, as in Zhao et al. 2021, arXiv:2102.09690


def label_tokens(template, tokenizer, words) -> list[list[int]]:
    """Token numbers of each word as the template's answer has them, without the end of sequence.

    Raises SummkitError where one word's tokens begin another's: the shorter would be likelier whatever the text.
    """
    found = [tokenisation.answer_ids(template, tokenizer, word) for word in words]
    for a, word in zip(found, words, strict=True):
        for b, other in zip(found, words, strict=True):
            if a is not b and b[: len(a)] == a:
                raise SummkitError(f"label words {word!r} and {other!r}: the first begins the second; use other words")
    return found


def label_log_likelihoods(
    model, tokenizer, template, rows, words, *, max_length: int, max_new_tokens: int, batch_size: int = 16
):
    """Log-likelihood of each word after each row's prompt: float64 array [rows, words], in nats, summed over tokens.

    `rows` have document and, for pairs, second. Rows of similar length share a batch; a progress bar counts rows.
    Raises SummkitError for an encoder-decoder: its labels' words do not stand behind the prompt.
    """
    import numpy as np
    import torch

    if loading.is_encoder_decoder(model):
        raise SummkitError("labels are scored with a decoder only: this model is an encoder-decoder")
    answers = label_tokens(template, tokenizer, words)
    encoded = [_prompt(template, tokenizer, row, max_length, max(max_new_tokens, *map(len, answers))) for row in rows]
    result = np.empty((len(encoded), len(words)))
    was_training = model.training
    model.eval()
    bar = progress.bar(total=len(encoded), desc="labels", unit="text", leave=False)
    try:
        with torch.inference_mode(), loading.unpacked(model), bar:
            for batch in tokenisation.length_sorted_batches([len(ids) for ids in encoded], batch_size):
                result[batch] = _score(model, [encoded[number] for number in batch], answers)
                bar.update(len(batch))
    finally:
        model.train(was_training)
    return result


def neutral_log_likelihoods(model, tokenizer, template, words, **limits):
    """`label_log_likelihoods` of inputs that say nothing, averaged as probabilities: [words]. What the model likes anyway."""
    import numpy as np

    rows = [{"document": text, "second": text if template.middle else ""} for text in NEUTRAL]
    scores = label_log_likelihoods(model, tokenizer, template, rows, words, **limits)
    return np.logaddexp.reduce(scores, axis=0) - math.log(len(rows))


def label_probabilities(scores):
    """Softmax over the labels: [rows, labels] of log-likelihoods → [rows, labels] that add up to 1."""
    import numpy as np

    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _prompt(template, tokenizer, row, max_length: int, room: int) -> list[int]:
    second = row.get("second") or ""
    return tokenisation.encode(template, tokenizer, row["document"], None, max_length, room, second)["input_ids"]


def _score(model, prompts: list[list[int]], answers: list[list[int]]):
    """[rows, labels]: prompts padded on the right, then all labels' tokens in one row behind them."""
    import torch

    packed = _pack(prompts, answers, model.dtype)
    inputs = {name: tensor.to(model.device) for name, tensor in packed.items()}
    logits = model(**inputs, use_cache=False).logits.float().log_softmax(-1).view(len(prompts), -1, model.vocab_size)
    first = logits[:, 0, [ids[0] for ids in answers]].double()
    place = 1
    for number, ids in enumerate(answers):
        if len(ids) > 1:
            rest = torch.tensor(ids[1:], device=logits.device).expand(len(prompts), -1)[..., None]
            first[:, number] += logits[:, place : place + len(ids) - 1].gather(-1, rest).double().sum((1, 2))
            place += len(ids) - 1
    return first.cpu().numpy()


def _pack(prompts, answers, dtype) -> dict:
    """Model inputs: ids and positions (rows, tokens), an additive mask (rows, 1, tokens, tokens), and which logits.

    Logits are kept where a label's next token is foretold: at each prompt's end, then inside each longer label.
    """
    import torch

    longest, lengths = max(map(len, prompts)), torch.tensor([len(ids) for ids in prompts])
    behind = [token for ids in answers for token in ids]
    owner = torch.tensor([-1] * longest + [number for number, ids in enumerate(answers) for _ in ids])
    offset = torch.tensor([step for ids in answers for step in range(len(ids))])
    ids = torch.tensor([prompt + [0] * (longest - len(prompt)) + behind for prompt in prompts])
    total = ids.shape[1]
    of_prompt = torch.arange(total) < lengths[:, None]  # (rows, tokens)
    causal = torch.ones(total, total, dtype=torch.bool).tril()
    own = causal & (owner[:, None] == owner) & (owner >= 0)
    seen = (causal & of_prompt[:, None, :]) | own
    positions = torch.cat([torch.arange(longest).expand(len(prompts), -1), lengths[:, None] + offset], dim=1)
    inner = torch.cat(
        [torch.zeros(longest), (owner[longest:-1] == owner[longest + 1 :]).float(), torch.zeros(1)]
    ).bool()
    keep = inner | (torch.arange(total) == lengths[:, None] - 1)
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
    return {"input_ids": ids, "position_ids": positions, "attention_mask": mask, "logits_to_keep": keep}
