"""A search space and its starting points from a TOML file.

.. code-block:: toml

    [space]
    "model.layers" = "int:1:4"
    "loss.joint" = { kind = "float", low = 0.0, high = 1.0, step = 0.1 }
    "model.heads" = [1, 2, 4]

    [[start]]
    "model.layers" = 2
    "model.heads" = 4
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from cider.errors import UsageError
from cider_platform.search.space import Axis, parse_axis

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cider_platform.search.space import Value

_RANGE_KEYS = ("kind", "low", "high", "step")


def read_space_file(path: Path) -> tuple[list[Axis], list[dict[str, Value]]]:
    """Return the axes and the starting points of a file.

    Raises:
        UsageError: if it cannot be read, is not TOML, or has unknown tables.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--space-file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--space-file {path} is not TOML: {error}") from None
    unknown = sorted(set(content) - {"space", "start"})
    if unknown:
        raise UsageError(
            f"--space-file {path} has the unknown table {unknown[0]!r}; known: space, start"
        )
    axes = read_axes(content.get("space", {}))
    starts = content.get("start", [])
    if not isinstance(starts, list) or not all(isinstance(each, dict) for each in starts):
        raise UsageError(f"--space-file {path}: starting points are [[start]] tables")
    return axes, [dict(_flat(each)) for each in starts]


def read_axes(table: Mapping[str, Any]) -> list[Axis]:
    """Return the axes of a table; a dotted path may be one quoted key or nested tables.

    Raises:
        UsageError: for a value that is no axis.
    """
    if not isinstance(table, dict):
        raise UsageError(f"a search space is a table, got {table!r}")
    return [_axis(path, value) for path, value in _flat(table)]


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return dotted paths with what they lead to: a value, a list or the table of a range."""
    found: list[tuple[str, Any]] = []
    for name, value in table.items():
        if isinstance(value, dict) and "kind" not in value:
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def _axis(path: str, value: object) -> Axis:
    if isinstance(value, str):
        return parse_axis(f"{path}={value}")
    if isinstance(value, list) and all(
        isinstance(each, bool | int | float | str) for each in value
    ):
        return Axis(path=path, kind="choice", choices=tuple(value))
    if isinstance(value, dict):
        unknown = sorted(set(value) - set(_RANGE_KEYS))
        numbers = [value.get(key) for key in ("low", "high", "step") if key in value]
        if not unknown and all(isinstance(each, int | float) for each in numbers):
            return parse_axis(f"{path}={value['kind']}:{':'.join(map(repr, numbers))}")
    raise UsageError(
        f"the axis {path} is text such as 'int:1:4', a list of choices, or a table of "
        f"{', '.join(_RANGE_KEYS)}; got {value!r}"
    )
