"""A plugin: one data set, wording, template, model family, method, metric, decoding, strategy and teacher from outside.

Name it in the environment variable SUMMKIT_PLUGINS, or import it in a notebook; CONTRIBUTING.md explains each entry.
"""

from pathlib import Path

import numpy as np

from summkit.data import TEMPLATES, WORDINGS, Template, Wording, register_dataset
from summkit.distillation import TEACHERS
from summkit.evaluation import METRICS, Metric
from summkit.inference import DECODINGS, STRATEGIES
from summkit.models.families import FAMILIES, Family
from summkit.models.methods import METHODS, Method

register_dataset(Path(__file__).with_name("minutes.yaml"))
WORDINGS.add("minutes", Wording("Write one line for the minutes.", text="Talk", answer="Line"))
TEMPLATES.add("arrow", lambda tokenizer, wording: Template("arrow", f"{wording.instruction}\n", "\n→", gap=" "))
FAMILIES.add("tiny_family", Family(overflows_in_fp16=True))


def _biases(model, profile):
    """Train the last norm alone, on which every answer depends."""
    model.requires_grad_(False)
    model.model.norm.requires_grad_(True)
    return model


METHODS.add("last-norm", Method("the last norm's weights", _biases, own_weights=True, precisions=("fp32",)))


def _capitals(predictions, references, documents):
    """Share of a summary's letters that are capitals, 0 to 1, row by row."""
    return np.array([sum(map(str.isupper, text)) / max(1, len(text)) for text in predictions])


METRICS.add("capitals", Metric("capitals, %", "percentage points of capitals", factor=100, rows=_capitals))
DECODINGS.add("two-beams", {"do_sample": False, "num_beams": 2})


def _last(text, window):
    """The end of a text that does not fit."""
    return [window.slab(text, window.tokens, end=True)[-4 * window.tokens :]], "its end was read"


STRATEGIES.add("end", _last)


class Echo:
    """A teacher that repeats the first words of each text."""

    about = {"model": "echo", "revision": None, "prompt": "none"}  # noqa: RUF012
    max_new_tokens = 8

    def ask(self, documents, temperature=0.0, seed=0):
        """One answer a document."""
        return ["; ".join(document.split()[:3]) for document in documents]


TEACHERS.add("echo", lambda name, url, profile, wording: Echo())
