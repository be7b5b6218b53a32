"""Floor 1. One progress bar for all: a widget in a notebook that someone watches, plain text everywhere else."""

import os


def headless() -> bool:
    """Whether nobody can use a widget here: `summkit run` and the notebook checks say so with SUMMKIT_HEADLESS=1."""
    return bool(os.environ.get("SUMMKIT_HEADLESS"))


def bar(*args, **settings):
    """tqdm, for work of more than a few seconds. TQDM_DISABLE=1 silences it."""
    if headless():
        from tqdm import tqdm
    else:
        from tqdm.auto import tqdm
    return tqdm(*args, **settings)


def quiet_libraries() -> None:
    """Silence the bars that transformers and datasets draw for steps of a second, and notes that ask nothing of a reader.

    Downloads from the Hub keep theirs.
    """
    import logging
    import warnings

    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    # Deprecations inside the libraries' own code, and paged optimizers on a CPU: named in the notebooks, not shouted.
    for message in ("`gradient_checkpointing", "`is_gradient_checkpointing`", "Paged optimizers", "Could not find a config"):
        warnings.filterwarnings("ignore", message=f".*{message}.*")
    # LLM.int8() says at every layer and batch that it casts what it multiplies to fp16.
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(lambda record: "MatMul8bitLt" not in str(record.msg))
