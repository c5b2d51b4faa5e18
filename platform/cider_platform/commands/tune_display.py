"""What ``tune`` prints when its study has all its trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cider_platform.search.driver import Plan


def print_search(plan: Plan, data: dict[str, Any]) -> None:
    """Print the best configuration of a study, its scores and its files.

    Args:
        plan: the study.
        data: what ``conclusion.conclude`` returned; ``best`` is not None.
    """
    from cider_platform.output import emit_table, say
    from cider_platform.tables import evaluation_table, number, seconds, title

    best = data["best"]
    axes = [str(axis).partition("=") for axis in plan.space]
    emit_table(
        ["field", "best", "searched over"],
        [[path, number(best["params"][path]), values] for path, _, values in axes],
        title=title("best configuration", best["marks"]),
        right=["best"],
    )
    _print_pareto(data, best["marks"])
    _print_finals(data, best["marks"])
    columns, cells = evaluation_table(best["evaluations"])
    emit_table(
        columns,
        cells,
        title=title("its validation and sealed-test scores", best["marks"]),
        right=columns[1:],
    )
    counts = ", ".join(f"{count} {state}" for state, count in sorted(data["trials"].items()))
    emit_table(
        ["fact", "value"],
        [
            ["study", data["study"]],
            [f"selected by {best['selected_on']} {best['metric']}", number(best["score"])],
            ["run", f"{best['run']} (trial {best['trial']}, epoch {best['epoch']})"],
            ["run folder", best["folder"]],
            ["study folder", data["folder"]],
            ["trials", counts],
            ["search time", seconds(data["seconds"])],
        ],
    )
    say(f"more missing data: cider-platform evaluate {best['run']} --rates 0:1:0.1")


def _print_pareto(data: dict[str, Any], marks: list[str]) -> None:
    from cider_platform.output import emit_table
    from cider_platform.tables import number, title

    if data["pareto"]:
        emit_table(
            ["trial", *data["objectives"], "run"],
            [[each["trial"], *map(number, each["values"]), each["run"]] for each in data["pareto"]],
            title=title("Pareto set: no trial is better in one and worse in none", marks),
            right=["trial", *data["objectives"]],
        )


def _print_finals(data: dict[str, Any], marks: list[str]) -> None:
    from cider_platform.output import emit_table
    from cider_platform.tables import number, title

    if not data["finals"]:
        return
    emit_table(
        ["trial", "seeds", "mean", "sd"],
        [
            [each["trial"], len(each["scores"]), number(each["mean"]), number(each["sd"])]
            for each in data["finals"]
        ],
        title=title(f"{data['objectives'][0]} on seeds that were never searched on", marks),
        right=["trial", "seeds", "mean", "sd"],
    )
    metric = data["best"]["metric"]
    emit_table(
        ["condition", f"test {metric} mean", "sd", "seeds"],
        [
            [
                f"{row['protocol']} {row['kept'] or number(row['rate'])}",
                number(row["mean"].get(metric)),
                number(row["sd"].get(metric)),
                row["seeds"],
            ]
            for row in data["final_tests"]
        ],
        title=title("its sealed-test scores on those seeds", marks),
        right=[f"test {metric} mean", "sd", "seeds"],
    )
