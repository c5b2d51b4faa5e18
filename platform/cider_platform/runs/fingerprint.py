"""A run's fingerprint: the exact losses of its first optimisation steps, and where they were made.

Two trainings of one spec on one machine have the same fingerprint to the last digit. Another
machine, thread count or torch rounds differently, so there the digits may differ a little; a
changed corpus, library or line of code shows as a step that differs by more.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from cider.errors import NothingMatchedError
from cider_platform.layout import now, read_json, write_json_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cider_platform.layout import RunFolder

STEPS = 8
"""Most steps that a fingerprint holds; an epoch of fewer steps gives it fewer."""
TOLERANCE = 1e-3
"""Largest difference that another machine may make: |a - b| / max(|a|, |b|, 0.01).

Measured: docs/failures.md.
"""
_SMALL = 0.01
"""Losses below this are compared by their absolute difference."""

Steps = list[dict[str, float]]


class Recorder:
    """Keeps the loss terms of the first steps of a run's first epoch, and writes them once.

    Args:
        folder: the run.
        device: where the run computes.
        steps_per_epoch: optimisation steps of an epoch.
        workers: how many train the run together; each has its own dropout.
    """

    def __init__(
        self, folder: RunFolder, device: torch.device, steps_per_epoch: int, workers: int = 1
    ) -> None:
        self._folder = folder
        self._device = device
        self._workers = workers
        self._wanted = min(STEPS, steps_per_epoch)
        self._steps: Steps = []

    def __call__(self, epoch: int, terms: Mapping[str, float]) -> None:
        """Take note of one step's loss terms."""
        if epoch > 1 or len(self._steps) >= self._wanted:
            return
        self._steps.append(dict(terms))
        if len(self._steps) == self._wanted:
            write_json_atomic(
                self._folder.fingerprint,
                {
                    "schema": 1,
                    "run_id": self._folder.run_id,
                    "time": now(),
                    "environment": environment(self._device, self._workers),
                    "steps": self._steps,
                },
            )


def environment(device: torch.device, workers: int = 1) -> dict[str, Any]:
    """Return what the last digits of a loss may depend on beside the spec, as JSON values."""
    is_gpu = device.type == "cuda"
    return {
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "workers": workers,
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if is_gpu else None,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def read_fingerprint(folder: RunFolder) -> tuple[Steps, dict[str, Any]]:
    """Return the steps and the environment of a run's fingerprint.

    Raises:
        NothingMatchedError: if it has none.
        CiderError: if the file cannot be read.
    """
    try:
        values = read_json(folder.fingerprint)
    except FileNotFoundError:
        raise NothingMatchedError(
            f"run {folder.run_id} has no fingerprint: it was imported, or ended before its first "
            f"{STEPS} steps; train it to have one"
        ) from None
    return values["steps"], {"workers": 1, **values["environment"]}


Outcome = Literal["identical", "equal", "different"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How replayed steps compare with recorded ones."""

    outcome: Outcome
    """``identical`` to the last digit; ``equal`` within the tolerance of another environment; or
    ``different``."""
    steps: int
    """Steps compared."""
    step: int | None = None
    """Where they differ first (``different``) or most (``equal``), from 1."""
    term: str | None = None
    recorded: float | None = None
    replayed: float | None = None
    difference: float = 0.0
    """The difference there, see ``TOLERANCE``."""
    changed: tuple[str, ...] = ()
    """Parts of the environment that are not as they were."""


def compare(
    recorded: Sequence[Mapping[str, float]],
    replayed: Sequence[Mapping[str, float]],
    *,
    changed: Sequence[str],
    is_exact: bool,
) -> Comparison:
    """Compare two fingerprints' steps.

    Args:
        recorded: the loss terms of each step by name, as stored.
        replayed: the same, computed again.
        changed: parts of the environment that differ, for the outcome.
        is_exact: True if every digit must be the same: nothing changed, and the device computes
            in a fixed order.
    """
    limit = 0.0 if is_exact else TOLERANCE
    found = Comparison(outcome="identical", steps=len(recorded), changed=tuple(changed))
    for step, (before, after) in enumerate(zip(recorded, replayed, strict=True), start=1):
        for term in dict.fromkeys([*before, *after]):
            old, new = before.get(term), after.get(term)
            difference = _difference(old, new)
            if difference <= found.difference and old == new:
                continue
            outcome: Outcome = "different" if difference > limit else "equal"
            here = Comparison(
                outcome=outcome,
                steps=len(recorded),
                step=step,
                term=term,
                recorded=old,
                replayed=new,
                difference=difference,
                changed=tuple(changed),
            )
            if outcome == "different":
                return here
            if difference >= found.difference:
                found = here
    return found


def _difference(old: float | None, new: float | None) -> float:
    if old is None or new is None:
        return float("inf")
    return abs(old - new) / max(abs(old), abs(new), _SMALL)
