"""Look a thing up by name, or say which names there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cider.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


def lookup(what: str, name: str, known: Mapping[str, T]) -> T:
    """Return ``known[name]``.

    Args:
        what: the kind of thing, for the message, e.g. ``"missing protocol"``.
        name: the name asked for.
        known: everything there is.

    Raises:
        UsageError: if there is no such name; the message lists the known ones.
    """
    try:
        return known[name]
    except KeyError:
        raise UsageError(f"unknown {what} {name!r}; known: {', '.join(sorted(known))}") from None
