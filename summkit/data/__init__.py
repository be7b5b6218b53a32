"""Rows in, from any source, as documents and summaries or as labels, and from there to tokens.

`summarisation` and `classification` load a data set in three splits; `sets/` holds the data that the package brings.
`templates` words the prompt, and `tokenisation` turns rows into tokens, labels and padded batches.
"""

from summkit.data.checks import reason_unusable
from summkit.data.classification import EMOTIONS, SCHEMAS, Schema, label_template, labels_as_text, load_labels
from summkit.data.sentences import excerpt, lead, split_sentences
from summkit.data.summarisation import SPLITS, Splits, load_summaries
from summkit.data.templates import Template, Wording, build_template, get_wording
from summkit.data.tokenisation import (
    IGNORE,
    Collator,
    answer_ids,
    chunks,
    count_tokens,
    encode,
    encode_rows,
    head_ids,
    length_sorted_batches,
    padding_fraction,
    room_for,
    window,
)
