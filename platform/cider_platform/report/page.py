"""A report as one HTML file that needs nothing else: no request leaves it, every name is escaped.

The content security policy in its head names the hashes of its one style and one script, so that a
browser runs nothing else even if a name of a run got past the escaping.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from cider_platform.report.curves import curve_figure, swatch
from cider_platform.report.tables import PERCENT
from cider_platform.report.writers import tables_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cider_platform.report.model import Number, Report
    from cider_platform.report.tables import Cell, Table


def page(report: Report) -> str:
    """Return the report as an HTML document: curves, sortable tables, the runs of every number."""
    style, script = _text("page.css"), _text("page.js")
    tables = tables_of(report)
    heading = f"Report: {report.subject}"
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(heading)}</title>",
        f"<style>{style}</style></head><body>",
        f"<header><h1>{escape(heading)}</h1>",
        '<button type="button" class="theme">Light or dark</button></header>',
        f'<p class="facts">Made {escape(report.created)}; {len(report.configurations)} '
        f"configurations, {len(report.runs)} runs. {_badges(report.marks)}</p>",
        _notes(report),
        _contents(tables),
        "<main>",
        *(_section(report, table) for table in tables),
        f"</main><script>{script}</script></body></html>",
    ]
    return "\n".join([*parts, ""])


@lru_cache
def _text(name: str) -> str:
    return files("cider_platform.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _badges(marks: Sequence[str]) -> str:
    return " ".join(f'<span class="badge">{escape(mark)}</span>' for mark in marks)


def _notes(report: Report) -> str:
    notes = report.notes()
    if not notes:
        return ""
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'


def _contents(tables: Sequence[Table]) -> str:
    links = (
        f'<li><a href="#{escape(table.id)}">{escape(_heading(table))}</a></li>' for table in tables
    )
    return f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>'


def _heading(table: Table) -> str:
    if table.heading:
        return table.heading
    if table.metric:
        return f"{table.metric} under {table.protocol}"
    return {"comparisons": "Differences", "runs": "Runs"}.get(table.id, table.id)


def _section(report: Report, table: Table) -> str:
    figure = curve_figure(report, table.metric, table.protocol) if table.metric else ""
    plot = (
        f'<div class="box plot">{figure}</div><p class="readout" aria-live="polite">'
        "A point says its values; its row lights up with it.</p>"
        if figure
        else ""
    )
    return (
        f'<section id="{escape(table.id)}"><h2>{escape(_heading(table))}</h2>{plot}'
        f'<div class="box" tabindex="0" role="region" aria-label="{escape(_heading(table))}">'
        f"{_table(table, with_swatches=bool(figure))}</div></section>"
    )


def _table(table: Table, *, with_swatches: bool) -> str:
    heads = "".join(
        f'<th scope="col" aria-sort="none"{_kind(name in table.right)}><button type="button">'
        f"{escape(name)}</button></th>"
        for name in table.headings
    )
    seen: set[str] = set()
    rows = []
    for index, cells in enumerate(table.rows):
        attributes = f' data-c="{table.configurations[index]}"' if table.configurations else ""
        if table.id == "runs" and cells[0].text not in seen:
            # A run that two cells of a grid share is a row of each; the first is where links lead.
            seen.add(cells[0].text)
            attributes += f' id="run-{escape(cells[0].text)}"'
        mark = swatch(index) if with_swatches else ""
        found = "".join(
            _cell(cell, is_first=not place, right=name in table.right, mark="" if place else mark)
            for place, (name, cell) in enumerate(zip(table.headings, cells, strict=True))
        )
        rows.append(f"<tr{attributes}>{found}</tr>")
    return (
        f"<table><caption>{_plus_minus(table.caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _kind(right: bool) -> str:
    return ' class="num"' if right else ' class="text"'


def _cell(cell: Cell, *, is_first: bool, right: bool, mark: str) -> str:
    sort = "" if cell.value is None else f' data-sort="{cell.value:.10g}"'
    tag, scope = ("th", ' scope="row"') if is_first else ("td", "")
    text = _plus_minus(cell.text)
    if cell.number is not None:
        text = f"<details><summary>{text}</summary>{_behind(cell.number)}</details>"
    elif cell.runs and cell.text == cell.runs[0]:
        text = (
            f"<details><summary>{text}</summary><code>cider-platform runs show "
            f"{escape(cell.text)}</code></details>"
        )
    elif cell.runs:
        links = "".join(f"<li>{_run_link(run)}</li>" for run in cell.runs)
        text = f"<details><summary>{text}</summary><ul>{links}</ul></details>"
    return f"<{tag}{scope}{_kind(right)}{sort}>{mark}{text}</{tag}>"


def _behind(number: Number) -> str:
    """Return what a number is made of: its interval, and each seed's value with its run."""
    interval = number.summary.interval
    lines = []
    if interval is not None:
        ends = f"{PERCENT * interval.low:.2f} to {PERCENT * interval.high:.2f}"
        lines.append(f"<li>95&nbsp;% interval {ends}</li>")
    lines += [
        f"<li>seed {seed}: {PERCENT * value:.2f} {_run_link(number.runs[seed])}</li>"
        for seed, value in number.values.items()
    ]
    return f"<ul>{''.join(lines)}</ul>"


def _run_link(run: str) -> str:
    return f'<a href="#run-{escape(run)}"><code>{escape(run)}</code></a>'


def _plus_minus(text: str) -> str:
    return escape(text).replace("+-", "&plusmn;")
