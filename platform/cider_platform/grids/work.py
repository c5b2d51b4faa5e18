"""One run of a grid in a worker: train it to its end, then evaluate it under what is asked for.

No engine is imported here: ``ray_runs`` calls ``work`` in another process.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cider.spec import RunSpec
from cider_platform.execution.faults import sentence
from cider_platform.grids.states import is_evaluated
from cider_platform.layout import RunFolder, now, write_json_atomic
from cider_platform.lease import hold
from cider_platform.runs import run_log
from cider_platform.runs.evaluation import evaluate_run

if TYPE_CHECKING:
    from cider.condition import Condition
    from cider_platform.grids.tasks import Task
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.tune import Train


def work(task: Task, train: Train, runtime: Runtime) -> str:
    """Train and evaluate a run; what is done already is not done again.

    Args:
        task: the run.
        train: yields epoch results; goes on from the run's checkpoint.
        runtime: where and how to execute, with absolute paths.

    Returns:
        why it failed, in one sentence; empty if it is done.
    """
    spec = RunSpec.from_dict(json.loads(task.spec))
    if spec.run_id != task.run:
        return (
            f"the worker would train run {spec.run_id} where the grid asked for {task.run}: its "
            "code is of another version; stop the grid and give the same command again"
        )
    folder = RunFolder.of(runtime.results, spec.run_id)
    # Another grid, search or command may be training the same run: wait, then use what it did.
    with hold(folder.lease, f"run {spec.run_id}", wait=True):
        if folder.is_complete and is_evaluated(folder, task.conditions):
            return ""
        try:
            with run_log.attempt(folder, task.what, in_worker=True):
                for _ in train(spec, runtime):
                    pass
                _evaluate(folder, runtime, task.conditions)
        except Exception as error:
            return _note(folder, sentence(error, folder.root))
    return ""


def _evaluate(folder: RunFolder, runtime: Runtime, conditions: tuple[Condition, ...]) -> None:
    evaluate_run(folder, runtime, conditions)
    folder.evaluation_error.unlink(missing_ok=True)


def _note(folder: RunFolder, error: str) -> str:
    """Let the run's files say what failed; training has said so itself."""
    if folder.is_complete:
        write_json_atomic(folder.evaluation_error, {"error": error, "time": now()})
    return error
