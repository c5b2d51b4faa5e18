"""The result table of a grid: cells by conditions, mean and standard deviation over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from cider.metrics import auilc
from cider_platform.grids.states import cell_specs
from cider_platform.layout import RunFolder, read_json
from cider_platform.results import marks
from cider_platform.runs.conditions import evaluation_name
from cider_platform.tables import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from cider.condition import Condition
    from cider_platform.grids.cells import Cell
    from cider_platform.grids.grid import Grid

AUILC = "AUILC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One cell under one condition, or its area over all rates of one protocol."""

    cell: str
    values: Mapping[str, str]
    protocol: str
    rate: float | str | None
    """A missing rate, ``AUILC``, or None where the protocol has none."""
    kept: str
    seeds: int
    """Runs that are done; the others are missing from mean and standard deviation."""
    asked: int
    """Runs that the cell has."""
    mean: Mapping[str, float]
    """Sealed-test metric -> mean over the runs."""
    sd: Mapping[str, float | None]
    """Standard deviation with n - 1 below the line; None with one run."""
    marks: Sequence[str]

    @property
    def condition(self) -> str:
        """The condition for people."""
        if self.kept:
            return f"kept {self.kept}"
        if isinstance(self.rate, str):
            return f"{self.protocol} {self.rate}"
        return self.protocol if self.rate is None else f"{self.protocol} {self.rate:g}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "cell": self.cell,
            "values": dict(self.values),
            "protocol": self.protocol,
            "rate": self.rate,
            "kept": self.kept,
            "seeds": self.seeds,
            "asked": self.asked,
            "mean": dict(self.mean),
            "sd": dict(self.sd),
            "marks": list(self.marks),
        }


def result_rows(grid: Grid, results: Path) -> list[Row]:
    """Return the rows of what has been evaluated, cell by cell; none of a cell without results."""
    rows: list[Row] = []
    for cell in grid.cells:
        rows += _cell_rows(cell, results)
    return rows


def _cell_rows(cell: Cell, results: Path) -> list[Row]:
    folders = [RunFolder.of(results, spec.run_id) for spec in cell_specs(results, cell)]
    found = {
        condition: [_tested(folder, condition) for folder in folders]
        for condition in cell.conditions
    }
    told = marks(cell.spec.to_dict(), _synthetic(found.values()))
    rows: list[Row] = []
    protocols = dict.fromkeys(condition.protocol for condition in cell.conditions)
    for protocol in protocols:
        mine = {each: rows_ for each, rows_ in found.items() if each.protocol == protocol}
        for condition, tested in mine.items():
            rate = None if protocol in ("none", "smm") else condition.rate
            metrics = [each["test"] for each in tested if each is not None]
            rows += _row(cell, told, len(folders), (protocol, rate, condition.kept), metrics)
        rows += _row(cell, told, len(folders), (protocol, AUILC, ""), _areas(mine))
    return rows


def _tested(folder: RunFolder, condition: Condition) -> dict[str, Any] | None:
    path = folder.evaluation_file(evaluation_name(condition))
    # A run that is not complete may have evaluations of an earlier life of its folder.
    if not (path.is_file() and folder.is_complete):
        return None
    found: dict[str, Any] = read_json(path)
    return found


def _synthetic(tested: Iterable[Sequence[dict[str, Any] | None]]) -> dict[str, Any]:
    every = [row for rows in tested for row in rows if row is not None]
    return {"synthetic": any(row.get("synthetic") for row in every)}


def _areas(
    found: Mapping[Condition, Sequence[dict[str, Any] | None]],
) -> list[dict[str, float | None]]:
    """Return each run's areas over the rates (Eq. 31); none of a run that lacks a rate."""
    by_rate = sorted(found.items(), key=lambda item: item[0].rate)
    rates = [condition.rate for condition, _ in by_rate]
    if len(rates) < 2 or len(set(rates)) < len(rates):
        return []
    areas: list[dict[str, float | None]] = []
    for run in zip(*(rows for _, rows in by_rate), strict=True):
        tested = [row["test"] for row in run if row is not None]
        if len(tested) == len(rates):
            areas.append({
                name: auilc(rates, [each[name] for each in tested])
                for name in tested[0]
                if all(each.get(name) is not None for each in tested)
            })  # fmt: skip
    return areas


def _row(
    cell: Cell,
    told: Sequence[str],
    asked: int,
    condition: tuple[str, float | str | None, str],
    metrics: Sequence[Mapping[str, float | None]],
) -> list[Row]:
    if not metrics:
        return []
    columns = {
        name: [value for value in (each.get(name) for each in metrics) if value is not None]
        for name in metrics[0]
    }
    full = {name: values for name, values in columns.items() if len(values) == len(metrics)}
    protocol, rate, kept = condition
    return [
        Row(
            cell=cell.id,
            values=cell.values,
            protocol=protocol,
            rate=rate,
            kept=kept,
            seeds=len(metrics),
            asked=asked,
            mean={name: mean(values) for name, values in full.items()},
            sd={name: stdev(values) if len(values) > 1 else None for name, values in full.items()},
            marks=told,
        )
    ]


def table_cells(rows: Sequence[Row], axes: Sequence[str]) -> tuple[list[str], list[list[object]]]:
    """Return headings and cells of a table for people: axes, condition, metrics, seeds."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.mean))
    columns = [*axes, "evaluated under", *metrics, "seeds"]
    cells: list[list[object]] = [
        [
            *(row.values[axis] for axis in axes),
            row.condition,
            *(_mean_sd(row, name) for name in metrics),
            str(row.seeds) if row.seeds == row.asked else f"{row.seeds} of {row.asked}",
        ]
        for row in rows
    ]
    return columns, cells


def _mean_sd(row: Row, name: str) -> str:
    if name not in row.mean:
        return "-"
    sd = row.sd[name]
    return number(row.mean[name]) + ("" if sd is None else f" +- {number(sd)}")
