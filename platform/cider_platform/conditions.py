"""What runs are evaluated under: the conditions that a protocol and its rates name.

This module imports no torch, so that a grid can be counted without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cider.condition import Condition
from cider.errors import UsageError
from cider.modality import KEPT_SETS

if TYPE_CHECKING:
    from collections.abc import Sequence


def conditions_of(protocol: str, rates: Sequence[float], kept: str = "") -> list[Condition]:
    """Return the conditions that a protocol, its rates and a kept set name.

    Args:
        protocol: name of a missing protocol.
        rates: missing rates in [0, 1]; ``none`` and ``smm`` have none and ignore them.
        kept: smm's kept set; empty means all six.

    Raises:
        UsageError: for a kept set with another protocol, or an unknown one.
    """
    if protocol == "smm":
        if kept and kept not in KEPT_SETS:
            raise UsageError(f"unknown kept set {kept!r}; known: {', '.join(KEPT_SETS)}")
        return [Condition("smm", 0.0, each) for each in ([kept] if kept else KEPT_SETS)]
    if kept:
        raise UsageError(f"a kept set is only for the protocol smm, got {kept!r} with {protocol}")
    if protocol == "none":
        return [Condition("none", 0.0)]
    return [Condition(protocol, float(rate)) for rate in rates]


def evaluation_name(condition: Condition) -> str:
    """Return the name of the files that a run's evaluation under a condition has."""
    return f"test-{condition.protocol}-{condition.kept or f'{condition.rate:g}'}"


ALL_RATES: tuple[float, ...] = tuple(step / 10 for step in range(11))
"""The published missing rates: 0, 0.1, ..., 1."""


def full_conditions(alignment: str) -> list[Condition]:
    """Return the published conditions: 11 rates of every protocol that the data allows, and smm.

    Args:
        alignment: ``aligned`` data has tmfm and stmfm too (61 conditions), other data 39.
    """
    protocols = ["rmfm", "rmfm_per_modality", "rmm"]
    protocols += ["tmfm", "stmfm"] if alignment == "aligned" else []
    found = [each for name in protocols for each in conditions_of(name, ALL_RATES)]
    return [*found, *conditions_of("smm", [])]
