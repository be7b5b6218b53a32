"""Score labels by the log-likelihood of each label word after a prompt, instead of parsing free text.

A prompt is read once for all labels. Their words follow it in one sequence; each attends only to the prompt and itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from summkit import progress
from summkit.data import batching, tokenisation
from summkit.errors import SummkitError
from summkit.inference.generation import ready_to_answer
from summkit.inference.sampling import NOT_FINITE
from summkit.models import loading

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from summkit.data.templates import Template


def label_tokens(template: Template, tokenizer: Tokenizer, words: Sequence[str]) -> list[list[int]]:
    """Tokenise label words as answers of the template.

    Args:
        template: The prompt that the words follow.
        tokenizer: The model's tokenizer.
        words: One word, or a few, for each label.

    Returns:
        Token ids of each label, without the end of sequence.

    Raises:
        SummkitError: One label's tokens are the beginning of another's, so the shorter label would always be likelier.

    Example:
        >>> from summkit import data, models
        >>> tokenizer = models.load_tokenizer("tiny-llama")  # a token a byte
        >>> label_tokens(data.build_template("instruction", tokenizer), tokenizer, ["yes", "no"])
        [[225, 93, 73, 87], [225, 82, 83]]
    """
    answers = [tokenisation.answer_ids(template, tokenizer, word) for word in words]
    for (ids, word), (longer, other) in permutations(zip(answers, words, strict=True), 2):
        if longer[: len(ids)] == ids:
            raise SummkitError(f"label words {word!r} and {other!r}: the first begins the second; use other words")
    return answers


def label_log_likelihoods(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    template: Template,
    rows: Iterable[dict],
    words: Sequence[str],
    *,
    max_length: int,
    max_new_tokens: int,
    batch_size: int = 16,
) -> np.ndarray:
    """Compute the log-likelihood of each label word after each row's prompt; a progress bar counts rows.

    Args:
        model: A decoder.
        tokenizer: The model's tokenizer.
        template: The prompt.
        rows: Dicts with document and, for pairs, second.
        words: The label words.
        max_length: Tokens of prompt and answer together.
        max_new_tokens: Tokens reserved for the answer; more if a word is longer.
        batch_size: Rows scored together; they have similar lengths.

    Returns:
        A float64 array [rows, words], in nats, summed over a word's tokens.

    Raises:
        SummkitError: The model is an encoder-decoder, or computes NaN or infinity.
        Interrupted: The user stopped it. The model is as it was before.
    """
    import torch

    if loading.is_encoder_decoder(model):
        raise SummkitError("labels are scored with a decoder only: this model is an encoder-decoder")
    answers = label_tokens(template, tokenizer, words)
    room = max(max_new_tokens, *map(len, answers))
    prompts = []
    for row in rows:
        texts = (row["document"], None)
        encoded = tokenisation.encode(template, tokenizer, *texts, max_length, room, second=row.get("second") or "")
        prompts.append(encoded["input_ids"])
    scores = np.empty((len(prompts), len(words)))
    bar = progress.bar(total=len(prompts), desc="labels", unit="text", leave=False)
    with ready_to_answer(model), torch.inference_mode(), bar:
        for batch in batching.length_sorted_batches([len(ids) for ids in prompts], batch_size):
            scores[batch] = _score(model, [prompts[number] for number in batch], answers)
            bar.update(len(batch))
    if np.isnan(scores).any():
        raise SummkitError(NOT_FINITE)
    return scores


def label_probabilities(scores: np.ndarray) -> np.ndarray:
    """Apply a softmax over labels: log-likelihoods [rows, labels] → probabilities [rows, labels].

    Example:
        >>> label_probabilities(np.array([[-2.0, -2.0], [0.0, -1000.0]])).tolist()
        [[0.5, 0.5], [1.0, 0.0]]
    """
    likelihoods = np.exp(scores - scores.max(axis=1, keepdims=True))
    return likelihoods / likelihoods.sum(axis=1, keepdims=True)


def _score(model: PreTrainedModel, prompts: list[list[int]], answers: list[list[int]]) -> np.ndarray:
    """Return log-likelihoods [rows, labels] from one pass over each prompt and the tokens of all labels."""
    import torch

    inputs = {name: tensor.to(model.device) for name, tensor in _pack(prompts, answers, model.dtype).items()}
    logits = model(**inputs, use_cache=False).logits.float().log_softmax(-1)
    logits = logits.view(len(prompts), -1, model.vocab_size)  # (rows, kept positions, vocabulary)
    scores = logits[:, 0, [ids[0] for ids in answers]].double()  # (rows, labels)
    position = 1
    for number, (_, *rest) in enumerate(answers):
        if rest:
            tokens = torch.tensor(rest, device=logits.device).expand(len(prompts), -1)[..., None]
            kept = logits[:, position : position + len(rest)]
            scores[:, number] += kept.gather(-1, tokens).double().sum((1, 2))
            position += len(rest)
    return scores.cpu().numpy()


def _pack(prompts: list[list[int]], answers: list[list[int]], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return model inputs: ids, positions (rows, tokens), additive mask (rows, 1, tokens, tokens), logits to keep.

    Logits are kept at the positions that predict a label's token: each prompt's end, and inside longer labels.
    """
    import torch

    lengths = torch.tensor([len(ids) for ids in prompts])
    longest = int(lengths.max())
    labels = [token for ids in answers for token in ids]
    owner = torch.tensor([-1] * longest + [number for number, ids in enumerate(answers) for _ in ids])  # -1: prompt
    offset = torch.tensor([step for ids in answers for step in range(len(ids))])
    ids = torch.tensor([prompt + [0] * (longest - len(prompt)) + labels for prompt in prompts])  # (rows, tokens)
    total = ids.shape[1]
    of_prompt = torch.arange(total) < lengths[:, None]  # (rows, tokens)
    causal = torch.ones(total, total, dtype=torch.bool).tril()
    same_label = causal & (owner[:, None] == owner) & (owner >= 0)
    visible = (causal & of_prompt[:, None, :]) | same_label  # (rows, tokens, tokens)
    positions = torch.cat([torch.arange(longest).expand(len(prompts), -1), lengths[:, None] + offset], dim=1)
    inside_label = torch.zeros(total, dtype=torch.bool)
    inside_label[longest:-1] = owner[longest:-1] == owner[longest + 1 :]
    keep = inside_label | (torch.arange(total) == lengths[:, None] - 1)
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[:, None]
    return {"input_ids": ids, "position_ids": positions, "attention_mask": mask, "logits_to_keep": keep}
