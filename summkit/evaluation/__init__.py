"""Score summaries and labels: metrics with intervals, baselines, paired differences, tables.

`summarisation` scores summaries and `classification` labels; `metrics` has one entry for each metric, `languages` the
words of languages other than English, `intervals` the bootstrap, `tables` the tables of scores. `baselines` has simple
systems for comparison; `watch` scores answers during training. The names and numbers that a summary invents are found
in `data.support`, since a decoding uses them too.
"""

from summkit.data.support import supported_facts, unsupported_spans
from summkit.evaluation.baselines import TfIdf, extractive_oracle, majority_baseline
from summkit.evaluation.classification import (
    assign_labels,
    best_threshold,
    compare_labels,
    micro_f1,
    score_labels,
    top_label,
    true_labels,
)
from summkit.evaluation.intervals import bootstrap, difference_entry, paired_bootstrap, score_entry, wilson
from summkit.evaluation.languages import choose_tokenizer, unicode_words
from summkit.evaluation.metrics import METRICS, ROUGE_TYPES, Metric, novel_ngrams, overlap, rouge_rows
from summkit.evaluation.summarisation import compare_summaries, lead_baselines, oracle_extracts, score_summaries
from summkit.evaluation.tables import markdown_table, score_table
from summkit.evaluation.watch import generation_scores, rouge1_bleu3
