"""The searches of a grid: each cell's study, what has become of it, and what its best is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from cider.errors import CiderError, NothingMatchedError, UsageError
from cider_platform.layout import StudyFolder
from cider_platform.lease import has_living_owner
from cider_platform.progress import FINISHED
from cider_platform.search.driver import Plan
from cider_platform.search.ledger import best
from cider_platform.search.objectives import directions, parse_objectives
from cider_platform.search.pruning import pruner_definition
from cider_platform.search.space import apply, parse_axis
from cider_platform.search.study import define, read_study

if TYPE_CHECKING:
    from pathlib import Path

    from cider.spec import RunSpec
    from cider_platform.execution.capacity import Slots
    from cider_platform.grids.cells import Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far the search of a cell is."""

    state: Literal["running", "waiting", "stopped", "failed", "done"]
    trials: int
    """Finished trials."""
    specs: tuple[RunSpec, ...] | None = None
    """The best configuration on the final seeds, once the search has its total."""
    error: str = ""


def standing(results: Path, cell: Cell) -> Standing:
    """Return how far the search of a cell is, changing nothing."""
    assert cell.search is not None
    folder = StudyFolder.of(results, cell.study)
    running = has_living_owner(folder.lease)
    try:
        definition, trials = read_study(results, cell.study)
    except NothingMatchedError:
        return Standing(state="running" if running else "waiting", trials=0)
    finished = [trial for trial in trials if trial.state in FINISHED]
    if len(finished) < cell.search.trials:
        state: Literal["running", "stopped"] = "running" if running else "stopped"
        return Standing(state=state, trials=len(finished))
    # A longer search of the same cell may have more: only its own trials count.
    mine = [trial for trial in finished if trial.number < cell.search.trials]
    objectives = tuple(definition["objectives"])
    found = best(mine, minimise=directions(objectives)[0] == "minimize")
    if found is None:
        error = f"no trial of study {cell.study} has a score"
        return Standing(state="failed", trials=len(finished), error=error)
    try:
        spec = apply(cell.spec, found.params)
    except CiderError as problem:
        return Standing(state="failed", trials=len(finished), error=str(problem))
    specs = tuple(replace(spec, seed=seed) for seed in cell.seeds)
    return Standing(state="done", trials=len(finished), specs=specs)


def search_plan(cell: Cell, slots: Slots, progress_timeout: float) -> Plan:
    """Return the search of a cell as ``driver.drive`` takes it.

    Raises:
        UsageError: for an unknown sampler, pruner or objective, or ones that do not go together.
    """
    block = cell.search
    assert block is not None
    if block.sampler == "grid":
        raise UsageError(
            "search.sampler grid tries every point once; make the fields axes of the job instead"
        )
    objectives = parse_objectives(list(block.objective), cell.spec)
    plan = Plan(
        study=cell.study,
        spec=cell.spec,
        space=tuple(map(parse_axis, block.space)),
        total=block.trials,
        progress_timeout=progress_timeout,
        sampler=block.sampler,
        pruner=pruner_definition(block.pruner, cell.spec.training.epochs, block.grace),
        objectives=tuple(each.name for each in objectives),
        slots=slots,
    )
    if any(axis.path == "text_encoder.source" for axis in plan.space):
        raise UsageError(
            "search.space has text_encoder.source; make encoder an axis of the job instead"
        )
    # Refuses parts that do not go together, before the first search begins.
    define(plan.spec, plan.space, sampler=plan.sampler, pruner=plan.pruner,
           objectives=plan.objectives)  # fmt: skip
    return plan
