"""Floor 7. What a label costs without a language model: the commonest class, and TF-IDF with logistic regression."""

from collections import Counter

from summkit.data.sentences import split_sentences
from summkit.errors import SummkitError
from summkit.evaluation import classification


def majority_baseline(train, rows: int):
    """The commonest class of the training truth, for every row: boolean [rows, classes]."""
    import numpy as np

    counts = np.asarray(train).sum(axis=0)
    return np.tile(np.arange(len(counts)) == counts.argmax(), (rows, 1))


class TfIdf:
    """TF-IDF of words and pairs of words, and logistic regression (scikit-learn), its strictness C chosen on validation
    rows: the baseline that a language model has to earn its keep against.
    """

    def __init__(self, train: tuple, validation: tuple, several: bool = False):
        """`train` and `validation` are (texts, truth [rows, classes]).

        Raises SummkitError where the training rows have fewer than two classes: there is nothing to tell apart.
        """
        if (found := int(train[1].any(axis=0).sum())) < 2:
            raise SummkitError(f"the training rows have {found} class: a classifier needs two; ask for more train_rows")
        self.several, self.classes = several, train[1].shape[1]
        fitted = {strictness: self._fit(*train, strictness) for strictness in (1, 10, 100)}
        self.strictness, self.pipeline = max(fitted.items(), key=lambda item: self._quality(item[1], *validation))

    def probabilities(self, texts):
        """Of each class, [rows, classes]; a class that no training row has gets 0."""
        return self._probabilities(self.pipeline, texts)

    def telling_words(self, count: int = 8) -> dict[int, list[str]]:
        """The words with the largest weights, by class number; a class that every row has needs no words."""
        names = self.pipeline[0].get_feature_names_out()
        return {n: [names[i] for i in w.argsort()[::-1][:count]] for n, w in self._weights().items()}

    def _fit(self, texts, actual, strictness: float):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.pipeline import make_pipeline

        regression = LogisticRegression(C=strictness, max_iter=2000)
        self.known = [number for number in range(self.classes) if actual[:, number].any()]
        targets = actual[:, self.known] if self.several else actual.argmax(axis=1)
        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
        return make_pipeline(words, OneVsRestClassifier(regression) if self.several else regression).fit(texts, targets)

    def _probabilities(self, pipeline, texts):
        import numpy as np

        found = np.zeros((len(texts), self.classes))
        found[:, self.known] = pipeline.predict_proba(list(texts))
        return found

    def _quality(self, pipeline, texts, actual) -> float:
        found = self._probabilities(pipeline, texts)
        threshold = classification.best_threshold(found, actual) if self.several else 2
        return classification.micro_f1(classification.assign_labels(found, threshold), actual)

    def _weights(self) -> dict:
        model = self.pipeline[-1]
        if self.several:
            fitted = zip(self.known, model.estimators_, strict=True)
            return {number: one.coef_[0] for number, one in fitted if hasattr(one, "coef_")}
        weights = model.coef_ if len(model.coef_) > 1 else [-model.coef_[0], model.coef_[0]]
        return dict(zip(self.known, weights, strict=True))


def extractive_oracle(document: str, summary: str, sentences: int = 3) -> str:
    """The sentences of `document`, at most so many, that together overlap `summary` most, one a line, in their order.

    Chosen one by one, greedily, by the mean F1 of ROUGE-1 and ROUGE-2, while it grows (Nallapati et al. 2017). It has
    seen the reference: about the best that an extract of this length can reach, beside `facts.lead`, which anyone can.
    """
    from rouge_score.tokenizers import DefaultTokenizer

    words, parts = DefaultTokenizer(use_stemmer=True).tokenize, split_sentences(document)
    grams, wanted = [_grams(words(part)) for part in parts], _grams(words(summary))
    chosen, held, best = [], (Counter(), Counter()), 0.0
    for _ in range(min(sentences, len(parts))):
        free = (number for number in range(len(parts)) if number not in chosen)
        value, number = max((_overlap(held, grams[number], wanted), -number) for number in free)
        if value <= best:
            break
        chosen.append(-number)
        held, best = tuple(a + b for a, b in zip(held, grams[-number], strict=True)), value
    return "\n".join(parts[number] for number in sorted(chosen))


def _grams(words: list[str]) -> tuple[Counter, Counter]:
    return Counter(words), Counter(zip(words, words[1:], strict=False))


def _overlap(held: tuple, extra: tuple, wanted: tuple) -> float:
    """The F1 of words and of pairs of words, summed, of `held` and `extra` together against `wanted`."""
    total = 0.0
    for ours, more, theirs in zip(held, extra, wanted, strict=True):
        matches = sum(min(ours[gram] + more[gram], number) for gram, number in theirs.items())
        total += matches / max(1, ours.total() + more.total() + theirs.total())
    return total
