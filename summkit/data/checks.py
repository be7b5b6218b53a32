"""Find the columns of a data set, and check whether a text can be used: the same rules for every source of texts."""

from __future__ import annotations

import ast
import itertools
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from summkit.errors import SummkitError

if TYPE_CHECKING:
    from summkit.config import Profile
    from summkit.data.sources import Rows

_log = logging.getLogger(__name__)
MAX_CHARACTERS = 1_000_000  # a longer "document" is a broken file, not an article
# Ranges of letters of scripts without spaces: Chinese and Japanese; Thai, Lao, Burmese and Khmer.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SYLLABLES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
MAX_BOOK = 20_000_000  # characters of a text that is read in pieces, about four times the Bible
_SHOWN = 30  # names of columns in an error
_ROLES = {"human": "user", "prompter": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
# Known names, the most specific first.
# In chats, the user's message is the document, and the assistant's the summary.
CHAT_COLUMNS = ("messages", "conversations", "conversation")
DOCUMENT_COLUMNS = ("document", "article", "text", "dialogue", "abstract", "input", "prompt", "content", *CHAT_COLUMNS)
SUMMARY_COLUMNS = ("summary", "highlights", "abstract", "tldr", "title", "output", "completion", *CHAT_COLUMNS)
TEXT_COLUMNS = ("text", "document", "comment", "sentence", "premise", "sentence1", "input", "prompt")
SECOND_COLUMNS = ("hypothesis", "sentence2")
LABEL_COLUMNS = ("label", "labels", "output", "completion")


def find_column(
    names: Iterable[str], candidates: Sequence[str], kind: str, location: str, taken: Mapping[str, str] | None = None
) -> str:
    """Return the first of `candidates` that is among `names`.

    Args:
        names: The columns of a data set, or the keys of a row.
        candidates: The possible names of the column, the preferred one first.
        kind: The kind of column, for the error: "document", "label".
        location: The split, or the file and row, for the error.
        taken: Names that are another column already → what that is.

    Raises:
        SummkitError: There is none of them; the message lists the existing columns and the known names.

    Example:
        >>> find_column(["id", "article", "highlights"], DOCUMENT_COLUMNS, "document", "train")
        'article'
    """
    taken = taken or {}
    names = list(names)
    found = {str(name).strip().lower(): name for name in reversed(names) if name not in taken}
    for name in candidates:
        if name.strip().lower() in found:
            return found[name.strip().lower()]
    shown = [f"{name:.60}" + (f" (the {taken[name]})" if name in taken else "") for name in names[:_SHOWN]]
    present = ", ".join(shown) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
    delimiters = r"[;|\t]" if len(names) > 1 else r"[;|\t,]"
    unsplit = [name for name in names if re.search(delimiters, name)]
    advice = f"; {unsplit[0]!r:.60} looks like several columns: check what is between them" if unsplit else ""
    there = f"there are: {present or 'none'}; known: {', '.join(candidates)}{advice}"
    raise SummkitError(f"{location}: no column for the {kind}; {there}")


def columns_of(
    profile: Profile, columns: Mapping[Any, str], raw: Mapping[str, Rows], usual: dict[str, tuple[str, ...]]
) -> dict[str, dict[str, str]]:
    """Find the columns of each split of a data set, each of them once; a column of chats may be several.

    Args:
        profile: Its options document_column, summary_column, … name columns.
        columns: Those of the data set, used where the profile names none.
        raw: The rows by split.
        usual: Our name of a column ("document") → the usual names.

    Returns:
        Split → our name of a column → the name in the rows.

    Raises:
        SummkitError: A column is not there; the message says which are, and which option names it.
    """
    given = {column: getattr(profile, f"{column}_column") for column in usual}
    stated = {**columns} | {column: name for column, name in given.items() if name}
    return {split: _columns_of(profile, rows, split, stated, usual) for split, rows in raw.items() if len(rows)}


def _columns_of(
    profile: Profile, rows: Rows, split: str, stated: dict[str, str], usual: dict[str, tuple[str, ...]]
) -> dict[str, str]:
    names = list(getattr(rows, "column_names", None) or dict.fromkeys(name for row in rows for name in row))
    chats = [name for row in itertools.islice(rows, 9) for name, value in row.items() if chat_turns(value)]
    columns: dict[str, str] = {}
    for column in sorted(usual, key=lambda column: column not in stated):  # those that are named come first
        known = [stated[column]] if column in stated else [*usual[column], *chats]
        others = {name: other for other, name in columns.items() if name not in chats and column not in stated}
        try:
            columns[column] = find_column(names, known, column, split, others)
        except SummkitError as error:
            raise SummkitError(f"{error}; name it with {column}_column") from None
    for name in names:
        usual_name = name.strip().lower() in ("instruction", "system", "system_prompt")
        if usual_name and name not in columns.values() and not profile.instruction:
            _log.warning("%s: the column %r is not used; the option instruction sets one for all rows", split, name)
    return columns


def chat_turns(value: Any) -> list[tuple[str, Any]]:
    """Return the role and the text of each message of a chat; [] for anything else.

    A chat is a list of messages, or such a list as text: as JSON, or as Python prints it. The text of a message may be
    in parts; where a part is not text, the parts are returned.
    """
    if isinstance(value, str) and re.match(r"\s*\[\s*\{", value):
        for parse in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                return chat_turns(parse(value))
    turns = []
    for turn in value if isinstance(value, list) else []:
        if isinstance(turn, dict) and ("role" in turn or "from" in turn):
            role = str(turn.get("role", turn.get("from"))).lower()
            content: Any = turn.get("content", turn.get("value"))
            with suppress(TypeError, KeyError):  # it is text, or has a part that is not
                content = "\n".join(part["text"] for part in content)
            turns.append((_ROLES.get(role, role), content))
    return turns


def as_text(value: Any, role: str) -> Any:
    """Return a value as text: a list of turns as lines; of a chat one message; others as they are.

    Args:
        value: The value of a column.
        role: "assistant" for the last answer of a chat; "user" for the question before it, or the last question.

    Example:
        >>> chat = [{"role": "user", "content": "It rained."}, {"role": "assistant", "content": "Rain."}]
        >>> as_text(chat, "user"), as_text(json.dumps(chat), "assistant")
        ('It rained.', 'Rain.')
    """
    turns = chat_turns(value)
    if not turns:
        is_lines = isinstance(value, list) and value and all(isinstance(line, str) for line in value)
        return "\n".join(value) if is_lines else value
    answers = [number for number, (one, _) in enumerate(turns) if one == "assistant"]
    asked = turns[: answers[-1]] if answers and role == "user" else turns
    return next((text for one, text in reversed(asked) if one == role), None)


def reason_unusable(text: object, most: int = MAX_CHARACTERS) -> str | None:
    """Return the reason why a text cannot be used.

    Args:
        text: The value in the text column of a row, of any type.
        most: The largest number of characters allowed.

    Returns:
        The reason in a few words, or None for a text that can be used.

    Example:
        >>> reason_unusable(" "), reason_unusable("It rained.")
        ('empty', None)
    """
    if not isinstance(text, str):
        return "not text"
    if not text.strip():
        return "empty"
    if len(text) > most:
        return f"over {most:,} characters"
    return None if is_encodable(text) else "NUL or half a character"


def is_encodable(text: str) -> bool:
    """Whether the text can be saved and tokenised: no NUL, and no lone surrogate, which JSON may contain."""
    return not re.search("[\0\ud800-\udfff]", text)


def rows_text(number: int) -> str:
    """Return "1 row" or "7 rows"."""
    return "1 row" if number == 1 else f"{number} rows"


def count_words(text: str) -> int:
    """Count words: those between spaces; in a text without spaces, each Chinese or Japanese character is a word.

    A Thai, Lao, Burmese or Khmer word is taken as five characters, about its usual length.

    Example:
        >>> count_words("The bridge is shut."), count_words("桥关闭了。")
        (4, 4)
    """
    if text.isascii() or not re.search(f"[{_IDEOGRAPHS}{_SYLLABLES}]", text):  # the usual case, at once
        return len(text.split())
    unspaced = re.findall(f"[{_IDEOGRAPHS}]|[{_SYLLABLES}]{{1,5}}", text)
    if 4 * sum(map(len, unspaced)) < len(text):
        return len(text.split())
    return len(unspaced) + len(re.findall(r"\w+", re.sub(f"[{_IDEOGRAPHS}{_SYLLABLES}]", " ", text)))


def check_texts(**columns: Sequence[str]) -> int:
    """Check lists of texts that belong together, one row each.

    Args:
        **columns: The lists by name, for the errors.

    Returns:
        The number of rows.

    Raises:
        SummkitError: There are no rows, a row is not a text, or the lists differ in length.
    """
    for name, texts in columns.items():
        if isinstance(texts, str):
            raise SummkitError(f"{name} is one text: a list of texts is needed, even for one row")
        bad = [f"row {row} is {type(text).__name__}" for row, text in enumerate(texts, 1) if not isinstance(text, str)]
        if bad:
            raise SummkitError(f"{name}: texts are needed, but {', '.join(bad[:5])} ({len(bad)} of {len(texts)} rows)")
    lengths = {name: len(texts) for name, texts in columns.items()}
    if len(set(lengths.values())) > 1:
        raise SummkitError(f"one row each is needed, but there are {', '.join(f'{n} {k}' for k, n in lengths.items())}")
    if 0 in lengths.values():
        raise SummkitError(f"nothing to score: {' and '.join(lengths)} hold no row")
    return next(iter(lengths.values()))
