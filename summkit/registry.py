"""Registries that plugins can extend: data sets, methods, metrics, wordings, teachers, model families."""

from __future__ import annotations

import importlib
import os
from typing import TypeVar

from summkit.errors import SummkitError, check_known

Entry = TypeVar("Entry")


class Registry(dict[str, Entry]):
    """Entries by name. A plugin adds its own with `add`.

    Example:
        >>> wordings = Registry("wording")
        >>> wordings.add("haiku", "Summarize the following text as a haiku.")
        'Summarize the following text as a haiku.'
        >>> wordings.find("sonnet")
        Traceback (most recent call last):
        summkit.errors.SummkitError: unknown wording 'sonnet'; known: haiku
    """

    def __init__(self, kind: str, entries: dict[str, Entry] | None = None) -> None:
        super().__init__(entries or {})
        self.kind = kind

    def add(self, name: str, entry: Entry) -> Entry:
        """Add an entry and return it.

        Raises:
            SummkitError: The name already exists.
        """
        if name in self:
            raise SummkitError(f"{self.kind} {name!r} already exists: choose another name")
        self[name] = entry
        return entry

    def find(self, name: str) -> Entry:
        """Return the entry called `name`.

        Raises:
            SummkitError: The name is unknown; the message lists the known names.
        """
        check_known(self.kind, name, self)
        return self[name]


def load_plugins() -> None:
    """Import the modules that SUMMKIT_PLUGINS names, separated by commas: they add their entries to the registries.

    Raises:
        SummkitError: A module cannot be imported.
    """
    for name in filter(None, os.environ.get("SUMMKIT_PLUGINS", "").split(",")):
        try:
            importlib.import_module(name.strip())
        except ImportError as error:
            raise SummkitError(f"SUMMKIT_PLUGINS names {name.strip()!r}, which cannot be imported: {error}") from None
