"""A search, without the engine that runs its trials: what to run next, what to make of a report.

The engine (``tune``) asks for jobs and passes on what workers report; everything that must
survive a killed driver goes into the ledger at once.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cider.errors import CiderError
from cider_platform.layout import RunFolder
from cider_platform.runs import run_log
from cider_platform.search import space as spaces
from cider_platform.search.budget import Budget, Clock
from cider_platform.search.diagnosis import Evidence, cause_of
from cider_platform.search.packing import Packing, Profile, shape_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cider.spec import RunSpec
    from cider_platform.search.ledger import Ledger
    from cider_platform.search.space import Value

MAX_WORKER_DEATHS = 2
"""How often a trial whose worker died is started again without having come further since."""
_ENCODER = "text_encoder.source"
_NO_LIMIT = 1_000_000


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
    shape: str = ""
    """See ``packing.shape_key``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something happened to a trial; ``state`` as Optuna names it.

    ``WAITING`` is a trial that has begun and waits for a worker again; ``error`` says why.
    """

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
    out_of_memory: str = ""
    """That memory ran out, as the beginning of a sentence, if it did."""
    profile: dict[str, Any] | None = None
    """What the trial takes (``packing.Profile``), where that is news."""

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
        packing: says which trials may run at a time; None lets all run.
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
        packing: Packing | None = None,
    ) -> None:
        self.ledger = ledger
        self.clock = clock or Clock(Budget())
        self.packing = packing or Packing(limit=_NO_LIMIT, room=1.0, devices=_NO_LIMIT)
        self.total = total
        self._spec = spec
        self._results = results
        self._resolve = resolve
        self._listener = listener
        self._jobs: dict[int, Job] = {}
        self._waiting: dict[int, Job] = {}
        """Those of the jobs that no worker has, in the order in which they get one."""
        self._deaths: Counter[int] = Counter()
        """Of each trial, the deaths of its workers since it came further than ever."""
        self._furthest: Counter[int] = Counter()
        """Of each trial, the last epoch of this command."""
        self._has_asked_all = False

    def next_job(self) -> Job | None:
        """Return the next trial to train; None when there is none, or none has room now."""
        while not self._waiting and not self._has_asked_all and self.packing.has_place:
            with self.ledger.together():  # the listener is told of what is stored
                proposed = None if self.clock.used_up else self._propose()
            if proposed is None:
                self._has_asked_all = True
            elif proposed[1]:
                self._tell(proposed[0], "FAIL", error=proposed[1])
        # The first one has its turn first: smaller ones that passed it would keep it waiting.
        job = next(iter(self._waiting.values()), None)
        if job is None or not self.packing.begin(job.number, job.shape):
            return None
        del self._waiting[job.number]
        self.clock.begin(job.number, self.packing.gpus(job.number))
        self._tell(job, "RUNNING")
        return job

    @property
    def is_over(self) -> bool:
        """True when the study has all its trials, or the budget is used up, and none runs."""
        return self._has_asked_all and not self._jobs

    def _propose(self) -> tuple[Job, str] | None:
        """Let the next trial wait for its room; return it and, if it is refused, why."""
        proposal = self.ledger.ask(self.total)
        if proposal is None:
            return None
        base = replace(self._spec, seed=proposal.seed)
        job = Job(proposal.number, base, proposal.values)
        try:
            spec = self._spec_of(base, proposal.values)
        except CiderError as error:
            self.ledger.fail(job.number, str(error))
            return job, str(error)
        job = replace(job, spec=spec, shape=shape_key(spec))
        self.ledger.note(job.number, run=spec.run_id)
        self._jobs[job.number] = self._waiting[job.number] = job
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
        if job is None or number in self._waiting:
            return False
        if report.out_of_memory:
            self._give_more_room(job, report.out_of_memory)
            return True
        if report.error:
            self._end(job, "FAIL", report)
            return False
        holds_too_much, prune = self._note(number, report)
        if report.is_finished:
            self._end(job, "COMPLETE", report)
        elif prune and not report.is_last:
            self._end(job, "PRUNED", report)
            return True
        else:
            self._tell(job, "RUNNING", report.epoch, report.value)
            if holds_too_much and not report.is_last:
                self._put_back(job, "its memory is known now: it goes on beside others")
                return True
        return False

    def _note(self, number: int, report: Report) -> tuple[bool, bool]:
        """Store a report; return whether its trial holds too much room, and whether to prune it."""
        holds_too_much = report.profile is not None and self.packing.learn(
            number, Profile(**report.profile)
        )
        # A worker that began again repeats what is known before it trains on.
        if report.epoch > self._furthest[number]:
            self._furthest[number] = report.epoch
            self._deaths[number] = 0
        prune = False
        with self.ledger.together():
            for epoch, value in report.history:
                if math.isfinite(value):
                    prune = self.ledger.report(number, epoch, value)
        return holds_too_much, prune

    def on_death(self, number: int, reason: str) -> None:
        """Take note that a trial's worker died: it goes on in another one, but not for ever."""
        job = self._jobs.get(number)
        if job is None or number in self._waiting:
            return
        told = run_log.lost(RunFolder.of(self._results, job.spec.run_id), reason)
        cause = cause_of(Evidence(text=told))
        # With a whole device there is no more room, but it may have been another program's fault.
        if cause is not None and cause.is_memory and self.packing.room(number) < 1:
            self._give_more_room(job, f"its worker was ended for lack of memory ({reason})")
        elif self._deaths[number] < MAX_WORKER_DEATHS:
            self._deaths[number] += 1
            self._put_back(job, f"its worker died: {reason}")
        else:
            deaths = MAX_WORKER_DEATHS + 1
            self._fail(job, f"its worker process died {deaths} times: {reason}")

    def _give_more_room(self, job: Job, reason: str) -> None:
        """Let a trial that ran out of memory go on with fewer others beside it, or fail."""
        more = self.packing.ran_out(job.number)
        if more is None:
            self._fail(
                job,
                f"{reason}, though nothing else of this search ran beside it; lower "
                "training.batch_size, or take a device with more memory",
            )
        else:
            share = "alone" if more >= 1 else f"with {more:.0%} of the device"
            text = f"{reason}; {run_log.MORE_ROOM} {share}"
            run_log.note(RunFolder.of(self._results, job.spec.run_id), "warning", text)
            self._put_back(job, text)

    def _put_back(self, job: Job, why: str) -> None:
        """Take a trial from its worker, which has ended or is stopped; it waits for another one."""
        self.packing.end(job.number)
        self.ledger.spend(job.number, *self.clock.end(job.number))
        self._waiting[job.number] = job
        folder = RunFolder.of(self._results, job.spec.run_id)
        if folder.root.is_dir():
            folder.write_status("RUNNING", waiting=why)
        self._tell(job, "WAITING", error=why)

    def _fail(self, job: Job, error: str) -> None:
        folder = RunFolder.of(self._results, job.spec.run_id)
        folder.write_status("FAILED", error=error)
        self._end(job, "FAIL", Report(history=[], error=error))

    def on_lost(self, number: int, error: str) -> None:
        """Take note that a trial ended without saying how, or was ended."""
        job = self._jobs.get(number)
        if job is not None and number not in self._waiting:
            text = error or "its worker ended without a result"
            run_log.lost(RunFolder.of(self._results, job.spec.run_id), text)
            self._fail(job, text)

    def _end(self, job: Job, state: str, report: Report) -> None:
        del self._jobs[job.number]
        self.packing.end(job.number)
        error = report.error
        values = [report.value] if report.values is None else report.values
        if state == "COMPLETE":
            error = _fault(values)
            state = "FAIL" if error else state
        with self.ledger.together():
            self.ledger.spend(job.number, *self.clock.end(job.number))
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
        for number in self._jobs.keys() - self._waiting.keys():
            self.ledger.spend(number, *self.clock.end(number))

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
