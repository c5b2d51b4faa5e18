"""What a person sees of a grid: lines while it runs, tables of states and of results."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from cider_platform.grids.grid import find_grid, matching, read_grid
from cider_platform.grids.states import cell_states
from cider_platform.grids.table import result_rows, table_cells
from cider_platform.lease import has_living_owner
from cider_platform.output import emit_json, emit_table, say
from cider_platform.tables import seconds, title

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cider_platform.grids.cells import Cell
    from cider_platform.grids.driver import Outcome
    from cider_platform.grids.grid import Grid
    from cider_platform.grids.states import CellState
    from cider_platform.grids.table import Row
    from cider_platform.search.ledger import TrialRecord
    from cider_platform.search.search import Change

_WATCH_SECONDS = 2.0


class Lines:
    """Shows a grid as lines on stderr."""

    def tell(self, line: str) -> None:
        """Show one line."""
        say(line)

    def search(self, cell: Cell, number: int, total: int) -> SearchLines:
        """Return what shows the search of a cell."""
        return SearchLines(self, f"search {number} of {total} ({cell.name})")


class SearchLines:
    """Shows a search within a grid: a line per finished trial.

    Args:
        lines: where.
        name: of the search.
    """

    def __init__(self, lines: Lines, name: str) -> None:
        self._lines, self._name = lines, name
        self._total = 0

    def begin(self, trials: list[TrialRecord], total: int) -> None:
        """Take note of the study's total."""
        self._total = total
        if trials:
            self._lines.tell(f"{self._name} goes on after {len(trials)} of {total} trials")

    def change(self, change: Change) -> None:
        """Show the end of a trial."""
        if change.state != "RUNNING":
            value = "" if change.value is None else f", {change.value:.4f}"
            text = f": {change.error}" if change.error else value
            self._lines.tell(
                f"{self._name}: trial {change.number} of {self._total} {change.state}{text}"
            )


def describe(grid: Grid, missing: Sequence[object], searches: int, results: Path) -> str:
    """Return in one sentence what a grid is and what is left to do."""
    known = sum(len(cell.run_ids) for cell in grid.cells)
    searched = [cell for cell in grid.cells if cell.search is not None]
    later = sum(len(cell.seeds) for cell in searched)
    trials = sum(cell.search.trials for cell in searched if cell.search is not None)
    parts = [f"grid {grid.id}: {len(grid.cells)} cells"]
    if known:
        distinct = len({run for cell in grid.cells for run in cell.run_ids})
        shared = f" ({known - distinct} shared)" if known > distinct else ""
        parts.append(f"{distinct} runs{shared}")
    if searched:
        parts.append(
            f"{len(searched)} searches of {trials} trials in all ({searches} to do), then "
            f"{later} runs of what they find"
        )
    return f"{', '.join(parts)}; {len(missing)} runs to do now, in {results}"


def print_rows(grid: Grid, rows: Sequence[Row]) -> None:
    """Print the result table."""
    found = list(dict.fromkeys(mark for row in rows for mark in row.marks))
    columns, cells = table_cells(rows, grid.axes)
    if len({tuple(row.marks) for row in rows}) > 1:
        columns = [*columns, "marks"]
        for row, each in zip(rows, cells, strict=True):
            each.append(", ".join(row.marks))
    emit_table(
        columns,
        cells,
        title=title(f"grid {grid.id}: sealed test, mean +- SD over seeds", found),
        right=columns[len(grid.axes) + 1 :],
    )


def print_states(grid: Grid, states: Sequence[CellState]) -> None:
    """Print what has become of cells."""
    cells: list[list[object]] = []
    for state in states:
        counts = state.counts()
        runs = f"{counts['done']} of {len(state.cell.seeds)}"
        if state.trials is not None and state.cell.search is not None:
            runs += f", trials {state.trials} of {state.cell.search.trials}"
        error = state.error or next((run.error for run in state.runs if run.error), "")
        cells.append([*(state.values[axis] for axis in grid.axes), state.state, runs, error])
    emit_table(
        [*grid.axes, "state", "runs done", "error"], cells, title=f"grid {grid.id}",
        right=["runs done"],
    )  # fmt: skip


def summary(grid: Grid, states: Sequence[CellState], outcome: Outcome | None) -> str:
    """Return how a grid stands, in one sentence."""
    counts = Counter(state.state for state in states)
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    ran = "0 runs" if outcome is None else f"{outcome.ran} runs in {seconds(outcome.seconds)}"
    return f"grid {grid.id}: cells {told}; this command did {ran}"


def show_status(
    results: Path, name: str, filters: Sequence[str], *, watch: bool, as_json: bool
) -> None:
    """Print the states of a grid's cells, again and again with ``watch`` while it is driven.

    Raises:
        NothingMatchedError: if there is no such grid, or no cell fits the filters.
        UsageError: for a filter of another form.
    """
    folder = find_grid(results, name)
    grid = read_grid(folder)
    before = ""
    while True:
        driven = has_living_owner(folder.lease)
        states = matching(cell_states(grid, results), filters, grid.axes)
        data = {
            "grid": grid.id,
            "job": grid.job,
            "driven": driven,
            "cells": [state.to_dict() for state in states],
        }
        text = json.dumps(data)
        if text != before:
            before = text
            _show(grid, states, data, watch=watch, as_json=as_json)
        if not (watch and driven):
            break
        time.sleep(_WATCH_SECONDS)
    if not as_json:
        say(f"{_driven(driven)}; {summary_of_runs(states)}")
        if any(state.state == "done" for state in states):
            rows = len(result_rows(grid, results))
            say(f"{rows} result rows: cider-platform report {grid.id} shows them")


def _show(
    grid: Grid, states: Sequence[CellState], data: object, *, watch: bool, as_json: bool
) -> None:
    if as_json and watch:  # one document per line
        line = {"schema": "cider.status/1", "data": data}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    elif as_json:
        emit_json("status", data)
    else:
        print_states(grid, states)


def summary_of_runs(states: Sequence[CellState]) -> str:
    """Return how many runs are in which state, in words."""
    counts: Counter[str] = Counter()
    for state in states:
        counts += state.counts()
    return "runs: " + (
        ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none yet"
    )


def _driven(driven: bool) -> str:
    return "a command runs it now" if driven else "no command runs it now"
