"""``submit``: hand a grid, or the evaluation of many runs, to a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.grids import AxisOption, CopyTo, Settings  # noqa: TC001
from cider_platform.commands.jobs import Address, finish
from cider_platform.commands.options import Json, Kept, Rates  # noqa: TC001

if TYPE_CHECKING:
    from cider_platform.submission.work import Work

EVALUATE = "evaluate"
"""In place of a job: evaluate runs that the cluster's results hold."""
_ALL_RATES = "0:1:0.1"


def submit(
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB",
            help="A job of the program, a path that ends with .toml, or the word evaluate.",
        ),
    ],
    axis: AxisOption = None,
    settings: Settings = None,
    run_prefixes: Annotated[
        str,
        typer.Option(
            "--runs",
            metavar="RUN,...",
            help="With evaluate: runs of the cluster's results by the beginnings of their ids, or "
            "all.",
            show_default=False,
        ),
    ] = "",
    missing: Annotated[
        str,
        typer.Option(
            metavar="PROTOCOL,...",
            help="With evaluate: missing protocols; default: each run's own.",
            show_default=False,
        ),
    ] = "",
    rates: Rates = _ALL_RATES,
    kept: Kept = "",
    address: Address = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it has ended; exit as it did.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the cluster would run; send nothing.")
    ] = False,
    priority: Annotated[
        int, typer.Option(help="Higher is sooner, -1000 to 1000; equals in order of submission.")
    ] = 0,
    max_concurrent: Annotated[
        int,
        typer.Option(help="Start only while fewer submissions run on the cluster; wait till then."),
    ] = 4,
    slots: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time on the cluster; default: the job's."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Take up failed runs too.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda or auto; default: the job's.", show_default=False),
    ] = None,
    store: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Feature stores on the cluster; default: CIDER_STORE there.",
            show_default=False,
        ),
    ] = "",
    results: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Results on the cluster; default: CIDER_RESULTS there.",
            show_default=False,
        ),
    ] = "",
    copy_to: CopyTo = "",
    json: Json = False,
) -> None:
    """Submit a grid to a Ray cluster: the code and the job file go there, nothing large does.

    The cluster goes on without this terminal. The same command again attaches to the grid if it is
    being run, and takes it up where it is if its driver was killed.

    Example: cider-platform submit smoke --slots 2 --address http://127.0.0.1:8265 --wait
    """
    import shlex

    from cider.errors import CiderError
    from cider_platform.output import emit_line
    from cider_platform.runs.copies import check_uri
    from cider_platform.submission.access import find_access
    from cider_platform.submission.work import evaluation_work, grid_work

    common = _execution(device, store, results)
    work: Work
    if job == EVALUATE:
        _refuse(
            "with evaluate", axis=axis, set=settings, retry_failed=retry_failed, copy_to=copy_to
        )
        work = evaluation_work(
            run_prefixes, missing, rates, kept, [*common, f"--slots={slots or 1}"]
        )
    else:
        given = rates if rates != _ALL_RATES else ""
        _refuse("with a job", runs=run_prefixes, missing=missing, rates=given, kept=kept)
        words = [*common, "--retry-failed"] if retry_failed else common
        words = [*words, f"--copy-to={check_uri(copy_to)}"] if copy_to else words
        work = grid_work(job, axis or (), settings or (), words, slots)
    if dry_run:
        emit_line(shlex.join(["cider-platform", *work.arguments]))
        return
    access = find_access(address)
    from cider_platform.submission.client import JobServer

    server = JobServer(access)
    attempt, living = server.next_attempt(work.key)
    order = work.order(attempt, priority=priority, most=max_concurrent)
    if living is None:
        try:
            server.send(order, work.key, work.name, work.job_file)
        except CiderError:
            # Another terminal may have sent the same attempt a moment before.
            living = server.next_attempt(work.key)[1]
            if living is None:
                raise
    finish(
        server,
        living.job if living is not None else order.job,
        attached=living is not None,
        wait=wait,
        as_json=json,
    )


def _execution(device: str | None, store: str, results: str) -> list[str]:
    """Return the words of options that say where and how; paths are the cluster's own."""
    from pathlib import PurePosixPath

    from cider.errors import UsageError

    for name, path in (("--store", store), ("--results", results)):
        if path and not PurePosixPath(path).is_absolute():
            raise UsageError(f"{name} must be an absolute path on the cluster, got {path!r}")
    if device not in (None, "cpu", "cuda", "auto"):
        raise UsageError(f"--device must be cpu, cuda or auto, got {device!r}")
    found = {
        "--device": device, "--store": store or None, "--results": results or None
    }  # fmt: skip
    return [f"{name}={value}" for name, value in found.items() if value is not None]


def _refuse(where: str, **options: object) -> None:
    from cider.errors import UsageError

    for name, value in options.items():
        if value:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} has no meaning {where}; leave it out")
