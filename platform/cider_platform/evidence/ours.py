"""What our finished, evaluated runs have for a published cell: the one place that maps them.

Of the complete runs that fit a cell, those of one configuration (all but the seed is equal) stand
for it: of the configurations with most seeds, the one with the best mean of the score its runs were
selected by. That is the validation score, and never the number that is shown; under the published
selection it is the test score, which is what that selection is. Imported weights count as selected
so, and have no score: they stand for a cell only if no run of ours does.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from cider.models import names
from cider.published.tables import COMPLEXITY
from cider.significance import SeedSummary, summarise
from cider_platform.evidence.paper_runs import WantedRun, wanted_run
from cider_platform.evidence.quantity import Quantity, Tested, metrics_by_condition
from cider_platform.results import RunRecord, find_runs
from cider_platform.tables import flat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cider.published import Cell

Rule = Literal["published", "validation"]
RULES: tuple[Rule, ...] = ("published", "validation")

State = Literal[
    "measured", "not run", "not evaluated", "several configurations", "no such model", "not of runs"
]

PERCENT = 100.0
SYNTHETIC = "synthetic: not comparable"
OTHER_CORPUS = "other corpus: not comparable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """What our runs have for one cell under one selection rule."""

    state: State
    """``several configurations``: those with most seeds were selected by scores that do not
    compare (another metric or other rates), so none can be chosen."""
    values: Mapping[int, float] = field(default_factory=dict)
    """Value by seed, in percent, of the runs that have been evaluated."""
    runs: tuple[str, ...] = ()
    """Ids of the configuration's runs, by seed."""
    seeds: tuple[int, ...] = ()
    """Seeds of those runs."""
    marks: tuple[str, ...] = ()
    """``synthetic``, ``published selection``, ``imported weights``, ``tiny in place of mosi``."""
    incomparable: str = ""
    """Why the numbers say nothing of the published one; empty: they do."""
    evaluate: tuple[str, ...] = ()
    """Commands that make the evaluations that are missing."""

    @property
    def summary(self) -> SeedSummary | None:
        """Mean, SD and interval over seeds; None if nothing is evaluated."""
        return (
            summarise([self.values[seed] for seed in sorted(self.values)]) if self.values else None
        )


@dataclass(frozen=True, slots=True)
class _Run:
    """A complete run with what is asked of it again and again."""

    record: RunRecord
    spec: dict[str, Any]
    """By dotted path."""

    @property
    def is_imported(self) -> bool:
        return "imported_from" in self.record.result

    @property
    def rule(self) -> str:
        # Whoever published the weights chose their epoch and hyperparameters on the test split.
        return "published" if self.is_imported else str(self.spec["selection.rule"])

    @property
    def score(self) -> float:
        found = self.record.result.get("score")
        return -math.inf if found is None else float(found)

    @property
    def configuration(self) -> str:
        return json.dumps({**self.spec, "seed": None}, sort_keys=True)

    @property
    def yardstick(self) -> str:
        """What the score is of; scores with another one do not compare."""
        rates = [value for path, value in self.spec.items() if path == "selection.rates"]
        return json.dumps([self.record.result.get("metric"), rates])


class OurRuns:
    """Complete runs, asked for what they have for cells.

    Args:
        records: runs; those that are not complete count nothing.
        synthetic: take the runs on generated corpora in place of those on real ones; they then
            stand for the real corpus they imitate, and are marked.
        corpora: published corpus -> the dataset whose runs stand for it, whatever it is; those on
            another one than the published are marked. None: by name.
    """

    def __init__(
        self,
        records: Sequence[RunRecord],
        *,
        synthetic: bool = False,
        corpora: Mapping[str, str] | None = None,
    ) -> None:
        self.synthetic = synthetic
        self._corpora = corpora
        self._models = frozenset(names())
        complete = [
            _Run(record, dict(flat(record.spec)))
            for record in records
            if record.state == "COMPLETE"
        ]
        self._runs = [
            run
            for run in complete
            if corpora is not None or ("synthetic" in run.record.marks) == synthetic
        ]
        self._groups: dict[tuple[str, Rule], list[list[_Run]]] = {}
        self._evaluations: dict[str, Tested] = {}

    @classmethod
    def read(cls, results: Path, *, synthetic: bool = False, where: Sequence[str] = ()) -> OurRuns:
        """Return the complete runs of a results root.

        Args:
            results: results root.
            synthetic: as for the class.
            where: conditions that the runs must meet, as ``runs list --where`` takes them.

        Raises:
            UsageError: for a condition that is none, or a field that no run has.
            NothingMatchedError: for a field of an evaluation that no run has.
        """
        return cls([record for record, _ in find_runs(results, where)], synthetic=synthetic)

    def of(self, cell: Cell, rule: Rule) -> Ours:
        """Return what our runs with a selection rule have for a cell."""
        if cell.table == COMPLEXITY:
            return Ours(state="not of runs")
        wanted = wanted_run(cell, self._models)
        if wanted is None:
            return Ours(state="no such model")
        groups = self._standing(wanted, rule)
        if not groups:
            return Ours(state="not run")
        if len(groups) > 1:
            runs = tuple(run.record.run_id for group in groups for run in group)
            return Ours(state="several configurations", runs=runs)
        return self._measured(cell, groups[0])

    def _standing(self, wanted: WantedRun, rule: Rule) -> list[list[_Run]]:
        """Return the configuration that stands for a wanted run, or those none can be chosen of."""
        key = (repr(wanted), rule)
        if key not in self._groups:
            self._groups[key] = _chosen(self._fitting(wanted, rule))
        return self._groups[key]

    def spec_of(self, run: str) -> dict[str, Any]:
        """Return the spec of one of the runs, as JSON values."""
        return next(each.record.spec for each in self._runs if each.record.run_id == run)

    def _fitting(self, wanted: WantedRun, rule: Rule) -> list[list[_Run]]:
        """Return the runs that fit, by configuration, each by seed."""
        groups: dict[str, list[_Run]] = {}
        for run in self._runs:
            if (
                run.rule == rule
                and wanted.fits(run.spec)
                and self._stands_for(run.spec["data.dataset"], wanted.dataset)
            ):
                groups.setdefault(run.configuration, []).append(run)
        return [sorted(group, key=lambda run: int(run.spec["seed"])) for group in groups.values()]

    def _stands_for(self, dataset: str, corpus: str) -> bool:
        """Return whether runs on a dataset count: ``synthetic-mosei-x0.1`` can be for mosei."""
        if self._corpora is not None:
            return dataset == self._corpora.get(corpus, corpus)
        return corpus == (dataset.split("-")[1] if self.synthetic and "-" in dataset else dataset)

    def _measured(self, cell: Cell, group: Sequence[_Run]) -> Ours:
        quantity = Quantity.of(cell)
        values: dict[int, float] = {}
        lacking = []
        for run in group:
            value = quantity.value(self._rows(run.record))
            if value is None:
                lacking.append(quantity.command(run.record.run_id))
            else:
                values[int(run.spec["seed"])] = PERCENT * value
        marks = dict.fromkeys(mark for run in group for mark in _marks(run))
        dataset, incomparable = group[0].spec["data.dataset"], ""
        if dataset != cell.train and self._corpora is not None:
            marks[f"{dataset} in place of {cell.train}"] = None
            incomparable = OTHER_CORPUS
        if "synthetic" in marks:
            incomparable = SYNTHETIC
        return Ours(
            state="measured" if values else "not evaluated",
            values=values,
            runs=tuple(run.record.run_id for run in group),
            seeds=tuple(int(run.spec["seed"]) for run in group),
            marks=tuple(marks),
            incomparable=incomparable,
            evaluate=tuple(lacking),
        )

    def _rows(self, record: RunRecord) -> Tested:
        if record.run_id not in self._evaluations:
            self._evaluations[record.run_id] = metrics_by_condition(record)
        return self._evaluations[record.run_id]


def _chosen(groups: Sequence[list[_Run]]) -> list[list[_Run]]:
    """Return the one of several configurations that stands; more where scores do not compare."""
    if not groups:
        return []
    most = max(len(group) for group in groups)
    leading = [group for group in groups if len(group) == most]
    # Imported weights have no score of ours: they stand where nothing else does.
    leading = [group for group in leading if not group[0].is_imported] or leading
    if len({group[0].yardstick for group in leading}) > 1:
        return leading
    # The first of equals by id, so that the same runs always give the same table.
    return [
        max(
            leading,
            key=lambda group: (fmean(run.score for run in group), group[0].record.run_id),
        )
    ]


def _marks(run: _Run) -> list[str]:
    return [*run.record.marks, *(["imported weights"] if run.is_imported else [])]
