"""A comparison as text: Markdown, CSV, LaTeX, or the headings and cells of a printed table."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Literal, get_args

from cider_platform.tables import latex_floats, latex_text, title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cider.published import Cell
    from cider_platform.evidence.comparison import Against, Comparison, Row

Format = Literal["text", "md", "csv", "latex", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)

_PLACES = ("model", "corpus", "alignment", "distribution", "missing", "metric")
_NUMBERS = (
    "published", "ours, published selection", "ours, honest", "difference", "95 % interval",
    "p (Holm)",
)  # fmt: skip
RIGHT = _NUMBERS
"""Headings of columns that are aligned right."""
_VERDICTS = ("verdict", "verdict, published selection")


def title_of(comparison: Comparison) -> str:
    """Return a line about the table: what all its cells have in common, and its marks."""
    what = f"difference: ours minus {comparison.against or 'published'}, honest selection"
    common = [value for values in _places(comparison).values() if (value := _one(values))]
    unit = _one([row.cell.unit for row in comparison.rows])
    parts = [f"table {comparison.table}", *common, *filter(None, [unit]), what]
    return title("; ".join(parts), comparison.marks)


def headings_and_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows; what all cells have in common is in the title instead."""
    places = {name: each for name, each in _places(comparison).items() if len(set(each)) > 1}
    headings = [*places, *_NUMBERS, *_VERDICTS]
    return headings, [
        [*(values[number] for values in places.values()), *_row(row)]
        for number, row in enumerate(comparison.rows)
    ]


def _places(comparison: Comparison) -> dict[str, list[str]]:
    rows = [_place(row.cell) for row in comparison.rows]
    columns = [[row[number] for row in rows] for number in range(len(_PLACES))]
    return dict(zip(_PLACES, columns, strict=True))


def _place(cell: Cell) -> tuple[str, ...]:
    metric = (
        cell.metric if cell.unit in ("percent", cell.metric) else f"{cell.metric} ({cell.unit})"
    )
    return cell.model, cell.corpora, cell.alignment, cell.distribution, cell.condition, metric


def _one(values: Sequence[str]) -> str:
    """Return the value of a column that has no other, else nothing."""
    return values[0] if len(set(values)) == 1 and values[0] else ""


def _row(row: Row) -> list[str]:
    honest = row.validation
    compared = honest.compared
    interval = None if compared is None else compared.difference.interval
    return [
        f"{row.cell.value:.{row.cell.decimals}f}",
        _ours(row.published),
        _ours(honest),
        "-" if compared is None else f"{compared.difference.mean:+.1f}",
        "-" if interval is None else f"{interval.low:+.1f} to {interval.high:+.1f}",
        "-" if honest.adjusted_p is None else f"{honest.adjusted_p:.3g}{honest.star}",
        honest.verdict,
        row.published.verdict,
    ]


def _ours(against: Against) -> str:
    """Return mean +- SD (seeds), and how many of the configuration's seeds lack an evaluation."""
    summary = against.ours.summary
    if summary is None:
        return "-"
    seeds = f"{summary.num_seeds}"
    if against.ours.evaluate:
        seeds += f" of {len(against.ours.runs)}"
    deviation = "" if summary.sd is None else f" +- {summary.sd:.1f}"
    return f"{summary.mean:.1f}{deviation} ({seeds})"


def markdown(comparison: Comparison) -> str:
    """Return a table in Markdown, its title above and its notes below."""
    headings, rows = headings_and_cells(comparison)
    rule = ["---:" if name in RIGHT else "---" for name in headings]
    lines = ["| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows)]
    return "\n".join([_capital(title_of(comparison)) + ".", "", *lines, "", *_notes(comparison)])


def comma_separated(comparison: Comparison) -> str:
    """Return CSV with a row per cell and full precision; what is not measured is empty."""
    names = [
        "cell", "table", "model", "train", "test", "task", "alignment", "distribution",
        "protocol", "rate", "kept", "metric", "unit", "published",
    ]  # fmt: skip
    parts = (
        "mean", "sd", "seeds", "difference", "low", "high", "p", "smallest_p", "adjusted_p",
        "star", "verdict", "marks",
    )  # fmt: skip
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*names, *(f"{side}_{part}" for side in _SIDES for part in parts)])
    for row in comparison.rows:
        values = row.to_dict()
        cells = [values[name] for name in names]
        for side in _SIDES.values():
            found = values[side]
            found["low"], found["high"] = found["interval"] or (None, None)
            found["marks"] = ", ".join(found["marks"])
            cells += [found[part] for part in parts]
        table.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()


_SIDES = {"honest": "honest_selection", "published_selection": "published_selection"}


def latex(comparison: Comparison) -> str:
    r"""Return a table for LaTeX with booktabs, its title and notes as comments and caption."""
    headings, rows = headings_and_cells(comparison)
    lines = [r"% needs \usepackage{booktabs}, \usepackage{graphicx} and \usepackage[T1]{fontenc}"]
    for part in latex_floats(_capital(title_of(comparison)), headings, rows, RIGHT):
        lines += part
    lines += [rf"\par {latex_text(_capital(note))}." for note in comparison.notes()]
    return "\n".join(lines) + "\n"


def _notes(comparison: Comparison) -> list[str]:
    return [f"{_capital(note)}." for note in comparison.notes()] + [""]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
