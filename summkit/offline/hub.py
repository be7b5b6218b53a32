"""One quick question before anything is asked of the Hugging Face Hub: can it be reached?"""

from __future__ import annotations

import contextlib
import os
import threading
import urllib.error
import urllib.request

from summkit.errors import SummkitError

_SECONDS = 2.5


def require_hub(what: str) -> None:
    """Fail within three seconds where the Hub does not answer; the libraries themselves retry for 24 s.

    With HF_HUB_OFFLINE=1 nothing is asked: the libraries then use what they have cached.

    Args:
        what: What is wanted from the Hub, for the error: "model gpt2".

    Raises:
        SummkitError: The Hub does not answer.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not _answers(endpoint):
        raise SummkitError(
            f"{what} comes from the Hugging Face Hub, and {endpoint} does not answer. Without the Hub: profile 'cpu' "
            "uses a model and data from the Python package index; --data-dir DIR (SUMMKIT_DATA_DIR) uses a folder of "
            "JSON lines as the data; HF_HUB_OFFLINE=1 uses what an earlier run has cached"
        )


def _answers(endpoint: str) -> bool:
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError):
            with contextlib.suppress(urllib.error.HTTPError):  # an error page is an answer
                urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_SECONDS).close()
            answered.set()

    # In a thread, because no timeout covers a name server that does not answer.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return answered.is_set()
