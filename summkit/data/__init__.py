"""Data sets: load rows from any source as summaries or labels, and turn them into tokens.

In the order in which rows pass them:

- `registry` knows the data sets, one file each in `sets/`.
- `sources` finds the rows: in files of your own, on the Hub, or in the package index. `formats` reads files, and
  `readers` has what only one data set needs.
- `summarisation` and `classification` load a data set in three splits: `checks` finds the columns and the texts that
  cannot be used, and `splits` keeps each text in one split.
- `templates` builds the prompt, `tokenisation` turns rows into tokens and labels, and `batching` makes batches of them.

Three modules work on texts: `sentences` and `chunking` cut them, and `support` finds invented names and numbers.
"""

from summkit.data.batching import Collator, length_sorted_batches, padding_fraction
from summkit.data.chunking import chunks
from summkit.data.classification import label_template, labels_as_text, load_labels
from summkit.data.registry import DATASETS, SPLITS, DataSet, Schema, find_dataset, register_dataset
from summkit.data.sentences import excerpt, lead, split_sentences
from summkit.data.sources import own_data
from summkit.data.splits import Splits
from summkit.data.summarisation import load_summaries
from summkit.data.templates import TEMPLATES, WORDINGS, Template, Wording, build_template, get_wording, summary_template
from summkit.data.tokenisation import (
    IGNORE,
    answer_ids,
    count_tokens,
    encode,
    encode_rows,
    head_ids,
    room_for,
    window,
)
