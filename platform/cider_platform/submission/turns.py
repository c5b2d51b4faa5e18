"""A queue of jobs on the machine that runs their drivers: so many at a time, the urgent ones first.

Every job has a file in one folder and holds the operating system's lock on it for as long as its
process lives, so a killed driver gives up its place at once and nothing has to be cleaned up. The
lock outlives ``exec``: a process that has waited for its turn can become another program and still
have it. Ray starts the drivers of all jobs on the head node unless it is told otherwise, so one
folder there is the queue of a cluster.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cider.errors import CiderError
from cider_platform.layout import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One job in the queue."""

    job: str
    """Its name, which no other living job has."""
    priority: int = 0
    """Higher is sooner."""
    submitted: float = 0.0
    """Seconds since 1970; among equal priorities the earlier is sooner."""
    running: bool = False

    @property
    def order(self) -> tuple[int, float, str]:
        """What the queue is sorted by."""
        return -self.priority, self.submitted, self.job


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job stands in the queue."""

    ahead: int
    """Jobs that come before it."""
    running: int
    """Jobs that have their turn now."""
    most: int
    """How many may have, by this job's own wish."""


def queue_folder(address: str) -> Path:
    """Return the folder of the queue of a cluster, made if it is not there.

    Args:
        address: what tells the clusters of one machine apart: where the cluster's drivers find it.

    Raises:
        CiderError: if another user owns it, or can write into it.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "-", address).strip("-") or "local"
    parent = Path(tempfile.gettempdir()) / f"cider-queue-{os.getuid()}"
    for folder in (parent, parent / name):
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode) or facts.st_mode & 0o022:
            raise CiderError(
                f"{folder} is not a folder that this user alone can write, so it is no safe queue; "
                "remove it, or set TMPDIR to a folder of your own"
            )
    return parent / name


def wait_for_turn(
    folder: Path,
    ticket: Ticket,
    *,
    most: int,
    on_wait: Callable[[Place], None] | None = None,
    poll_seconds: float = POLL_SECONDS,
) -> int:
    """Wait until fewer than ``most`` jobs have their turn and no job that waits comes first.

    Args:
        folder: from ``queue_folder``.
        ticket: this job.
        most: jobs at a time, at least 1. Jobs may wish differently; each keeps its own.
        on_wait: told of the place whenever it changes.
        poll_seconds: time between looks.

    Returns:
        the file descriptor whose lock is the turn: it ends when the descriptor is closed or the
        process dies, and not with ``exec``.

    Raises:
        CiderError: if a living process already has a place for this job.
    """
    descriptor = _enter(folder, ticket)
    told: Place | None = None
    while True:
        with _alone(folder):
            others = [each for each in _tickets(folder) if each.job != ticket.job]
            place = Place(
                sum(not each.running and each.order < ticket.order for each in others),
                sum(each.running for each in others),
                most,
            )
            if not place.ahead and place.running < most:
                _write(descriptor, ticket, running=True)
                os.set_inheritable(descriptor, True)
                return descriptor
        if on_wait is not None and place != told:
            on_wait(place)
            told = place
        time.sleep(poll_seconds)


def tickets(folder: Path) -> list[Ticket]:
    """Return the living jobs of a queue: those that have their turn, then those that wait."""
    with _alone(folder):
        found = _tickets(folder)
    return sorted(found, key=lambda ticket: (not ticket.running, ticket.order))


def _enter(folder: Path, ticket: Ticket) -> int:
    path = folder / f"{check_name('job', ticket.job)}.json"
    with _alone(folder):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if not _lock(descriptor):
            os.close(descriptor)
            raise CiderError(
                f"job {ticket.job} is already waiting or running on this machine; wait for it, or "
                "stop it and submit again"
            )
        _write(descriptor, ticket, running=False)
    return descriptor


def _write(descriptor: int, ticket: Ticket, *, running: bool) -> None:
    content = json.dumps({**asdict(ticket), "running": running}).encode()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content, 0)


def _tickets(folder: Path) -> list[Ticket]:
    """Return living jobs and forget dead ones; to be called by one process at a time."""
    found = []
    for path in folder.glob("*.json"):
        with path.open("r", encoding="utf-8") as file:
            if _lock(file.fileno()):
                path.unlink()  # nobody holds it: its process is dead
            else:
                found.append(Ticket(**json.loads(file.read())))
    return found


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[IO[str]]:
    """Let one process at a time look at the queue and change it."""
    with (folder / "mutex").open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
