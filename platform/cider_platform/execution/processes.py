"""Processes of this machine, as ``/proc`` tells of them: a cluster's, and whether they live."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment."""

    pid: int
    name: str
    state: str
    """As ``ps`` has it: R, S, D, T, Z, ..."""
    parent: int
    born: int
    """Clock ticks after the machine's start: with the pid, it names a process for good."""

    @property
    def is_dead(self) -> bool:
        """True of a process that has ended and is only remembered for its parent."""
        return self.state in "ZX"


def look(pid: int) -> Process | None:
    """Return what is to be said of a process, or None if there is none of that id."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    facts = rest.split()
    return Process(pid, name, facts[0], int(facts[1]), int(facts[19]))


def all_processes() -> Iterator[Process]:
    """Yield every process there is."""
    for path in _PROC.iterdir():
        process = look(int(path.name)) if path.name.isdigit() else None
        if process is not None:
            yield process


def children(parent: int) -> list[Process]:
    """Return a process's children."""
    return [each for each in all_processes() if each.parent == parent]


def of_folder(folder: Path) -> list[Process]:
    """Return the living processes that were started for a folder, other than this one.

    Their command line or their environment names it, or they write a file in it. A process that
    merely reads a file there is none of them.
    """
    found = [each for each in all_processes() if each.pid != os.getpid() and not each.is_dead]
    return [each for each in found if _is_of(each.pid, str(folder))]


def _is_of(pid: int, folder: str) -> bool:
    place = _PROC / str(pid)
    for name in ("cmdline", "environ"):
        with contextlib.suppress(OSError):
            if folder.encode() in (place / name).read_bytes():
                return True
    with contextlib.suppress(OSError):
        return any(_writes_in(place, each.name, folder) for each in (place / "fd").iterdir())
    return False


def _writes_in(place: Path, descriptor: str, folder: str) -> bool:
    with contextlib.suppress(OSError):
        if (place / "fd" / descriptor).readlink().is_relative_to(folder):
            facts = (place / "fdinfo" / descriptor).read_text(encoding="ascii").split()
            return bool(int(facts[facts.index("flags:") + 1], 8) & os.O_ACCMODE)
    return False


def end_all_of(folder: Path, *, seconds: float = 10.0) -> list[int]:
    """Kill whatever was started for a folder; return the ids of what was killed.

    Args:
        folder: a cluster's, named by ``sessions.choose_folder``; nobody else may use it.
        seconds: longest wait for them to be gone.
    """
    killed: list[int] = []
    deadline = time.monotonic() + seconds
    # Again and again, because what is killed may have started something a moment before.
    while (left := of_folder(folder)) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
        time.sleep(0.05)
    return sorted(set(killed))
