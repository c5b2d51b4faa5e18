"""``evaluate``: a finished run under missing data."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations
from typing import Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import (
    Device,
    Json,
    Kept,
    Rates,
    Results,
    Store,
    Threads,
    build_runtime,
)
from cider_platform.commands.runs import Run  # noqa: TC001


def evaluate(
    run: Run,
    missing: Annotated[
        str, typer.Option(metavar="PROTOCOL", help="Missing protocol; default: the run's own.")
    ] = "",
    rates: Rates = "0:1:0.1",
    kept: Kept = "",
    store: Store = None,
    results: Results = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Evaluate a finished run on the sealed test split under missing data.

    Tau is chosen on validation under the same condition.

    What was evaluated before is read, not computed again.

    Example: cider-platform evaluate 3fa9 --missing rmfm --rates 0:1:0.1
    """
    from cider_platform.conditions import conditions_of
    from cider_platform.evaluation import areas, evaluate_run
    from cider_platform.output import emit_json, progress_bar
    from cider_platform.rates import parse_rates
    from cider_platform.results import find_run

    wanted = parse_rates(rates)
    runtime = build_runtime(store, results, device, threads)
    record = find_run(runtime.results, run)
    own = record.spec.get("missing", {})
    protocol = missing or str(own.get("protocol", "rmfm"))
    if not missing and not kept:
        kept = str(own.get("kept", ""))
    conditions = conditions_of(protocol, wanted, kept)
    with progress_bar() as advance:
        done = [0]

        def count(_: object) -> None:
            done[0] += 1
            if advance is not None:
                advance("evaluating", done[0], len(conditions))

        rows = evaluate_run(record.folder, runtime, conditions, count)
    data = {**record.summary(), "evaluations": rows, "auilc": areas(rows)}
    if json:
        emit_json("evaluate", data)
    else:
        _print(data, record.folder.evaluation)


def _print(data: dict[str, object], folder: Path) -> None:
    from cider_platform.output import emit_table, say
    from cider_platform.tables import evaluation_table, number, title

    rows, areas, marks = data["evaluations"], data["auilc"], data["marks"]
    assert isinstance(rows, list)
    assert isinstance(areas, dict)
    assert isinstance(marks, list)
    columns, cells = evaluation_table(rows)
    emit_table(columns, cells, title=title(f"run {data['run']}", marks), right=columns[1:])
    if areas:
        emit_table(
            ["AUILC over these rates", "test"],
            [[name, number(value)] for name, value in areas.items()],
            right=["test"],
        )
    say(f"files: {folder}")
