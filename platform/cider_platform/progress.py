"""What a person sees of a search: a live display on a terminal, elsewhere a line per change."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cider_platform.output import say
from cider_platform.tables import number, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.console import RenderableType

    from cider_platform.search.ledger import TrialRecord
    from cider_platform.search.search import Change
    from cider_platform.search.space import Value

FINISHED = ("COMPLETE", "PRUNED", "FAIL")
_NAMES = {
    "COMPLETE": "complete",
    "RUNNING": "running",
    "WAITING": "waiting",
    "PRUNED": "pruned",
    "FAIL": "failed",
}
_EPOCHS = "training.epochs"
_OTHER_LINES = 8
"""Lines of the display beside the running trials, and some of the shell above it."""
_WIDE_ENOUGH_FOR_RUNS = 64


@dataclass(slots=True)
class _Running:
    """A trial that is being trained."""

    change: Change
    """The latest."""
    first: tuple[float, int]
    """When it was first heard of, and its epoch then."""
    latest: tuple[float, int]

    def seconds_per_epoch(self) -> float | None:
        """Return how long an epoch takes, None before the first one."""
        epochs = self.latest[1] - self.first[1]
        return (self.latest[0] - self.first[0]) / epochs if epochs > 0 else None


@dataclass(frozen=True, slots=True)
class _Best:
    value: float
    trial: int
    values: Mapping[str, Value]
    found: float | None
    """When; None for a trial of an earlier command."""


class SearchProgress:
    """Listens to a search and shows it on stderr; a context manager.

    Args:
        metric: the score by which runs select their epoch.
        objective: what the search makes best, the first of several; None is the score.
        minimise: True if less of the objective is better.
        slots: trials at a time.
        epochs: most epochs of a trial, unless they are searched.
        console: where to show it; None is stderr.
    """

    def __init__(
        self,
        *,
        metric: str,
        objective: str | None = None,
        minimise: bool = False,
        slots: int | None = None,
        epochs: int | None = None,
        console: Console | None = None,
    ) -> None:
        self._metric = metric
        self._objective = objective or metric
        self._sign = -1.0 if minimise else 1.0
        self._slots = slots
        self._epochs = epochs
        self._total = 0
        self._states: dict[int, str] = {}
        self._best: _Best | None = None
        self._started = time.monotonic()
        self._finished_here = 0
        self._running: dict[int, _Running] = {}
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._live = Live(
            console=self._console,
            refresh_per_second=2,
            get_renderable=self.render,
            redirect_stdout=False,
        )
        self._is_terminal = self._console.is_terminal

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
                self._note_best(trial.value, trial.number, trial.params, None)
        if self._states:
            self._say(f"continuing: {self._counts()} of {total} trials")

    def change(self, change: Change) -> None:
        """Show what happened to a trial."""
        now = time.monotonic()
        is_new = self._states.get(change.number) != change.state
        self._states[change.number] = change.state
        is_best = False
        if change.state == "RUNNING":
            self._note_running(change, now)
        else:
            self._running.pop(change.number, None)
            self._finished_here += change.state in FINISHED
        if change.state == "COMPLETE" and change.value is not None:
            is_best = self._note_best(change.value, change.number, change.values, now)
        if is_new and (not self._is_terminal or change.state == "FAIL"):
            self._say(self._line(change) + (", the best so far" if is_best else ""))

    def _note_running(self, change: Change, now: float) -> None:
        known = self._running.get(change.number)
        if known is None or change.epoch < known.latest[1]:
            at = (now, change.epoch)
            self._running[change.number] = _Running(change, at, at)
            return
        known.change = change
        if known.latest[1] == 0 and change.epoch > 1:
            # It goes on from a checkpoint: its past was told at once and took no time here.
            known.first = (now, change.epoch)
        if change.epoch > known.latest[1]:
            known.latest = (now, change.epoch)

    def _note_best(
        self, value: float, trial: int, values: Mapping[str, Value], found: float | None
    ) -> bool:
        if self._best is not None and self._sign * value <= self._sign * self._best.value:
            return False
        self._best = _Best(value, trial, values, found)
        return True

    def _say(self, text: str) -> None:
        if self._is_terminal:
            self._console.print(text, markup=False)
        else:
            say(text)

    def _line(self, change: Change) -> str:
        if change.state == "RUNNING":
            return f"trial {change.number} runs: {said(change.values)} (run {change.run})"
        outcome = {
            "COMPLETE": f"complete after epoch {change.epoch}, {self._objective} "
            f"{number(change.value)}",
            "PRUNED": f"pruned at epoch {change.epoch}, {self._metric} {number(change.value)}",
            "FAIL": f"failed: {change.error}",
            "WAITING": f"waits: {change.error}",
        }[change.state]
        return f"trial {change.number} {outcome} [{self._counts()} of {self._total}]"

    def _counts(self) -> str:
        counts = Counter(self._states.values())
        return ", ".join(
            f"{counts[state]} {name}" for state, name in _NAMES.items() if counts[state]
        )

    def render(self) -> Group:
        """Return the display as it is now."""
        now = time.monotonic()
        parts: list[RenderableType] = [
            Text(f"trials: {self._counts() or 'starting Ray'} of {self._total}", style="bold"),
            Text(
                f"{self._busy()}{seconds(now - self._started)} gone, about {self._left(now)} left"
            ),
        ]
        if self._best is not None:
            parts.append(Text(self._told_best(self._best, now)))
            values = Text(f"  {said(self._best.values)}", overflow="ellipsis", no_wrap=True)
            parts.append(values)
        if self._running:
            parts.append(self._table())
        return Group(*parts)

    def _busy(self) -> str:
        return "" if self._slots is None else f"{len(self._running)} of {self._slots} slots busy, "

    def _left(self, now: float) -> str:
        if not self._finished_here:
            return "-"
        done = sum(state in FINISHED for state in self._states.values())
        return seconds((now - self._started) / self._finished_here * max(0, self._total - done))

    def _told_best(self, best: _Best, now: float) -> str:
        since = "from before" if best.found is None else f"{seconds(now - best.found)} ago"
        return f"best {self._objective} {number(best.value)}: trial {best.trial}, {since}"

    def _table(self) -> Table:
        is_wide = self._console.width >= _WIDE_ENOUGH_FOR_RUNS
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("trial", "epoch", f"best {self._metric}", "s/epoch"):
            table.add_column(heading, justify="right", no_wrap=True)
        if is_wide:
            table.add_column("run", no_wrap=True)
        room = max(1, self._console.height - _OTHER_LINES)
        rows = sorted(self._running.items())
        for trial, running in rows[:room]:
            pace = running.seconds_per_epoch()
            cells = [
                str(trial),
                self._epoch(running.change),
                number(running.change.value),
                "-" if pace is None else f"{pace:.1f}",
            ]
            table.add_row(*cells, *([running.change.run] if is_wide else []))
        if len(rows) > room:
            table.add_row(f"+{len(rows) - room}")
        return table

    def _epoch(self, change: Change) -> str:
        most = change.values.get(_EPOCHS, self._epochs)
        return f"{change.epoch}" if most is None else f"{change.epoch}/{most}"


def said(values: Mapping[str, Value]) -> str:
    """Return searched fields and their values as one phrase."""
    return ", ".join(f"{path} {_short(value)}" for path, value in values.items())


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
