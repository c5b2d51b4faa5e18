"""Several workers for a trial of a search: the trial's own process and plain actors beside it.

The trial asks Tune for all its workers at once, in one placement group, and is their first worker;
what it reports, and how it is pruned, continued and started again, is as with one worker.

Why not Ray Train inside the trial, as for a training alone: its controller asks for workers only
when the trial runs already, so that trials that hold their own cores can wait for each other for
ever; a pruned trial's cores come back only after a cleaner has found out through the dashboard; and
a trial costs twice as much to start. Here cores are taken and given back by the trial as a whole.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.exceptions import RayActorError, RayError, RayTaskError
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from cider.errors import WorkerLostError
from cider.training.workers import PATIENCE, joined

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from ray import ObjectRef
    from ray.actor import ActorHandle

    from cider.spec import RunSpec
    from cider.training.trainer import EpochResult
    from cider_platform.execution.capacity import Slots
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.tune import Train

_REASON_SECONDS = 10.0
"""How long to wait for a helper's own account after it was lost."""


def trial_resources(slots: Slots, gpus: float) -> tune.PlacementGroupFactory:
    """Return what one trial asks Tune for: a bundle for each of its workers.

    Args:
        slots: how many workers, and the cores of each.
        gpus: share of GPUs of all of them together.
    """
    bundle = {"CPU": slots.cpus_per_trial, "GPU": gpus / slots.workers}
    return tune.PlacementGroupFactory([bundle] * slots.workers)


@dataclass(frozen=True, slots=True)
class _Meeting:
    """Where the workers of a trial find each other."""

    host: str
    port: int
    count: int
    backend: str


class _Helper:
    """A worker beside the trial's process."""

    def ready(self) -> None:
        """Return once the process is up."""

    def work(
        self, train: Train, spec: RunSpec, runtime: Runtime, rank: int, meeting: _Meeting
    ) -> None:
        """Do this worker's part of a run."""
        count, backend = meeting.count, meeting.backend
        store = TCPStore(meeting.host, meeting.port, count, is_master=False, timeout=PATIENCE)
        with joined(store, rank, count, device=runtime.device, backend=backend) as workers:
            for _ in train(spec, replace(runtime, workers=workers)):
                pass


class Gang:
    """The helpers of one trial at a time; none outlives the context.

    Args:
        train: yields epoch results, in every worker.
        slots: how many workers a trial has, and what each of them holds.
    """

    def __init__(self, train: Train, slots: Slots) -> None:
        self._train = train
        self._slots = slots
        self._helpers: list[ActorHandle[Any]] = []

    def __enter__(self) -> Gang:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for helper in self._helpers:
            ray.kill(helper)
        self._helpers.clear()

    def train(self, spec: RunSpec, runtime: Runtime) -> Iterator[EpochResult]:
        """Train as the first worker, the helpers as the others; see ``train_run``.

        Raises:
            WorkerLostError: if a helper died.
        """
        slots, count = self._slots, self._slots.workers
        backend = "nccl" if slots.gpus_per_worker >= 1 else "gloo"
        host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        # Port 0: a free one that nobody can take in between.
        store = TCPStore(host, 0, count, is_master=True, wait_for_workers=False, timeout=PATIENCE)
        meeting = _Meeting(host, store.port, count, backend)
        helper_class: Any = ray.remote(_Helper).options(
            num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_worker
        )
        self._helpers = [helper_class.remote() for _ in range(1, count)]
        try:
            ray.get([helper.ready.remote() for helper in self._helpers])
        except RayActorError as error:
            raise WorkerLostError(f"a worker of the trial did not start: {error}") from error
        tasks: list[ObjectRef[None]] = [
            helper.work.remote(self._train, spec, runtime, rank, meeting)
            for rank, helper in enumerate(self._helpers, start=1)
        ]
        try:
            with joined(store, 0, count, device=runtime.device, backend=backend) as workers:
                yield from self._train(spec, replace(runtime, workers=workers))
        except WorkerLostError:
            _raise_cause(tasks)
            raise


def _raise_cause(tasks: list[ObjectRef[None]]) -> None:
    """Raise what a helper failed with, if it was more than losing another one or its life."""
    with suppress(RayError):
        ended, _ = ray.wait(tasks, num_returns=1, timeout=_REASON_SECONDS)
        for task in ended:
            try:
                ray.get(task)
            except RayTaskError as error:
                cause = error.cause
                if not isinstance(cause, WorkerLostError):
                    raise cause from None
