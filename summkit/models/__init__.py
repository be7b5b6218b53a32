"""Load a model at a precision, and prepare it for training.

`loading` loads and inspects models and tokenizers; `families` has an entry for each architecture that needs special
treatment, and `methods` one for each fine-tuning method; `embeddings` is the sentence encoder; `tiny` makes the models
with random weights that tests and the profile `smoke` use.
"""

from summkit.models.embeddings import Encoder, load_encoder
from summkit.models.families import FAMILIES, Family
from summkit.models.loading import (
    adapter_off,
    footprint,
    is_encoder_decoder,
    load_model,
    load_tokenizer,
    padding,
    parameter_report,
    public_name,
    unpacked,
)
from summkit.models.methods import METHODS, Method, apply_method, check_model, target_layers
from summkit.models.tiny import TINY, tiny_llama, tiny_t5, tiny_tokenizer
