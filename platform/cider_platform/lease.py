"""One owner at a time: a lease that dies with its process, for studies and for runs.

The operating system's file lock says whether the owner on this host lives, so a killed owner frees
its lease at once. The file's modification time is a heartbeat for file systems whose locks do not
reach other hosts: an owner there counts as dead after ``STALE_SECONDS`` without one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from cider.errors import CiderError
from cider_platform.layout import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


class LeaseTakenError(CiderError):
    """Another living process holds what was asked for."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that is held; ``previous`` says what an owner that died without letting go left."""

    previous: dict[str, Any]
    _file: IO[str]

    def note(self, **facts: object) -> None:
        """Write facts about the owner beside its process id, for whoever takes over."""
        owner = {"host": platform.node(), "pid": os.getpid(), "since": now(), **facts}
        text = json.dumps(owner)
        # One write over what was there, blanks included: killed at any moment, it leaves facts.
        size = os.fstat(self._file.fileno()).st_size
        self._file.seek(0)
        self._file.write(f"{text.ljust(max(0, size - 1))}\n")
        self._file.flush()


@contextlib.contextmanager
def hold(path: Path, what: str, *, wait: bool = False) -> Iterator[Lease]:
    """Hold the lease at ``path`` while the context lasts.

    Args:
        path: the lease's file; it stays, empty, when the lease ends.
        what: what is leased, for the message, e.g. ``"study mosei"``.
        wait: True waits until the owner lets go or dies; False refuses at once.

    Raises:
        LeaseTakenError: if another living process holds it and ``wait`` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Neither truncated nor touched by opening: its time is another owner's heartbeat.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        while not _try_lock(file) or _owner_elsewhere_lives(file):
            if not wait:
                raise LeaseTakenError(refusal(what, _read_owner(file)))
            _unlock(file)
            time.sleep(0.5)
        lease = Lease(_read_owner(file), file)
        # Until this owner has cleaned up after the last one, the next must know of it too.
        lease.note(**_facts(lease.previous))
        try:
            with beating(partial(_beat, file.fileno())):
                yield lease
        finally:
            file.seek(0)
            file.truncate()
            _unlock(file)


@contextlib.contextmanager
def beating(beat: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run ``beat`` in a thread of its own while the context lasts; its event says to stop."""
    stop = threading.Event()
    thread = threading.Thread(target=beat, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def lives(pid: int) -> bool:
    """Return whether there is a process of this id on this machine, whoever it belongs to."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is another user's
        return True
    return True


def has_living_owner(path: Path) -> bool:
    """Return whether a lease is held by a process that lives, as far as can be seen from here."""
    try:
        with path.open(encoding="utf-8") as file:
            owner, age = _read_owner(file), _age(file)
    except FileNotFoundError:
        return False
    if owner.get("host") != platform.node():
        return bool(owner) and age < STALE_SECONDS
    return lives(int(owner["pid"]))


def _beat(descriptor: int, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        # A full or vanished disk ends the work itself with a better message than the heartbeat's.
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: the heartbeat alone decides
        owner = _read_owner(file)
        return not owner or _age(file) > STALE_SECONDS
    return True


def _unlock(file: IO[str]) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)


def _age(file: IO[str]) -> float:
    """Seconds since the last heartbeat."""
    return time.time() - os.fstat(file.fileno()).st_mtime


def _owner_elsewhere_lives(file: IO[str]) -> bool:
    owner = _read_owner(file)
    return owner.get("host", platform.node()) != platform.node() and _age(file) < STALE_SECONDS


def _read_owner(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        owner = json.loads(file.read() or "{}")
    except ValueError:  # its owner died, or is, in the middle of writing it
        return {}
    return owner if isinstance(owner, dict) else {}


def _facts(owner: dict[str, Any]) -> dict[str, Any]:
    """Return what an owner on this host noted of itself."""
    if owner.get("host") != platform.node():
        return {}
    return {name: fact for name, fact in owner.items() if name not in ("host", "pid", "since")}


def refusal(what: str, owner: dict[str, Any]) -> str:
    """Return why a lease is refused, from what its owner wrote of itself: host, pid, since."""
    who = f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
    return (
        f"{what} is in the hands of {who} since {owner.get('since', '?')}; wait for it or stop it, "
        f"then give the same command again (a dead owner on another host counts as living for "
        f"{STALE_SECONDS:.0f} seconds)"
    )
