"""What answers are worth: scores with intervals, baselines, paired differences.

`summarisation` scores summaries and `classification` labels; `metrics` has one number a row; `support` finds the names
and numbers that a summary invents; `baselines` are the scores to beat; `watch` scores answers during training.
"""

from summkit.evaluation.baselines import TfIdf, extractive_oracle, majority_baseline
from summkit.evaluation.classification import (
    assign_labels,
    best_threshold,
    compare_labels,
    confusion_matrix,
    micro_f1,
    most_confident_mistakes,
    per_class,
    reliability_table,
    score_labels,
    top_label,
    true_labels,
)
from summkit.evaluation.metrics import (
    ROUGE_TYPES,
    bootstrap,
    bootstrap_interval,
    novel_ngrams,
    paired_bootstrap,
    rouge_rows,
    similarity_metric,
)
from summkit.evaluation.summarisation import (
    compare_summaries,
    difference_table,
    lead_baselines,
    markdown_table,
    oracle_extracts,
    score_summaries,
    score_table,
)
from summkit.evaluation.support import supported_facts, unsupported_spans
from summkit.evaluation.watch import generation_scores, rouge1_bleu3
