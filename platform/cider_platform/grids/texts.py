"""Job files are data: what texts, names and keys in them may look like, and what is meant instead.

Whoever gets a job file from elsewhere runs nothing but trainings with it: no text in it can name a
path outside the stores, and none means anything to a shell, a template or a terminal.
"""

from __future__ import annotations

import math
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from cider.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*")
_TEXT = re.compile(r"([A-Za-z0-9][A-Za-z0-9 _.:,=@+-]*(/[A-Za-z0-9][A-Za-z0-9_.@-]*){0,2})?")
_JOB_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_LONGEST = 200
_DEEPEST = 5
_MOST_NAMED = 40


def check_job_name(name: str) -> str:
    """Return the name of a job if it can be one.

    Raises:
        UsageError: unless it has at most 64 small letters, digits, ``_`` and ``-``.
    """
    if not _JOB_NAME.fullmatch(name):
        raise UsageError(
            "a job's name has small letters, digits, '_' and '-', at most 64, and begins with a "
            f"letter or digit; got {name!r}"
        )
    return name


def check_values(where: str, value: object, depth: int = 0) -> None:
    """Refuse everything in a parsed job file that is no plain number, text, list or table.

    Args:
        where: what the value belongs to, for the message.
        value: a parsed TOML value.
        depth: how many tables and lists it is inside.

    Raises:
        UsageError: for the first key or value that is not allowed.
    """
    if depth > _DEEPEST:
        raise UsageError(f"{where} nests tables or lists more than {_DEEPEST} deep; flatten it")
    if isinstance(value, dict):
        for key, inner in value.items():
            check_values(f"{where}: {_checked_key(where, key)}", inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            check_values(where, inner, depth + 1)
    elif isinstance(value, str):
        check_text(where, value)
    elif not isinstance(value, bool | int | float) or not math.isfinite(value):
        raise UsageError(f"{where} must be text, a finite number, true or false, got {value}")


def _checked_key(where: str, key: str) -> str:
    if len(key) > _LONGEST or not _KEY.fullmatch(key):
        raise UsageError(f"{where} has the key {_shown(key)}; keys are dotted field names")
    return key


def check_text(where: str, text: str) -> str:
    """Return a text of a job if it is a name, or numbers with colons; nothing else is allowed.

    Raises:
        UsageError: for other characters, a path, or more than 200 characters.
    """
    if len(text) > _LONGEST or ".." in text or not _TEXT.fullmatch(text):
        raise UsageError(
            f"{where} must be a name: letters, digits, blanks and _ . : , = @ + -, a / inside as "
            f"Hugging Face names have, no path; got {_shown(text)}"
        )
    return text


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that is not known: it names the nearest one, and all there are.

    Args:
        what: the kind of name, e.g. ``"key in [search]"``.
        name: the unknown one.
        known: all there are.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    meant = f"; did you mean {near[0]}?" if near else ";"
    listed = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
    return UsageError(f"unknown {what} {_shown(name)}{meant} known: {listed}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
