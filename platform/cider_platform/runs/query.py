"""Choosing and sorting runs by their fields, as people type it: ``test.acc2@0.5>0.7``, ``-score``.

There is no language behind it: each condition compares one field with one value, and all of them
must hold. What can be asked is in ``cider_platform.fields``.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from cider.errors import NothingMatchedError, UsageError
from cider_platform.fields import EVALUATED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cider_platform.fields import Fields

_CONDITION = re.compile(r"\s*([\w.@+-]+?)\s*(>=|<=|!=|==|=|>|<|~)\s*(.*?)\s*", re.DOTALL)
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Where:
    """One condition on one field."""

    field: str
    compare: str
    """``=``, ``!=``, ``>``, ``<``, ``>=``, ``<=`` or ``~`` (contains)."""
    value: str

    def holds(self, fields: Mapping[str, Any]) -> bool:
        """Return whether a run meets it; one without the field never does.

        Of a list (``marks``, ``selection.rates``), ``=`` and ``~`` ask for one of its entries.
        """
        if self.field not in fields:
            return False
        found = fields[self.field]
        entries = found if isinstance(found, list) else [found]
        if self.compare == "~":
            return any(self.value.casefold() in str(entry).casefold() for entry in entries)
        if self.compare in ("=", "!="):
            return any(_equal(entry, self.value) for entry in entries) == (self.compare == "=")
        number = _number(found)
        return number is not None and _ORDER[self.compare](number, float(self.value))


def parse_where(texts: Iterable[str]) -> list[Where]:
    """Read conditions such as ``dataset=mosi`` or ``test.acc2@0.5>0.7``.

    Raises:
        UsageError: if a text is none, or orders by something that is no number.
    """
    found = []
    for text in texts:
        match = _CONDITION.fullmatch(text)
        if match is None or not match[3]:
            raise UsageError(
                "a condition is FIELD=VALUE, or with !=, >, <, >=, <= or ~ (contains), e.g. "
                f"'test.acc2@0.5>0.7', got {text!r}"
            )
        field, compare, value = match.groups()
        if compare in _ORDER and _number(value) is None:
            raise UsageError(f"{compare} compares numbers, got {value!r} in {text!r}")
        found.append(Where(field, "=" if compare == "==" else compare, value))
    return found


def _equal(found: object, asked: str) -> bool:
    if isinstance(found, bool):
        return str(found).casefold() == asked.casefold()
    left, right = _number(found), _number(asked)
    return left == right if left is not None and right is not None else str(found) == asked


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def needs_evaluations(names: Iterable[str]) -> bool:
    """Return whether any of these fields is of an evaluation."""
    return any(name.startswith(EVALUATED) for name in names)


def select(runs: Sequence[Fields], where: Sequence[Where], sort: str = "") -> list[int]:
    """Return which runs meet every condition, in the order asked for.

    Args:
        runs: the fields of every run.
        where: the conditions.
        sort: a field, smallest first; ``-FIELD``: largest first; runs without it come last.
            Empty keeps the order.

    Raises:
        UsageError: for a field that no run has.
        NothingMatchedError: for a field of an evaluation that no run has.
    """
    name = sort.removeprefix("-")
    for field in dict.fromkeys([*(each.field for each in where), *([name] if name else [])]):
        _check_field(field, runs)
    chosen = [
        number for number, fields in enumerate(runs) if all(each.holds(fields) for each in where)
    ]
    if not name:
        return chosen
    have = [number for number in chosen if name in runs[number]]
    have.sort(key=lambda number: _sort_key(runs[number][name]), reverse=sort.startswith("-"))
    return [*have, *(number for number in chosen if name not in runs[number])]


def _sort_key(value: object) -> tuple[bool, float, str]:
    number = float(value) if isinstance(value, bool) else _number(value)
    return (number is None, 0.0 if number is None else number, str(value))


def _check_field(field: str, runs: Sequence[Fields]) -> None:
    known = {name for fields in runs for name in fields}
    if not known or field in known:
        return
    if field.startswith(EVALUATED):
        raise NothingMatchedError(
            f"no run has {field}; cider-platform evaluate makes such numbers, and fields are named "
            "like test.acc2@0.5, test.rmm.acc2@0.5, test.smm.acc2@LA or test.auilc.acc2"
        )
    close = get_close_matches(field, sorted(known), n=5, cutoff=0.4)
    told = f"; near it: {', '.join(close)}" if close else ""
    raise UsageError(
        f"no run has a field {field!r}{told}; cider-platform runs show RUN lists a run's fields"
    )
