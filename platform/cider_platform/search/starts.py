"""Where a search begins: configurations tried before the sampler proposes any."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cider.errors import UsageError
from cider_platform.search.samplers import distribution
from cider_platform.search.space import literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cider_platform.search.space import Space, Value


def read_starts(texts: Sequence[str], space: Space) -> tuple[dict[str, dict[str, Value]], ...]:
    """Return starting points written ``path=value,path=value``, checked against the space.

    Raises:
        UsageError: as ``start``, and for a text of another form.
    """
    starts = []
    for text in texts:
        values: dict[str, Value] = {}
        for part in text.split(","):
            path, equals, value = part.partition("=")
            if not (path and equals and value):
                raise UsageError(f"--enqueue must be path=value,path=value,..., got {text!r}")
            values[path.strip()] = literal(value.strip())
        starts.append(start(values, space))
    return tuple(starts)


def start(values: Mapping[str, Value], space: Space) -> dict[str, dict[str, Value]]:
    """Return one starting point as a study stores it; fields it leaves out are drawn.

    Raises:
        UsageError: for a field that is not searched, or a value outside its axis.
    """
    axes = {axis.path: axis for axis in space}
    chosen: dict[str, Value] = {}
    for path, value in values.items():
        if path not in axes:
            raise UsageError(
                f"a starting point names {path}, which is not searched; searched are "
                f"{', '.join(axes)}; use --set for a field that stays as it is"
            )
        axis = axes[path]
        typed = float(value) if axis.kind in ("float", "log") and _is_number(value) else value
        if not _contains(distribution(axis), typed):
            raise UsageError(f"a starting point has {path}={value}, which is not in {axis}")
        chosen[path] = typed
    return {"values": chosen}


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _contains(axis: object, value: Value) -> bool:
    from optuna.distributions import BaseDistribution, CategoricalDistribution  # noqa: PLC0415

    assert isinstance(axis, BaseDistribution)
    if isinstance(axis, CategoricalDistribution):
        return any(value == choice and type(value) is type(choice) for choice in axis.choices)
    return _is_number(value) and axis._contains(axis.to_internal_repr(value))
