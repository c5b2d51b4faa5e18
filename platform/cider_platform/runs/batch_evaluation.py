"""Evaluate many finished runs side by side: which, under what, and on which processes."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import torch

from cider.errors import CiderError, NothingMatchedError
from cider_platform.execution.capacity import Slots, choose_slots, cluster_slots
from cider_platform.execution.sessions import choose_folder, cluster_session
from cider_platform.execution.stalls import DEFAULT_SECONDS
from cider_platform.grids.tasks import Task
from cider_platform.layout import RunFolder, read_json
from cider_platform.results import all_runs, find_run
from cider_platform.runs.conditions import conditions_of, evaluation_name
from cider_platform.runs.trial import train_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cider.condition import Condition
    from cider_platform.grids.ray_runs import Ended
    from cider_platform.results import RunRecord
    from cider_platform.runs.trial import Runtime

ALL = "all"


def select_runs(results: Path, names: Sequence[str]) -> list[RunRecord]:
    """Return finished runs, each once.

    Args:
        results: root of runs.
        names: beginnings of run ids, or ``all`` for every run that is complete.

    Raises:
        NothingMatchedError: if a name fits no run, or no run is complete.
        UsageError: if a name fits several.
        CiderError: if a run that was named is not complete.
    """
    found: dict[str, RunRecord] = {}
    for name in names:
        records = all_runs(results) if name == ALL else [find_run(results, name)]
        for record in records:
            if record.state == "COMPLETE":
                found.setdefault(record.run_id, record)
            elif name != ALL:
                raise CiderError(
                    f"run {record.run_id} is {record.state}; only complete runs are evaluated, and "
                    f"cider-platform runs why {record.run_id} says what to do"
                )
    if not found:
        raise NothingMatchedError(f"no run in {results / 'runs'} is complete")
    return list(found.values())


def evaluation_tasks(
    records: Sequence[RunRecord], protocols: Sequence[str], rates: Sequence[float], kept: str = ""
) -> list[Task]:
    """Return what evaluates each run under every protocol and rate.

    Args:
        records: complete runs.
        protocols: missing protocols; none is each run's own, with its own kept set.
        rates: missing rates in [0, 1].
        kept: smm's kept set; empty means all six.
    """
    tasks = []
    for number, record in enumerate(records):
        own = record.spec.get("missing", {})
        conditions: dict[Condition, None] = {}
        for protocol in protocols or [str(own.get("protocol", "rmfm"))]:
            mine = kept if protocols or kept else str(own.get("kept", ""))
            conditions |= dict.fromkeys(conditions_of(protocol, rates, mine))
        tasks.append(
            Task(
                number=number,
                run=record.run_id,
                spec=json.dumps(record.spec),
                conditions=tuple(conditions),
                what=f"evaluation under {len(conditions)} conditions",
            )
        )
    return tasks


def rows_of(results: Path, task: Task) -> list[dict[str, Any]] | None:
    """Return the result rows of a task, or None if it is not done yet."""
    folder = RunFolder.of(results, task.run)
    paths = [folder.evaluation_file(evaluation_name(each)) for each in task.conditions]
    return [read_json(path) for path in paths] if all(each.is_file() for each in paths) else None


def evaluate_tasks(
    tasks: Sequence[Task],
    runtime: Runtime,
    *,
    slots: int | None,
    address: str,
    tell: Callable[[str], None],
) -> dict[str, str]:
    """Evaluate runs in processes of a Ray cluster.

    Args:
        tasks: what to evaluate; the runs are complete.
        runtime: where and how, with absolute paths.
        slots: runs at a time; None fills this machine, and is one on another cluster.
        address: of a cluster that runs already; empty starts one on this machine.
        tell: shows a line.

    Returns:
        run -> why it failed, in one sentence; empty if all are done.
    """
    held = _slots(runtime, slots, address)
    failed: dict[str, str] = {}

    def note(ended: Ended) -> None:
        if ended.error:
            failed[ended.task.run] = ended.error
        tell(f"run {ended.task.run} {'failed: ' + ended.error if ended.error else 'is evaluated'}")

    with cluster_session(
        choose_folder(),
        address=address,
        cpus=held.cpus,
        gpus=math.ceil(held.slots * held.gpus_per_trial),
        threads=held.cpus_per_trial,
    ) as watch:
        # Reads the environment when it is imported, so it must be inside the session.
        from cider_platform.grids.ray_runs import run_tasks  # noqa: PLC0415

        run_tasks(
            tasks,
            train_run,
            runtime,
            slots=held,
            progress_timeout=DEFAULT_SECONDS,
            check=watch.check,
            should_stop=lambda: False,
            on_begin=lambda _: None,
            on_end=note,
        )
    return failed


def _slots(runtime: Runtime, slots: int | None, address: str) -> Slots:
    device = runtime.device.partition(":")[0]
    if address:
        return cluster_slots(address, device, slots=slots or 1)
    return choose_slots(device, slots=slots, num_gpus=torch.cuda.device_count())
