"""Ray Tune runs the trials of a search; the ledger remembers them.

Why pruning is decided here and not by Tune's ``ASHAScheduler``: what the scheduler stops, Tune
reports like a trial that ended, so Optuna would take a score after two epochs for a final one; and
its rungs live in memory, so a killed driver would forget them. The scheduler below asks the study.

A worker stops only inside ``tune.report``, between two epochs, after the checkpoint is written.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cider_platform.execution.ray_gang import Gang, trial_resources
from cider_platform.execution.stalls import DEFAULT_SECONDS, StallWatch
from cider_platform.layout import RunFolder
from cider_platform.search.tune_trials import death, forget, trial_name
from cider_platform.search.tune_worker import heard, run_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from ray.tune.experiment import Trial

    from cider.spec import RunSpec
    from cider.training.trainer import EpochResult
    from cider_platform.execution.capacity import Slots
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.search import Search

    Train = Callable[[RunSpec, Runtime], Iterator[EpochResult]]


class SearchInterruptedError(BaseException):
    """A signal, or the end of its hours (None), ends the search; the study can be continued.

    Not an ``Exception``: Tune must not take it for a trial's failure.
    """

    def __init__(self, signal_number: int | None) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class _DriverError(BaseException):
    """Carries an error of the driver out of Tune, which would take an Exception for a trial's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@contextlib.contextmanager
def _driving() -> Iterator[None]:
    """Let errors of the driver's own decisions, e.g. a full disk, end the search as they are."""
    try:
        yield
    except Exception as error:
        raise _DriverError(error) from error


class _NotSaved:
    """Tune pickles what it is given into snapshots that nobody reads: this leaves nothing there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _StudySearcher(_NotSaved, Searcher):
    """Asks the search for jobs; what comes of them arrives at the scheduler and the callback."""

    def __init__(self, search: Search) -> None:
        super().__init__(metric="epoch", mode="max")
        self._search = search
        self._numbers: dict[str, int] = {}
        """The trial of each of Tune's that has not ended."""
        self._latest: dict[int, str] = {}
        """Tune's trial that is a trial's present one."""

    def suggest(self, trial_id: str) -> dict[str, Any] | Any:  # noqa: ANN401 - FINISHED is text
        with _driving():
            job = self._search.next_job()
        if job is None:
            return Searcher.FINISHED if self._search.is_over else None
        self._numbers[trial_id] = job.number
        self._latest[job.number] = trial_id
        spec = json.dumps(job.spec.to_dict())
        return {
            "number": job.number,
            "run": job.spec.run_id,
            "spec": spec,
            "objectives": self._search.ledger.definition["objectives"],
            "shape": job.shape,
            "gpus": self._search.packing.gpus(job.number),
        }

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,  # noqa: ARG002 - the scheduler has seen it
        error: bool = False,
    ) -> None:
        number = self._numbers.pop(trial_id)
        # A trial that was put back may have another worker by now.
        if not error and self._latest[number] == trial_id:
            with _driving():
                self._search.on_lost(number, "")

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the study is the only truth."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Write nothing: the study is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search continues from its study, not from Tune's snapshot")


class _StudyScheduler(_NotSaved, FIFOScheduler):
    """Passes reports on, and stops what the study's pruner stops."""

    def __init__(self, search: Search) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._search = search

    def on_trial_result(
        self,
        tune_controller: object,  # noqa: ARG002
        trial: Trial,
        result: dict[str, Any],
    ) -> str:
        with _driving():
            stop = self._search.on_report(trial.config["number"], heard(result))
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE


class _StudyCallback(_NotSaved, tune.Callback):
    """Ends the search between two events on a signal or without a cluster; ends stuck trials.

    Args:
        search: decides.
        runtime: names the runs' folder.
        stalls: knows trials that make no progress.
        check: raises if the cluster has died.
        received: signals.
    """

    def __init__(
        self,
        search: Search,
        runtime: Runtime,
        *,
        stalls: StallWatch,
        check: Callable[[], None],
        received: list[int],
    ) -> None:
        self._search = search
        self._runtime = runtime
        self._stalls = stalls
        self._check = check
        self._received = received
        self._ended: list[Trial] = []

    def on_step_begin(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Trial],
        **info: object,  # noqa: ARG002
    ) -> None:
        while self._ended:
            forget(self._ended.pop())
        if self._received or self._search.clock.is_over:
            self._search.on_stop()
            raise SearchInterruptedError(self._received[0] if self._received else None)
        with _driving():
            self._check()
            running = {
                trial.config["number"]: trial for trial in trials if trial.status == "RUNNING"
            }
            folders = [
                (number, RunFolder.of(self._runtime.results, trial.config["run"]))
                for number, trial in running.items()
            ]
            for number in self._stalls.stalled(folders):
                self._end_stuck(running[number])

    def _end_stuck(self, trial: Trial) -> None:
        """Kill a trial's worker, which nothing else can interrupt, and let the trial fail."""
        worker = trial.temporary_state.ray_actor
        assert worker is not None, "a running trial has a worker"
        ray.kill(worker)
        self._search.on_lost(
            trial.config["number"],
            f"made no progress for {self._stalls.seconds:g} s, so its worker was stopped; if an "
            "epoch takes that long, give a larger --progress-timeout",
        )

    def on_trial_complete(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Trial],  # noqa: ARG002
        trial: Trial,
        **info: object,  # noqa: ARG002
    ) -> None:
        self._ended.append(trial)  # Tune still uses it in this step

    def on_trial_error(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Trial],  # noqa: ARG002
        trial: Trial,
        **info: object,  # noqa: ARG002
    ) -> None:
        with _driving():
            self._check()  # if the cluster died, the trial did nothing wrong
            self._search.on_death(trial.config["number"], death(trial))


def run_on_ray(
    search: Search,
    train: Train,
    runtime: Runtime,
    *,
    slots: Slots,
    folder: Path,
    check: Callable[[], None],
    progress_timeout: float = DEFAULT_SECONDS,
) -> None:
    """Run a search's trials until the study has its total; Ray must be running.

    Args:
        search: decides.
        train: yields epoch results; must be importable in workers, or picklable.
        runtime: where and how runs execute, with absolute paths.
        slots: how many trials at a time.
        folder: absolute; Tune's own files go there and are never read back.
        check: raises if the cluster has died.
        progress_timeout: seconds without progress after which a trial fails.

    Raises:
        SearchInterruptedError: on SIGINT or SIGTERM; running trials stay in the study.
    """

    def trainable(config: dict[str, Any]) -> None:
        if slots.workers == 1:
            run_trial(config, train, runtime)
            return
        with Gang(train, slots) as gang:
            run_trial(config, gang.train, runtime, num_workers=slots.workers)

    # It would list failed trials by Tune's names at the end; they have been told one by one.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    with _signals() as received:
        tuner = tune.Tuner(
            tune.with_resources(trainable, lambda config: trial_resources(slots, config["gpus"])),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                max_concurrent_trials=slots.slots,
                reuse_actors=True,
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
                search_alg=_StudySearcher(search),
                scheduler=_StudyScheduler(search),
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                verbose=0,
                # The search lets a trial go on itself: it may need more room than it had.
                failure_config=tune.FailureConfig(max_failures=0),
                callbacks=[
                    _StudyCallback(
                        search,
                        runtime,
                        stalls=StallWatch(progress_timeout),
                        check=check,
                        received=received,
                    )
                ],
            ),
        )
        try:
            tuner.fit()
        except _DriverError as carried:
            raise carried.error from carried.error.__cause__
        except Exception:
            check()
            raise
    for number in search.ledger.live:
        search.on_lost(number, "Ray Tune lost it")


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM; a second one ends the process at once, as usual."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
