"""What a report was asked for: a grid, a study, runs by id, or runs that meet conditions."""

from __future__ import annotations

from dataclasses import dataclass
from glob import escape as glob_escape
from typing import TYPE_CHECKING

from cider.errors import NothingMatchedError, UsageError
from cider_platform.grids.grid import find_grid, grid_ids, matching, read_grid
from cider_platform.grids.states import cell_specs
from cider_platform.layout import RunFolder
from cider_platform.report.data import Group, by_configuration
from cider_platform.results import RunRecord, find_run, find_runs, read_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cider.spec import RunSpec
    from cider_platform.grids.cells import Cell
    from cider_platform.search.storage import Storage


@dataclass(frozen=True, slots=True)
class Gathered:
    """The runs of a report, by configuration."""

    subject: str
    groups: list[Group]


def gather(
    results: Path,
    what: Sequence[str],
    where: Sequence[str] = (),
    database: Storage | None = None,
) -> Gathered:
    """Return the runs that a report was asked for.

    Args:
        results: root of runs, studies and grids.
        what: one grid (the beginning of its id, which is the job's name), one study, or runs by
            the beginnings of their ids; none means all complete runs that meet ``where``.
        where: conditions as ``runs list --where`` takes them; of a grid, on its axes.
        database: that keeps the study; None is the journal in its folder.

    Raises:
        UsageError: for a name that fits several things, or conditions where they say nothing.
        NothingMatchedError: if nothing fits.
    """
    if not what:
        found = [record for record, _ in find_runs(results, where) if record.state == "COMPLETE"]
        if not found:
            raise NothingMatchedError(
                f"no complete run in {results} meets {' and '.join(where) or 'no condition'}; "
                "cider-platform runs list shows those there are"
            )
        subject = " and ".join(where) or "all complete runs"
        return Gathered(subject, by_configuration(found))
    if len(what) == 1 and any(each.startswith(what[0]) for each in grid_ids(results)):
        return _of_grid(results, what[0], where)
    if where:
        raise UsageError(
            "--where chooses among all runs, or among the cells of one grid; leave it out, or "
            f"leave out {', '.join(what)}"
        )
    if len(what) == 1 and _has_study(results, what[0], database):
        return _of_study(results, what[0], database)
    try:
        records = {record.run_id: record for record in (find_run(results, each) for each in what)}
    except NothingMatchedError as reason:
        raise NothingMatchedError(
            f"{reason}; a report is also made of a grid (cider-platform status lists them) or a "
            "study (cider-platform study list)"
        ) from None
    subject = f"run {what[0]}" if len(records) == 1 else f"{len(records)} runs"
    return Gathered(subject, by_configuration(list(records.values())))


def _of_grid(results: Path, name: str, where: Sequence[str]) -> Gathered:
    grid = read_grid(find_grid(results, name))
    cells = list(grid.cells)
    if where:
        # Whatever the grid's states are, a report is of its axes.
        if any(text.startswith("state=") for text in where):
            raise UsageError("a report of a grid is chosen by its axes, got a condition on state")
        cells = matching(cells, where, grid.axes)
    return Gathered(f"grid {grid.id}", grid_groups(results, cells))


def grid_groups(results: Path, cells: Sequence[Cell]) -> list[Group]:
    """Return the runs of a grid's cells, also those that have not begun; a group per cell."""
    return [_group(results, cell) for cell in cells]


def _group(results: Path, cell: Cell) -> Group:
    specs = cell_specs(results, cell)
    records, absent = _records(results, specs)
    # One cell without axes has no label to be named by.
    return Group(records=records, labels=dict(cell.values), absent=absent, spec=cell.spec.to_dict())


def _records(results: Path, specs: Sequence[RunSpec]) -> tuple[list[RunRecord], dict[str, int]]:
    records, absent = [], {}
    for spec in specs:
        folder = RunFolder.of(results, spec.run_id)
        if folder.status.is_file():
            records.append(read_run(folder))
        else:
            absent[spec.run_id] = spec.seed
    return records, absent


def _has_study(results: Path, name: str, database: Storage | None) -> bool:
    if database is not None:
        # CIDER_STORAGE may be set while a report of runs is asked for: no database for that.
        if any((results / "runs").glob(f"{glob_escape(name)}*")):
            return False
        from cider_platform.search.study import study_names  # noqa: PLC0415 - brings Optuna

        return name in study_names(results, database)
    return (results / "studies" / name).is_dir() if "/" not in name else False


def _of_study(results: Path, name: str, database: Storage | None) -> Gathered:
    from cider_platform.search.study import read_study  # noqa: PLC0415 - brings Optuna

    _, trials = read_study(results, name, database)
    runs = dict.fromkeys(trial.run for trial in trials if trial.run is not None)
    folders = [RunFolder.of(results, run) for run in runs]
    found = [read_run(folder) for folder in folders if folder.status.is_file()]
    # A pruned trial has no test numbers by design, so only finished ones are rows.
    finished = [record for record in found if record.state == "COMPLETE"]
    if not finished:
        raise NothingMatchedError(
            f"study {name} has no complete run to report; cider-platform study trials {name} "
            "lists its trials"
        )
    return Gathered(f"study {name}", by_configuration(finished))
