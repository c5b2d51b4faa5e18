"""Published numbers in a report: which of its runs stand for printed cells, and their tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cider.published import TABLES
from cider.published.tables import COMPLEXITY
from cider_platform.evidence.comparison import compare_table
from cider_platform.evidence.ours import OurRuns
from cider_platform.evidence.render import RIGHT, headings_and_cells, title_of
from cider_platform.report.tables import Cell, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cider_platform.evidence.comparison import Comparison, Row
    from cider_platform.results import RunRecord

_CORPORA = ("mosi", "mosei")


def published_beside(records: Sequence[RunRecord]) -> tuple[Comparison, ...]:
    """Return the published tables that runs have numbers for, with the rows that have one.

    Runs on generated corpora stand for no published cell.

    Args:
        records: the runs of a report, in any state.
    """
    real = [
        record
        for record in records
        if record.spec.get("data", {}).get("dataset") in _CORPORA
        and "synthetic" not in record.marks
    ]
    if not real:
        return ()
    ours = OurRuns(real)
    found = []
    for table in TABLES:
        if table == COMPLEXITY:
            continue
        comparison = compare_table(table, ours)
        rows = tuple(
            row
            for row in comparison.rows
            if row.published.ours.values or row.validation.ours.values
        )
        if rows:
            found.append(replace(comparison, rows=rows))
    return tuple(found)


def published_tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """Return one table per comparison: a row per published cell; numbers in percent."""
    return [_table(each) for each in comparisons]


def _table(comparison: Comparison) -> Table:
    headings, texts = headings_and_cells(comparison)
    rows = tuple(
        tuple(_cells(row, headings, each)) for row, each in zip(comparison.rows, texts, strict=True)
    )
    return Table(
        id=f"published-{comparison.table}",
        heading=f"Published table {comparison.table}",
        caption=title_of(comparison),
        headings=tuple(headings),
        rows=rows,
        right=frozenset(RIGHT),
    )


def _cells(row: Row, headings: Sequence[str], texts: Sequence[str]) -> Iterator[Cell]:
    compared = row.validation.compared
    interval = None if compared is None else compared.difference.interval
    values = {
        "published": row.cell.value,
        "ours, published selection": _mean(row, "published"),
        "ours, honest": _mean(row, "validation"),
        "difference": None if compared is None else compared.difference.mean,
        "95 % interval": None if interval is None else interval.low,
        "p (Holm)": row.validation.adjusted_p,
    }
    runs = {
        "ours, published selection": row.published.ours.runs,
        "ours, honest": row.validation.ours.runs,
    }
    for name, text in zip(headings, texts, strict=True):
        yield Cell(text, values.get(name), runs=runs.get(name, ()))


def _mean(row: Row, rule: str) -> float | None:
    ours = row.published.ours if rule == "published" else row.validation.ours
    return None if ours.summary is None else ours.summary.mean
