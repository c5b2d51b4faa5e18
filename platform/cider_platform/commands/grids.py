"""``run``, ``status`` and ``cancel``: a grid from a job file, what has become of it, its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cider.errors import CiderError

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Address, Json, Results, Store  # noqa: TC001

if TYPE_CHECKING:
    from pathlib import Path

    from cider_platform.grids.driver import How, Outcome
    from cider_platform.grids.grid import Grid
    from cider_platform.grids.job import Job
    from cider_platform.runs.trial import Runtime

JobName = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="A job of the program, e.g. smoke, or a path that ends with .toml."
    ),
]
GridName = Annotated[
    str,
    typer.Argument(metavar="GRID", help="A grid's id, or the beginning of it, e.g. its job."),
]
AxisOption = Annotated[
    list[str] | None,
    typer.Option(
        "--axis",
        metavar="NAME=VALUE,...",
        help="Narrow or replace an axis, or add one: dataset=mosi,mosei or seed=0:8 (8 not "
        "included); may be given many times.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="A field of every cell, e.g. training.epochs=3; may be given many times.",
        show_default=False,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="AXIS=VALUE,...",
        help="Only cells that fit, e.g. dataset=mosi; may be given many times.",
        show_default=False,
    ),
]


CopyTo = Annotated[
    str,
    typer.Option(
        metavar="URI",
        help="Copy finished runs to s3://BUCKET/FOLDER, gs://..., file:///...; those that are "
        "there are fetched first.",
        show_default=False,
    ),
]


def run(
    job: JobName,
    axis: AxisOption = None,
    settings: Settings = None,
    slots: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time; default: the job's, else as many as fit."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run, and run nothing.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Take up failed runs too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask on a terminal.")] = False,
    address: Address = "",
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda or auto; default: the job's.", show_default=False),
    ] = None,
    copy_to: CopyTo = "",
    store: Store = None,
    results: Results = None,
    json: Json = False,
) -> None:
    """Run a grid: train and evaluate what is missing of a job's cells, then print their table.

    The same command again runs only what is missing; a run that other grids have is theirs too.

    Exit code 100 says that some runs failed.

    Example: cider-platform run smoke --axis seed=0:2
    """
    from cider_platform.commands.grid_display import describe
    from cider_platform.grids.cells import expand
    from cider_platform.grids.grid import make_grid, store_grid
    from cider_platform.grids.job_files import find_job, read_document
    from cider_platform.grids.tasks import tasks_of
    from cider_platform.layout import GridFolder
    from cider_platform.output import say
    from cider_platform.roots import results_root, store_root

    name, document = read_document(find_job(job))
    wanted_job = read_job_with(name, document, axis, settings)
    if dry_run:  # counts need no corpus; what is done already does
        cells = expand(wanted_job)
        runs = sum(len(cell.seeds) for cell in cells)
        say(f"job {name}: {len(cells)} cells with {runs} runs in all")
    roots = store_root(store), results_root(results)
    grid = make_grid(wanted_job, roots[0])
    missing = tasks_of(grid, roots[1], retry_failed=retry_failed)
    searches = open_searches(grid, roots[1])
    say(describe(grid, missing, searches, roots[1]))
    if dry_run:
        _print_cells(grid, roots[1], as_json=json)
        return
    outcome = None
    if missing or searches:
        confirm(yes)
        outcome = _drive(
            grid, wanted_job, roots, slots=slots, device=device, address=address,
            retry_failed=retry_failed, copy_to=copy_to,
        )  # fmt: skip
    else:
        store_grid(grid, GridFolder.of(roots[1], grid.id))  # so that status knows it
    _conclude(grid, roots[1], outcome, as_json=json)


def read_job_with(
    name: str, document: dict[str, object], axis: list[str] | None, settings: list[str] | None
) -> Job:
    """Return the job of a document and the command line."""
    from cider_platform.grids.job import read_job

    return read_job(name, document, axes=axis or (), settings=settings or ())


def open_searches(grid: Grid, results: Path) -> int:
    """Return how many searches of a grid are not over; refuses a search that cannot be begun."""
    from cider_platform.execution.capacity import Slots

    cells = [cell for cell in grid.cells if cell.search is not None]
    if not cells:
        return 0
    from cider_platform.grids.searches import search_plan, standing

    for cell in cells:
        search_plan(cell, Slots(slots=1, cpus_per_trial=1, gpus_per_trial=0.0), 1.0)
    return sum(standing(results, cell).state not in ("done", "failed") for cell in cells)


def confirm(yes: bool) -> None:
    """Ask on a terminal whether to go on, unless that was answered."""
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        typer.confirm("run this now?", default=True, abort=True, err=True)


def _drive(
    grid: Grid,
    job: Job,
    roots: tuple[Path, Path],
    *,
    slots: int | None,
    device: str | None,
    address: str,
    retry_failed: bool,
    copy_to: str,
) -> Outcome:
    from cider_platform.commands.grid_display import Lines
    from cider_platform.grids.driver import drive_grid
    from cider_platform.runs.trial import resolve, train_run

    runtime, how = how_to_run(
        job, roots, slots=slots, device=device, address=address, retry_failed=retry_failed,
        copy_to=copy_to,
    )  # fmt: skip
    return drive_grid(grid, runtime, how, train=train_run, resolve=resolve, listener=Lines())


def how_to_run(
    job: Job,
    roots: tuple[Path, Path],
    *,
    slots: int | None = None,
    device: str | None = None,
    address: str = "",
    retry_failed: bool = False,
    copy_to: str = "",
) -> tuple[Runtime, How]:
    """Return where and how a job's runs execute: the command line first, then the job.

    Args:
        job: its ``[execution]`` counts.
        roots: of stores and results.
        slots: runs at a time; None is the job's.
        device: None is the job's.
        address: of a cluster that runs already; its GPUs are not this machine's to count.
        retry_failed: True takes up failed runs too.
        copy_to: URI for copies; empty is none. No job file says it: it could be a stranger's.

    Raises:
        UsageError: if the device is not there, not even one run fits, or a cluster is named and
            no slots.
    """
    import torch

    from cider_platform.execution.capacity import choose_slots, cluster_slots
    from cider_platform.grids.driver import How
    from cider_platform.runs.trial import Runtime

    asked = job.execution
    device = device or asked.device
    if device == "auto":
        on_gpu = bool(asked.gpus_per_run) if address else torch.cuda.is_available()
        device = "cuda" if on_gpu else "cpu"
    runtime = Runtime(*roots, device, asked.threads)
    if address:
        chosen = cluster_slots(
            address,
            device,
            slots=slots or asked.slots,
            cpus_per_trial=asked.threads,
            gpus_per_trial=asked.gpus_per_run,
            or_in="slots in [execution]",
        )
    else:
        assert runtime.torch_device
        chosen = choose_slots(
            device,
            slots=slots or asked.slots,
            cpus_per_trial=asked.threads,
            # Runs of a grid differ too much in memory for one measured share to do for all.
            gpus_per_trial=(asked.gpus_per_run or 1.0) if device == "cuda" else None,
            num_gpus=torch.cuda.device_count(),
        )
    return runtime, How(
        slots=chosen,
        progress_timeout=asked.progress_timeout,
        copy_to=copy_to,
        retry_failed=retry_failed,
        address=address,
    )


def _conclude(grid: Grid, results: Path, outcome: Outcome | None, *, as_json: bool) -> None:
    from cider_platform.commands.grid_display import print_rows, summary
    from cider_platform.grids.states import cell_states
    from cider_platform.grids.table import result_rows
    from cider_platform.output import emit_json, say, warn

    stopped = outcome is not None and outcome.signal_number is not None
    states = cell_states(grid, results)
    rows = result_rows(grid, results)
    if as_json:
        data = {
            "grid": grid.id,
            "job": grid.job,
            "ran": 0 if outcome is None else outcome.ran,
            "seconds": 0.0 if outcome is None else round(outcome.seconds, 3),
            "cells": [state.to_dict() for state in states],
            "rows": [row.to_dict() for row in rows],
        }
        emit_json("run", data)
    elif rows and not stopped:
        print_rows(grid, rows)
    say(summary(grid, states, outcome))
    if outcome is not None and outcome.signal_number is not None:
        say("stopped; the same command goes on from the running runs' checkpoints")
        raise typer.Exit(128 + outcome.signal_number)
    failed = [state for state in states if state.state == "failed"]
    if failed or (outcome is not None and outcome.failed):
        first = next((run.error for state in failed for run in state.runs if run.error), "")
        first = first or next((state.error for state in failed if state.error), "")
        first = first or (outcome.errors[0] if outcome is not None and outcome.errors else "")
        warn(f"{len(failed)} of {len(states)} cells failed; {first}; --retry-failed takes them up")
        raise typer.Exit(100)
    if outcome is not None and outcome.uncopied:
        raise CiderError(outcome.uncopied)


def _print_cells(grid: Grid, results: Path, *, as_json: bool) -> None:
    from cider_platform.commands.grid_display import print_states
    from cider_platform.grids.states import cell_states
    from cider_platform.output import emit_json

    states = cell_states(grid, results)
    if as_json:
        cells = [state.to_dict() for state in states]
        emit_json("grid", {"grid": grid.id, "job": grid.job, "cells": cells})
    else:
        print_states(grid, states)


def status(
    grid: GridName,
    where: Where = None,
    state: Annotated[
        str | None,
        typer.Option(
            metavar="STATE,...",
            help="Only cells that are done, running, waiting, stopped or failed.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again whenever something changes.")
    ] = False,
    results: Results = None,
    json: Json = False,
) -> None:
    """Show what has become of a grid's cells and runs; reading changes nothing.

    Example: cider-platform status smoke --where distribution=ood --state failed
    """
    from cider_platform.commands.grid_display import show_status
    from cider_platform.roots import results_root

    filters = [*(where or []), *([f"state={state}"] if state else [])]
    show_status(results_root(results), grid, filters, watch=watch, as_json=json)


def cancel(grid: GridName, results: Results = None) -> None:
    """Stop the command that runs a grid, on this machine or another; nothing that is done is lost.

    The same run command goes on from the checkpoints.
    """
    import time

    from cider.errors import NothingMatchedError
    from cider_platform.grids.grid import find_grid
    from cider_platform.grids.stopping import ask_to_stop
    from cider_platform.lease import has_living_owner
    from cider_platform.output import say
    from cider_platform.roots import results_root

    folder = find_grid(results_root(results), grid)
    if not has_living_owner(folder.lease):
        raise NothingMatchedError(f"no command runs grid {folder.grid_id} now")
    ask_to_stop(folder)
    deadline = time.monotonic() + 60
    while has_living_owner(folder.lease):
        if time.monotonic() > deadline:
            raise CiderError(
                f"grid {folder.grid_id} was asked to stop a minute ago and still runs; see its "
                f"log, {folder.log}"
            )
        time.sleep(0.2)
    say(f"grid {folder.grid_id} has stopped; run its job again to go on")
