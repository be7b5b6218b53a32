"""Floor 0. One quick question before anything is asked of the Hugging Face Hub: is it there?"""

import os
import threading
import urllib.error
import urllib.request

from summkit.errors import SummkitError

_SECONDS = 2.5


def require_hub(what: str) -> None:
    """Raise SummkitError within three seconds where the Hub does not answer; the libraries themselves retry for 24 s.

    With HF_HUB_OFFLINE=1 nothing is asked: the libraries then use what they have cached.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not _answers(endpoint):
        raise SummkitError(
            f"{what} comes from the Hugging Face Hub, and {endpoint} does not answer. Without it: profile 'cpu' brings "
            "its own model and data from the Python package index; --data-dir DIR (SUMMKIT_DATA_DIR) lets a folder of "
            "JSON lines stand in for the data; HF_HUB_OFFLINE=1 uses what an earlier run has cached"
        )


def _answers(endpoint: str) -> bool:
    found = []

    def ask():
        try:
            urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_SECONDS).close()
            found.append(True)
        except urllib.error.HTTPError:
            found.append(True)  # an error page is an answer
        except (OSError, ValueError):
            pass

    # In a thread, because no timeout covers a name server that keeps silent.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return bool(found)
