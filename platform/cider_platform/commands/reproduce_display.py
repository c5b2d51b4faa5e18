"""What a person sees of ``reproduce``: the plan, what cannot be run and why, ours beside theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cider_platform.commands.compare import print_comparison
from cider_platform.evidence.reproduce import beside_other_corpora
from cider_platform.grids.states import cell_states
from cider_platform.output import emit_line, emit_table, say, warn
from cider_platform.tables import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cider_platform.evidence.comparison import Comparison
    from cider_platform.evidence.reproduce import PaperGrid
    from cider_platform.grids.plan import Planned

_NUMBERS = "published numbers"


def named(made: PaperGrid) -> str:
    """Return the tables for people: ``table IV`` or ``tables IV, V``."""
    return ("table " if len(made.tables) == 1 else "tables ") + ", ".join(made.tables)


def plan_values(made: PaperGrid, planned: Planned | None) -> dict[str, object]:
    """Return the plan as JSON values."""
    return {
        "tables": list(made.tables),
        "published_cells": made.cells,
        "serves": dict(made.serves),
        "blocked": [each.to_dict() for each in made.blocked],
        "grid": None if planned is None else planned.to_dict(),
    }


def show_plan(
    made: PaperGrid,
    planned: Planned | None,
    corpora: Mapping[str, str],
    results: Path,
    *,
    as_json: bool,
) -> None:
    """Print what the tables need, what cannot be run, and in a sentence what is left to do.

    Args:
        made: the tables' runs.
        planned: what they would take; None where nothing can be run.
        corpora: published corpus -> dataset that stands for it.
        results: root of runs and studies.
        as_json: stdout is for one document alone, so messages are all that is shown.
    """
    say(f"{named(made)}: {made.cells} published numbers")
    if not as_json:
        _show_cells(made, results)
    for sentence in beside_other_corpora(corpora):
        warn(sentence)
    if planned is not None:
        say(_sentence(planned))


def _show_cells(made: PaperGrid, results: Path) -> None:
    rows: list[list[object]] = []
    for state in cell_states(made.grid, results) if made.grid is not None else ():
        done = f"{state.counts()['done']} of {len(state.runs)}"
        next_ = state.state if state.state in ("done", "failed") else "to run"
        what = ", ".join(state.values.values())
        rows.append([what, made.serves[state.cell.id], done, next_])
    if rows:
        emit_table(["runs of", _NUMBERS, "runs done", ""], rows, right=[_NUMBERS, "runs done"])
    if made.blocked:
        blocked = [(each.what, each.cells, each.reason) for each in made.blocked]
        emit_table(["cannot be run", _NUMBERS, "why"], blocked, right=[_NUMBERS])


def _sentence(planned: Planned) -> str:
    forecast = planned.forecast
    time = "nothing to run"
    if planned.to_do:
        time = "time unknown, no past run of this shape: the first one tells"
    if planned.to_do and forecast is not None:
        low, high = seconds(forecast.wall_p50_seconds), seconds(forecast.wall_p90_seconds)
        time = f"{low} in half of all cases, {high} in nine of ten"
        time += f"; {forecast.cpu_hours_p50:.2f} CPU-hours, {forecast.gpu_hours_p50:.2f} GPU-hours"
    failed = f", {planned.failed} failed before (--retry-failed)" if planned.failed else ""
    return (
        f"grid {planned.grid}: {planned.cells} configurations, {planned.runs} runs: "
        f"{planned.done} done, {planned.to_do} to do{failed}; {time}"
    )


def show(found: Sequence[Comparison]) -> None:
    """Print published tables with ours beside them."""
    for number, each in enumerate(found):
        if number:
            emit_line("")
        print_comparison(each)
