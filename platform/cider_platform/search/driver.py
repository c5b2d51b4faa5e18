"""Drive one study from beginning, or from wherever it stopped, to its total number of trials."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cider.errors import CiderError, UsageError
from cider_platform.execution import faults
from cider_platform.execution.cluster_watch import ClusterLostError
from cider_platform.execution.sessions import choose_folder, cluster_session, remove_left_folder
from cider_platform.execution.stalls import DEFAULT_SECONDS
from cider_platform.layout import StudyFolder
from cider_platform.lease import hold
from cider_platform.output import warn
from cider_platform.search.budget import Budget, Clock
from cider_platform.search.ledger import Ledger, TrialRecord
from cider_platform.search.packing_record import packing_of
from cider_platform.search.racing import Racing
from cider_platform.search.search import Search
from cider_platform.search.study import check_same, define, keep, write_definition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cider.spec import RunSpec
    from cider_platform.execution.capacity import Slots
    from cider_platform.lease import Lease
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.search import Change
    from cider_platform.search.space import Space
    from cider_platform.search.storage import Storage
    from cider_platform.search.study import Kept
    from cider_platform.search.tune import Train


MAX_CLUSTER_DEATHS = 3
"""How often one command starts Ray again after Ray has died under it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one ``tune`` command asks for."""

    study: str
    spec: RunSpec
    """Resolved base spec."""
    storage: Storage | None = None
    """The database that keeps the study; None is the journal in its folder."""
    space: Space
    total: int
    progress_timeout: float = DEFAULT_SECONDS
    """Seconds without progress after which a trial fails."""
    sampler: str = "tpe"
    pruner: Mapping[str, Any] = field(default_factory=lambda: {"name": "none"})
    objectives: tuple[str, ...] = ()
    """Names (``search.objectives``); none is the score that runs select their epoch by."""
    racing: Racing = field(default_factory=Racing)
    starts: tuple[Mapping[str, Any], ...] = ()
    """What the first trials are, see ``study.define``."""
    budget: Budget = field(default_factory=Budget)
    slots: Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command left its study."""

    study: StudyFolder
    trials: list[TrialRecord]
    seconds: float
    objectives: list[str]
    signal_number: int | None = None
    """The signal that ended the search before its total, if one did."""
    used_up: str = ""
    """What of its budget ended the search before its total, as a phrase, if something did."""


class Listener(Protocol):
    """Whoever shows a search."""

    def begin(self, trials: list[TrialRecord], total: int) -> None:
        """Take note of the trials that the study has already, and of its total."""

    def change(self, change: Change) -> None:
        """Take note of what happened to a trial."""


def drive(
    plan: Plan,
    runtime: Runtime,
    *,
    train: Train,
    resolve: Callable[[RunSpec, Runtime], RunSpec],
    listener: Listener,
    address: str = "",
) -> Outcome:
    """Run a study's missing trials.

    Args:
        plan: the study.
        runtime: where and how runs execute.
        train: yields the epoch results of a resolved spec.
        resolve: fills in a spec whose text encoder is searched.
        listener: shows the search.
        address: of a Ray cluster that runs already; empty starts one on this machine.

    Raises:
        LeaseTakenError: if another living command drives the study.
        ClusterLostError: if Ray has died under the search again and again.
        CiderError: if the study cannot be written, e.g. on a full disk.
        UsageError: if the study was begun with another definition, or there is no slot.
    """
    if plan.slots.slots < 1 or plan.total < 1:
        raise UsageError(
            f"a search needs at least one trial and one slot, got {plan.total} trials and "
            f"{plan.slots.slots} slots"
        )
    started = time.monotonic()
    study = StudyFolder.of(runtime.results, plan.study)
    try:
        with (
            hold(study.lease, f"study {plan.study}") as lease,
            keep(study, plan.storage) as kept,
        ):
            remove_left_folder(lease.previous)
            storage = kept.storage
            definition = define(
                plan.spec,
                plan.space,
                sampler=plan.sampler,
                pruner=plan.pruner,
                objectives=plan.objectives,
                racing=plan.racing,
                starts=plan.starts,
            )
            check_same(study, storage, definition)
            write_definition(study, definition, plan.storage)

            def begin() -> Search:
                ledger = Ledger(storage, plan.study, definition)
                spent = sum(trial.gpu_seconds for trial in ledger.trials())
                return Search(
                    ledger,
                    plan.spec,
                    total=plan.total,
                    results=runtime.results,
                    resolve=lambda spec: resolve(spec, runtime),
                    listener=listener.change,
                    clock=Clock(budget, spent),
                    packing=packing_of(plan.slots, study.packing),
                )

            budget = plan.budget
            search = begin()
            listener.begin(search.ledger.trials(), plan.total)
            received, deaths = None, 0
            while search.ledger.has_work(plan.total):
                try:
                    received = _run(search, train, plan, runtime, lease, kept, address=address)
                    break
                except ClusterLostError as error:
                    deaths += 1
                    forgive(error, deaths)
                budget = plan.budget.less(time.monotonic() - started)
                # What was running is handed out again, as after the death of the driver.
                search = begin()
            return Outcome(
                study=study,
                trials=search.ledger.trials(),
                seconds=time.monotonic() - started,
                objectives=definition["objectives"],
                signal_number=received,
                used_up=search.clock.used_up if search.ledger.has_work(plan.total) else "",
            )
    except OSError as error:
        raise CiderError(
            f"study {plan.study} had to stop: {faults.sentence(error, study.root)}; the same "
            "command then continues it"
        ) from error


def forgive(error: ClusterLostError, deaths: int) -> None:
    """Say that Ray is started again, or give up.

    Raises:
        ClusterLostError: if Ray has died too often.
    """
    if deaths > MAX_CLUSTER_DEATHS:
        raise ClusterLostError(
            f"{error}, and so it did {deaths} times under this command; see whether memory or disk "
            "of this machine is full, then give the same command again to go on"
        ) from error
    warn(f"{error}; starting Ray again ({deaths} of at most {MAX_CLUSTER_DEATHS} times)")


def _run(
    search: Search,
    train: Train,
    plan: Plan,
    runtime: Runtime,
    lease: Lease,
    kept: Kept,
    *,
    address: str,
) -> int | None:
    """Run the trials; return the number of the signal that ended them, or None."""
    slots = plan.slots
    folder = choose_folder()
    lease.note(folder=str(folder))
    with cluster_session(
        folder,
        address=address,
        cpus=slots.cpus,
        gpus=slots.num_gpus,
        threads=slots.cpus_per_trial,
    ) as watch:
        # Reads the environment when it is imported, so it must be inside the session.
        from cider_platform.search.tune import (  # noqa: PLC0415
            SearchInterruptedError,
            run_on_ray,
        )

        def check() -> None:
            watch.check()
            kept.check()

        try:
            run_on_ray(
                search,
                train,
                runtime,
                slots=slots,
                folder=StudyFolder.of(runtime.results, plan.study).tune,
                check=check,
                progress_timeout=plan.progress_timeout,
            )
        except SearchInterruptedError as interruption:
            return interruption.signal_number
    return None
