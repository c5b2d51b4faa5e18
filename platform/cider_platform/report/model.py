"""What a report is about: configurations, their seeds, numbers under conditions, comparisons.

Every number knows the runs it is made of. Values of metrics are in [0, 1]; pages print percent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cider_platform.evidence.notes import SEEDS_FOR_INTERVALS, family_note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cider.significance import PairedSeeds, SeedSummary
    from cider_platform.evidence.comparison import Comparison

AUILC = "AUILC"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """What a number was measured under: a condition, or the area over a protocol's rates."""

    protocol: str
    rate: float | None
    """Missing rate in [0, 1]; None for an area, and where the protocol has no rates."""
    kept: str = ""
    """smm only: the modalities that stay."""
    rates: tuple[float, ...] = ()
    """Of an area: the rates it is over; empty of a condition."""

    @property
    def is_area(self) -> bool:
        """Return whether this is an area over rates (Eq. 31)."""
        return bool(self.rates)

    def __str__(self) -> str:
        if self.is_area:
            return f"{self.protocol} {AUILC}"
        if self.kept:
            return f"{self.protocol} {self.kept}"
        return self.protocol if self.rate is None else f"{self.protocol} {self.rate:g}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        rate: float | str | None = AUILC if self.is_area else self.rate
        return {"protocol": self.protocol, "rate": rate, "kept": self.kept}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that a report was asked for, finished or not."""

    id: str
    seed: int
    state: str
    """As ``runs list`` says it; ``NOT BEGUN`` of a grid's run without a folder."""
    error: str = ""
    folder: str = ""
    marks: tuple[str, ...] = ()
    """``synthetic``, ``published selection``, ``imported weights``."""
    evaluations: int = 0
    """Conditions it was tested under."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """``git``, ``dirty``, ``code``, ``corpus``: hashes, as far as the run's files say them."""

    @property
    def command(self) -> str:
        """The command that shows the run."""
        return f"cider-platform runs show {self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One metric of one configuration in one place, over its seeds."""

    place: Place
    metric: str
    values: Mapping[int, float]
    """Value by seed, of the runs that have it; never empty."""
    runs: Mapping[int, str]
    """Run by seed, of the same seeds."""
    summary: SeedSummary

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        interval = self.summary.interval
        return {
            **self.place.to_dict(),
            "metric": self.metric,
            "mean": self.summary.mean,
            "sd": self.summary.sd,
            "interval": None if interval is None else [interval.low, interval.high],
            "seeds": {str(seed): value for seed, value in self.values.items()},
            "runs": list(self.runs.values()),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Runs that are equal in all but the seed; of a grid, a cell."""

    id: str
    """Hexadecimal digits that name it in this report and in any other."""
    labels: Mapping[str, str]
    """Axis or field -> value, of what differs between the report's configurations."""
    facts: Mapping[str, str]
    """Corpus, task, alignment, distribution, model: the same names for every report."""
    runs: tuple[Run, ...]
    """By seed."""
    numbers: tuple[Number, ...]

    @property
    def name(self) -> str:
        """The configuration for people."""
        return ", ".join(f"{key}={value}" for key, value in self.labels.items()) or "all runs"

    @property
    def marks(self) -> tuple[str, ...]:
        """What must stand beside its numbers."""
        return tuple(dict.fromkeys(mark for run in self.runs for mark in run.marks))

    def number(self, place: Place, metric: str) -> Number | None:
        """Return a number, or None if no run has it."""
        found = (n for n in self.numbers if n.place == place and n.metric == metric)
        return next(found, None)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "id": self.id,
            "labels": dict(self.labels),
            "facts": dict(self.facts),
            "marks": list(self.marks),
            "runs": [
                {"run": run.id, "seed": run.seed, "state": run.state, "error": run.error or None,
                 "marks": list(run.marks), "provenance": dict(run.provenance)}
                for run in self.runs
            ],
            "numbers": [number.to_dict() for number in self.numbers],
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """A configuration against its reference in one place, on the seeds that both have."""

    configuration: str
    reference: str
    """Ids of the two."""
    place: Place
    metric: str
    compared: PairedSeeds | None
    """Configuration minus reference; None without a common seed."""
    adjusted_p: float | None = None
    """Holm's, over all tests of the report; None with fewer than two common seeds."""
    star: str = ""
    runs: tuple[str, ...] = ()
    """Of the common seeds, both sides."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        compared = self.compared
        interval = None if compared is None else compared.difference.interval
        return {
            "configuration": self.configuration,
            "reference": self.reference,
            **self.place.to_dict(),
            "metric": self.metric,
            "common_seeds": [] if compared is None else list(compared.seeds),
            "difference": None if compared is None else compared.difference.mean,
            "interval": None if interval is None else [interval.low, interval.high],
            "p": None if compared is None else compared.test.p,
            "smallest_p": None if compared is None else compared.test.smallest_p,
            "adjusted_p": self.adjusted_p,
            "star": self.star,
            "runs": list(self.runs),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a page shows."""

    subject: str
    """What it is of, e.g. ``grid smoke-531daff539e1``."""
    created: str
    """ISO 8601, UTC."""
    metrics: tuple[str, ...]
    configurations: tuple[Configuration, ...]
    reference: str = ""
    """What differences are from, as it was asked for; empty: nothing was compared."""
    comparisons: tuple[Paired, ...] = ()
    published: tuple[Comparison, ...] = ()
    """Published tables and ours beside them."""

    @property
    def marks(self) -> tuple[str, ...]:
        """What must stand beside the report's numbers."""
        return tuple(dict.fromkeys(mark for each in self.configurations for mark in each.marks))

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run once, in order."""
        found = {run.id: run for each in self.configurations for run in each.runs}
        return tuple(found.values())

    @property
    def places(self) -> tuple[Place, ...]:
        """Every place that has a number, by protocol, rates first, the area last."""
        found = {n.place for each in self.configurations for n in each.numbers}
        return tuple(sorted(found, key=place_order))

    def configuration(self, id_: str) -> Configuration:
        """Return the configuration of an id."""
        return next(each for each in self.configurations if each.id == id_)

    def notes(self) -> tuple[str, ...]:
        """Return what must be read with the numbers: unfinished runs, tests, smallest p."""
        found = []
        unfinished = [run for run in self.runs if run.state != "COMPLETE"]
        if unfinished:
            found.append(
                f"{len(unfinished)} of {len(self.runs)} runs are not complete and have no numbers"
            )
        untested = [run for run in self.runs if run.state == "COMPLETE" and not run.evaluations]
        if untested:
            found.append(
                f"{len(untested)} complete runs were not evaluated; make it with: cider-platform "
                f"evaluate {untested[0].id} --rates 0:1:0.1"
            )
        fewest = min(
            (n.summary.num_seeds for each in self.configurations for n in each.numbers), default=0
        )
        if 0 < fewest < SEEDS_FOR_INTERVALS:
            seeds = "one seed have none" if fewest == 1 else f"{fewest} seeds are too narrow"
            found.append(f"intervals of {seeds}: see docs/statistics.md")
        beside = [f"table {each.table}: {note}" for each in self.published for note in each.notes()]
        return tuple([*found, *self._test_notes(), *beside])

    def _test_notes(self) -> list[str]:
        if not self.reference:
            return []
        tested = [p.compared for p in self.comparisons if p.compared and p.adjusted_p is not None]
        if not tested:
            return ["no test: it takes two common seeds of a configuration and its reference"]
        smallest = [each.test.smallest_p for each in tested]
        return [family_note(smallest, seeds="common seeds", family="all of them")]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "subject": self.subject,
            "created": self.created,
            "marks": list(self.marks),
            "metrics": list(self.metrics),
            "notes": list(self.notes()),
            "configurations": [each.to_dict() for each in self.configurations],
            "reference": self.reference or None,
            "comparisons": [each.to_dict() for each in self.comparisons],
            "published": [each.to_dict() for each in self.published],
        }


def place_order(place: Place) -> tuple[str, bool, str, float]:
    """Return where a place stands among others: by protocol, its rates, then its area."""
    return (place.protocol, place.is_area, place.kept, place.rate or 0.0)
