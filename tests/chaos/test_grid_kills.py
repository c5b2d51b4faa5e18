"""A grid whose driver or workers are killed, or that is asked to stop, goes on where it was."""

import os
import signal
import time

import pytest
from small_grid import Place

from cider_platform.grids.grid import find_grid, read_grid
from cider_platform.grids.states import cell_states
from cider_platform.layout import RunFolder
from cider_platform.lease import has_living_owner
from cider_platform.results import read_epochs

pytestmark = pytest.mark.chaos

EPOCHS = 12
JOB = """
[axes]
dataset = ["tiny"]
missing = ["rmfm", "rmm"]
seed = "0:3"
"""
PATIENCE_SECONDS = 240


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path, epochs=EPOCHS, slots=2)
    yield made
    made.stop()


@pytest.fixture
def job(place):
    return place.write("killed", JOB)


def wait_for(what, process):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := what()):
        assert process.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
    return found


def runs(place):
    """Return the run folders there are."""
    parent = place.results / "runs"
    return [RunFolder(path) for path in parent.iterdir()] if parent.is_dir() else []


def complete(place):
    return {folder.run_id for folder in runs(place) if folder.state == "COMPLETE"}


def evaluated(place):
    """Return the runs that nothing is left to do of: trained, and tested at both rates."""
    tested = {folder.run_id for folder in runs(place)
              if len(list(folder.evaluation.glob("*.json"))) == 2}  # fmt: skip
    return complete(place) & tested


def half_done(place):
    return [folder for folder in runs(place)
            if folder.state == "RUNNING" and 1 < len(read_epochs(folder.epochs)) < EPOCHS - 4
            and folder.last.exists()]  # fmt: skip


def written(folder):
    """Return what a finished run's files say of when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder.best, folder.result)}


def finish(place, job):
    """Run the job to its end; check that all is there, once."""
    data = place.command("run", job, "--json")
    grid = read_grid(find_grid(place.results, "killed"))
    assert {state.state for state in cell_states(grid, place.results)} == {"done"}
    for folder in runs(place):
        assert [each["epoch"] for each in read_epochs(folder.epochs)] == list(range(1, EPOCHS + 1))
    assert len(runs(place)) == 6
    return data


def test_killed_driver_is_taken_up_by_the_same_command_and_nothing_runs_twice(place, job):
    process = place.start("run", job)
    wait_for(lambda: complete(place) and half_done(place), process)
    process.kill()
    process.wait()
    # Ray's workers end when they notice that their driver is gone.
    deadline = time.monotonic() + 60
    while any(has_living_owner(folder.lease) for folder in runs(place)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before = {folder.run_id: written(folder) for folder in runs(place) if folder.is_complete}
    begun = {folder.run_id: read_epochs(folder.epochs) for folder in runs(place)}
    done = evaluated(place)
    assert before
    data = finish(place, job)
    assert data["ran"] == 6 - len(done)
    for folder in runs(place):
        if folder.run_id in before:
            assert written(folder) == before[folder.run_id]
        if folder.run_id in done:
            assert folder.log.read_text().count(" begin ") == 1
        # The seconds of an epoch differ if it was trained again.
        kept = begun.get(folder.run_id, [])[:-1]
        assert read_epochs(folder.epochs)[: len(kept)] == kept
    assert place.command("run", job, "--json")["ran"] == 0


def test_killed_worker_is_replaced_and_its_run_goes_on_from_the_checkpoint(place, job):
    process = place.start("run", job)
    victim = wait_for(lambda: half_done(place), process)[0]
    before = read_epochs(victim.epochs)
    os.kill(victim.read_status()["pid"], signal.SIGKILL)
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, (place.root / "messages").read_text()
    log = victim.log.read_text()
    assert log.count(" begin ") == 2
    assert " lost " in log
    assert read_epochs(victim.epochs)[: len(before) - 1] == before[:-1]
    finish(place, job)


@pytest.mark.parametrize("how", ["cancel", "signal"])
def test_grid_that_is_asked_to_stop_stops_and_goes_on_when_run_again(place, job, how):
    process = place.start("run", job)
    wait_for(lambda: complete(place) and half_done(place), process)
    shown = place.command("status", "killed", "--json")
    assert shown["driven"]
    place.command("run", job, code=1)  # a second driver is refused
    if how == "cancel":
        place.command("cancel", "killed")
    else:
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == (143 if how == "cancel" else 130)
    assert "goes on from the running runs' checkpoints" in (place.root / "messages").read_text()
    before = {folder.run_id: written(folder) for folder in runs(place) if folder.is_complete}
    done = evaluated(place)
    assert before
    assert finish(place, job)["ran"] == 6 - len(done)
    for folder in runs(place):
        assert written(folder) == before.get(folder.run_id, written(folder))
