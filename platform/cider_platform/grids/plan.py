"""What a grid would take before anything of it is spent: runs, hours, wall time, cost.

The scheduler is simulated (``simulate``) on the grid's items (``workload``) with durations of past
runs (``estimates``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from cider.errors import UsageError
from cider_platform.grids.simulate import Cluster, Forecast, Node, Simulation, quantile
from cider_platform.grids.states import cell_specs, run_state
from cider_platform.grids.workload import Slot, workload_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cider.spec import RunSpec
    from cider_platform.grids.cells import Cell
    from cider_platform.grids.estimates import History
    from cider_platform.grids.grid import Grid

COLD_SECONDS = 4.0
"""Until a new worker process has imported torch: measured by hand on a quiet machine of two cores;
benchmarks/plan_accuracy.py checks."""
WARM_SECONDS = 0.1
"""Until a worker has begun the next run, which was handed out when the last one ended; likewise."""
UNKNOWN = "unknown: no past run of this shape; run with --calibrate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What is to be done, and what it would take; times are None if a shape is unknown."""

    grid: str
    cells: int
    runs: int
    """Distinct runs of all cells; those that a search has yet to find count with its seeds."""
    done: int
    to_do: int
    failed: int
    """Failed before and not taken up again without ``--retry-failed``."""
    searches: int
    trials: int
    """Trials to do in searches."""
    run_p50_seconds: float | None
    run_p90_seconds: float | None
    """One run with its evaluation, over runs and draws."""
    forecast: Forecast | None
    cost_p50_usd: float | None
    cost_p90_usd: float | None
    bases: dict[str, int]
    """What durations come from -> items."""
    unknown: tuple[Cell, ...]
    """A cell of every shape that nothing is known of."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        values = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("forecast", "unknown")
        }
        values["forecast"] = None if self.forecast is None else asdict(self.forecast)
        values["unknown"] = [cell.name for cell in self.unknown]
        return values


def what_if(text: str, slot: Slot) -> tuple[Node, ...]:
    """Return the nodes that ``--what-if`` describes.

    Args:
        text: ``nodes=8,gpus=4,cpus=32``, the last two per node; what is absent is one node, no GPU,
            and as many CPUs as the runs on a node's GPUs hold.
        slot: what one run holds.

    Raises:
        UsageError: for another key, or a value that is no number that fits.
    """
    found = _numbers(text)
    cpus = found["cpus"] or (int(found["gpus"] / slot.gpus) * slot.cpus if slot.gpus else 0)
    if not found["nodes"] or not cpus:
        raise UsageError(
            f"--what-if {text} describes a cluster without a CPU to run on; add cpus=N per node"
        )
    return (Node(cpus=cpus, gpus=found["gpus"]),) * found["nodes"]


def has_gpus(text: str) -> bool:
    """Return whether a cluster that ``--what-if`` describes has GPUs."""
    return _numbers(text)["gpus"] > 0


def _numbers(text: str) -> dict[str, int]:
    found = {"nodes": 1, "gpus": 0, "cpus": 0}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in found or not value.isdecimal() or len(value) > 6:
            raise UsageError(
                "--what-if must be nodes=N,gpus=N,cpus=N with whole numbers, the last two per "
                f"node, e.g. nodes=8,gpus=4,cpus=32; got {text!r}"
            )
        found[name] = int(value)
    return found


def plan_grid(
    grid: Grid,
    results: Path,
    cluster: Cluster,
    slot: Slot,
    history: History,
    *,
    price: float | None = None,
    retry_failed: bool = False,
    seed: int = 0,
) -> Planned:
    """Return what is left of a grid and what it would take on a cluster.

    Args:
        grid: the resolved cells.
        results: root of runs and studies.
        cluster: what it would run on; its start-up times are filled in here.
        slot: what one run holds.
        history: what past runs took.
        price: USD per GPU-hour; the whole cluster is paid for the whole wall time.
        retry_failed: True counts failed runs in.
        seed: of the simulation.

    Raises:
        UsageError: if a run does not fit on any node, or a price is given without GPUs.
    """
    if price is not None and not (price >= 0 and cluster.gpus):
        raise UsageError(
            f"--price is in USD per GPU-hour, at least 0, for a cluster with GPUs; got {price:g} "
            f"with {cluster.gpus} GPUs"
        )
    load = workload_of(grid, results, slot, history, retry_failed=retry_failed)
    forecast = None
    if not load.unknown:
        ready = replace(cluster, cold_seconds=COLD_SECONDS, warm_seconds=WARM_SECONDS)
        forecast = Simulation(load.work, ready).forecast(seed=seed)
    seconds = [each for item in load.work if item.kind == "run" for each in item.seconds]
    states = [
        run_state(results, spec.run_id, spec.seed, cell.conditions).state
        for spec, cell in _known_runs(grid, results)
    ]
    told = bool(seconds and forecast)
    cost = None if price is None else price * cluster.gpus / 3600
    return Planned(
        grid=grid.id,
        cells=len(grid.cells),
        runs=len(states) + load.later,
        done=states.count("done"),
        to_do=load.runs + load.later,
        failed=0 if retry_failed else states.count("failed"),
        searches=load.searches,
        trials=load.trials,
        run_p50_seconds=quantile(seconds, 0.5) if told else None,
        run_p90_seconds=quantile(seconds, 0.9) if told else None,
        forecast=forecast,
        cost_p50_usd=cost * forecast.wall_p50_seconds if cost is not None and forecast else None,
        cost_p90_usd=cost * forecast.wall_p90_seconds if cost is not None and forecast else None,
        bases=dict(load.bases),
        unknown=tuple(load.unknown.values()),
    )


def _known_runs(grid: Grid, results: Path) -> Iterator[tuple[RunSpec, Cell]]:
    """Yield every distinct run that is known by now."""
    seen = set()
    for cell in grid.cells:
        for spec in cell_specs(results, cell):
            if spec.run_id not in seen:
                seen.add(spec.run_id)
                yield spec, cell
