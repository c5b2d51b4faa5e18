"""Optuna's journal of one study: read on from where it was, written once per decision.

Optuna writes a line, and waits for the disk, for every parameter and every fact of a trial: some
sixteen times per trial. What belongs together is written at once here, in the same lines and the
same order. A killed writer leaves whole lines, or a last one cut short, as it does with Optuna's
own file; other programs read the file as they read Optuna's, and both use the same lock.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Entry = dict[str, Any]


class JournalFile(BaseJournalBackend):
    """A journal file that remembers where its one reader is, not where every line begins.

    Args:
        path: the file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = JournalFileSymlinkLock(str(path))
        path.touch()
        self._number = 0
        """Entries read from the file so far, and where the next one begins."""
        self._offset = 0
        self._collected: list[Entry] | None = None
        self._given = 0
        """How many of the collected entries the reader has been given."""

    def read_logs(self, log_number_from: int) -> Iterator[Entry]:
        """Yield the entries from a number on; those being collected count as written."""
        if self._collected is not None:
            fresh, self._given = self._collected[self._given :], len(self._collected)
            yield from fresh
            return
        if log_number_from != self._number:  # a reader that begins anew
            self._number, self._offset = 0, 0
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # its writer is in the middle of it, or died there
                    return
                entry = json.loads(line)
                self._offset += len(line)
                self._number += 1
                if self._number > log_number_from:
                    yield entry

    def append_logs(self, logs: list[Entry]) -> None:
        """Append entries: to the file, or to what is being collected."""
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        if self._collected is not None:
            # As if read from the file: the text decides what they are.
            self._collected += [json.loads(line) for line in lines]
            return
        self._write(lines)

    def _write(self, lines: Iterable[str]) -> None:
        with self._locked(), self._path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Collect what is appended while the context lasts and write it at once at its end.

        Nothing is written before, whatever ends the context; the process must be the only writer.
        """
        if self._collected is not None:  # inside another one, which writes
            yield
            return
        self._collected, self._given = [], 0
        try:
            yield
        finally:
            collected, self._collected = self._collected, None
            if collected:
                self._write(json.dumps(each, separators=(",", ":")) for each in collected)
                self._skip(len(collected))

    def _skip(self, count: int) -> None:
        """Go on behind entries that the reader has been given already."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for _ in range(count):
                self._offset += len(file.readline())
        self._number += count


class Journal(JournalStorage):
    """Optuna's journal storage on a ``JournalFile``."""

    def __init__(self, path: Path) -> None:
        self._file = JournalFile(path)
        super().__init__(self._file)

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Write what is stored while the context lasts at its end, at once."""
        return self._file.together()
