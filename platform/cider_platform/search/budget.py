"""When a search stops handing out trials, besides its total: hours, GPU-hours."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from cider.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of a search; infinity is no limit."""

    hours: float = math.inf
    """Hours this command may run. Running trials then stop after the epoch they are in and stay in
    the study; the same command goes on with them."""
    gpu_hours: float = math.inf
    """GPU-hours of all the study's trials, over all commands; a trial counts from being handed out
    to its end, times its share of GPUs. Running trials end first, so it can be passed by them."""

    def __post_init__(self) -> None:
        for name, value in (("--hours", self.hours), ("--gpu-hours", self.gpu_hours)):
            if not value > 0:
                raise UsageError(f"{name} must be above 0, got {value:g}")

    def less(self, seconds: float) -> Budget:
        """Return what is left of it when some of its hours have gone."""
        return replace(self, hours=max(self.hours - seconds / 3600, 1e-9))


class Clock:
    """Measures a search against its budget.

    Args:
        budget: the limits.
        spent_gpu_seconds: GPU-seconds that the study's trials took before.
    """

    def __init__(self, budget: Budget, spent_gpu_seconds: float = 0.0) -> None:
        self._budget = budget
        self._spent = spent_gpu_seconds
        self._begun = time.monotonic()
        self._running: dict[int, tuple[float, float]] = {}

    def begin(self, number: int, gpus: float = 0.0) -> None:
        """Take note that a trial was handed out, with its share of GPUs."""
        self._running[number] = (time.monotonic(), gpus)

    def end(self, number: int) -> tuple[float, float]:
        """Take note that a trial ended, or waits; return its seconds and its GPU-seconds."""
        begun, gpus = self._running.pop(number)
        seconds = time.monotonic() - begun
        self._spent += gpus * seconds
        return seconds, gpus * seconds

    @property
    def is_over(self) -> bool:
        """True if the hours are over: running trials stop."""
        return time.monotonic() - self._begun >= 3600 * self._budget.hours

    @property
    def used_up(self) -> str:
        """Which limit is reached, as a phrase; empty if none is."""
        if self.is_over:
            return f"its {self._budget.hours:g} hours are over"
        now = time.monotonic()
        spent = self._spent + sum(gpus * (now - begun) for begun, gpus in self._running.values())
        if spent >= 3600 * self._budget.gpu_hours:
            return f"its {self._budget.gpu_hours:g} GPU-hours are used up"
        return ""
