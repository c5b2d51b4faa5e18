"""Rows and columns of what commands print: numbers, configurations, scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence


def number(value: object) -> str:
    """Return a score with four decimals, a dash for none, and anything else as it is."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, object]]:
    """Yield every leaf of nested tables with its dotted path."""
    for name, value in values.items():
        where = f"{path}.{name}" if path else name
        if isinstance(value, dict):
            yield from flat(value, where)
        else:
            yield where, value


def seconds(value: float) -> str:
    """Return a duration as people read it: 42 s, 3 min 05 s, 2 h 07 min."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def evaluation_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """Return headings and cells for the rows of ``evaluation.evaluate_run``.

    A few conditions become pairs of columns, validation beside sealed test, with a row per metric;
    many conditions become rows, with the sealed-test metrics as columns.
    """
    metrics = list(rows[0]["test"]) if rows else []
    if len(rows) > _MOST_PAIRS:
        columns = ["missing", "tau", *(f"test {name}" for name in metrics)]
        return columns, [
            [_condition(row), f"{row['tau']:g}", *(number(row["test"][name]) for name in metrics)]
            for row in rows
        ]
    columns = ["metric"]
    columns += [f"{split} {_condition(row)}" for row in rows for split in ("valid", "test")]
    cells: list[list[object]] = [
        [name, *(number(row[split].get(name)) for row in rows for split in ("valid", "test"))]
        for name in metrics
    ]
    return columns, [*cells, ["tau", *(f"{row['tau']:g}" for row in rows for _ in range(2))]]


_MOST_PAIRS = 3


def _condition(row: Mapping[str, Any]) -> str:
    if row["kept"]:
        return f"kept {row['kept']}"
    return f"{row['protocol']} {row['rate']:g}"


def title(text: str, marks: Sequence[str]) -> str:
    """Return a table's title with the marks its numbers carry."""
    return text + "".join(f" [{mark}]" for mark in marks)


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&", "_": r"\_",
    "#": r"\#", "$": r"\$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Return a text that LaTeX prints as it is; what is not ASCII becomes a question mark."""
    if text == "-":
        return "--"
    plain = " ".join(text.split()).encode("ascii", "replace").decode()
    return "".join(_LATEX.get(each, each) for each in plain).replace("+-", r"$\pm$")


def latex_row(cells: Sequence[str]) -> str:
    """Return a row of a LaTeX table."""
    # A row that begins with a bracket would be taken for an option of the row before.
    first, *others = map(latex_text, cells)
    return " & ".join([f"{{}}{first}" if first.startswith("[") else first, *others]) + r" \\"


_ROWS_ON_PAGE = 45


def latex_floats(
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[str],
) -> Iterator[list[str]]:
    """Yield the lines of each table that a long one becomes, so that every one fits a page.

    Args:
        caption: of all; no full stop.
        headings: of the columns.
        rows: cells, one per heading.
        right: headings of the columns aligned right.
    """
    columns = "".join("r" if name in right else "l" for name in headings)
    for start in range(0, max(1, len(rows)), _ROWS_ON_PAGE):
        continued = ", continued" if start else ""
        yield [
            r"\begin{table}[p]",
            r"\centering",
            rf"\caption{{{latex_text(caption + continued)}.}}",
            # A table of eleven rates is wider than a page.
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            latex_row(headings),
            r"\midrule",
            *(latex_row(row) for row in rows[start : start + _ROWS_ON_PAGE]),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
