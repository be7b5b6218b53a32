"""Check quickly whether the Hugging Face Hub can be reached, before using it."""

from __future__ import annotations

import contextlib
import os
import threading
import urllib.error
import urllib.request

from summkit.errors import SummkitError

_SECONDS = 2.5


def require_hub(what: str) -> None:
    """Raise an error within three seconds if the Hub does not answer; the libraries themselves retry for 24 s.

    With HF_HUB_OFFLINE=1 nothing is checked: the libraries then use their cache.

    Args:
        what: What is needed from the Hub, for the error, such as "model gpt2".

    Raises:
        SummkitError: The Hub does not answer.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not _answers(endpoint):
        raise SummkitError(
            f"{what} comes from the Hugging Face Hub, and {endpoint} does not answer. Without the Hub: profile 'cpu' "
            "uses a model and data from the Python package index; --data PATH (SUMMKIT_DATA_DIR) uses your own "
            "rows; HF_HUB_OFFLINE=1 uses what an earlier run has cached"
        )


def _answers(endpoint: str) -> bool:
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError):
            with contextlib.suppress(urllib.error.HTTPError):  # an error page also shows that the Hub answers
                urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_SECONDS).close()
            answered.set()

    # In a thread, because the timeout does not cover a name server that does not answer.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return answered.is_set()
