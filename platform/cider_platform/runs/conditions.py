"""What runs are evaluated under: the conditions that a protocol and its rates name.

This module imports no torch, so that a grid can be counted without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cider.condition import Condition
from cider.errors import UsageError
from cider.missing import needs_aligned
from cider.modality import KEPT_SETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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


def full_conditions(alignment: str, rates: Sequence[float] = ALL_RATES) -> list[Condition]:
    """Return the published conditions: the rates of every protocol the data allows, and all of smm.

    Args:
        alignment: aligned data has tmfm and stmfm too: 61 conditions at the published rates, where
            other data has 39.
        rates: missing rates in [0, 1].
    """
    protocols = ["rmfm", "rmfm_per_modality", "rmm"]
    protocols += ["tmfm", "stmfm"] if alignment == "aligned" else []
    found = [each for name in protocols for each in conditions_of(name, rates)]
    return [*found, *conditions_of("smm", [])]


def asked_conditions(
    spec: Mapping[str, Any],
    protocols: Sequence[str],
    rates: Sequence[float],
    kept: Sequence[str] = (),
) -> list[Condition]:
    """Return what a run is to be evaluated under.

    Args:
        spec: the run's spec as JSON values: its own protocol is taken where none is named.
        protocols: names of protocols; none means the run's own.
        rates: missing rates in [0, 1].
        kept: smm's kept sets; none means all six, or the run's own if the protocol is its own.

    Raises:
        UsageError: for an unknown protocol or kept set, a kept set without smm, or a protocol that
            needs aligned data on a run of other data.
    """
    own = spec.get("missing", {})
    if not protocols:
        protocols = [str(own.get("protocol", "rmfm"))]
        kept = kept or [name for name in [str(own.get("kept", ""))] if name]
    if kept and "smm" not in protocols:
        raise UsageError(
            f"a kept set is only for the protocol smm, got {kept[0]!r} with {', '.join(protocols)}"
        )
    found: list[Condition] = []
    for protocol in protocols:
        alignment = spec.get("data", {}).get("alignment", "unaligned")
        if needs_aligned(protocol) and alignment != "aligned":
            raise UsageError(
                f"missing protocol {protocol} drops shared time steps and needs aligned data, got "
                f"a run of {alignment} data; leave it out, or evaluate a run of aligned data"
            )
        sets = kept if protocol == "smm" and kept else [""]
        found += [each for name in sets for each in conditions_of(protocol, rates, name)]
    return list(dict.fromkeys(found))
