"""The lease: one living owner, freed by the owner's death."""

import json
import os
import platform
import signal
import subprocess
import sys
import time

import pytest

from cider_platform import lease
from cider_platform.lease import LeaseTakenError, hold

OWNER = """
import sys, time
from pathlib import Path
from cider_platform.lease import hold
with hold(Path(sys.argv[1]), "study x") as lease:
    lease.note(folder="left behind")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    path = tmp_path / "lease.json"
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.wait()
    process.stdout.close()


def test_lease_of_a_living_process_is_refused_and_its_owner_named(owner):
    path, process = owner
    refused = pytest.raises(LeaseTakenError, match=f"study x .* process {process.pid} on")
    with refused, hold(path, "study x"):
        pytest.fail("two owners")


def test_lease_of_a_killed_process_is_free_at_once_and_says_what_it_left(owner):
    path, process = owner
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with hold(path, "study x") as taken:
        assert taken.previous["folder"] == "left behind"
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert path.read_text() == ""


def test_waiting_for_a_lease_gets_it_when_its_owner_dies(owner):
    path, process = owner
    process.send_signal(signal.SIGKILL)
    with hold(path, "study x", wait=True):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_lease_of_another_host_counts_until_its_heartbeat_is_old(tmp_path, monkeypatch):
    path = tmp_path / "lease.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "now"}))
    refused = pytest.raises(LeaseTakenError, match="process 1 on elsewhere")
    with refused, hold(path, "study x"):
        pytest.fail("two owners")
    old = time.time() - lease.STALE_SECONDS - 1
    os.utime(path, (old, old))
    with hold(path, "study x") as taken:
        assert taken.previous["host"] == "elsewhere"


def test_heartbeat_renews_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    path = tmp_path / "lease.json"
    with hold(path, "study x"):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert path.stat().st_mtime > 1


def test_facts_stay_until_the_next_owner_has_others(owner):
    """An owner killed before it has cleaned up after the last one leaves that to the next."""
    path, process = owner
    process.kill()
    process.wait()
    with hold(path, "study x") as taken:
        assert json.loads(path.read_text()) | {"since": ""} == {
            "host": platform.node(), "pid": os.getpid(), "since": "", "folder": "left behind",
        }  # fmt: skip
        taken.note(folder="a much longer name than the one before")
        taken.note(folder="short")
        assert json.loads(path.read_text())["folder"] == "short"


def test_facts_of_another_host_are_not_taken_over(tmp_path):
    path = tmp_path / "lease.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "now", "folder": "there"}))
    os.utime(path, (0, 0))
    with hold(path, "study x") as taken:
        assert taken.previous["folder"] == "there"
        assert "folder" not in json.loads(path.read_text())


def test_looking_at_a_lease_is_no_heartbeat(tmp_path):
    path = tmp_path / "lease.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "now"}))
    before = path.stat().st_mtime_ns
    with pytest.raises(LeaseTakenError), hold(path, "study x"):
        pytest.fail("two owners")
    assert path.stat().st_mtime_ns == before
