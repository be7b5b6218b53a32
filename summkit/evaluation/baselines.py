"""Baselines without a language model: the most common class, TF-IDF with logistic regression, the best extract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from summkit.data.sentences import split_sentences
from summkit.errors import SummkitError
from summkit.evaluation.classification import assign_labels, best_threshold, micro_f1
from summkit.evaluation.languages import USUAL, choose_tokenizer, unicode_words

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Labelled = tuple[Sequence[str], np.ndarray]  # texts and their labels, boolean [rows, classes]
NGrams = tuple[Counter, Counter]  # words, and pairs of words


def majority_baseline(train: ArrayLike, rows: int) -> np.ndarray:
    """Predict the most common class of the training labels [rows, classes] for every row: boolean [rows, classes].

    Example:
        >>> majority_baseline([[True, False], [False, True], [False, True]], rows=2).tolist()
        [[False, True], [False, True]]
    """
    counts = np.asarray(train).sum(axis=0)
    return np.tile(np.arange(len(counts)) == counts.argmax(), (rows, 1))


class TfIdf:
    """TF-IDF of words and pairs of words with logistic regression (scikit-learn): the baseline that a model must beat.

    Attributes:
        C: scikit-learn's inverse regularisation strength, chosen on the validation rows.
        pipeline: The fitted scikit-learn pipeline.
    """

    def __init__(self, train: Labelled, validation: Labelled, several: bool = False) -> None:
        """Fit the classifier.

        Args:
            train: (texts, labels [rows, classes]).
            validation: The same, to choose the regularisation on.
            several: Whether a row may have several labels.

        Raises:
            SummkitError: The training rows have fewer than two classes.
        """
        labels = train[1]
        self.several = several
        self.classes = labels.shape[1]
        self.known = np.flatnonzero(labels.any(axis=0))  # classes that a training row has
        if len(self.known) < 2:
            raise SummkitError(
                f"the training rows have {len(self.known)} class: a classifier needs two; ask for more train_rows"
            )
        fitted = {c: self._fit(*train, c) for c in (1, 10, 100)}
        self.C = max(fitted, key=lambda c: self._quality(fitted[c], *validation))
        self.pipeline = fitted[self.C]

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return each class's probability, [rows, classes]; 0 for a class that no training row has."""
        return self._probabilities(self.pipeline, texts)

    def _fit(self, texts: Sequence[str], actual: np.ndarray, c: float) -> Pipeline:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.pipeline import make_pipeline

        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
        regression = LogisticRegression(C=c, max_iter=2000)
        if self.several:
            return make_pipeline(words, OneVsRestClassifier(regression)).fit(texts, actual[:, self.known])
        return make_pipeline(words, regression).fit(texts, actual.argmax(axis=1))

    def _probabilities(self, pipeline: Pipeline, texts: Sequence[str]) -> np.ndarray:
        probabilities = np.zeros((len(texts), self.classes))
        probabilities[:, self.known] = pipeline.predict_proba(list(texts))
        return probabilities

    def _quality(self, pipeline: Pipeline, texts: Sequence[str], actual: np.ndarray) -> float:
        probabilities = self._probabilities(pipeline, texts)
        threshold = best_threshold(probabilities, actual) if self.several else 2  # 2: the most likely label alone
        return micro_f1(assign_labels(probabilities, threshold), actual)


def extractive_oracle(document: str, summary: str, sentences: int = 3) -> str:
    """Choose the sentences of a document that together have the largest overlap with a summary.

    They are chosen one by one, greedily, by the mean F1 of ROUGE-1 and ROUGE-2, while it grows (Nallapati et al.
    2017). The reference is known here, so this is about the best score of any extract of this length; in contrast,
    `sentences.lead` needs no reference.

    Args:
        document: The text to extract from.
        summary: The reference summary.
        sentences: The largest number of sentences.

    Returns:
        The sentences, one per line, in the document's order.

    Example:
        >>> extractive_oracle("It rained. A bridge closed on Monday. Fog came.", "The bridge closed Monday.", 1)
        'A bridge closed on Monday.'
    """
    from rouge_score.tokenizers import DefaultTokenizer

    usual = choose_tokenizer([document, summary]) == USUAL
    tokenise = DefaultTokenizer(use_stemmer=True).tokenize if usual else unicode_words
    parts = split_sentences(document)
    ngrams = [_ngrams(tokenise(part)) for part in parts]
    reference = _ngrams(tokenise(summary))
    chosen: list[int] = []
    extract: NGrams = (Counter(), Counter())
    best = 0.0
    for _ in range(min(sentences, len(parts))):
        overlaps = {
            number: _overlap(extract, ngrams[number], reference) for number in range(len(parts)) if number not in chosen
        }
        number = max(overlaps, key=lambda number: overlaps[number])  # the first of equal ones
        if overlaps[number] <= best:
            break
        best = overlaps[number]
        chosen.append(number)
        words, pairs = ngrams[number]
        extract = (extract[0] + words, extract[1] + pairs)
    return "\n".join(parts[number] for number in sorted(chosen))


def _ngrams(words: list[str]) -> NGrams:
    return Counter(words), Counter(pairwise(words))


def _overlap(extract: NGrams, sentence: NGrams, reference: NGrams) -> float:
    """Return F1 of words and of pairs of words, added, of an extract with one more sentence against a reference."""
    total = 0.0
    for ours, more, theirs in zip(extract, sentence, reference, strict=True):
        matches = sum(min(ours[ngram] + more[ngram], number) for ngram, number in theirs.items())
        total += matches / max(1, ours.total() + more.total() + theirs.total())
    return total
