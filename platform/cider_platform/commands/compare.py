"""``compare``: a published table, and what our own finished runs have for its cells."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Json, Results  # noqa: TC001
from cider_platform.evidence.render import Format  # noqa: TC001

if TYPE_CHECKING:
    from cider_platform.evidence.comparison import Comparison

_MOST_COMMANDS = 10


def compare(
    table: Annotated[
        str, typer.Argument(help="A table of the paper, table4 to table22.", metavar="TABLE")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(help="Only rows of this model, as printed; may be given many times."),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            help="Compare our runs of every model with our runs of this one, on common seeds, "
            "instead of with the published numbers.",
            metavar="MODEL",
        ),
    ] = "",
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Only runs that meet it, as runs list takes it, e.g. "
            "model.positions=batch_index; may be given many times.",
            show_default=False,
        ),
    ] = None,
    synthetic: Annotated[
        bool,
        typer.Option(
            help="Take runs on synthetic-mosi and synthetic-mosei in place of those on the real "
            "corpora; every row says that it is not comparable."
        ),
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="How to print it.")] = "text",
    results: Results = None,
    json: Json = False,
) -> None:
    """Show a published table: published, ours by the published selection, ours by honest selection.

    A cell that was not run, or not evaluated, says so. Numbers are in percent.

    Example: cider-platform compare table4 --model CIDer
    """
    from cider.registry import lookup
    from cider_platform.evidence import render
    from cider_platform.evidence.comparison import compare_models, compare_table
    from cider_platform.evidence.ours import OurRuns
    from cider_platform.output import emit_json
    from cider_platform.roots import results_root

    printed = _models_of(table)
    for name in [*(model or ()), *filter(None, [against])]:
        lookup(f"model in {table}", name, printed)
    ours = OurRuns.read(results_root(results), synthetic=synthetic, where=where or ())
    wanted = [*model, against] if model and against else model or []
    found = compare_table(table, ours, models=wanted)
    if against:
        found = compare_models(found, against)
    if json or form == "json":
        emit_json("compare", found.to_dict())
    elif form == "text":
        print_comparison(found)
    else:
        writers = {"md": render.markdown, "csv": render.comma_separated, "latex": render.latex}
        sys.stdout.write(writers[form](found))


def _models_of(table: str) -> dict[str, str]:
    from cider.published import cells

    return {each.model: each.model for each in cells(table)}


def print_comparison(found: Comparison) -> None:
    """Print a comparison as a table, its notes and what evaluations it lacks on stderr."""
    from cider_platform.evidence.render import RIGHT, headings_and_cells, title_of
    from cider_platform.output import emit_table, say

    sides = [side for row in found.rows for side in (row.published, row.validation)]
    headings, cells = headings_and_cells(found)
    emit_table(headings, cells, title=title_of(found), right=RIGHT)
    for note in found.notes():
        say(note)
    commands = list(dict.fromkeys(line for side in sides for line in side.ours.evaluate))
    if commands:
        say(f"missing evaluations: {len(commands)}; make them with")
    for line in commands[:_MOST_COMMANDS]:
        say(f"  {line}")
    if len(commands) > _MOST_COMMANDS:
        say("  ... --json lists all")
