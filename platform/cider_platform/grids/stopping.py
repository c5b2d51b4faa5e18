"""How a grid's driver learns that it is to stop: by a signal, or by a file in the grid's folder.

The file is how ``cancel`` reaches a driver on another host; it is taken as SIGTERM.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from cider_platform.layout import now, write_json_atomic

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from cider_platform.layout import GridFolder

_LOOK_SECONDS = 1.0


def ask_to_stop(folder: GridFolder) -> None:
    """Ask the driver of a grid to stop; it looks every second."""
    write_json_atomic(folder.cancel, {"schema": 1, "time": now()})


class Stopping:
    """Collects what asks a driver to stop, while the context lasts: the list of signals.

    A second signal ends the process at once, as usual. Outside the main thread, which alone may
    handle signals, only the file counts.

    Args:
        folder: the grid's.
    """

    def __init__(self, folder: GridFolder) -> None:
        self._folder = folder
        self._received: list[int] = []
        self._before: dict[int, Any] = {}
        self._over = threading.Event()
        self._looker = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> list[int]:
        if threading.current_thread() is threading.main_thread():
            for each in (signal.SIGINT, signal.SIGTERM):
                self._before[each] = signal.signal(each, self._note)
        self._looker.start()
        return self._received

    def listen_again(self) -> None:
        """Put the handlers back in place: Ray, when it starts, has taken SIGTERM for itself.

        Python does not know of that; Ray's handler would print a stack and end the process.
        """
        if not self._received:
            for each in self._before:
                signal.signal(each, self._note)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._looker.join()
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._received.append(number)
        signal.signal(number, self._before[number])

    def _look(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            if self._folder.cancel.exists():
                self._folder.cancel.unlink(missing_ok=True)
                self._stop()
            elif self._received and self._someone_else_handles():
                self._stop()

    def _stop(self) -> None:
        if self._before:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._received.append(signal.SIGTERM)

    def _someone_else_handles(self) -> bool:
        """True once a search, begun after the signal, listens for signals and heard none."""
        handler = signal.getsignal(signal.SIGTERM)
        ours = (self._note, self._before.get(signal.SIGTERM))
        return bool(self._before) and handler not in ours
