"""Published | ours by the published selection | ours by honest selection | difference | verdict.

How a verdict is reached, for each of the two selections by itself:

================================ ==============================================================
verdict                          when
================================ ==============================================================
``not run``                      no complete run fits the cell
``no such model``                the published model is not among the models here
``not of runs``                  table VI: the command complexity measures what a model costs
``several configurations``       runs fit, but were selected by scores that do not compare
``not evaluated``                runs fit, and none has the evaluations that the cell needs
``synthetic: not comparable``    the runs are on a generated corpus: no difference, no test
``other corpus: not comparable`` the runs are on a corpus put in the published one's place
``one seed: no interval``        one seed is evaluated, and one number has no interval
``equal seeds``                  every seed has the same value, and says nothing of others
``within``                       0 lies in the interval of the difference, widened by the
                                 rounding of the printed number
``above``, ``below``             the whole interval lies above or below 0 by more than that
================================ ==============================================================

The interval is the 95 % BCa interval of the mean difference over seeds. The published number is
taken as exact: of its own error over seeds nothing was published.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cider.published import cells
from cider.significance import (
    PairedSeeds,
    compare_paired,
    compare_with_constant,
    holm,
    star,
)
from cider_platform.evidence.notes import SEEDS_FOR_INTERVALS, family_note
from cider_platform.evidence.ours import RULES, OurRuns, Ours, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cider.published import Cell
    from cider.significance import SeedSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """Our runs of one selection against a number, or against other runs on the same seeds."""

    ours: Ours
    compared: PairedSeeds | None
    """None where nothing is measured."""
    verdict: str
    adjusted_p: float | None = None
    """Holm's, over the table's tests; None where there is no test (fewer than two seeds)."""
    star: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; numbers in percent."""
        compared = self.compared
        interval = None if compared is None else compared.difference.interval
        return {
            "state": self.ours.state,
            "values": {str(seed): value for seed, value in self.ours.values.items()},
            **_summary(self.ours.summary),
            "difference": None if compared is None else compared.difference.mean,
            "interval": None if interval is None else [interval.low, interval.high],
            "p": None if compared is None else compared.test.p,
            "smallest_p": None if compared is None else compared.test.smallest_p,
            "adjusted_p": self.adjusted_p,
            "star": self.star,
            "verdict": self.verdict,
            "runs": list(self.ours.runs),
            "marks": list(self.ours.marks),
            "evaluate": list(self.ours.evaluate),
        }


def _summary(summary: SeedSummary | None) -> dict[str, Any]:
    return {
        "seeds": 0 if summary is None else summary.num_seeds,
        "mean": None if summary is None else summary.mean,
        "sd": None if summary is None else summary.sd,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published cell and ours beside it."""

    cell: Cell
    published: Against
    """By the published selection: epoch and tau chosen on the test split."""
    validation: Against
    """By honest selection."""

    def by(self, rule: Rule) -> Against:
        """Return what is compared under one selection rule."""
        return self.published if rule == "published" else self.validation

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        cell = self.cell
        names = ("table", "model", "train", "test", "task", "alignment", "distribution")
        return {
            "cell": cell.address,
            **{name: getattr(cell, name) for name in names},
            "protocol": cell.protocol,
            "rate": "auilc" if cell.is_area else cell.rate,
            "kept": cell.kept,
            "metric": cell.metric,
            "unit": cell.unit,
            "published": cell.value,
            "published_selection": self.published.to_dict(),
            "honest_selection": self.validation.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A published table and ours beside it."""

    table: str
    rows: tuple[Row, ...]
    against: str = ""
    """Empty: differences are from the published numbers. Else from our runs of this model."""

    @property
    def marks(self) -> list[str]:
        """What must stand beside the table's numbers, e.g. ``synthetic``."""
        sides = [row.by(rule).ours for row in self.rows for rule in RULES]
        return list(dict.fromkeys(mark for ours in sides for mark in ours.marks))

    def tests(self, rule: Rule) -> int:
        """Return how many tests the table has under a rule: what Holm's correction is over."""
        return sum(row.by(rule).adjusted_p is not None for row in self.rows)

    def notes(self, rule: Rule = "validation") -> list[str]:
        """Return what must be read with the stars: number of tests, smallest p, seeds needed."""
        found = [row.by(rule) for row in self.rows if row.by(rule).adjusted_p is not None]
        if not found:
            others = [ours for row in self.rows if (ours := row.by(rule).ours).incomparable]
            if others:
                return [
                    f"{len(others)} cells are of another corpus than the published one "
                    f"({', '.join(self.marks)}): their numbers are not comparable with the "
                    "published ones, so there is no difference and no test"
                ]
            return ["no test: it takes two evaluated seeds of a cell"]
        smallest = [each.compared.test.smallest_p for each in found if each.compared]
        text = family_note(smallest, seeds="seeds", family="the table")
        fewest = min(each.compared.difference.num_seeds for each in found if each.compared)
        if fewest >= SEEDS_FOR_INTERVALS:
            return [text]
        return [
            text,
            f"intervals of {fewest} seeds are too narrow, and so are their verdicts: see "
            "docs/statistics.md",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "table": self.table,
            "against": self.against or "published",
            "marks": self.marks,
            "tests": {rule: self.tests(rule) for rule in RULES},
            "notes": self.notes(),
            "rows": [row.to_dict() for row in self.rows],
        }


def compare_table(table: str, ours: OurRuns, *, models: Sequence[str] = ()) -> Comparison:
    """Return every cell of a published table with ours beside it.

    Args:
        table: as ``cider.published.table_name`` takes it.
        ours: where our runs are.
        models: rows as printed; none means all.

    Raises:
        UsageError: if there is no such table.
    """
    found = [cell for cell in cells(table) if not models or cell.model in models]
    rows = [
        Row(
            cell=cell,
            published=_with_published(cell, ours.of(cell, "published")),
            validation=_with_published(cell, ours.of(cell, "validation")),
        )
        for cell in found
    ]
    return Comparison(table=cells(table)[0].table, rows=_corrected(rows))


def _with_published(cell: Cell, ours: Ours) -> Against:
    if not ours.values:
        return Against(ours=ours, compared=None, verdict=ours.state)
    if ours.incomparable:
        # Another corpus says nothing of what was measured on the published one.
        return Against(ours=ours, compared=None, verdict=ours.incomparable)
    values = [ours.values[seed] for seed in sorted(ours.values)]
    compared = compare_with_constant(values, cell.value)
    return Against(ours=ours, compared=compared, verdict=_verdict(compared, cell.margin))


def _verdict(compared: PairedSeeds, margin: float = 0.0) -> str:
    """Return where 0 lies: below, in or above the interval of a difference."""
    interval = compared.difference.interval
    if interval is None:
        return "one seed: no interval"
    if interval.method == "all equal":
        return "equal seeds"
    if interval.contains(0.0, margin=margin):
        return "within"
    return "above" if interval.low > 0 else "below"


def compare_models(comparison: Comparison, baseline: str) -> Comparison:
    """Return ours against ours: every model's runs minus the baseline's, on common seeds.

    Args:
        comparison: of a published table.
        baseline: a model of the table, as printed, e.g. ``CIDer``.
    """
    known = {_place(row.cell): row for row in comparison.rows if row.cell.model == baseline}
    rows = [
        Row(
            cell=row.cell,
            published=_with_other(row.published, base.published),
            validation=_with_other(row.validation, base.validation),
        )
        for row in comparison.rows
        if row.cell.model != baseline and (base := known.get(_place(row.cell))) is not None
    ]
    return replace(comparison, rows=_corrected(rows), against=baseline)


def _place(cell: Cell) -> tuple[object, ...]:
    return (cell.corpora, cell.alignment, cell.distribution, cell.condition, cell.metric)


def _with_other(mine: Against, base: Against) -> Against:
    for each, whose in ((mine, ""), (base, "baseline ")):
        if not each.ours.values:
            return Against(ours=mine.ours, compared=None, verdict=f"{whose}{each.ours.state}")
    if not mine.ours.values.keys() & base.ours.values.keys():
        return Against(ours=mine.ours, compared=None, verdict="no common seed")
    compared = compare_paired(mine.ours.values, base.ours.values)
    return Against(ours=mine.ours, compared=compared, verdict=_verdict(compared))


def _corrected(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return rows with Holm's correction over each rule's tests, and their stars."""
    found = list(rows)
    for rule in RULES:
        tested = [
            (place, each.compared.test)
            for place, row in enumerate(found)
            if (each := row.by(rule)).compared is not None and each.compared.test.num_pairs > 1
        ]
        adjusted = holm([test.p for _, test in tested])
        for (place, test), p in zip(tested, adjusted, strict=True):
            marked = replace(
                found[place].by(rule),
                adjusted_p=p,
                star=star(p, test.smallest_p, len(tested)),
            )
            row = found[place]
            found[place] = (
                replace(row, published=marked)
                if rule == "published"
                else replace(row, validation=marked)
            )
    return tuple(found)
