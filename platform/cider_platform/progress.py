"""What a person sees of a search: a live display on a terminal, elsewhere a line per change."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cider_platform.output import say
from cider_platform.tables import number, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from cider_platform.ledger import TrialRecord
    from cider_platform.search import Change
    from cider_platform.space import Value

FINISHED = ("COMPLETE", "PRUNED", "FAIL")


class SearchProgress:
    """Listens to a search and shows it on stderr; a context manager."""

    def __init__(self, *, metric: str) -> None:
        self._metric = metric
        self._total = 0
        self._states: dict[int, str] = {}
        self._best: tuple[float, int, Mapping[str, Value]] | None = None
        self._started = time.monotonic()
        self._finished_here = 0
        self._running: dict[int, Change] = {}
        console = Console(file=sys.stderr, highlight=False)
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self._render)
        self._is_terminal = console.is_terminal

    def __enter__(self) -> Self:
        if self._is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_terminal:
            self._live.stop()

    def begin(self, trials: list[TrialRecord], total: int) -> None:
        """Take over what the study already has."""
        self._total = total
        for trial in trials:
            if trial.state in FINISHED:
                self._states[trial.number] = trial.state
            if trial.state == "COMPLETE" and trial.value is not None:
                self._note_best(trial.value, trial.number, trial.params)
        if self._states:
            self._say(f"continuing: {self._counts()} of {total} trials")

    def change(self, change: Change) -> None:
        """Show what happened to a trial."""
        is_new = self._states.get(change.number) != change.state
        self._states[change.number] = change.state
        if change.state == "RUNNING":
            self._running[change.number] = change
        else:
            self._running.pop(change.number, None)
            self._finished_here += 1
        if change.state == "COMPLETE" and change.value is not None:
            self._note_best(change.value, change.number, change.values)
        if is_new and not self._is_terminal:
            self._say(self._line(change))
        if change.state == "FAIL" and self._is_terminal:
            self._say(self._line(change))

    def _note_best(self, value: float, trial: int, values: Mapping[str, Value]) -> None:
        if self._best is None or value > self._best[0]:
            self._best = (value, trial, values)

    def _say(self, text: str) -> None:
        if self._is_terminal:
            self._live.console.print(text, markup=False)
        else:
            say(text)

    def _line(self, change: Change) -> str:
        if change.state == "RUNNING":
            return f"trial {change.number} runs: {said(change.values)} (run {change.run})"
        at = f"epoch {change.epoch}, {self._metric} {number(change.value)}"
        outcome = {
            "COMPLETE": f"complete after {at}",
            "PRUNED": f"pruned at {at}",
            "FAIL": f"failed: {change.error}",
        }[change.state]
        return f"trial {change.number} {outcome} [{self._counts()} of {self._total}]"

    def _counts(self) -> str:
        counts = Counter(self._states.values())
        names = {"COMPLETE": "complete", "RUNNING": "running", "PRUNED": "pruned", "FAIL": "failed"}
        return ", ".join(
            f"{counts[state]} {name}" for state, name in names.items() if counts[state]
        )

    def _render(self) -> Group:
        elapsed = time.monotonic() - self._started
        done = sum(state in FINISHED for state in self._states.values())
        left = "-"
        if self._finished_here:
            left = seconds(elapsed / self._finished_here * max(0, self._total - done))
        lines = [
            f"trials: {self._counts() or 'starting Ray'} of {self._total} | "
            f"{seconds(elapsed)} gone, about {left} left"
        ]
        lines += [
            f"  trial {each.number}: epoch {each.epoch}, {self._metric} {number(each.value)}"
            for each in self._running.values()
        ]
        if self._best is not None:
            value, trial, values = self._best
            lines.append(f"best: trial {trial}, {self._metric} {number(value)}, {said(values)}")
        return Group(*(Text(line) for line in lines))


def said(values: Mapping[str, Value]) -> str:
    """Return searched fields and their values as one phrase."""
    return ", ".join(f"{path} {_short(value)}" for path, value in values.items())


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
