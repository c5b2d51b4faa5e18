"""Ray runs the tasks of a grid: as many at a time as there are slots, in processes that are reused.

Ray Core and not Ray Tune: a grid decides nothing while it runs, so a task that returns one sentence
is all it takes. Ray gives a process that has finished one task the next, with torch imported. Its
own retries are off: a worker that died is taken up again here, at most so often, from the run's
checkpoint, and the run's log says so.
"""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError

from cider_platform.execution.stalls import StallWatch
from cider_platform.grids.work import work
from cider_platform.layout import RunFolder
from cider_platform.lease import has_living_owner
from cider_platform.runs import run_log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ray import ObjectRef

    from cider_platform.execution.capacity import Slots
    from cider_platform.grids.tasks import Task
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.tune import Train

MAX_WORKER_DEATHS = 2
"""How often a run whose worker died is started again."""
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Ended:
    """A task that has ended; ``error`` is empty if its run is done."""

    task: Task
    error: str


class _Runs:
    """The tasks that are handed out, and what becomes of them."""

    def __init__(
        self,
        train: Train,
        runtime: Runtime,
        slots: Slots,
        seconds: float,
        check: Callable[[], None],
    ) -> None:
        self._runtime, self._check = runtime, check
        self._remote = ray.remote(
            num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_trial, max_retries=0
        )(work)
        # Once into the object store, not with every task.
        self._train, self._where = ray.put(train), ray.put(runtime)
        self._stalls = StallWatch(seconds)
        self._deaths: dict[int, int] = {}
        self._stuck: set[int] = set()
        self.running: dict[ObjectRef[str], Task] = {}

    def begin(self, task: Task) -> None:
        self.running[self._remote.remote(task, self._train, self._where)] = task

    def wait(self, seconds: float) -> list[Ended]:
        """Return what has ended, after at most ``seconds``; dead workers' tasks begin again."""
        ended: list[Ended] = []
        ready, _ = ray.wait(list(self.running), num_returns=1, timeout=seconds)
        for reference in ready:
            task = self.running.pop(reference)
            try:
                ended.append(Ended(task, ray.get(reference)))
            except RayTaskError as error:
                ended.append(Ended(task, self._fail(task, _line(error.cause or error))))
            except RayError as error:
                ended += self._take_up(task, error)
        return ended

    def _take_up(self, task: Task, error: RayError) -> list[Ended]:
        """Start a task again whose worker died, or give it up."""
        self._check()  # if the cluster died, the run did nothing wrong
        folder = RunFolder.of(self._runtime.results, task.run)
        reason = _line(error)
        run_log.lost(folder, reason)
        if task.number in self._stuck:
            return [Ended(task, self._fail(task, (
                f"made no progress for {self._stalls.seconds:g} s, so its worker was stopped; if "
                "an epoch takes that long, give a larger execution.progress_timeout"
            )))]  # fmt: skip
        deaths = self._deaths[task.number] = self._deaths.get(task.number, 0) + 1
        if deaths > MAX_WORKER_DEATHS:
            text = f"its worker process died {deaths} times: {reason}"
            return [Ended(task, self._fail(task, text))]
        self.begin(task)
        return []

    def _fail(self, task: Task, error: str) -> str:
        folder = RunFolder.of(self._runtime.results, task.run)
        if not folder.is_complete:
            folder.write_status("FAILED", error=error)
        return error

    def end_stuck(self) -> None:
        """Kill the workers of runs that make no progress."""
        references = {task.number: reference for reference, task in self.running.items()}
        folders = [
            (task.number, RunFolder.of(self._runtime.results, task.run))
            for task in self.running.values()
        ]
        # One that waits for room in the cluster has no process that could be stuck.
        begun = [each for each in folders if has_living_owner(each[1].lease)]
        for number in self._stalls.stalled(begun):
            if number not in self._stuck:
                self._stuck.add(number)
                ray.cancel(references[number], force=True)

    def stop(self) -> None:
        """End what runs; every run keeps its last checkpoint."""
        for reference in self.running:
            with contextlib.suppress(RayError):
                ray.cancel(reference, force=True)


def run_tasks(
    tasks: Sequence[Task],
    train: Train,
    runtime: Runtime,
    *,
    slots: Slots,
    progress_timeout: float,
    check: Callable[[], None],
    should_stop: Callable[[], bool],
    on_begin: Callable[[Task], None],
    on_end: Callable[[Ended], None],
) -> None:
    """Run tasks until all have ended or someone asks to stop; Ray must be running.

    Args:
        tasks: what is to be done, in this order.
        train: yields epoch results; importable in workers, or picklable.
        runtime: where and how runs execute, with absolute paths.
        slots: how many at a time, and what each of them holds.
        progress_timeout: seconds without progress after which a run fails.
        check: raises if the cluster has died.
        should_stop: asked several times a second.
        on_begin: told of every task that is handed out.
        on_end: told of every task that has ended.
    """
    waiting = deque(tasks)
    runs = _Runs(train, runtime, slots, progress_timeout, check)
    while waiting or runs.running:
        if should_stop():
            runs.stop()
            return
        while waiting and len(runs.running) < slots.slots:
            task = waiting.popleft()
            runs.begin(task)
            on_begin(task)
        ended = runs.wait(0.25)
        check()
        for each in ended:
            on_end(each)
        runs.end_stuck()


def _line(error: Any) -> str:  # noqa: ANN401 - an exception of any library
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:_LONGEST_REASON]
