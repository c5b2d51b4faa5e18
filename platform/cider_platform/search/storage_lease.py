"""One driver of a study at a time, also when machines share nothing but the database.

The lease is a row of a table of its own, taken and renewed by statements that change it only if it
still is what was read, so of two drivers that ask at once the database lets one have it. Its age is
told by the database's clock. What is guaranteed:

- A driver that renews its lease keeps it; a second one is refused.
- A driver that has not renewed it for ``STALE_SECONDS`` (dead, asleep, cut off) loses it to the
  next one that asks; at once if it was a process of the same machine and is gone.
- A driver looks at its lease before each of its steps and ends when another has it. What it was
  writing at the moment of losing it, after such a sleep, may still arrive.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from cider.errors import CiderError
from cider_platform.layout import now
from cider_platform.lease import (
    HEARTBEAT_SECONDS,
    STALE_SECONDS,
    LeaseTakenError,
    beating,
    lives,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy.engine import Connection, Engine

_FREE = ""
_tables = sql.MetaData()
LEASES = sql.Table(
    "cider_platform_leases",
    _tables,
    sql.Column("study", sql.String(200), primary_key=True),
    sql.Column("token", sql.String(32), nullable=False),
    sql.Column("owner", sql.String(1000), nullable=False),
    sql.Column("beat", sql.DateTime(timezone=True), nullable=False),
)
"""``token`` is the owner's secret, empty if nobody holds the study; ``owner`` is JSON."""


class LeaseLostError(CiderError):
    """Another driver took the study over while this one gave no sign."""


class StudyLease:
    """A study in a database that this process holds; made by ``hold_in``."""

    def __init__(self, engine: Engine, study: str, token: str) -> None:
        self._engine = engine
        self._study = study
        self._token = token
        self._renewed = _clock()
        self._lock = threading.Lock()

    def renew(self) -> bool:
        """Give a sign of life; return whether the study still is this process's."""
        with self._lock:
            began = _clock()
            with self._engine.begin() as connection:
                kept = _swap(connection, self._study, self._token, self._token)
            if kept:
                self._renewed = began
            return kept

    def check(self) -> None:
        """Do nothing if the study surely is this process's.

        Raises:
            LeaseLostError: if another driver has taken it.
        """
        # Others may take it after STALE_SECONDS; a beat may be late by its own time or two.
        if _clock() - self._renewed < STALE_SECONDS - 2 * HEARTBEAT_SECONDS:
            return
        if not self.renew():
            raise LeaseLostError(
                f"study {self._study} was taken over by another command, because this one gave no "
                f"sign for {STALE_SECONDS:.0f} seconds; cider-platform study show {self._study} "
                "tells how far it is"
            )

    def beat(self, stop: threading.Event) -> None:
        """Renew the lease until ``stop``, or until it is lost."""
        while not stop.wait(HEARTBEAT_SECONDS):
            # A database that does not answer ends the work itself, with a better message.
            with contextlib.suppress(SQLAlchemyError):
                if not self.renew():
                    self._renewed = float("-inf")  # so that the next check looks
                    return


@contextlib.contextmanager
def hold_in(engine: Engine, study: str) -> Iterator[StudyLease]:
    """Hold a study of a database while the context lasts.

    Args:
        engine: the database.
        study: the study's name.

    Raises:
        LeaseTakenError: if another living driver holds it.
    """
    with contextlib.suppress(DBAPIError):  # another driver made the table at the same moment
        _tables.create_all(engine)
    token = secrets.token_hex(16)
    while not _take(engine, study, token):
        time.sleep(0.05)
    lease = StudyLease(engine, study, token)
    try:
        with beating(lease.beat):
            yield lease
    finally:
        with contextlib.suppress(SQLAlchemyError), engine.begin() as connection:
            _swap(connection, study, token, _FREE)


def _take(engine: Engine, study: str, token: str) -> bool:
    """Take a study that nobody living holds; return False if it changed hands meanwhile."""
    with engine.begin() as connection:
        row = connection.execute(sql.select(LEASES).where(LEASES.c.study == study)).first()
        if row is not None:
            owner = _read(row.owner)
            if row.token != _FREE and not _is_gone(connection, row.beat, owner):
                raise LeaseTakenError(refusal(f"study {study}", owner))
            return _swap(connection, study, row.token, token, owner=_myself())
    try:
        with engine.begin() as connection:
            values = {"study": study, "token": token, "owner": _myself()}
            connection.execute(LEASES.insert().values(**values, beat=sql.func.current_timestamp()))
    except IntegrityError:
        return False
    return True


def _swap(connection: Connection, study: str, old: str, new: str, **more: str) -> bool:
    """Replace a lease's token, and its time, if it is what it was; return whether it was."""
    changed = connection.execute(
        LEASES.update()
        .where(LEASES.c.study == study, LEASES.c.token == old)
        .values(token=new, beat=sql.func.current_timestamp(), **more)
    )
    return changed.rowcount == 1


def _is_gone(connection: Connection, beat: datetime, owner: dict[str, Any]) -> bool:
    present = connection.scalar(sql.select(sql.func.current_timestamp()))
    assert present is not None
    if (present - beat).total_seconds() > STALE_SECONDS:
        return True
    if owner.get("machine") != _machine():
        return False
    return not lives(int(owner["pid"]))


def _myself() -> str:
    facts = {"host": platform.node(), "pid": os.getpid(), "since": now(), "machine": _machine()}
    return json.dumps(facts)


def _machine() -> str:
    """Return what tells this machine, and this container, from others of the same host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        processes = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return secrets.token_hex(8)  # equal to none: only time tells whether such an owner is dead
    return f"{platform.node()} {boot} {processes}"


def _read(text: str) -> dict[str, Any]:
    owner = json.loads(text)
    assert isinstance(owner, dict)
    return owner


def _clock() -> float:
    """Return seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
