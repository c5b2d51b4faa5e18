"""How commands speak: data on stdout, as a table or as JSON; messages and progress on stderr.

rich honours ``NO_COLOR`` and drops colours where the output is not a terminal.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cider.data.progress import Progress as ProgressCallback

_WIDE = 10_000
"""Columns of an output that is no terminal: a table must not be cut where a program reads it."""


def _console(file: IO[str]) -> Console:
    return Console(
        file=file,
        highlight=False,
        markup=False,
        emoji=False,
        width=None if file.isatty() else _WIDE,
    )


def emit_json(what: str, data: Any, *, version: int = 1) -> None:  # noqa: ANN401 - any JSON value
    """Print the versioned envelope ``{"schema": "cider.<what>/<version>", "data": ...}``."""
    envelope = {"schema": f"cider.{what}/{version}", "data": data}
    sys.stdout.write(json.dumps(envelope, indent=2, allow_nan=False) + "\n")


def emit_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str | None = None,
    right: Sequence[str] = (),
) -> None:
    """Print a table on stdout.

    Args:
        columns: headings.
        rows: cells, one per heading; None is an empty cell.
        title: a line above.
        right: headings of the columns aligned right (numbers).
    """
    table = Table(*columns, box=None, pad_edge=False)
    table.show_header = any(columns)
    for column in table.columns:
        column.overflow = "fold"
        if column.header in right:
            column.justify = "right"
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console = _console(sys.stdout)
    if title is not None:
        # Not the table's own title, which would be folded to the width of the table.
        console.print(title, style="italic", soft_wrap=True)
    console.print(table)


def emit_line(text: str) -> None:
    """Print a line of data on stdout, however long, e.g. a command to copy."""
    sys.stdout.write(f"{text}\n")


def say(text: str) -> None:
    """Print a message on stderr."""
    _console(sys.stderr).print(text, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    _marked("warning", "yellow", text)


def fail(text: str) -> None:
    """Print why a command fails on stderr; the caller ends the program."""
    _marked("error", "red", text)


def _marked(mark: str, colour: str, text: str) -> None:
    console = _console(sys.stderr)
    console.print(f"{mark}:", style=f"bold {colour}", end=" ")
    console.print(text, soft_wrap=True)


@contextmanager
def progress_bar() -> Iterator[ProgressCallback | None]:
    """Yield a callback that draws one bar per thing being done; None without a terminal."""
    console = _console(sys.stderr)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report
