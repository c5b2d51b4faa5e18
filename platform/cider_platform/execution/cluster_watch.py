"""Notice that the cluster under a search has died, and get out of it.

Ray itself does not say so: without its head the driver waits a minute and is then ended from
within, without its node manager it goes on with the workers that are there and waits for ever for
the next one (both found by killing them). So the two processes are watched.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING

from cider.errors import CiderError
from cider_platform.execution import processes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cider_platform.execution.processes import Process

_WATCHED = {"gcs_server": "head (gcs_server)", "raylet": "node manager (raylet)"}
_PATIENCE_SECONDS = 30.0
"""How long a search may take to notice; after that it is stuck in a call that does not return."""
_PATIENCE_AT_START_SECONDS = 10.0
"""The same while Ray starts, where nothing but the end of ``ray.init`` is waited for."""


class ClusterLostError(CiderError):
    """A process without which the cluster cannot work has ended."""


class ClusterWatch:
    """Watches a cluster of this machine, whose processes are children of this one.

    Args:
        folder: the cluster's.
        end: ends this process when it is stuck; for tests.
    """

    def __init__(self, folder: Path, end: Callable[[int], object] = os._exit) -> None:
        self._folder = folder
        self._end = end
        self._before: set[int] = set()
        self._watched: dict[str, Process] = {}
        self._patience = _PATIENCE_AT_START_SECONDS
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        """Begin to watch, before Ray is started."""
        self._before = {each.pid for each in processes.children(os.getpid())}
        self._thread.start()

    def note_started(self) -> None:
        """Take note that Ray has started: from here on the search itself asks how things are."""
        self._find()
        self._patience = _PATIENCE_SECONDS

    def stop(self) -> None:
        """End watching: the search is over, and so is the cluster."""
        self._stopped.set()

    def lost(self) -> str:
        """Return what has died, as words; empty while everything lives."""
        for name, each in list(self._watched.items()):
            now = processes.look(each.pid)
            if now is None or now.is_dead or now.born != each.born:
                return _WATCHED[name]
        return ""

    def check(self) -> None:
        """Raise ``ClusterLostError`` if something has died."""
        if found := self.lost():
            raise ClusterLostError(f"Ray's {found} died")

    def _find(self) -> None:
        for each in processes.children(os.getpid()):
            if each.name in _WATCHED and each.pid not in self._before:
                self._watched.setdefault(each.name, each)

    def _look(self) -> None:
        since = None
        while not self._stopped.wait(0.5):
            if len(self._watched) < len(_WATCHED):
                self._find()
            lost = self.lost()
            if not lost:
                continue
            since = since or time.monotonic()
            if time.monotonic() - since > self._patience:
                self._give_up(lost)
                return

    def _give_up(self, lost: str) -> None:
        processes.end_all_of(self._folder)
        shutil.rmtree(self._folder, ignore_errors=True)
        sys.stderr.write(
            f"error: Ray's {lost} died, and this command waits for it in vain; give it again to go "
            "on from the checkpoints\n"
        )
        sys.stderr.flush()
        self._end(1)
