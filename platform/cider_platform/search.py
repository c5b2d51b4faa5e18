"""A search, without the engine that runs its trials: what to run next, what to make of a report.

The engine (``ray_search``) asks for jobs and passes on what workers report; everything that must
survive a killed driver goes into the ledger at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cider.errors import CiderError
from cider_platform import run_log
from cider_platform import space as spaces
from cider_platform.budget import Budget, Clock
from cider_platform.layout import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cider.spec import RunSpec
    from cider_platform.ledger import Ledger
    from cider_platform.space import Value

_ENCODER = "text_encoder.source"


@dataclass(frozen=True, slots=True)
class DatasetDefaults:
    """What a search or training of a dataset begins with."""

    trials: int
    """Total trials of a study."""
    fields: dict[str, Value]
    """Fields of the spec that differ from the published values."""


def dataset_defaults(dataset: str) -> DatasetDefaults:
    """Return what ``tune`` and ``train`` do with a dataset unless told otherwise.

    Real corpora have the published budget: 300 trials of up to 200 epochs, batch 128 (Table II).
    The synthetic ones show the whole machinery: a tenth of the real corpus's size, learnt in a few
    epochs, so that a search ends within minutes on two cores.
    """
    if not dataset.startswith("synthetic-"):
        return DatasetDefaults(trials=300, fields={})
    fields: dict[str, Value] = {
        "training.epochs": 3,
        "training.patience": 3,
        "training.batch_size": 32,
        # Utterances are a third as long as the longest: batches of similar length pad little.
        "training.batching": "bucketed",
        "text_encoder.width": 32,
    }
    return DatasetDefaults(trials=6, fields=fields)


@dataclass(frozen=True, slots=True)
class Job:
    """One trial to train."""

    number: int
    spec: RunSpec
    values: dict[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something happened to a trial; ``state`` as Optuna names it."""

    number: int
    state: str
    values: dict[str, Value]
    epoch: int = 0
    value: float | None = None
    run: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a worker says about its trial; ``history`` has (epoch, best validation score so far)."""

    history: list[tuple[int, float]]
    is_last: bool = False
    """True if no epoch follows: such a trial is not pruned, its run is finished instead."""
    is_finished: bool = False
    """True once the run is frozen."""
    values: list[float] | None = None
    """Objectives of the frozen run, where they are not just its score."""
    error: str = ""

    @property
    def epoch(self) -> int:
        """The last epoch of the history, 0 without one."""
        return self.history[-1][0] if self.history else 0

    @property
    def value(self) -> float | None:
        """The last score of the history, None without one."""
        return self.history[-1][1] if self.history else None


class Search:
    """The decisions of one search; the study's lease must be held.

    Args:
        ledger: the study.
        spec: the resolved base spec.
        total: how many trials the study shall have.
        results: root of runs and studies.
        resolve: fills in what a changed text encoder changes in a spec.
        listener: told of every change, in order.
        clock: measures the budget; None is no limit.
    """

    def __init__(
        self,
        ledger: Ledger,
        spec: RunSpec,
        *,
        total: int,
        results: Path,
        resolve: Callable[[RunSpec], RunSpec],
        listener: Callable[[Change], None],
        clock: Clock | None = None,
    ) -> None:
        self.ledger = ledger
        self.clock = clock or Clock(Budget(), 0.0, 0.0)
        self.total = total
        self._spec = spec
        self._results = results
        self._resolve = resolve
        self._listener = listener
        self._jobs: dict[int, Job] = {}

    def next_job(self) -> Job | None:
        """Return the next trial to train; None when the study has all, or the budget is used up."""
        while not self.clock.used_up:
            with self.ledger.together():  # the listener is told of what is stored
                begun = self._begin()
            if begun is None:
                return None
            job, error = begun
            if not error:
                self._tell(job, "RUNNING")
                return job
            self._tell(job, "FAIL", error=error)
        return None

    def _begin(self) -> tuple[Job, str] | None:
        """Begin the next trial; return it and, if its values do not go together, why."""
        proposal = self.ledger.ask(self.total)
        if proposal is None:
            return None
        self.clock.begin(proposal.number)
        base = replace(self._spec, seed=proposal.seed)
        job = Job(proposal.number, base, proposal.values)
        try:
            job = replace(job, spec=self._spec_of(base, proposal.values))
        except CiderError as error:
            self.clock.end(job.number)
            self.ledger.fail(job.number, str(error))
            return job, str(error)
        self.ledger.note(job.number, run=job.spec.run_id)
        self._jobs[job.number] = job
        return job, ""

    def _spec_of(self, base: RunSpec, values: Mapping[str, Value]) -> RunSpec:
        spec = spaces.apply(base, values)
        if _ENCODER in values:
            encoder = replace(spec.text_encoder, weights_sha256="")
            spec = self._resolve(replace(spec, text_encoder=encoder))
        return spec

    def on_report(self, number: int, report: Report) -> bool:
        """Store what a worker says; return True if its trial is to be stopped now."""
        job = self._jobs.get(number)
        if job is None:
            return False
        if report.error:
            self._end(job, "FAIL", report)
            return False
        prune = False
        with self.ledger.together():
            for epoch, value in report.history:
                if math.isfinite(value):
                    prune = self.ledger.report(number, epoch, value)
        if report.is_finished:
            self._end(job, "COMPLETE", report)
        elif prune and not report.is_last:
            self._end(job, "PRUNED", report)
            return True
        else:
            self._tell(job, "RUNNING", report.epoch, report.value)
        return False

    def on_lost(self, number: int, error: str) -> None:
        """Take note that a trial ended without saying how: its worker died, again and again."""
        if number in self._jobs:
            text = error or "its worker ended without a result"
            self.on_worker_death(number, text)
            folder = RunFolder.of(self._results, self._jobs[number].spec.run_id)
            folder.write_status("FAILED", error=text)
            self._end(self._jobs[number], "FAIL", Report(history=[], error=text))

    def on_worker_death(self, number: int, reason: str) -> None:
        """Write into the run's log that its worker died; the trial may go on in another."""
        if number in self._jobs:
            run_log.lost(RunFolder.of(self._results, self._jobs[number].spec.run_id), reason)

    def _end(self, job: Job, state: str, report: Report) -> None:
        del self._jobs[job.number]
        error = report.error
        values = [report.value] if report.values is None else report.values
        if state == "COMPLETE":
            error = _fault(values)
            state = "FAIL" if error else state
        with self.ledger.together():
            self.ledger.spend(job.number, self.clock.end(job.number))
            if state == "PRUNED":
                self.ledger.prune(job.number)
            elif state == "COMPLETE":
                self.ledger.complete(job.number, *(each for each in values if each is not None))
            else:
                self.ledger.fail(job.number, error)
        if state == "PRUNED":
            folder = RunFolder.of(self._results, job.spec.run_id)
            folder.write_status("PRUNED", epoch=report.epoch)
        value = values[0] if state == "COMPLETE" else report.value
        self._tell(job, state, report.epoch, value, error)

    def on_stop(self) -> None:
        """Take note that the search ends before its running trials; they stay in the study."""
        for number in self._jobs:
            self.ledger.spend(number, self.clock.end(number))

    def _tell(
        self, job: Job, state: str, epoch: int = 0, value: float | None = None, error: str = ""
    ) -> None:
        self._listener(
            Change(
                number=job.number,
                state=state,
                values=job.values,
                epoch=epoch,
                value=value,
                run=job.spec.run_id,
                error=error,
            )
        )


def _fault(values: Sequence[float | None]) -> str:
    """Return why a run that ended cannot be compared with others; empty if it can."""
    if None in values:
        return "the run ended without an epoch"
    strange = [each for each in values if each is not None and not math.isfinite(each)]
    return f"the validation score is not finite: {strange[0]}" if strange else ""
