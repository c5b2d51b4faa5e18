"""``plan``: what a grid would take, before anything is spent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.grids import AxisOption, JobName, Settings  # noqa: TC001
from cider_platform.commands.options import Json, Results, Store  # noqa: TC001

if TYPE_CHECKING:
    from pathlib import Path

    from cider_platform.grids.job import Job
    from cider_platform.grids.plan import Planned
    from cider_platform.grids.simulate import Cluster
    from cider_platform.grids.workload import Slot
    from cider_platform.runs.trial import Runtime


def plan(
    job: JobName,
    axis: AxisOption = None,
    settings: Settings = None,
    what_if: Annotated[
        str,
        typer.Option(
            "--what-if",
            metavar="nodes=N,gpus=N,cpus=N",
            help="A cluster to plan for, gpus and cpus per node; default: this machine.",
            show_default=False,
        ),
    ] = "",
    slots: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time; default: the job's, else as many as fit."),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            metavar="USD",
            help="USD per GPU-hour; the whole cluster is paid for while the grid runs.",
            show_default=False,
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Train a few steps here of every shape that no past run tells of.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Count failed runs in.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda or auto; default: the job's.", show_default=False),
    ] = None,
    store: Store = None,
    results: Results = None,
    json: Json = False,
) -> None:
    """Say what a grid would take: runs, GPU-hours, wall time at p50 and p90, cost. Runs nothing.

    Times come from past runs of the same shape in the results, by simulating the scheduler.

    Example: cider-platform plan smoke --what-if nodes=8,gpus=4,cpus=32 --price 2.50
    """
    from cider_platform.commands.grids import read_job_with
    from cider_platform.grids.estimates import History
    from cider_platform.grids.grid import make_grid
    from cider_platform.grids.job_files import find_job, read_document
    from cider_platform.grids.plan import plan_grid
    from cider_platform.output import emit_json
    from cider_platform.roots import results_root, store_root

    name, document = read_document(find_job(job))
    wanted = read_job_with(name, document, axis, settings)
    roots = store_root(store), results_root(results)
    runtime, cluster, slot = _where(wanted, roots, what_if, slots, device)
    grid = make_grid(wanted, roots[0])

    def made() -> Planned:
        history = History.read(roots[1])
        return plan_grid(
            grid, roots[1], cluster, slot, history, price=price, retry_failed=retry_failed
        )

    planned = made()
    if calibrate and planned.unknown:
        _calibrate(planned, runtime, slot)
        planned = made()
    data = {**planned.to_dict(), "cluster": _described(cluster, slot)}
    if json:
        emit_json("plan", data)
    else:
        _print(planned, cluster, slot)


def _where(
    job: Job, roots: tuple[Path, Path], text: str, slots: int | None, device: str | None
) -> tuple[Runtime, Cluster, Slot]:
    """Return where to calibrate, the cluster that is planned for, and what a run holds on it.

    This machine is looked at unless another cluster is described.
    """
    from cider_platform.commands.grids import how_to_run
    from cider_platform.execution.capacity import usable_cpus
    from cider_platform.grids.plan import has_gpus, what_if
    from cider_platform.grids.simulate import Cluster, Node
    from cider_platform.grids.workload import Slot
    from cider_platform.runs.trial import Runtime

    asked = job.execution
    if text:
        wanted = device or asked.device
        if wanted == "auto":
            wanted = "cuda" if has_gpus(text) else "cpu"
        share = (asked.gpus_per_run or 1.0) if wanted == "cuda" else 0.0
        slot = Slot(device=wanted, cpus=asked.threads, gpus=share)
        runtime = Runtime(*roots, wanted, asked.threads)
        return runtime, Cluster(nodes=what_if(text, slot), slots=slots or asked.slots), slot
    runtime, how = how_to_run(job, roots, slots=slots, device=device)
    held = how.slots
    slot = Slot(device=runtime.device, cpus=held.cpus_per_trial, gpus=held.gpus_per_trial)
    # The slots were fitted to this machine; more of them than it has cores are the user's wish.
    node = Node(cpus=max(usable_cpus(), held.cpus), gpus=math.ceil(held.slots * slot.gpus))
    return runtime, Cluster(nodes=(node,), slots=held.slots), slot


def _calibrate(planned: Planned, runtime: Runtime, slot: Slot) -> None:
    from cider.errors import UsageError
    from cider_platform.grids.calibrate import calibrate
    from cider_platform.grids.workload import searched_fields
    from cider_platform.output import say

    if runtime.torch_device.type != slot.device:
        raise UsageError(
            f"--calibrate trains here, and this machine has no {slot.device}; run it on a node of "
            "the cluster"
        )
    for number, cell in enumerate(planned.unknown, 1):
        measured = calibrate(cell.spec, runtime, searched=searched_fields(cell))
        say(
            f"calibrated {number} of {len(planned.unknown)}: an epoch of {cell.name} takes "
            f"{measured.seconds_per_epoch:.2f} s on {measured.hardware}"
        )


def _described(cluster: Cluster, slot: Slot) -> dict[str, object]:
    return {
        "nodes": len(cluster.nodes),
        "cpus": cluster.cpus,
        "gpus": cluster.gpus,
        "slots": cluster.slots,
        "device": slot.device,
        "cpus_per_run": slot.cpus,
        "gpus_per_run": slot.gpus,
    }


def _print(planned: Planned, cluster: Cluster, slot: Slot) -> None:
    from cider_platform.grids.plan import UNKNOWN
    from cider_platform.output import emit_table, say
    from cider_platform.tables import seconds

    def time(value: float | None) -> str:
        return "unknown" if value is None else seconds(value)

    forecast = planned.forecast
    held = f"{slot.cpus} CPUs" + (f", {slot.gpus:g} GPUs" if slot.gpus else "")
    nodes = f"{len(cluster.nodes)} node{'s' * (len(cluster.nodes) > 1)}"
    rows: list[list[object]] = [
        ["cells", planned.cells, ""],
        ["runs", f"{planned.runs}: {planned.done} done, {planned.to_do} to do", ""],
        ["cluster", f"{nodes}, {cluster.cpus:g} CPUs, {cluster.gpus} GPUs", ""],
        ["runs at a time", cluster.slots or "as many as fit", f"each {held}"],
        ["", "p50", "p90"],
        ["one run", time(planned.run_p50_seconds), time(planned.run_p90_seconds)],
    ]
    if planned.searches:
        rows.insert(2, ["searches", f"{planned.searches}, {planned.trials} trials to do", ""])
    if planned.failed:
        rows.insert(2, ["failed runs", f"{planned.failed}; --retry-failed counts them in", ""])
    if forecast is None:
        rows += [["wall time", "unknown", "unknown"]]
    else:
        rows += [
            ["wall time", time(forecast.wall_p50_seconds), time(forecast.wall_p90_seconds)],
            ["CPU-hours held", f"{forecast.cpu_hours_p50:.2f}", f"{forecast.cpu_hours_p90:.2f}"],
            ["GPU-hours held", f"{forecast.gpu_hours_p50:.2f}", f"{forecast.gpu_hours_p90:.2f}"],
            ["utilisation", f"{forecast.utilisation:.0%}", ""],
        ]
    if planned.cost_p50_usd is not None and planned.cost_p90_usd is not None:
        rows.append(["cost", f"{planned.cost_p50_usd:.2f} USD", f"{planned.cost_p90_usd:.2f} USD"])
    emit_table(["", "", ""], rows, title=f"plan of grid {planned.grid}")
    for basis, count in planned.bases.items():
        say(f"{count} durations from {basis}")
    for cell in planned.unknown:
        say(f"{cell.name}: {UNKNOWN}")
