"""Inference with a trained model: summaries, label scores, long documents, and export for other programs.

`generation` writes summaries in batches, on a GPU in one of the ways of `engines`: `prefill` reads the prompts, and
`sampling` draws several answers to one. `label_scores` scores label words; `long_documents` has the strategies for
texts that are too long; `export` merges an adapter or converts it for CTranslate2, and `server` sends requests to a
server that has the model.
"""

from summkit.inference.export import Exported, Served, merge_adapter, to_ctranslate2
from summkit.inference.generation import DECODINGS, Summarizer, Summary, summarize
from summkit.inference.label_scores import label_log_likelihoods, label_probabilities, label_tokens
from summkit.inference.long_documents import STRATEGIES, LongSummary, Window, summarize_long
