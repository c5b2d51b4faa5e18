"""``runs over-seeds``: is one configuration better than another when both are trained anew?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Json, Kept, Results  # noqa: TC001
from cider_platform.commands.runs import Run  # noqa: TC001

if TYPE_CHECKING:
    from cider_platform.evidence.configurations import TwoConfigurations


def over_seeds(
    run: Run,
    other: Annotated[
        str,
        typer.Argument(help="A run of the other configuration.", metavar="OTHER"),
    ],
    missing: Annotated[str, typer.Option(metavar="PROTOCOL", help="Missing protocol.")] = "rmfm",
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Missing rate; default: the area over the rates 0, 0.1, ..., 1 (AUILC).",
            show_default=False,
        ),
    ] = None,
    kept: Kept = "",
    metric: Annotated[
        str, typer.Option(help="See: cider-platform metrics; default: what the run selects by.")
    ] = "",
    results: Results = None,
    json: Json = False,
) -> None:
    """Compare the configurations of two runs on all seeds that both were trained on.

    Runs that are equal in all but the seed are one configuration. Sign flips over seeds.

    Example: cider-platform runs over-seeds 1a2b 3c4d --missing rmfm
    """
    from cider_platform.evidence.configurations import compare_configurations
    from cider_platform.evidence.quantity import Quantity, condition_of
    from cider_platform.output import emit_json
    from cider_platform.results import all_runs, find_run
    from cider_platform.roots import results_root

    root = results_root(results)
    first, second = find_run(root, run), find_run(root, other)
    is_area = rate is None and missing not in ("none", "smm")
    condition_of(missing, 0.0 if is_area else rate, kept)  # refuses what makes no sense
    quantity = Quantity(
        protocol=missing, metric=metric or str(first.result.get("metric")), rate=rate, kept=kept
    )
    found = compare_configurations(all_runs(root), first, second, quantity)
    if json:
        emit_json("runs.over-seeds", found.to_dict())
    else:
        _print(found)


def _print(found: TwoConfigurations) -> None:
    from cider_platform.output import emit_line, emit_table, say
    from cider_platform.tables import number, title

    difference, test = found.paired.difference, found.paired.test
    rows: list[list[object]] = [
        [seed, number(found.first.get(seed)), number(found.second.get(seed))]
        for seed in sorted({*found.first, *found.second})
    ]
    summaries = (found.first_summary, found.second_summary)
    rows.append(["mean", *(number(each.mean) for each in summaries)])
    rows.append(["SD", *(number(each.sd) for each in summaries)])
    headings = ["seed", "first", "second"]
    emit_table(headings, rows, title=title(found.quantity, found.marks), right=headings[1:])
    emit_table(
        ["field that differs", "first", "second"],
        [[path, *values] for path, values in found.differs.items()],
    )
    text = f"difference on {difference.num_seeds} common seeds: {difference.mean:+.4f}"
    if (interval := difference.interval) is not None:
        text += f", 95 % interval {interval.low:+.4f} to {interval.high:+.4f}"
    emit_line(text)
    smallest = f"smallest p these seeds can reach: {test.smallest_p:.4g}"
    emit_line(f"sign flips: p {test.p:.4g}; {smallest}")
    for line in found.evaluate:
        say(f"missing evaluation: {line}")
