"""Check quickly whether the Hugging Face Hub can be reached, before using it."""

from __future__ import annotations

import contextlib
import os
import threading
import urllib.error
import urllib.request

from summkit.errors import SummkitError


def state(seconds: float = 2.5) -> str:
    """Return whether the Hub answers within some seconds, as text."""
    if variable := _offline():
        return f"not asked, because {variable} is set"
    return f"{_endpoint()} " + ("answers" if _answers(seconds) else f"does not answer within {seconds:g} s")


def require_hub(what: str, seconds: float = 10) -> None:
    """Raise an error if the Hub does not answer; the libraries themselves retry for 24 s and say less.

    If HF_HUB_OFFLINE=1 or TRANSFORMERS_OFFLINE=1 is set, nothing is checked: the libraries then use their cache.

    Args:
        what: What is needed from the Hub, for the error, such as "model gpt2".
        seconds: How long to wait. Without a network the answer comes at once.

    Raises:
        SummkitError: The Hub does not answer.
    """
    if not _offline() and not _answers(seconds):
        raise SummkitError(
            f"{what} comes from the Hugging Face Hub, since no folder has this name, and {_endpoint()} does not "
            "answer. Without the Hub: profile 'cpu' uses a model and data from the Python package index; --data PATH "
            "(SUMMKIT_DATA_DIR) uses your own rows; HF_HUB_OFFLINE=1 uses what an earlier run has cached"
        )


def offline_advice() -> str:
    """Return, for the error of a failed load, what to do if the libraries are kept offline; "" if they are not."""
    variable = _offline()
    return f"; {variable} is set, so only the cache is read: unset it once to fetch what is missing" if variable else ""


def _offline() -> str | None:
    """Return the name of the variable that keeps the libraries offline, if one is set."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return next((name for name in names if os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}), None)


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def _answers(seconds: float) -> bool:
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError):
            with contextlib.suppress(urllib.error.HTTPError):  # an error page also shows that the Hub answers
                urllib.request.urlopen(urllib.request.Request(_endpoint(), method="HEAD"), timeout=seconds).close()
            answered.set()

    # In a thread, because the timeout does not cover a name server that does not answer.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()
