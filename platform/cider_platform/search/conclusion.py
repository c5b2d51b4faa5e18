"""How a search ends: the best configuration, its validation and sealed-test scores, its files."""

from __future__ import annotations

from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from cider.spec import RunSpec
from cider_platform.layout import RunFolder, read_json, write_json_atomic
from cider_platform.results import marks
from cider_platform.runs.conditions import conditions_of
from cider_platform.runs.evaluation import evaluate_run
from cider_platform.search.ledger import best, counts, pareto
from cider_platform.search.objectives import directions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cider.condition import Condition
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.driver import Outcome
    from cider_platform.search.fresh_seeds import Standing
    from cider_platform.search.ledger import TrialRecord


def sealed_conditions(spec: RunSpec) -> list[Condition]:
    """Return what a finished run is tested on: rate 0, and the rates it was selected at."""
    missing = spec.missing
    return conditions_of(missing.protocol, sealed_rates(spec), missing.kept)


def sealed_rates(spec: RunSpec) -> list[float]:
    """Return the missing rates of ``sealed_conditions``, ascending."""
    return sorted({0.0, *spec.selection.rates})


def runs_to_test(outcome: Outcome, finals: Sequence[Standing] = ()) -> list[str]:
    """Return the runs that ``conclude`` evaluates on the sealed test split."""
    found = _winner(outcome, finals)
    runs = [] if found is None or found.run is None else [found.run]
    return [*runs, *(finals[0].runs if finals else ())]


def _winner(outcome: Outcome, finals: Sequence[Standing]) -> TrialRecord | None:
    if finals:
        return next(trial for trial in outcome.trials if trial.number == finals[0].trial)
    return best(outcome.trials, minimise=directions(outcome.objectives)[0] == "minimize")


def conclude(outcome: Outcome, runtime: Runtime, finals: Sequence[Standing] = ()) -> dict[str, Any]:
    """Evaluate the best run of a study on the sealed test split and write the study's table.

    Args:
        outcome: a study with all its trials.
        runtime: where and how to execute.
        finals: its finalists on fresh seeds, the best first; that one is then the best
            configuration, and each of its fresh runs is tested.

    Returns:
        What ``tune --json`` prints under ``data``; ``best`` is None if no trial is complete.
    """
    found = _winner(outcome, finals)
    data: dict[str, Any] = {
        "study": outcome.study.name,
        "folder": str(outcome.study.root),
        "trials": counts(outcome.trials),
        "seconds": round(outcome.seconds, 3),
        "objectives": outcome.objectives,
        "best": None if found is None else _best(found, runtime),
        "pareto": _pareto(outcome),
        "finals": [each.to_dict() for each in finals],
        "final_tests": _final_tests(finals[0], runtime) if finals else [],
        "failures": [
            {"number": trial.number, "run": trial.run, "error": trial.error}
            for trial in outcome.trials
            if trial.state == "FAIL"
        ],
    }
    write_json_atomic(outcome.study.table, {"schema": 1, **data})
    return data


def _pareto(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the trials no other beats in every objective; empty with one objective."""
    if len(outcome.objectives) < 2:
        return []
    return [
        {"trial": each.number, "run": each.run, "values": each.values, "params": each.params}
        for each in pareto(outcome.trials, outcome.objectives)
    ]


def _final_tests(winner: Standing, runtime: Runtime) -> list[dict[str, Any]]:
    """Return the winner's sealed-test metrics over its fresh seeds: mean and SD per condition."""
    by_run = []
    for run in winner.runs:
        folder = RunFolder.of(runtime.results, run)
        spec = RunSpec.from_dict(read_json(folder.spec))
        by_run.append(evaluate_run(folder, runtime, sealed_conditions(spec)))
    rows = []
    for same_condition in zip(*by_run, strict=True):
        first = same_condition[0]
        columns = {
            name: [row["test"][name] for row in same_condition]
            for name in first["test"]
            if all(row["test"][name] is not None for row in same_condition)
        }
        rows.append(
            {
                **{name: first[name] for name in ("protocol", "rate", "kept")},
                "seeds": len(same_condition),
                "mean": {name: mean(values) for name, values in columns.items()},
                "sd": {
                    name: stdev(values) if len(values) > 1 else None
                    for name, values in columns.items()
                },
            }
        )
    return rows


def _best(trial: TrialRecord, runtime: Runtime) -> dict[str, Any]:
    assert trial.run is not None
    folder = RunFolder.of(runtime.results, trial.run)
    values = read_json(folder.spec)
    spec = RunSpec.from_dict(values)
    result = read_json(folder.result)
    return {
        "trial": trial.number,
        "run": trial.run,
        "folder": str(folder.root),
        "marks": marks(values, result),
        "params": trial.params,
        "metric": spec.selection_metric,
        "selected_on": "test" if spec.selection.rule == "published" else "validation",
        "score": trial.value,
        "epoch": result["epoch"],
        "epochs": result["epochs"],
        "parameters": result["parameters"],
        "evaluations": evaluate_run(folder, runtime, sealed_conditions(spec)),
    }
