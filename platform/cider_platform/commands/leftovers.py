"""``logs`` and ``gc``: what a run's log says, and what dead and finished work has left behind."""

from __future__ import annotations

from typing import Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Json, Results  # noqa: TC001
from cider_platform.commands.runs import Run  # noqa: TC001


def logs(
    run: Run,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="Last lines only; 0: all of them.")
    ] = 0,
    results: Results = None,
) -> None:
    """Print the log of a run: its attempts, warnings, errors with tracebacks, deaths.

    What it means is said by: cider-platform runs why RUN
    """
    from cider.errors import NothingMatchedError
    from cider_platform.output import emit_line
    from cider_platform.results import find_run
    from cider_platform.roots import results_root

    log = find_run(results_root(results), run).folder.log
    if not log.is_file():
        raise NothingMatchedError(f"there is no log at {log}: the run has not begun")
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in text[-lines:]:
        emit_line(line)


def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it.")] = False,
    results: Results = None,
    json: Json = False,
) -> None:
    """List what finished and dead work has left behind; with --yes, remove it.

    Checkpoints of finished runs, half-written files, folders of dead Ray clusters, Tune's files.

    Results, best weights and logs stay, and so does all that someone works with now.
    """
    from cider_platform.corpora import readable_bytes
    from cider_platform.grids.leftovers import find_leftovers, remove
    from cider_platform.output import emit_json, emit_table, say
    from cider_platform.roots import results_root

    root = results_root(results)
    found = find_leftovers(root)
    total = sum(each.num_bytes for each in found)
    removed = [each for each in found if yes and remove(each)]
    if json:
        emit_json("gc", [{**each.to_dict(), "removed": each in removed} for each in found])
    elif found:
        emit_table(
            ["what", "path", "size"],
            [[each.what, each.path, readable_bytes(each.num_bytes)] for each in found],
            right=["size"],
        )
    if not found:
        say(f"nothing is left over in {root}")
    elif yes:
        say(f"{len(removed)} of {len(found)} removed, {readable_bytes(total)} in all")
    else:
        say(f"{len(found)} left over, {readable_bytes(total)}; --yes removes them")
