"""``report``: runs as a page, a table or data, every number with the runs it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Results, StorageOption, check_folder
from cider_platform.report.writers import Format  # noqa: TC001

if TYPE_CHECKING:
    from cider_platform.report.model import Report

What = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="WHAT",
        help="A grid (the beginning of its id), a study, or runs by the beginnings of their ids; "
        "without it all complete runs.",
        show_default=False,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="Of all complete runs those that meet it, as runs list takes it; of a grid the cells, "
        "AXIS=VALUE. May be given many times.",
        show_default=False,
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="See: cider-platform metrics; may be given many times; all: every one that was "
        "measured; default: what the runs were selected by.",
        show_default=False,
    ),
]
Against = Annotated[
    str,
    typer.Option(
        metavar="REFERENCE",
        help="Compare with the configurations that have LABEL=VALUE, or with that of a run.",
        show_default=False,
    ),
]
ENDINGS: dict[str, Format] = {
    ".html": "html", ".md": "md", ".tex": "latex", ".csv": "csv", ".json": "json",
}  # fmt: skip


def report(
    what: What = None,
    out: Annotated[
        Path,
        typer.Option(help="The file to write; it is replaced if it is there.", metavar="FILE"),
    ] = Path("report.html"),
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Default: by the file's ending.", show_default=False),
    ] = None,
    where: Where = None,
    metric: Metrics = None,
    against: Against = "",
    results: Results = None,
    storage: StorageOption = None,
) -> None:
    """Write finished runs as one page or table: means, curves, differences, the runs behind them.

    Example: cider-platform report smoke --out smoke.html
    """
    from cider_platform.output import emit_line, say

    check_out(out, form)
    made = read_report(results, what, where, metric, against, storage)
    write_report(made, out, form)
    emit_line(str(out))
    for note in made.notes():
        say(note)


def check_out(out: Path | None, form: Format | None) -> None:
    """Refuse a file that a report cannot be written to; nothing is written yet.

    Raises:
        UsageError: for a folder, or an ending that says no format where none is given.
    """
    from cider.errors import UsageError

    if out is None:
        return
    if form is None and out.suffix.lower() not in ENDINGS:
        raise UsageError(
            f"the ending of --out says the format, one of {', '.join(ENDINGS)}, got {str(out)!r}; "
            "or give --format"
        )
    if out.is_dir():
        raise UsageError(f"--out must be a file, got the folder {str(out)!r}")


def write_report(made: Report, out: Path, form: Format | None) -> None:
    """Write a report in the format that is given, or that the file's ending says."""
    from cider_platform.layout import write_text_atomic
    from cider_platform.report.page import page
    from cider_platform.report.writers import WRITERS

    chosen = form or ENDINGS[out.suffix.lower()]
    write_text_atomic(out, page(made) if chosen == "html" else WRITERS[chosen](made))


def read_report(
    results: Path | None,
    what: list[str] | None,
    where: list[str] | None,
    metric: list[str] | None,
    against: str,
    storage: str | None = None,
) -> Report:
    """Return the report that options ask for."""
    from cider_platform.commands.options import read_storage
    from cider_platform.report.data import build
    from cider_platform.report.gather import gather
    from cider_platform.report.published import published_beside
    from cider_platform.roots import results_root

    found = gather(results_root(results), what or (), where or (), read_storage(storage))
    records = [record for group in found.groups for record in group.records]
    return build(
        found.subject,
        found.groups,
        metrics=metric or (),
        against=against,
        published=published_beside(records),
    )


def figures(
    what: What = None,
    out: Annotated[
        Path,
        typer.Option(help="Folder of the figures; made if it is not there.", metavar="DIR"),
    ] = Path("figures"),
    where: Where = None,
    metric: Metrics = None,
    against: Against = "",
    results: Results = None,
    storage: StorageOption = None,
) -> None:
    """Draw finished runs for print, SVG and PNG: curves, areas, SMM, differences, answers.

    Example: cider-platform figures smoke --out figures
    """
    from cider_platform.output import emit_line, say
    from cider_platform.report.figures import write_figures
    from cider_platform.roots import results_root

    check_folder(out)
    made = read_report(results, what, where, metric, against, storage)
    written, left_out = write_figures(made, results_root(results), out)
    for path in written:
        emit_line(str(path))
    for reason in left_out:
        say(reason)
