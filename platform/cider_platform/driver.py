"""Drive one study from beginning, or from wherever it stopped, to its total number of trials."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cider.errors import UsageError
from cider_platform.budget import Budget, Clock
from cider_platform.layout import StudyFolder
from cider_platform.lease import hold
from cider_platform.ledger import Ledger, TrialRecord
from cider_platform.racing import Racing
from cider_platform.search import Search
from cider_platform.sessions import make_folder, ray_session
from cider_platform.study import check_same, define, open_storage, write_definition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cider.spec import RunSpec
    from cider_platform.capacity import Slots
    from cider_platform.ray_search import Train
    from cider_platform.search import Change
    from cider_platform.space import Space
    from cider_platform.trial import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one ``tune`` command asks for."""

    study: str
    spec: RunSpec
    """Resolved base spec."""
    space: Space
    total: int
    sampler: str = "tpe"
    pruner: Mapping[str, Any] = field(default_factory=lambda: {"name": "none"})
    objectives: tuple[str, ...] = ()
    """Names (``cider_platform.objectives``); none is the score runs select their epoch by."""
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
) -> Outcome:
    """Run a study's missing trials on this machine.

    Args:
        plan: the study.
        runtime: where and how runs execute.
        train: yields the epoch results of a resolved spec.
        resolve: fills in a spec whose text encoder is searched.
        listener: shows the search.

    Raises:
        LeaseTakenError: if another living command drives the study.
        UsageError: if the study was begun with another definition, or there is no slot.
    """
    if plan.slots.slots < 1 or plan.total < 1:
        raise UsageError(
            f"a search needs at least one trial and one slot, got {plan.total} trials and "
            f"{plan.slots.slots} slots"
        )
    started = time.monotonic()
    study = StudyFolder.of(runtime.results, plan.study)
    with hold(study.lease, f"study {plan.study}") as lease:
        _remove_left_folder(lease.previous)
        storage = open_storage(study)
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
        write_definition(study, definition)
        ledger = Ledger(storage, plan.study, definition)
        known = ledger.trials()
        spent = sum(trial.seconds for trial in known)
        search = Search(
            ledger,
            plan.spec,
            total=plan.total,
            results=runtime.results,
            resolve=lambda spec: resolve(spec, runtime),
            listener=listener.change,
            clock=Clock(plan.budget, plan.slots.gpus_per_trial, spent),
        )
        listener.begin(known, plan.total)
        received = None
        if ledger.has_work(plan.total):
            folder = make_folder()
            lease.note(folder=str(folder))
            received = _run(search, train, runtime, plan.slots, folder, study.tune)
        seconds = time.monotonic() - started
        return Outcome(
            study=study,
            trials=ledger.trials(),
            seconds=seconds,
            objectives=definition["objectives"],
            signal_number=received,
            used_up=search.clock.used_up if ledger.has_work(plan.total) else "",
        )


def _run(
    search: Search, train: Train, runtime: Runtime, slots: Slots, folder: Path, tune_folder: Path
) -> int | None:
    """Run the trials; return the number of the signal that ended them, or None."""
    num_gpus = -int(-slots.slots * slots.gpus_per_trial // 1)
    with ray_session(
        folder,
        cpus=slots.slots * slots.cpus_per_trial,
        gpus=num_gpus,
        threads=slots.cpus_per_trial,
    ):
        # Reads the environment when it is imported, so it must be inside the session.
        from cider_platform.ray_search import (  # noqa: PLC0415
            SearchInterruptedError,
            run_on_ray,
        )

        try:
            run_on_ray(search, train, runtime, slots=slots, folder=tune_folder)
        except SearchInterruptedError as interruption:
            return interruption.signal_number
    return None


def _remove_left_folder(previous: Mapping[str, Any]) -> None:
    """Remove the cluster's folder that a killed driver left."""
    folder = previous.get("folder")
    if isinstance(folder, str) and Path(folder).name.startswith("cider-"):
        shutil.rmtree(folder, ignore_errors=True)
