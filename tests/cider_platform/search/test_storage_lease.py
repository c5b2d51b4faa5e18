"""One driver of a study in a database, whichever machine it is on."""

import json
import os
import subprocess
import sys
import threading

import pytest
import sqlalchemy as sql

from cider_platform.lease import STALE_SECONDS, LeaseTakenError
from cider_platform.search import storage_lease
from cider_platform.search.storage import Storage, open_rdb
from cider_platform.search.storage_lease import LEASES, LeaseLostError, hold_in


@pytest.fixture
def engine(tmp_path):
    engine = open_rdb(Storage.parse(f"sqlite:///{tmp_path / 'studies.db'}")).engine
    yield engine
    engine.dispose()


def change(engine, **facts):
    """Change what the owner of a study's lease wrote of itself, and when."""
    age = facts.pop("age", 0)
    with engine.begin() as connection:
        owner = json.loads(connection.scalar(sql.select(LEASES.c.owner)))
        connection.execute(
            LEASES.update().values(
                owner=json.dumps({**owner, **facts}),
                beat=sql.func.datetime("now", f"-{age} seconds"),
            )
        )


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_second_driver_is_refused_and_other_studies_are_free(engine):
    with hold_in(engine, "a"):
        with (
            pytest.raises(
                LeaseTakenError, match=f"study a is in the hands of process {os.getpid()}"
            ),
            hold_in(engine, "a"),
        ):
            raise AssertionError("two have it")
        with hold_in(engine, "b"):
            pass
    with hold_in(engine, "a") as lease:
        lease.check()


def test_of_many_that_ask_at_once_one_gets_it(engine):
    barrier, won, lost = threading.Barrier(8), [], []
    done = threading.Event()

    def ask():
        barrier.wait()
        try:
            with hold_in(engine, "a") as lease:
                won.append(lease)
                done.wait(20)
        except LeaseTakenError as error:
            lost.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(won) + len(lost) < 8 and any(thread.is_alive() for thread in threads):
        done.wait(0.05)
    done.set()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)


def test_dead_owner_of_this_machine_frees_it_at_once_and_one_elsewhere_by_age(engine):
    with hold_in(engine, "a") as first:
        pid = dead_process()
        change(engine, pid=pid, machine="elsewhere", host="elsewhere")
        with pytest.raises(LeaseTakenError, match="on elsewhere"), hold_in(engine, "a"):
            raise AssertionError("the other machine's process may live")
        change(engine, pid=pid, machine=storage_lease._machine())
        with hold_in(engine, "a"):
            assert first.renew() is False
        # Whoever lost it does not free it for the one that has it now.
    with hold_in(engine, "a"):
        change(engine, machine="elsewhere", age=STALE_SECONDS + 5)
        with hold_in(engine, "a"):
            pass


def test_driver_that_slept_too_long_ends_when_another_has_its_study(engine, monkeypatch):
    with hold_in(engine, "a") as sleeper:
        sleeper.check()
        change(engine, machine="elsewhere", age=STALE_SECONDS + 5)
        with hold_in(engine, "a"):
            sleeper.check()  # by its own clock it still has it
            now = storage_lease._clock()
            monkeypatch.setattr(storage_lease, "_clock", lambda: now + STALE_SECONDS)
            with pytest.raises(LeaseLostError, match="taken over by another command"):
                sleeper.check()


def test_driver_that_slept_and_lost_nothing_goes_on(engine, monkeypatch):
    with hold_in(engine, "a") as sleeper:
        now = storage_lease._clock()
        monkeypatch.setattr(storage_lease, "_clock", lambda: now + STALE_SECONDS)
        sleeper.check()
        assert sleeper._renewed == now + STALE_SECONDS


def test_beats_keep_a_lease_young(engine, monkeypatch):
    monkeypatch.setattr(storage_lease, "HEARTBEAT_SECONDS", 0.05)
    with hold_in(engine, "a"):
        change(engine, machine="elsewhere", age=STALE_SECONDS - 5)
        before = beat(engine)
        deadline = threading.Event()
        for _ in range(100):
            if beat(engine) > before:
                break
            deadline.wait(0.05)
        assert beat(engine) > before


def beat(engine):
    with engine.begin() as connection:
        return connection.scalar(sql.select(LEASES.c.beat))
