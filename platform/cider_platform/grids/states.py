"""What has become of a grid's cells: read from run folders and studies, and from nowhere else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from cider.errors import CiderError
from cider_platform.layout import RunFolder, read_json
from cider_platform.lease import has_living_owner
from cider_platform.runs.conditions import evaluation_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cider.condition import Condition
    from cider.spec import RunSpec
    from cider_platform.grids.cells import Cell
    from cider_platform.grids.grid import Grid

State = Literal["done", "running", "waiting", "stopped", "failed"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One run of a cell."""

    run: str
    seed: int
    state: State
    """``waiting``: not begun, or trained and not evaluated; ``stopped``: begun, and nobody trains
    it now."""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellState:
    """One cell: the worst that is to be said of its runs."""

    cell: Cell
    state: State
    runs: tuple[RunState, ...]
    trials: int | None = None
    """Finished trials of its search; None without a search."""
    error: str = ""

    @property
    def values(self) -> Mapping[str, str]:
        """Axis -> label."""
        return self.cell.values

    def counts(self) -> Counter[str]:
        """Return how many runs are in each state."""
        return Counter(run.state for run in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        found: dict[str, Any] = {
            "cell": self.cell.id,
            "values": dict(self.values),
            "state": self.state,
            "runs": [
                {"run": each.run, "seed": each.seed, "state": each.state,
                 "error": each.error or None}
                for each in self.runs
            ],
            "error": self.error or None,
        }  # fmt: skip
        if self.cell.search is not None:
            found["search"] = {
                "study": self.cell.study,
                "trials": self.trials,
                "total": self.cell.search.trials,
            }
        return found


def run_state(results: Path, run: str, seed: int, conditions: Sequence[Condition]) -> RunState:
    """Return what has become of one run and its evaluations."""
    folder = RunFolder.of(results, run)
    error = ""
    try:
        status = folder.read_status()
        trained: str | None = status.get("state")
        if trained == "FAILED":
            error = str(status.get("error", ""))
        elif trained == "COMPLETE" and folder.evaluation_error.is_file():
            error = f"its evaluation failed: {read_json(folder.evaluation_error)['error']}"
    except (CiderError, OSError) as problem:
        return RunState(run=run, seed=seed, state="failed", error=str(problem))
    state: State
    if trained == "COMPLETE" and is_evaluated(folder, conditions):
        state, error = "done", ""
    elif trained is not None and has_living_owner(folder.lease):
        state, error = "running", ""
    elif error:
        state = "failed"
    else:
        state = "stopped" if trained == "RUNNING" else "waiting"
    return RunState(run=run, seed=seed, state=state, error=error)


def is_evaluated(folder: RunFolder, conditions: Sequence[Condition]) -> bool:
    """Return whether a run has been evaluated under all conditions."""
    return all(folder.evaluation_file(evaluation_name(each)).is_file() for each in conditions)


def cell_state(results: Path, cell: Cell) -> CellState:
    """Return what has become of a cell."""
    if cell.search is not None:
        return _searched(results, cell)
    runs = tuple(
        run_state(results, run, seed, cell.conditions)
        for run, seed in zip(cell.run_ids, cell.seeds, strict=True)
    )
    return CellState(cell=cell, state=_worst(runs), runs=runs)


def cell_states(grid: Grid, results: Path) -> list[CellState]:
    """Return what has become of every cell of a grid."""
    return [cell_state(results, cell) for cell in grid.cells]


def _searched(results: Path, cell: Cell) -> CellState:
    from cider_platform.grids.searches import standing  # noqa: PLC0415 - brings Optuna

    found = standing(results, cell)
    if found.specs is None:
        return CellState(
            cell=cell, state=found.state, runs=(), trials=found.trials, error=found.error
        )
    runs = tuple(
        run_state(results, spec.run_id, spec.seed, cell.conditions) for spec in found.specs
    )
    return CellState(cell=cell, state=_worst(runs), runs=runs, trials=found.trials)


def _worst(runs: Sequence[RunState]) -> State:
    states = {run.state for run in runs}
    if states == {"done"}:
        return "done"
    order: tuple[State, ...] = ("failed", "running", "stopped", "waiting")
    return next(state for state in order if state in states)


def cell_specs(results: Path, cell: Cell) -> Sequence[RunSpec]:
    """Return the specs of a cell's runs; none while its search goes on."""
    if cell.search is None:
        return cell.specs
    from cider_platform.grids.searches import standing  # noqa: PLC0415 - brings Optuna

    return standing(results, cell).specs or ()
