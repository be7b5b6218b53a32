"""Sentence embeddings: unit vectors in order, whatever the batch; cosine as a score; the real encoder where cached."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from summkit.errors import SummkitError
from summkit.models import embeddings
from summkit.offline import assets

TEXTS = ["A bridge was closed.", "b", "", "word " * 300, "Łódź, 東京 £5", "A bridge was closed at dawn on Monday."]


@pytest.fixture(scope="module")
def tiny():
    return embeddings.load_encoder("tiny")


def test_vectors_are_of_length_one_in_order_and_the_same_in_any_batch(tiny):
    alone = np.concatenate([tiny.encode([text]) for text in TEXTS])
    for batch_size in (1, 2, 32):
        vectors = tiny.encode(TEXTS, batch_size=batch_size)
        assert vectors.shape == (len(TEXTS), 32) and vectors.dtype == float
        assert np.allclose(vectors, alone, atol=1e-5), "padding changes nothing"
    assert np.allclose(np.linalg.norm(alone, axis=1), [1, 1, 0, 1, 1, 1])
    assert (embeddings.load_encoder("tiny").encode(TEXTS) == tiny.encode(TEXTS)).all(), "the same weights every time"


def test_only_the_first_256_tokens_are_read(tiny):
    vectors = tiny.encode(["x" * 256, "x" * 256 + " and more", "x" * 255])
    assert (vectors[0] == vectors[1]).all() and not np.allclose(vectors[0], vectors[2], atol=1e-9)


def test_similarity_is_100_times_the_cosine_and_0_for_an_empty_text(tiny):
    other = ["A bridge was closed.", "", "", "c", "Łódź", " \n"]
    found = tiny.similarity(TEXTS, other)
    assert found[0] == pytest.approx(100) and found.shape == (6,)
    assert found[1] == found[2] == found[5] == 0
    first, second = tiny.encode(TEXTS), tiny.encode(other)
    assert found == pytest.approx([100 * np.dot(a, b) for a, b in zip(first, second, strict=True)])
    assert (abs(found) <= 100 + 1e-9).all() and found[3] < 99


def test_similarity_names_a_row_that_is_no_text(tiny):
    assert tiny.similarity(["same", ""], ["same", "text"]).mean() == pytest.approx(50)
    with pytest.raises(SummkitError, match="row 2 is NoneType"):
        tiny.similarity(["a", None], ["a", "b"])


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "nothing to score"), ("a text", "is one text"), (["a", 7], "row 2 is int")],
)
def test_wrong_input_is_named(tiny, texts, message):
    with pytest.raises(SummkitError, match=message):
        tiny.encode(texts)


def test_a_folder_is_an_encoder_too_and_other_names_are_refused(tiny, tmp_path):
    tiny.model[0].model.save_pretrained(tmp_path / "mine")
    tiny.model.tokenizer.save_pretrained(tmp_path / "mine")
    assert np.allclose(embeddings.load_encoder(str(tmp_path / "mine")).encode(TEXTS), tiny.encode(TEXTS), atol=1e-6)
    with pytest.raises(SummkitError, match="unknown sentence encoder 'bert'; known: minilm, tiny, or a folder"):
        embeddings.load_encoder("bert")
    # A copy: on Windows, weights that a model has mapped cannot be written.
    shutil.copytree(tmp_path / "mine", tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(SummkitError, match="could not be loaded"):
        embeddings.load_encoder(str(tmp_path / "cut"))


def test_a_long_text_among_short_ones_and_an_empty_one_alone(tiny):
    vectors = tiny.encode(["word " * 300])
    assert np.allclose(tiny.encode(["a", "word " * 300, " "])[1], vectors[0], atol=1e-6)
    assert (tiny.encode(["\n"]) == 0).all()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(SummkitError, match=r"pip install 'summkit\[distill\]'"):
        embeddings.load_encoder("tiny")


def test_starting_up_does_not_import_sentence_transformers():
    code = "import sys, summkit.models; sys.exit('sentence_transformers' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not assets.is_cached("minilm"), reason="the cache does not hold minilm: `make run` fetches it")
def test_the_real_encoder_gives_the_numbers_its_makers_published():
    """Of the documentation of sentence-transformers, for all-MiniLM-L6-v2."""
    encoder = embeddings.load_encoder()
    pairs = {
        ("A man is eating food.", "A man is eating a piece of bread."): 75.53,
        ("A man is riding a horse.", "A man is riding a white horse on an enclosed ground."): 73.69,
        ("A monkey is playing drums.", "Someone in a gorilla costume is playing a set of drums."): 64.33,
    }
    first, second = map(list, zip(*pairs, strict=True))
    assert encoder.similarity(first, second) == pytest.approx(list(pairs.values()), abs=0.01)
    near, far = encoder.similarity(
        ["neural networks; drug discovery"] * 2, ["deep learning; finding new medicines", "galaxies; dark matter"]
    )
    assert near > far + 30
