"""Which running trials make no progress.

A trial progresses when a file of its run changes: a worker that begins writes the status, every
epoch a line. So a trial that waits for another training of the same run progresses with it, and
nothing depends on the clocks of other hosts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cider_platform.layout import RunFolder

DEFAULT_SECONDS = 1800.0
"""Longest time without progress unless the command says otherwise: far above any known epoch."""

Mark = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class _Seen:
    mark: Mark
    since: float


class StallWatch:
    """Remembers when each running trial's files changed last.

    Args:
        seconds: longest time without a change.
        clock: seconds that only grow.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._every = min(1.0, seconds / 10)
        self._looked = -float("inf")
        self._seen: dict[int, _Seen] = {}

    def stalled(self, running: Iterable[tuple[int, RunFolder]]) -> list[int]:
        """Return the trials that have made no progress for too long.

        Args:
            running: number and run folder of every trial that a worker trains now; a trial that is
                left out has ended, or waits for a worker, and begins anew.
        """
        now = self._clock()
        if now - self._looked < self._every:
            return []
        self._looked = now
        seen: dict[int, _Seen] = {}
        for number, folder in running:
            mark = _mark(folder)
            before = self._seen.get(number)
            unchanged = before is not None and before.mark == mark
            seen[number] = before if before is not None and unchanged else _Seen(mark, now)
        self._seen = seen
        return [number for number, each in seen.items() if now - each.since > self.seconds]


def _mark(folder: RunFolder) -> Mark:
    """Return times and sizes of the files that a training changes."""
    found = []
    for path in (folder.status, folder.epochs):
        try:
            facts = path.stat()
            found.append((facts.st_mtime_ns, facts.st_size))
        except OSError:
            found.append((0, 0))
    return tuple(found)
