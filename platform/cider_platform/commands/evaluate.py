"""``evaluate``: finished runs under missing data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import (
    Device,
    Json,
    Rates,
    Results,
    Store,
    Threads,
    build_runtime,
)

if TYPE_CHECKING:
    from cider.condition import Condition
    from cider_platform.results import RunRecord

Runs = Annotated[
    list[str], typer.Argument(help="Ids of runs, or the beginnings of them.", metavar="RUN...")
]
Protocols = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PROTOCOL",
        help="Missing protocol; may be given many times, or several with commas; default: the "
        "run's own.",
        show_default=False,
    ),
]
KeptSets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODALITIES",
        help="smm only: what stays: L, A, V, LA, LV or AV; several with commas; default: all six.",
        show_default=False,
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help="The published conditions: every protocol the data allows at every rate, and all "
        "kept sets of smm.",
    ),
]
Memory = Annotated[
    int,
    typer.Option(
        metavar="MIB",
        min=1,
        help="About what the rows that are read together may hold; changes only the rounding of "
        "last digits.",
    ),
]
MEMORY_MIB = 512
"""``cider.training.robustness.MEMORY_MIB``, which imports torch; a test compares them."""


def evaluate(
    run: Runs,
    missing: Protocols = None,
    rates: Rates = "0:1:0.1",
    kept: KeptSets = None,
    full: Full = False,
    memory: Memory = MEMORY_MIB,
    store: Store = None,
    results: Results = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Evaluate finished runs on the sealed test split under missing data.

    All conditions of a run are evaluated in one pass over the data; tau is chosen on validation
    under the same condition. Predictions are stored beside the metrics.

    What was evaluated before is read, not computed again.

    Example: cider-platform evaluate 3fa9 --missing rmfm --rates 0:1:0.1
    """
    from dataclasses import replace

    from cider.data.seal import permit_for_frozen_run
    from cider_platform.output import emit_json, progress_bar
    from cider_platform.results import find_run
    from cider_platform.runs.evaluation import evaluate_run
    from cider_platform.runs.rates import parse_rates

    wanted = parse_rates(rates)
    runtime = replace(build_runtime(store, results, device, threads), memory_mib=memory)
    records = [find_run(runtime.results, each) for each in dict.fromkeys(run)]
    # All that can be refused is refused before the first evaluation begins.
    asked = [_conditions(each, missing, wanted, kept, full=full) for each in records]
    for record in records:
        permit_for_frozen_run(record.folder.root)
    found = []
    for record, conditions in zip(records, asked, strict=True):
        with progress_bar() as advance:
            rows = evaluate_run(record.folder, runtime, conditions, advance)
        found.append(_report(record, rows))
        if not json:
            _print(found[-1], record)
    if json and len(found) > 1:
        emit_json("evaluations", found)
    elif json:
        emit_json("evaluate", found[0])


def _conditions(
    record: RunRecord,
    missing: list[str] | None,
    rates: list[float],
    kept: list[str] | None,
    *,
    full: bool,
) -> list[Condition]:
    from cider.errors import UsageError
    from cider_platform.runs.conditions import asked_conditions, full_conditions

    protocols, sets = _split(missing), _split(kept)
    if not full:
        return asked_conditions(record.spec, protocols, rates, sets)
    if protocols or sets:
        raise UsageError("--full names every protocol and kept set; leave out --missing and --kept")
    return full_conditions(record.spec.get("data", {}).get("alignment", "unaligned"), rates)


def _split(texts: list[str] | None) -> list[str]:
    """Return the names in options that may be given many times, or several with commas."""
    return [name for text in texts or [] for name in text.split(",") if name]


def _report(record: RunRecord, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from cider_platform.runs.evaluation import areas_by_protocol

    areas = areas_by_protocol(rows)
    protocols = {row["protocol"] for row in rows}
    return {
        **record.summary(),
        "evaluations": rows,
        # Of the one protocol there is: what an evaluation of several has stands in the next field.
        "auilc": next(iter(areas.values()), {}) if len(protocols) == 1 else {},
        "auilc_by_protocol": areas,
    }


def _print(data: dict[str, Any], record: RunRecord) -> None:
    from cider_platform.output import emit_table, say
    from cider_platform.tables import evaluation_table, number, title

    columns, cells = evaluation_table(data["evaluations"])
    emit_table(columns, cells, title=title(f"run {data['run']}", data["marks"]), right=columns[1:])
    for protocol, areas in data["auilc_by_protocol"].items():
        emit_table(
            [f"AUILC of {protocol} over these rates", "test"],
            [[name, number(value)] for name, value in areas.items()],
            right=["test"],
        )
    say(f"files: {record.folder.evaluation} and {record.folder.predictions}")
