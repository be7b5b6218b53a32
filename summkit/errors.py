"""The exception for errors that a user can correct, and the checks that raise it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, TypeVar

Model = TypeVar("Model")


class SummkitError(Exception):
    """Wrong input, missing file or network, unknown name. The command line prints it without a traceback."""


class Interrupted(KeyboardInterrupt):
    """The user stopped long work; the message says what is done. Notebooks show the message without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class RunFailedError(Exception):
    """A run that began and failed: exit code 1. The message says where to look."""


def check_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Check that a name is known.

    Raises:
        SummkitError: The name is unknown; the message lists the known names, and the one that was probably meant.
    """
    names = sorted(known)
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=1)
        suggestion = f"; did you mean {close[0]!r}?" if close else ""
        raise SummkitError(f"unknown {kind} {name!r}; known: {', '.join(names)}{suggestion}")


def build(model: type[Model], values: dict[str, Any], location: str) -> Model:
    """Build a pydantic dataclass or model from the values of a file or a call.

    Args:
        model: The class, which checks its values.
        values: Its fields by name.
        location: Where the values come from, for messages: "option", "configuration mine.json:", ….

    Returns:
        An instance of `model`.

    Raises:
        SummkitError: A key is unknown or missing, or its value is impossible; the message states what is allowed.
    """
    import pydantic

    try:
        return model(**values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        # pydantic names the member of a union too, as in "max_words.constrained-int".
        key = ".".join(
            str(part) for part in first["loc"] if not re.fullmatch(r"constrained-\w+|int|str|float", str(part))
        )
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            check_known(f"key in {location}", str(first["loc"][0]), descriptions(model))
        reason = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        if first["type"] == "string_type" and not isinstance(first["input"], list | dict | None):
            reason += ", so put it in quotes"
        value = "" if first["type"].startswith("missing") else f"={first['input']!r}"
        raise SummkitError(f"{location} {key}{value}: {reason}") from None


def descriptions(model: type) -> dict[str, str]:
    """Return the fields of a pydantic dataclass or model, {name: description}; "" for a field without one."""
    import pydantic

    fields = pydantic.TypeAdapter(model).json_schema()["properties"]
    return {name: field.get("description", "") for name, field in fields.items()}
