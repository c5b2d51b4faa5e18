"""Train one run in several workers of this machine: lease, cluster, progress and ending.

The workers do what one process does, and the first of them writes the run's files. This process
reads the record of epochs there, because nothing of a training travels through Ray.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from cider.training.trainer import EpochResult
from cider_platform.execution.sessions import choose_folder, ray_session, remove_left_folder
from cider_platform.layout import RunFolder, now
from cider_platform.lease import hold
from cider_platform.runs import run_log
from cider_platform.runs.trial import read_epochs

if TYPE_CHECKING:
    from collections.abc import Callable

    from cider.spec import RunSpec
    from cider_platform.execution.capacity import Group
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.tune import Train

_POLL_SECONDS = 0.2


def train_in_group(
    spec: RunSpec,
    runtime: Runtime,
    group: Group,
    *,
    train: Train,
    listener: Callable[[EpochResult], None],
    notice: Callable[[str], None],
) -> RunFolder:
    """Train a resolved spec to its end by several workers and return the run's folder.

    Workers that are lost are started again, all of them, from the run's own checkpoint.

    Args:
        spec: what to train.
        runtime: where and how, with absolute paths.
        group: how many workers, and what each of them holds.
        train: yields epoch results, in every worker; goes on from the run's checkpoint.
        listener: told of every epoch.
        notice: told of workers that were started again.

    Raises:
        LeaseTakenError: if another living process trains the same run.
        CiderError: if the run cannot go on; its status then says FAILED and why.
    """
    folder = RunFolder.of(runtime.results, spec.run_id)
    with hold(folder.lease, f"run {spec.run_id}") as lease:
        remove_left_folder(lease.previous)
        if folder.is_complete:
            return folder
        session = choose_folder()
        lease.note(folder=str(session))
        with ray_session(
            session,
            cpus=group.most * group.cpus,
            gpus=-int(-group.most * group.gpus // 1),
            threads=group.cpus,
        ) as watch:
            # Reads the environment when it is imported, so it must be inside the session.
            from cider_platform.execution.ray_group import fit  # noqa: PLC0415

            work = partial(fit, spec, runtime, group, train=train, folder=session)
            try:
                with run_log.attempt(folder, f"train with {group}"):
                    _follow(work, Follower(folder, listener, notice), watch.check)
            except Exception as error:
                if folder.state != "FAILED":  # a killed worker could not say so
                    folder.write_status("FAILED", error=str(error), ended=now("milliseconds"))
                raise
    return folder


class Follower:
    """Passes on what a run's files say while others train it.

    Args:
        folder: the run's.
        listener: told of every epoch, once, though it be trained again after a restart.
        notice: told of workers that were started again.
    """

    def __init__(
        self,
        folder: RunFolder,
        listener: Callable[[EpochResult], None],
        notice: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._listener = listener
        self._notice = notice
        self._shown = len(read_epochs(folder.epochs))
        self._started = folder.read_status().get("started")
        self._starts = 0

    def look(self) -> None:
        """Tell of workers that were started again and of epochs that were not told of."""
        status = self._folder.read_status()
        if status.get("state") == "RUNNING" and status["started"] != self._started:
            self._started = status["started"]
            self._starts += 1
            if self._starts > 1:
                self._notice(
                    f"workers were started again, now {status['workers']}; the run goes on from "
                    "its last checkpoint"
                )
        for epoch in read_epochs(self._folder.epochs)[self._shown :]:
            self._shown = epoch["epoch"]
            self._listener(EpochResult.from_dict(epoch))


def _follow(work: Callable[[], None], follower: Follower, check: Callable[[], None]) -> None:
    """Do the work in a thread and look at what comes of it; ``check`` raises if Ray has died.

    In a thread also because Ray Train handles Ctrl-C itself in the main one, and then ends the
    process as if all were well.
    """
    raised: list[Exception] = []

    def target() -> None:
        try:
            work()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_SECONDS)
        follower.look()
        check()
    if raised:
        raise raised[0]
