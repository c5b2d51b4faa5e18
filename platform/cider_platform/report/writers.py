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
    NONE,
    Table,
    comparison_table,
    result_tables,
    run_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cider_platform.report.model import Report

Format = Literal["html", "md", "latex", "csv", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&", "_": r"\_",
    "#": r"\#", "$": r"\$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip
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
        rf"\section*{{{_tex(_capital(report.subject))}}}",
        *(rf"\noindent {_tex(_capital(note))}.\par" for note in report.notes()),
    ]
    for table in tables_of(report, with_runs=False):
        lines += ["", *_latex_table(table)]
    # So many tables that float would not all find a page.
    return "\n".join([*lines, r"\end{document}", ""])


def _latex_table(table: Table) -> Iterator[str]:
    columns = "".join("r" if name in table.right else "l" for name in table.headings)
    runs = dict.fromkeys(run for row in table.rows for cell in row for run in _runs_of(cell.number))
    for start in range(0, len(list(runs)), _RUNS_IN_LINE):
        yield f"% runs: {' '.join(list(runs)[start : start + _RUNS_IN_LINE])}"
    yield r"\begin{table}[p]"
    yield r"\centering"
    yield rf"\caption{{{_tex(_capital(table.caption))}.}}"
    # A table of eleven rates is wider than a page.
    yield r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    yield rf"\begin{{tabular}}{{{columns}}}"
    yield r"\toprule"
    yield _latex_row(table.headings)
    yield r"\midrule"
    yield from (_latex_row([cell.text for cell in row]) for row in table.rows)
    yield r"\bottomrule"
    yield r"\end{tabular}}"
    yield r"\end{table}"
    yield r"\clearpage"


_RUNS_IN_LINE = 5


def _runs_of(number: object) -> list[str]:
    return list(getattr(number, "runs", {}).values())


def _latex_row(cells: list[str] | tuple[str, ...]) -> str:
    # A row that begins with a bracket would be taken for an option of the row before.
    first, *others = map(_tex, cells)
    return " & ".join([f"{{}}{first}" if first.startswith("[") else first, *others]) + r" \\"


def _tex(text: str) -> str:
    """Return a text that LaTeX prints as it is; what is not ASCII becomes a question mark."""
    if text == NONE:
        return "--"
    plain = " ".join(text.split()).encode("ascii", "replace").decode()
    return "".join(_LATEX.get(each, each) for each in plain).replace("+-", r"$\pm$")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


WRITERS: dict[str, Callable[[Report], str]] = {
    "md": markdown,
    "csv": comma_separated,
    "json": as_json,
    "latex": latex,
}
"""Format -> what writes it."""
