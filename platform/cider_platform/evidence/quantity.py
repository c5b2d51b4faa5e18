"""One number of an evaluated run: a test metric at a missing rate, of a kept set, or its area."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cider.condition import Condition
from cider.errors import UsageError
from cider.metrics import auilc
from cider.missing import uses_rate
from cider.modality import KEPT_SETS
from cider_platform.results import evaluations
from cider_platform.search.objectives import AUILC_RATES

if TYPE_CHECKING:
    from cider.published import Cell
    from cider_platform.results import RunRecord

Tested = Mapping[tuple[str, float, str], Mapping[str, float | None]]
"""A run's test metrics, in [0, 1], by protocol, missing rate and kept set."""


def metrics_by_condition(record: RunRecord) -> Tested:
    """Return the test metrics of a run's evaluations."""
    return {
        (row["protocol"], float(row["rate"]), row["kept"]): row["test"]
        for row in evaluations(record)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What is measured of a run."""

    protocol: str
    """A missing protocol's name."""
    metric: str
    rate: float | None = None
    """Missing rate in [0, 1]; None, without a kept set, is the area over 0, 0.1, ..., 1."""
    kept: str = ""
    """smm only: the modalities that stay."""

    @classmethod
    def of(cls, cell: Cell) -> Quantity:
        """Return what a published cell of a table of metrics is of."""
        return cls(protocol=cell.protocol, metric=cell.metric, rate=cell.rate, kept=cell.kept)

    def __str__(self) -> str:
        if self.kept:
            return f"{self.metric} at {self.protocol}/{self.kept}"
        if self.protocol == "none":
            return f"{self.metric} at none"
        return f"{self.metric} at {self.protocol}@{'auilc' if self.rate is None else self.rate}"

    def value(self, found: Tested) -> float | None:
        """Return a run's value, in [0, 1]; None if an evaluation is missing or it is undefined."""
        if self.kept:
            return found.get((self.protocol, 0.0, self.kept), {}).get(self.metric)
        if self.rate is not None or self.protocol == "none":
            return self._at(self.rate or 0.0, found)
        values = [value for rate in AUILC_RATES if (value := self._at(rate, found)) is not None]
        return auilc(AUILC_RATES, values) if len(values) == len(AUILC_RATES) else None

    def _at(self, rate: float, found: Tested) -> float | None:
        places = [(self.protocol, rate, "")]
        if rate == 0:
            # Nothing is missing at rate 0, whatever the protocol that was asked for.
            places += [key for key in found if key[1] == 0 and not key[2]]
        return next((found[key].get(self.metric) for key in places if key in found), None)

    def command(self, run: str) -> str:
        """Return the command that evaluates a run as this needs it."""
        words = ["cider-platform", "evaluate", run, "--missing", self.protocol]
        if self.kept:
            words += ["--kept", self.kept]
        elif self.protocol != "none":
            words += ["--rates", "0:1:0.1" if self.rate is None else f"{self.rate:g}"]
        return " ".join(words)


def condition_of(protocol: str, rate: float | None = None, kept: str = "") -> Condition:
    """Return the condition that a protocol with its rate or kept set names.

    Raises:
        UsageError: for an unknown protocol, or a rate or kept set that is missing or too much.
    """
    if not uses_rate(protocol) and rate is not None:
        raise UsageError(f"the protocol {protocol} has no rate, got {rate:g}; leave it out")
    if protocol != "smm" and kept:
        raise UsageError(f"a kept set is only for the protocol smm, got {kept!r} with {protocol}")
    if protocol == "smm" and kept not in KEPT_SETS:
        raise UsageError(f"smm needs a kept set, one of {', '.join(KEPT_SETS)}, got {kept!r}")
    if uses_rate(protocol) and rate is None:
        raise UsageError(f"the protocol {protocol} needs a missing rate from 0 to 1, got none")
    return Condition(protocol, rate or 0.0, kept)
