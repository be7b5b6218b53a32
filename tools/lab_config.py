"""Settings of JupyterLab for `make lab`: opening and saving a notebook changes nothing that its reader did not change.

JupyterLab writes the name and version of the kernel that runs into each notebook that is opened.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KEPT = ("kernelspec", "language_info")


def keep_kernel(model: dict[str, Any], path: str, contents_manager: Any) -> None:
    """Leave what the file says of its kernel, unless another kernel was chosen."""
    file = Path(contents_manager._get_os_path(path))
    if model["type"] != "notebook" or not file.is_file():
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))["metadata"]
    except (ValueError, KeyError):  # not a notebook yet
        return
    now = model["content"]["metadata"]
    if before.get("kernelspec", {}).get("name") == now.get("kernelspec", {}).get("name"):
        now.update({key: before[key] for key in KEPT if key in before})


c = get_config()  # type: ignore[name-defined]  # noqa: F821
c.FileContentsManager.pre_save_hook = keep_kernel
