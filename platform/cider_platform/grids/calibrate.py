"""Measure what an epoch of a shape costs by training a few steps of it; nothing of it is kept."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cider.training.evaluation import Masks
from cider.training.trainer import Trainer, selection_conditions
from cider_platform.grids.estimates import Measured, calibration_file
from cider_platform.layout import now, write_json_atomic
from cider_platform.runs.assembly import (
    Runtime,
    assemble,
    batch_source,
    open_store,
    resolve,
    two_step_update,
)
from cider_platform.runs.fingerprint import environment

if TYPE_CHECKING:
    from collections.abc import Collection

    from cider.condition import Condition
    from cider.spec import RunSpec

STEPS = 6
"""Optimisation steps that are timed, after one that is not."""


def calibrate(
    spec: RunSpec, runtime: Runtime, *, steps: int = STEPS, searched: Collection[str] = ()
) -> Measured:
    """Train a few steps of a spec, time them and a validation pass, and keep the times.

    The first step is left out: it pays for what later steps find done. Test labels are not read:
    the cost of evaluating the test split is taken to be validation's per utterance.

    Args:
        spec: the shape; resolved or not.
        runtime: where and how; the measurement is kept below its results.
        steps: optimisation steps to time, at least 1; an epoch of fewer is timed whole.
        searched: fields of the spec that a search varies.
    """
    device = runtime.torch_device.type
    with tempfile.TemporaryDirectory(prefix="cider-calibrate-") as place:
        measured = _measure(spec, replace(runtime, results=Path(place)), steps)
    path = calibration_file(runtime.results, spec.to_dict(), device, searched)
    write_json_atomic(path, {"schema": 1, "time": now(), "measured": asdict(measured)})
    return measured


def _measure(spec: RunSpec, runtime: Runtime, steps: int) -> Measured:
    begun = time.perf_counter()
    spec = resolve(spec, runtime)
    store = open_store(spec, runtime)
    assembled = assemble(spec, store, runtime)
    train, valid = batch_source(store, spec, "train"), batch_source(store, spec, "valid")
    trainer = Trainer(
        spec,
        two_step_update(spec, assembled, store),
        assembled.predictor,
        train=train,
        valid=valid,
        device=runtime.torch_device,
    )
    started = time.perf_counter() - begun
    timed = time_epoch(trainer, runtime.torch_device, steps)
    test = store.manifest.counts["test"] / max(1, len(valid))
    where = environment(runtime.torch_device)
    return Measured(
        seconds_per_epoch=timed.seconds_per_epoch,
        seconds_per_condition=timed.seconds_per_pass * (1 + test),
        start_seconds=started,
        device=str(where["device"]),
        hardware=str(where["gpu"] or where["cpu"]),
        threads=int(where["threads"]),
    )


@dataclass(frozen=True, slots=True)
class TimedEpoch:
    """What an epoch takes, from some of its steps and one validation pass."""

    seconds_per_epoch: float
    seconds_per_pass: float
    steps: int
    """Optimisation steps that were timed."""


def time_epoch(trainer: Trainer, device: torch.device, steps: int) -> TimedEpoch:
    """Time some steps of the first epoch and one validation pass.

    The first step is left out, unless there is no other.

    Args:
        trainer: with its model, which is changed.
        device: where the model lies.
        steps: optimisation steps to time, at least 1; an epoch of fewer is timed whole.
    """
    ends = [synchronised_now(device)]
    for _ in islice(trainer.steps(1), steps + 1):
        ends.append(synchronised_now(device))
    first = 1 if len(ends) > 2 else 0
    timed = len(ends) - 1 - first
    conditions = selection_conditions(trainer.spec)
    before = synchronised_now(device)
    _predict(trainer, conditions[0])
    passed = synchronised_now(device) - before
    training = trainer.steps_per_epoch * (ends[-1] - ends[first]) / timed
    return TimedEpoch(training + passed * len(conditions), passed, timed)


def _predict(trainer: Trainer, condition: Condition) -> None:
    masks = Masks(trainer.valid, condition, trainer.spec.missing, trainer.spec.seed)
    trainer.predictor.predict(trainer.valid, masks)


def synchronised_now(device: torch.device) -> float:
    """Return the time in seconds, after all that the device was given is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
