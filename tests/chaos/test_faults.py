"""Faults that are not kills: each ends as a sentence in its trial, and the study goes on."""

import ctypes
import json
import os
import platform
import shutil
import signal
import time

import pytest
from chaos_driver import Options
from chaos_harness import Driver, explained, undisturbed
from chaos_training import EPOCH_SECONDS, FAULTS
from tiny_corpus import write_tiny_corpus

from cider_platform.layout import RunFolder, StudyFolder
from cider_platform.lease import STALE_SECONDS

pytestmark = pytest.mark.chaos

LR = "optimizer.lr=log:1e-4:1e-1"
needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")


def finish(driver, code=0):
    """Wait for a driver's end; return its trials and what it said."""
    found, out = driver.end()
    assert found == code, driver.said()
    assert "Traceback" not in driver.said()
    return (json.loads(out) if out else None), driver.said()


def by_joint(trials):
    """Return the trials by their value of loss.joint."""
    found = {}
    for trial in trials:
        found.setdefault(trial["params"]["loss.joint"], []).append(trial)
    return found


def check_why(place, study, trials, cause):
    """Check that ``study why`` names the cause of every failed trial and what to do about it."""
    for trial in trials:
        told = explained(place, study, trial["number"])
        assert told.cause == cause
        assert told.summary == f"it failed: {trial['error']}"
        assert ("the failed trial stays in the study" in told.remedy) == (cause is not None)
        assert cause is not None or "the log has the whole traceback" in told.remedy


def faulty(place, study, faults, total, **changes):
    """Return the driver of a study in which values of loss.joint bring faults; 0 and 1 bring none.

    The first trials have each value once, the faulty ones first; the others draw one.
    """
    values = {str(round(number / 8, 3)): name for number, name in enumerate(faults, start=1)}
    every = [*values, "0", "1"]
    options = Options(
        root=str(place.root), study=study, total=total, epochs=3, sampler="random", pruner=False,
        space=[f"loss.joint=choice:{','.join(every)}", LR],
        starts=[{"loss.joint": json.loads(value)} for value in every], **changes,
    )  # fmt: skip
    return Driver(place, options, **{FAULTS: json.dumps(values), EPOCH_SECONDS: "0.05"})


def test_trial_that_raises_or_exits_fails_alone(place):
    driver = faulty(place, "raises", ["raise", "exit"], total=8)
    trials, _ = finish(driver)
    found = by_joint(trials)
    assert {trial["error"] for trial in found[0.125]} == {
        "ValueError: the third hidden layer is shy"
    }
    check_why(place, "raises", found[0.125], None)
    assert {trial["state"] for trial in found[0.25]} == {"FAIL"}
    for trial in found[0.25]:
        assert trial["error"].startswith("its worker process died 3 times")
        assert "exit code 3" in trial["error"]
    check_why(place, "raises", found[0.25], "worker died")
    assert {(trial["state"], trial["error"]) for trial in found[1]} == {("COMPLETE", None)}
    assert place.left() == ([], [])


def test_trial_that_hangs_is_ended_and_its_slot_goes_on(place):
    hangs = ["hang", "hang holding the interpreter", "stop"]
    driver = faulty(place, "hangs", hangs, total=6, progress_timeout=4.0)
    trials, _ = finish(driver)
    found = by_joint(trials)
    for value in (0.125, 0.25, 0.375):
        for trial in found[value]:
            assert trial["state"] == "FAIL"
            assert trial["error"].startswith("made no progress for 4 s")
            assert RunFolder.of(place.results, trial["run"]).state == "FAILED"
            # It was not begun a second time: one worker computed the first two epochs.
            computed = (place.results / "computed" / trial["run"]).read_text().split()
            assert computed[::2] == ["1", "2"]
        check_why(place, "hangs", found[value], "hung")
    assert {(trial["state"], trial["error"]) for trial in found[1]} == {("COMPLETE", None)}
    assert place.left() == ([], [])


@pytest.fixture
def small_disk(place):
    """Function that mounts a disk of a megabyte on a folder."""
    library = ctypes.CDLL(None, use_errno=True)
    mounted = []

    def mount(folder):
        folder.mkdir(parents=True)
        options = b"size=1m"
        if library.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, options):
            number = ctypes.get_errno()
            pytest.skip(f"no disk can be mounted here: {os.strerror(number)}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        library.umount2(str(folder).encode(), 2)


def fill(folder):
    """Fill a disk to its last byte; return the file that does."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break
    return path


@needs_mount
def test_full_disk_of_runs_fails_trials_until_there_is_room(place, small_disk):
    runs = small_disk(place.results / "runs")
    driver = faulty(place, "full", [], total=12)
    driver.wait_for(r"trial 1 RUNNING epoch 1")
    filler = fill(runs)
    driver.wait_for(r"trial \d+ FAIL")
    filler.unlink()
    trials, _ = finish(driver)
    failed = [trial for trial in trials if trial["state"] == "FAIL"]
    assert 1 <= len(failed) < 12
    for trial in failed:
        assert trial["error"].startswith(f"no space is left on the disk of {runs}")
        assert trial["error"].endswith("make room there")
    check_why(place, "full", failed, "disk full")
    assert trials[0]["state"] == trials[-1]["state"] == "COMPLETE"
    assert place.left() == ([], [])


@needs_mount
def test_full_disk_of_the_journal_ends_the_command_and_the_study_goes_on_after_it(
    place, small_disk
):
    studies = small_disk(place.results / "studies")
    options = Options(root=str(place.root), study="journal", total=12)
    driver = Driver(place, options, **{EPOCH_SECONDS: "0.1"})
    driver.wait_for(r"trial 2 RUNNING")
    filler = fill(studies)
    code, out = driver.end()
    assert (code, out) == (1, ""), driver.said()
    (error,) = [line for line in driver.said().splitlines() if line.startswith("error: ")]
    assert f"study journal had to stop: no space is left on the disk of {studies}" in error
    assert "the same command then continues it" in error
    assert place.left() == ([], [])

    again = Driver(place, options)  # still full
    assert again.end()[0] == 1
    assert "no space is left on the disk" in again.said()

    filler.unlink()
    trials, _ = finish(Driver(place, options))
    assert trials == undisturbed(options)


def test_feature_file_that_is_cut_or_vanishes_fails_trials_until_it_is_back(place):
    folder = write_tiny_corpus(place.root / "store")
    (features,) = [path for path in folder.glob("train*") if "label" not in path.name]
    whole = features.read_bytes()
    options = Options(
        root=str(place.root), study="store", total=8, epochs=120, real=True, pruner=False,
        sampler="random", space=["loss.joint=float:0:1", LR],
    )  # fmt: skip
    driver = Driver(place, options)
    driver.wait_for(r"trial 0 RUNNING epoch 3\b")
    # Workers have the file mapped: what is cut off takes those with them that look there.
    with features.open("r+b") as file:
        file.truncate(len(whole) // 3)
    cut = int(driver.wait_for(r"trial (\d+) FAIL .*")[1])
    features.rename(place.root / "away")
    gone = int(driver.wait_for(r"trial (\d+) FAIL .* is missing")[1])
    features.write_bytes(whole)
    trials, _ = finish(driver)
    assert "is damaged" in trials[cut]["error"]
    assert f"{features} is missing; import the corpus again" in trials[gone]["error"]
    check_why(place, "store", [trials[gone]], "corpus missing or changed")
    assert trials[-1]["state"] == "COMPLETE"
    assert {trial["state"] for trial in trials} == {"COMPLETE", "FAIL"}
    assert place.left() == ([], [])


def test_loss_that_is_not_finite_fails_its_trial_with_epoch_and_step(place):
    write_tiny_corpus(place.root / "store")
    options = Options(
        root=str(place.root), study="nan", total=4, epochs=2, real=True, pruner=False,
        sampler="random", space=["optimizer.lr=choice:0.01,1e30", "loss.joint=float:0:1"],
    )  # fmt: skip
    trials, _ = finish(Driver(place, options))
    for trial in trials:
        if trial["params"]["optimizer.lr"] == 0.01:
            assert trial["state"] == "COMPLETE"
        else:
            assert trial["state"] == "FAIL"
            assert trial["error"].startswith("epoch 1, step 1: the loss is not finite")
            assert RunFolder.of(place.results, trial["run"]).state == "FAILED"
            check_why(place, "nan", [trial], "not finite")
    assert {trial["state"] for trial in trials} == {"COMPLETE", "FAIL"}


def test_one_command_at_a_time_drives_a_study(place):
    options = Options(root=str(place.root), study="lease", total=6)
    slow = {EPOCH_SECONDS: "1.0"}
    first = Driver(place, options, **slow)
    first.wait_for(r"trial 0 RUNNING epoch 1")
    lease = StudyFolder.of(place.results, "lease").lease

    second = Driver(place, options, **slow)
    assert second.end()[0] == 1
    assert f"study lease is in the hands of process {first.process.pid} on" in second.said()
    assert first.lives

    # A driver that is stopped is alive; one that is dead lets go at once.
    first.process.send_signal(signal.SIGSTOP)
    second = Driver(place, options, **slow)
    assert second.end()[0] == 1
    first.kill()
    second = Driver(place, options, **slow)
    second.wait_for(r"trial 0 RUNNING")
    second.kill()

    # An owner on another host counts as living until its heartbeat is old.
    owner = json.loads(lease.read_text())
    assert owner["host"] == platform.node()
    lease.write_text(json.dumps(owner | {"host": "elsewhere"}))
    third = Driver(place, options)
    assert third.end()[0] == 1
    assert f"process {second.process.pid} on elsewhere" in third.said()
    old = time.time() - STALE_SECONDS - 1
    os.utime(lease, (old, old))
    trials, _ = finish(Driver(place, options))
    assert trials == undisturbed(options)
    # What ran here under the former owner's name is of "another host" now, and stays.
    running, folders = place.left()
    assert folders == [owner["folder"].rpartition("/")[2]]
    shutil.rmtree(owner["folder"])
    assert set(running) <= {"ray::DashboardA", "ray::RuntimeEnv"}
