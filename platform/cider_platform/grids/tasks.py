"""The work of a grid: which runs are to be trained or evaluated, each once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cider_platform.grids.states import cell_specs, run_state

if TYPE_CHECKING:
    from pathlib import Path

    from cider.condition import Condition
    from cider.spec import RunSpec
    from cider_platform.grids.grid import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A run that is to be trained and evaluated; cells that share it share the task."""

    number: int
    """Place in the grid's list of work."""
    run: str
    """The run's id, as the driver knows it."""
    spec: str
    """The resolved spec, JSON."""
    conditions: tuple[Condition, ...]
    """Of all cells that the run belongs to."""
    what: str
    """The grid and the cell, for the run's log and for messages."""


def tasks_of(grid: Grid, results: Path, *, retry_failed: bool) -> list[Task]:
    """Return the runs of a grid that are to be trained or evaluated, in the order of its cells.

    Args:
        grid: the cells; one whose search is not over has no runs yet.
        results: root of runs and studies.
        retry_failed: True takes up failed runs too.
    """
    found: dict[str, tuple[RunSpec, dict[Condition, None], str]] = {}
    for cell in grid.cells:
        for spec in cell_specs(results, cell):
            _, conditions, _ = found.setdefault(spec.run_id, (spec, {}, cell.name))
            conditions.update(dict.fromkeys(cell.conditions))
    tasks: list[Task] = []
    for run, (spec, conditions, name) in found.items():
        state = run_state(results, run, spec.seed, tuple(conditions)).state
        if state != "done" and (retry_failed or state != "failed"):
            tasks.append(
                Task(
                    number=len(tasks),
                    run=run,
                    spec=json.dumps(spec.to_dict()),
                    conditions=tuple(conditions),
                    what=f"grid {grid.id}: {name}, seed {spec.seed}",
                )
            )
    return tasks
