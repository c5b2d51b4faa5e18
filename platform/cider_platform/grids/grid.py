"""A grid: a job's cells under one id, and how it is stored.

The folder of a grid says which cells and runs belong to it. What has become of them is not written
there: run folders and studies say it (``cider_platform.grids.states``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cider.errors import CiderError, NothingMatchedError, UsageError
from cider.registry import lookup
from cider_platform.grids.cells import SCHEMA, Cell, expand, read_cell, resolve_cells
from cider_platform.grids.states import STATES
from cider_platform.layout import GridFolder, now, read_json, write_json_atomic
from cider_platform.runs.resolving import resolve_spec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cider_platform.grids.job import Job


@dataclass(frozen=True, slots=True)
class Grid:
    """The resolved cells of a job."""

    job: str
    """The job's name."""
    cells: tuple[Cell, ...]

    @property
    def id(self) -> str:
        """The job's name and 12 hexadecimal digits of its cells, whatever their order."""
        joined = " ".join(sorted(cell.id for cell in self.cells))
        return f"{self.job}-{hashlib.sha256(joined.encode()).hexdigest()[:12]}"

    @property
    def axes(self) -> list[str]:
        """Names of the axes, in order."""
        return list(self.cells[0].values)


def make_grid(job: Job, store: Path) -> Grid:
    """Return the grid of a job, with everything filled in that identities depend on.

    Raises:
        UsageError: for values that do not fit, see ``cells.expand``.
        StoreError: if a corpus or encoder is not there.
    """
    cells = resolve_cells(expand(job), lambda spec: resolve_spec(spec, store))
    return Grid(job.name, tuple(cells))


def store_grid(grid: Grid, folder: GridFolder) -> None:
    """Write which cells a grid has, unless it is written already."""
    if not folder.cells.is_file():
        cells = [cell.to_dict() for cell in grid.cells]
        values = {"schema": SCHEMA, "job": grid.job, "begun": now(), "cells": cells}
        write_json_atomic(folder.cells, values)


def read_grid(folder: GridFolder) -> Grid:
    """Return a stored grid; one of an older schema is brought up to date in memory.

    Raises:
        CiderError: if its file cannot be read.
    """
    values = read_json(folder.cells)
    try:
        cells = tuple(read_cell(each, values["schema"]) for each in values["cells"])
        return Grid(values["job"], cells)
    except (AttributeError, KeyError, TypeError) as error:
        raise CiderError(
            f"{folder.cells} is not a grid's ({error!r}); remove it and run the job again"
        ) from None


def grid_ids(results: Path) -> list[str]:
    """Return the ids of all grids, in order."""
    parent = results / "grids"
    folders = parent.iterdir() if parent.is_dir() else ()
    return sorted(folder.name for folder in folders if GridFolder(folder).cells.is_file())


def find_grid(results: Path, name: str) -> GridFolder:
    """Return the grid whose id is, or begins with, ``name``.

    Raises:
        NothingMatchedError: if there is none.
        UsageError: if there are several; the message lists them.
    """
    known = grid_ids(results)
    found = [name] if name in known else [each for each in known if name and each.startswith(name)]
    if not found:
        listed = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
        raise NothingMatchedError(
            f"no grid in {results / 'grids'} has an id that begins with {name[:60]!r}; "
            f"there are: {listed or 'none yet'}"
        )
    if len(found) > 1:
        raise UsageError(f"{name!r} begins the ids of {len(found)} grids: {', '.join(found[:10])}")
    return GridFolder.of(results, found[0])


def matching(cells: Sequence[Any], filters: Sequence[str], axes: Sequence[str]) -> list[Any]:
    """Return the cells that fit every filter.

    Args:
        cells: things with ``values`` (axis -> label) and ``state``.
        filters: ``AXIS=VALUE,VALUE`` or ``state=VALUE``; all must hold.
        axes: names of the axes.

    Raises:
        UsageError: for a filter of another form, or of something that is no axis.
        NothingMatchedError: if nothing fits.
    """
    kept = list(cells)
    for text in filters:
        name, equals, rest = text.partition("=")
        if not (equals and rest) or name not in (*axes, "state"):
            raise UsageError(
                f"--where must be AXIS=VALUE,VALUE with one of {', '.join([*axes, 'state'])}, "
                f"got {text!r}"
            )
        wanted = rest.split(",")
        if name == "state":
            for each in wanted:
                lookup("state", each, dict.fromkeys(STATES))
        kept = [
            cell
            for cell in kept
            if (cell.state if name == "state" else cell.values.get(name)) in wanted
        ]
    if not kept:
        raise NothingMatchedError(f"no cell of the grid fits {' and '.join(filters)}")
    return kept
