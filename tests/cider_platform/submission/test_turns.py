"""The queue of jobs: its cap, its order, and what deaths of drivers do to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cider_platform
from cider.errors import CiderError, UsageError
from cider_platform.submission.turns import (
    Ticket,
    queue_folder,
    tickets,
    wait_for_turn,
)

ROOTS = [str(Path(cider_platform.__file__).parents[levels]) for levels in (1, 2)]

# A driver: waits for its turn, becomes another program, which says when it began and ended.
DRIVER = """
import os, sys, time
from pathlib import Path
from cider_platform.submission.turns import Ticket, wait_for_turn
folder, log, job, priority, number, most, seconds = sys.argv[1:]
ticket = Ticket(job=job, priority=int(priority), submitted=float(number))
wait_for_turn(Path(folder), ticket, most=int(most), poll_seconds=0.02)
work = '''
import os, sys, time
log, job, seconds = sys.argv[1:]
def say(what):
    with open(log, "a") as file:
        file.write(f"{what} {job} {os.getpid()}\\\\n")
say("begin")
time.sleep(float(seconds))
say("end")
'''
os.execv(sys.executable, [sys.executable, "-c", work, log, job, seconds])
"""


@pytest.fixture
def start(tmp_path):
    """Function that starts a driver; those that still live are killed at the end."""
    (tmp_path / "queue").mkdir()
    started = []

    def run(job, *, priority=0, number=0, most=1, seconds=0.3):
        words = [tmp_path / "queue", tmp_path / "log", job, priority, number, most, seconds]
        driver = subprocess.Popen(
            [sys.executable, "-S", "-c", DRIVER, *map(str, words)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*ROOTS, *sys.path])},
        )
        started.append(driver)
        return driver

    yield run
    for driver in started:
        if driver.poll() is None:
            driver.kill()
        driver.wait()


def log_of(folder):
    path = folder / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def until(condition, seconds=20.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come to pass"
        time.sleep(0.02)


def most_at_once(lines):
    running = greatest = 0
    for what, *_ in lines:
        running += 1 if what == "begin" else -1
        greatest = max(greatest, running)
    return greatest


def test_twenty_jobs_keep_the_cap_and_none_is_lost(start, tmp_path):
    drivers = [start(f"job-{number}", number=number, most=2, seconds=0.1) for number in range(20)]
    assert [driver.wait(60) for driver in drivers] == [0] * 20
    lines = log_of(tmp_path)
    assert sorted(job for what, job, _ in lines if what == "end") == sorted(
        f"job-{number}" for number in range(20)
    )
    assert most_at_once(lines) == 2
    assert tickets(tmp_path / "queue") == []


def test_urgent_jobs_come_first_and_equals_in_the_order_of_submission(start, tmp_path):
    start("first", seconds=60)
    until(lambda: log_of(tmp_path))
    for job, priority, number in [("low", -5, 1), ("late", 0, 3), ("early", 0, 2), ("high", 7, 4)]:
        start(job, priority=priority, number=number, seconds=0)
    until(lambda: len(tickets(tmp_path / "queue")) == 5)
    expected = ["first", "high", "early", "late", "low"]
    assert [each.job for each in tickets(tmp_path / "queue")] == expected
    os.kill(int(log_of(tmp_path)[0][2]), signal.SIGKILL)
    until(lambda: sum(what == "end" for what, *_ in log_of(tmp_path)) == 4)
    assert [job for what, job, _ in log_of(tmp_path) if what == "begin"] == expected


def test_death_of_a_driver_that_waits_or_works_frees_its_place_at_once(start, tmp_path):
    start("works", seconds=60)
    until(lambda: log_of(tmp_path))
    waits = start("waits", priority=9, number=1)
    start("next", number=2, seconds=0)
    until(lambda: len(tickets(tmp_path / "queue")) == 3)
    waits.kill()
    waits.wait()
    assert [each.job for each in tickets(tmp_path / "queue")] == ["works", "next"]
    os.kill(int(log_of(tmp_path)[0][2]), signal.SIGKILL)
    until(lambda: ["end", "next"] in [line[:2] for line in log_of(tmp_path)])
    assert not [line for line in log_of(tmp_path) if line[1] == "waits"]


def test_turn_is_had_at_once_where_there_is_room_and_lasts_until_it_is_closed(tmp_path):
    places = []
    first = wait_for_turn(tmp_path, Ticket(job="a"), most=2, on_wait=places.append)
    second = wait_for_turn(tmp_path, Ticket(job="b", submitted=1.0), most=2, on_wait=places.append)
    assert places == []
    assert os.get_inheritable(first)
    assert [(each.job, each.running) for each in tickets(tmp_path)] == [("a", True), ("b", True)]
    os.close(first)
    assert [each.job for each in tickets(tmp_path)] == ["b"]
    os.close(second)


def test_place_that_is_told_says_who_is_ahead(tmp_path):
    held = wait_for_turn(tmp_path, Ticket(job="a"), most=1)

    def let_go(place):
        assert (place.ahead, place.running, place.most) == (0, 1, 1)
        os.close(held)

    os.close(wait_for_turn(tmp_path, Ticket(job="b"), most=1, on_wait=let_go, poll_seconds=0.01))


def test_second_driver_of_a_job_is_refused_while_the_first_lives(tmp_path):
    held = wait_for_turn(tmp_path, Ticket(job="a"), most=1)
    with pytest.raises(CiderError, match="job a is already waiting or running"):
        wait_for_turn(tmp_path, Ticket(job="a"), most=5)
    assert json.loads((tmp_path / "a.json").read_text())["running"] is True
    os.close(held)
    os.close(wait_for_turn(tmp_path, Ticket(job="a"), most=1))


@pytest.mark.parametrize("name", ["../a", "a/b", "", "-a", "a;b", "$(a)", "a\nb"])
def test_job_name_with_path_parts_or_shell_characters_makes_no_file(tmp_path, name):
    with pytest.raises(UsageError, match="a job name has letters"):
        wait_for_turn(tmp_path, Ticket(job=name), most=1)
    assert list(tmp_path.iterdir()) == []


def test_queue_folder_is_this_users_alone_and_one_per_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first, second = queue_folder("10.0.0.1:6379"), queue_folder("10.0.0.1:6380")
    assert first != second
    assert first == queue_folder("10.0.0.1:6379")
    assert first.stat().st_mode & 0o777 == 0o700
    assert queue_folder("../../etc").parent == first.parent
    first.chmod(0o777)
    with pytest.raises(CiderError, match="is no safe queue"):
        queue_folder("10.0.0.1:6379")


def test_queue_folder_that_is_a_link_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (tmp_path / f"cider-queue-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(CiderError, match="is no safe queue"):
        queue_folder("a")
