"""``runs significance``: is the difference of two runs more than the luck of the test split?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Json, Kept, Results  # noqa: TC001
from cider_platform.commands.runs import Run  # noqa: TC001

if TYPE_CHECKING:
    from cider_platform.evidence.two_runs import TwoRuns


def significance(
    run: Run,
    other: Annotated[
        str, typer.Argument(help="Another run's id, or the beginning of it.", metavar="OTHER")
    ],
    missing: Annotated[
        str, typer.Option(metavar="PROTOCOL", help="Missing protocol; default: none is missing.")
    ] = "none",
    rate: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Missing rate.", show_default=False)
    ] = None,
    kept: Kept = "",
    metric: Annotated[
        str, typer.Option(help="See: cider-platform metrics; default: what the run selects by.")
    ] = "",
    results: Results = None,
    json: Json = False,
) -> None:
    """Test whether two runs differ on the same test utterances, from their stored predictions.

    McNemar's test and a bootstrap over utterances. It says nothing of other seeds.

    Example: cider-platform runs significance 1a2b 3c4d --missing rmfm --rate 0.5
    """
    from cider_platform.evidence.quantity import condition_of
    from cider_platform.evidence.two_runs import compare_runs
    from cider_platform.output import emit_json
    from cider_platform.results import find_run
    from cider_platform.roots import results_root

    root = results_root(results)
    condition = condition_of(missing, rate, kept)
    found = compare_runs(find_run(root, run), find_run(root, other), condition, metric)
    if json:
        emit_json("runs.significance", found.to_dict())
    else:
        _print(found)


def _print(found: TwoRuns) -> None:
    from cider_platform.output import emit_table, say
    from cider_platform.tables import number, title

    interval, test = found.bootstrap.interval, found.mcnemar
    rows: list[tuple[str, object]] = [
        (f"{found.metric} of {found.first}", found.first_value),
        (f"{found.metric} of {found.second}", found.second_value),
        ("difference", found.bootstrap.difference),
        ("  95 % interval, low", interval.low),
        ("  95 % interval, high", interval.high),
        ("  p, bootstrap over utterances", found.bootstrap.p),
        (f"right by the first alone ({found.accuracy})", test.only_first),
        (f"right by the second alone ({found.accuracy})", test.only_second),
        ("  p, McNemar exact", test.p),
        ("  p, McNemar mid-p", test.mid_p),
    ]
    what = f"{found.first} and {found.second}, test, {found.condition}"
    emit_table(
        ["", "value"],
        [[name, number(value)] for name, value in rows],
        title=title(what, found.marks),
        right=["value"],
    )
    say(f"{found.utterances} utterances; of other seeds this says nothing")
