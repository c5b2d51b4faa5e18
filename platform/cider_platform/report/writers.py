"""A report as Markdown, CSV, JSON and LaTeX; the page for a browser is in ``report.page``."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Literal, get_args

from cider_platform.report.model import AUILC
from cider_platform.report.published import published_tables
from cider_platform.report.tables import (
    Table,
    comparison_table,
    result_tables,
    run_table,
)
from cider_platform.tables import latex_floats, latex_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cider_platform.report.model import Report

Format = Literal["html", "md", "latex", "csv", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)

_CSV = (
    "configuration", "labels", "marks", "protocol", "rate", "kept", "metric", "seed", "run",
    "value", "mean", "sd", "low", "high", "seeds",
)  # fmt: skip


def tables_of(report: Report, *, with_runs: bool = True) -> list[Table]:
    """Return the tables of a report: results, comparisons, published tables, then its runs."""
    compared = comparison_table(report)
    found = [*result_tables(report), *([compared] if compared is not None else [])]
    found += published_tables(report.published)
    return [*found, run_table(report)] if with_runs else found


def markdown(report: Report) -> str:
    """Return a report in Markdown: a heading, notes, a table for each metric and protocol."""
    lines = [f"# Report: {_md(report.subject)}", ""]
    lines += [f"Made {report.created}. Marks: {', '.join(report.marks) or 'none'}.", ""]
    for note in report.notes():
        lines += [f"- {_md(note)}"]
    for table in tables_of(report):
        rule = ["---:" if name in table.right else "---" for name in table.headings]
        rows = [[_md(cell.text) for cell in row] for row in table.rows]
        cells = [[_md(name) for name in table.headings], rule, *rows]
        lines += ["", f"{_md(_capital(table.caption))}.", ""]
        lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def _md(text: str) -> str:
    """Return a text that Markdown shows as it is: names are data."""
    plain = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", plain)


def comma_separated(report: Report) -> str:
    """Return CSV with a row per configuration, place, metric and seed; values in [0, 1].

    A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    sink = io.StringIO()
    rows = csv.writer(sink, lineterminator="\n")
    rows.writerow(_CSV)
    for each in report.configurations:
        for number in each.numbers:
            place, summary = number.place, number.summary
            rate = AUILC if place.is_area else place.rate
            interval = summary.interval
            ends = (None, None) if interval is None else (interval.low, interval.high)
            for seed, value in number.values.items():
                rows.writerow(
                    "" if cell is None else _spreadsheet(cell)
                    for cell in (
                        each.id, each.name, ", ".join(each.marks), place.protocol, rate, place.kept,
                        number.metric, seed, number.runs[seed], value, summary.mean, summary.sd,
                        *ends, summary.num_seeds,
                    )
                )  # fmt: skip
    return sink.getvalue()


def _spreadsheet(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@\t\r" and cell else cell


def as_json(report: Report) -> str:
    """Return a report as a versioned JSON document with everything that it holds."""
    document = {"schema": "cider.report/1", "data": report.to_dict()}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def latex(report: Report) -> str:
    r"""Return a LaTeX document with booktabs that compiles as it is; tables can be copied out."""
    lines = [
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[margin=2cm]{geometry}",
        r"\usepackage{booktabs}",
        r"\usepackage{graphicx}",
        r"\usepackage{textcomp}",
        r"\begin{document}",
        rf"\section*{{{latex_text(_capital(report.subject))}}}",
        *(rf"\noindent {latex_text(_capital(note))}.\par" for note in report.notes()),
    ]
    for table in tables_of(report, with_runs=False):
        lines += ["", *_latex_table(table)]
    # So many tables that float would not all find a page.
    return "\n".join([*lines, r"\end{document}", ""])


def _latex_table(table: Table) -> Iterator[str]:
    runs = dict.fromkeys(run for row in table.rows for cell in row for run in _runs_of(cell.number))
    for start in range(0, len(list(runs)), _RUNS_IN_LINE):
        yield f"% runs: {' '.join(list(runs)[start : start + _RUNS_IN_LINE])}"
    rows = [[cell.text for cell in row] for row in table.rows]
    for part in latex_floats(_capital(table.caption), table.headings, rows, table.right):
        yield from part
        yield r"\clearpage"


_RUNS_IN_LINE = 5


def _runs_of(number: object) -> list[str]:
    return list(getattr(number, "runs", {}).values())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


WRITERS: dict[str, Callable[[Report], str]] = {
    "md": markdown,
    "csv": comma_separated,
    "json": as_json,
    "latex": latex,
}
"""Format -> what writes it."""
