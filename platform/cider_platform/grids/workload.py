"""The items of a grid as its driver hands them out, with how long each may take.

Searches go one after the other, each with as many trials at a time as there are slots; then every
missing run is trained and evaluated in one slot. Every one of these stages starts Ray anew.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from statistics import mean
from typing import TYPE_CHECKING, Any

from cider_platform.grids.estimates import Estimate, shape_of
from cider_platform.grids.simulate import Work
from cider_platform.grids.tasks import tasks_of
from cider_platform.layout import RunFolder
from cider_platform.runs.conditions import evaluation_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from cider.condition import Condition
    from cider_platform.grids.cells import Cell
    from cider_platform.grids.estimates import History
    from cider_platform.grids.grid import Grid

SESSION_SECONDS = 7.0
"""Until Ray is up, once per stage: measured by hand on a quiet machine of two cores;
benchmarks/plan_accuracy.py checks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What one run holds."""

    device: str
    """``cpu`` or ``cuda``."""
    cpus: int
    gpus: float


@dataclass(slots=True)
class Workload:
    """What is left of a grid."""

    work: list[Work] = field(default_factory=list)
    bases: Counter[str] = field(default_factory=Counter)
    """What durations come from -> items."""
    unknown: dict[str, Cell] = field(default_factory=dict)
    """Shape that nothing is known of -> a cell of it; ``work`` lacks its items."""
    runs: int = 0
    """Known runs to train or evaluate."""
    later: int = 0
    """Runs that searches have yet to find."""
    searches: int = 0
    trials: int = 0
    """Trials that searches have yet to do."""


def workload_of(
    grid: Grid, results: Path, slot: Slot, history: History, *, retry_failed: bool = False
) -> Workload:
    """Return the items of a grid that are to be done.

    Args:
        grid: the resolved cells.
        results: root of runs and studies.
        slot: what one run holds.
        history: what past runs took.
        retry_failed: True counts failed runs in.
    """
    builder = _Builder(results, slot, history)
    searching = [
        (cell, left)
        for cell in grid.cells
        if cell.search is not None and (left := _trials_left(results, cell))
    ]
    for cell, left in searching:
        builder.search(cell, left)
    tasks = tasks_of(grid, results, retry_failed=retry_failed)
    if tasks or searching:
        builder.stage()
    cells = _cells_by_run(grid, results)
    for task in tasks:
        builder.run(task.run, json.loads(task.spec), task.conditions, cells[task.run])
    for cell, _ in searching:
        builder.later(cell)
    return builder.load


def searched_fields(cell: Cell) -> tuple[str, ...]:
    """Return the paths of the fields that a cell's search varies; none without a search."""
    if cell.search is None:
        return ()
    return tuple(axis.partition("=")[0] for axis in cell.search.space)


def _trials_left(results: Path, cell: Cell) -> int:
    from cider_platform.grids.searches import standing  # noqa: PLC0415 - brings Optuna

    assert cell.search is not None
    found = standing(results, cell)
    return 0 if found.state in ("done", "failed") else cell.search.trials - found.trials


def _cells_by_run(grid: Grid, results: Path) -> dict[str, Cell]:
    from cider_platform.grids.states import cell_specs  # noqa: PLC0415

    return {spec.run_id: cell for cell in grid.cells for spec in cell_specs(results, cell)}


class _Builder:
    def __init__(self, results: Path, slot: Slot, history: History) -> None:
        self._results, self._slot, self._history = results, slot, history
        self._after: tuple[str, ...] = ()
        self._first = 0
        """Number of the first item of this stage."""
        self.load = Workload()

    def stage(self) -> None:
        """Begin a stage: it waits for all of the last one, and for Ray."""
        name = f"stage-{len(self.load.work)}"
        last = tuple(each.id for each in self.load.work[self._first :])
        self._add(name, "stage", (SESSION_SECONDS,), last or self._after, holds=False)
        self._after, self._first = (name,), len(self.load.work)

    def search(self, cell: Cell, trials: int) -> None:
        """Add the trials that a search has left."""
        self.load.searches += 1
        self.load.trials += trials
        found = self._training(cell.spec.to_dict(), cell)
        if found is None:
            return
        self.stage()
        for number in range(trials):
            self._add(f"trial-{cell.id}-{number}", "trial", found.seconds, self._after)
        self.load.bases[found.basis] += trials

    def run(
        self, run: str, spec: Mapping[str, Any], conditions: Sequence[Condition], cell: Cell
    ) -> None:
        """Add a run that is to be trained, evaluated or both."""
        self.load.runs += 1
        folder = RunFolder.of(self._results, run)
        left = [
            each
            for each in conditions
            if not folder.evaluation_file(evaluation_name(each)).is_file()
        ]
        if folder.state == "COMPLETE":
            self._item(run, None, self._evaluation(spec, cell, len(left)))
            return
        training = self._training(spec, cell)
        if training is not None:
            self._item(run, training, self._evaluation(spec, cell, len(left)))

    def later(self, cell: Cell) -> None:
        """Add the runs that a search has yet to find, one per final seed."""
        self.load.later += len(cell.seeds)
        spec = cell.spec.to_dict()
        training = self._training(spec, cell)
        if training is None:
            return
        tested = self._evaluation(spec, cell, len(cell.conditions))
        for seed in cell.seeds:
            self._item(f"{cell.id}-{seed}", training, tested)

    def _training(self, spec: Mapping[str, Any], cell: Cell) -> Estimate | None:
        return self._known(
            spec,
            cell,
            lambda searched: self._history.training(
                spec, device=self._slot.device, threads=self._slot.cpus, searched=searched
            ),
        )

    def _evaluation(self, spec: Mapping[str, Any], cell: Cell, conditions: int) -> Estimate | None:
        return self._known(
            spec,
            cell,
            lambda searched: self._history.evaluation(
                spec,
                conditions=conditions,
                device=self._slot.device,
                threads=self._slot.cpus,
                searched=searched,
            ),
        )

    def _known(
        self, spec: Mapping[str, Any], cell: Cell, ask: Callable[[Collection[str]], Estimate | None]
    ) -> Estimate | None:
        """Return what is known of the very shape, else of all that the search could choose."""
        searched = searched_fields(cell)
        found = ask(()) or (ask(searched) if searched else None)
        if found is None:
            self.load.unknown.setdefault(shape_of(spec, searched), cell)
        return found

    def _item(self, run: str, training: Estimate | None, tested: Estimate | None) -> None:
        if tested is None:
            return
        seconds = tested.seconds
        basis = tested.basis
        if training is not None:
            # Training is what varies; every past one is followed by a usual evaluation.
            seconds = tuple(each + mean(tested.seconds) for each in training.seconds)
            basis = training.basis
        self._add(f"run-{run}", "run", seconds, self._after)
        self.load.bases[basis] += 1

    def _add(
        self,
        name: str,
        kind: str,
        seconds: tuple[float, ...],
        after: tuple[str, ...],
        *,
        holds: bool = True,
    ) -> None:
        self.load.work.append(
            Work(
                id=name,
                kind=kind,
                seconds=seconds,
                cpus=self._slot.cpus if holds else 0.0,
                gpus=self._slot.gpus if holds else 0.0,
                after=after,
                pool=self._after[0] if holds else "",
            )
        )
