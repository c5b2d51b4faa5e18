"""How a search ends: the best configuration, its validation and sealed-test scores, its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cider.spec import RunSpec
from cider_platform.evaluation import conditions_of, evaluate_run
from cider_platform.layout import RunFolder, read_json, write_json_atomic
from cider_platform.ledger import best, counts
from cider_platform.results import marks

if TYPE_CHECKING:
    from cider.training.evaluation import Condition
    from cider_platform.driver import Outcome
    from cider_platform.ledger import TrialRecord
    from cider_platform.trial import Runtime


def sealed_conditions(spec: RunSpec) -> list[Condition]:
    """Return what a finished run is tested on: rate 0, and the rates it was selected at."""
    missing = spec.missing
    rates = sorted({0.0, *spec.selection.rates})
    return conditions_of(missing.protocol, rates, missing.kept)


def conclude(outcome: Outcome, runtime: Runtime) -> dict[str, Any]:
    """Evaluate the best run of a study on the sealed test split and write the study's table.

    Args:
        outcome: a study with all its trials.
        runtime: where and how to execute.

    Returns:
        What ``tune --json`` prints under ``data``; ``best`` is None if no trial is complete.
    """
    found = best(outcome.trials)
    data: dict[str, Any] = {
        "study": outcome.study.name,
        "folder": str(outcome.study.root),
        "trials": counts(outcome.trials),
        "seconds": round(outcome.seconds, 3),
        "best": None if found is None else _best(found, runtime),
        "failures": [
            {"number": trial.number, "run": trial.run, "error": trial.error}
            for trial in outcome.trials
            if trial.state == "FAIL"
        ],
    }
    write_json_atomic(outcome.study.table, {"schema": 1, **data})
    return data


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
