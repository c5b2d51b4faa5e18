"""``evaluate-runs``: many finished runs under missing data, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import (  # noqa: TC001
    Address,
    Device,
    Json,
    Kept,
    Rates,
    Results,
    Store,
)

if TYPE_CHECKING:
    from cider_platform.results import RunRecord


def evaluate_runs(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs by the beginnings of their ids, or all."),
    ],
    missing: Annotated[
        str,
        typer.Option(
            metavar="PROTOCOL,...",
            help="Missing protocols; default: each run's own.",
            show_default=False,
        ),
    ] = "",
    rates: Rates = "0:1:0.1",
    kept: Kept = "",
    slots: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; default: as many as fit.")
    ] = None,
    address: Address = "",
    store: Store = None,
    results: Results = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Evaluate many finished runs on the sealed test split under missing data, several at a time.

    What was evaluated before is not evaluated again. Exit code 100 says that some runs failed.

    Example: cider-platform evaluate-runs all --missing rmfm,rmm --rates 0:1:0.1
    """
    from cider_platform.commands.options import build_runtime
    from cider_platform.output import emit_json, say, warn
    from cider_platform.runs.batch_evaluation import (
        evaluate_tasks,
        evaluation_tasks,
        rows_of,
        select_runs,
    )
    from cider_platform.runs.rates import parse_rates

    runtime = build_runtime(store, results, device, 1, address=address)
    records = select_runs(runtime.results, runs)
    protocols = [each for each in missing.split(",") if each]
    tasks = evaluation_tasks(records, protocols, parse_rates(rates), kept)
    todo = [task for task in tasks if rows_of(runtime.results, task) is None]
    say(f"{len(tasks)} runs, {len(todo)} of them to evaluate, in {runtime.results}")
    failed = evaluate_tasks(todo, runtime, slots=slots, address=address, tell=say) if todo else {}
    data: list[dict[str, Any]] = [
        {
            "run": task.run,
            "error": failed.get(task.run),
            "evaluations": rows_of(runtime.results, task) or [],
        }
        for task in tasks
    ]
    if json:
        emit_json("evaluate-runs", data)
    else:
        for record, each in zip(records, data, strict=True):
            _print(record, each["evaluations"])
    if failed:
        warn(f"{len(failed)} of {len(tasks)} runs failed; {next(iter(failed.values()))}")
        raise typer.Exit(100)


def _print(record: RunRecord, rows: list[dict[str, Any]]) -> None:
    from cider_platform.output import emit_table
    from cider_platform.tables import evaluation_table, title

    if rows:
        columns, cells = evaluation_table(rows)
        heading = title(f"run {record.run_id}", record.marks)
        emit_table(columns, cells, title=heading, right=columns[1:])
