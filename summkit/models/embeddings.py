"""Floor 4. How near two texts are in meaning: sentence embeddings of a small encoder, and their cosine as a score.

The encoder reads the first 256 tokens and averages their states, as all-MiniLM-L6-v2 was made to be used. Two texts
that share no word may score high and a wrong number changes little: beside ROUGE, not in its place.
"""

from pathlib import Path

from summkit.data import tokenisation
from summkit.data.checks import check_texts
from summkit.errors import SummkitError
from summkit.models import loading
from summkit.offline import assets

MAX_TOKENS = 256


class Encoder:
    """A sentence encoder with its tokenizer. `name` is what `load` was given."""

    def __init__(self, name: str, model, tokenizer):
        self.name, self.model, self.tokenizer = name, model.eval(), tokenizer

    def encode(self, texts, batch_size: int = 32):
        """Unit vectors, float array [rows, width], in the texts' order; zeros for an empty text.

        Raises SummkitError for no texts, or a row that is not a text.
        """
        import torch

        check_texts(texts=texts)
        ids = [self._ids(text) for text in texts]
        vectors = torch.zeros(len(ids), self.model.config.hidden_size, dtype=torch.float64)
        with torch.inference_mode():
            for batch in tokenisation.length_sorted_batches([len(row) for row in ids], batch_size):
                rows = [row for row in batch if texts[row].strip()]
                if rows:
                    vectors[rows] = self._vectors([{"input_ids": ids[row]} for row in rows])
        return vectors.numpy()

    def similarity(self, first, second):
        """100 times the cosine of each pair: float array [rows], −100 to 100; a pair with an empty text scores 0."""
        check_texts(first=first, second=second)
        return 100 * (self.encode(first) * self.encode(second)).sum(axis=1)

    def _ids(self, text: str) -> list[int]:
        # The length is said here: tokenizer files bring a truncation and a padding of their own.
        return self.tokenizer(text, truncation=True, max_length=MAX_TOKENS, padding=False)["input_ids"]

    def _vectors(self, rows: list[dict]):
        import torch

        batch = tokenisation.Collator(self.tokenizer)(rows)
        batch = {name: tensor.to(self.model.device) for name, tensor in batch.items()}
        mask = batch["attention_mask"][:, :, None]
        states = self.model(**batch).last_hidden_state
        mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
        return torch.nn.functional.normalize(mean.double(), dim=1).cpu()


def load_encoder(name: str = "minilm") -> Encoder:
    """The encoder `name`: "minilm" (all-MiniLM-L6-v2, an embedded asset), "tiny" (random weights, made here, for
    tests), or a folder with an encoder of this kind and its tokenizer.

    Raises SummkitError for another name, or where the asset cannot be fetched.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "tiny":
        return Encoder(name, _tiny().to(device), loading.tiny_tokenizer())
    if name != "minilm" and not Path(name).is_dir():
        raise SummkitError(f"unknown sentence encoder {name!r}; known: minilm, tiny, or a folder that holds one")
    folder = assets.fetch(name) if name == "minilm" else name
    with loading.clear_errors(name):
        settings = {"trust_remote_code": False, "use_safetensors": True}
        model = AutoModel.from_pretrained(folder, dtype=torch.float32, **settings)
        return Encoder(name, model.to(device), AutoTokenizer.from_pretrained(folder, trust_remote_code=False))


def _tiny():
    """A BERT of 26 thousand random weights over the vocabulary of `models.tiny_tokenizer`, always the same."""
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=264, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS, pad_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertModel(config)
