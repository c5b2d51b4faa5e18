"""Errors as sentences, and trials that make no progress."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from cider.errors import TrainingError
from cider_platform.execution.faults import sentence
from cider_platform.execution.stalls import StallWatch
from cider_platform.layout import RunFolder

HERE = Path("results")
FULL = "no space is left on the disk of results: make room there"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TrainingError("epoch 1, step 2: it broke"), "epoch 1, step 2: it broke"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), FULL),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), FULL),
        (SafetensorError("I/O error: No space left on device (os error 28)"), FULL),
        (RuntimeError("two\nlines"), "RuntimeError: two"),
        (ValueError(), "ValueError: no message"),
        (MemoryError("8 GiB"), "out of memory (8 GiB); lower training.batch_size, or give fewer "
         "--slots"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory (CUDA out of memory); lower "
         "training.batch_size, or give fewer --slots"),
    ],
)  # fmt: skip
def test_error_becomes_one_sentence(error, expected):
    assert sentence(error, HERE) == expected


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folders(tmp_path):
    made = [RunFolder.of(tmp_path, f"run{number}") for number in range(2)]
    for folder in made:
        folder.write_status("RUNNING")
    return made


def add_epoch(folder):
    with folder.epochs.open("a") as file:
        file.write("{}\n")


def test_trial_stalls_when_its_run_does_not_change_for_longer_than_allowed(clock, folders):
    watch = StallWatch(100, clock)
    running = list(enumerate(folders))
    assert watch.stalled(running) == []
    clock.now = 60
    add_epoch(folders[0])
    assert watch.stalled(running) == []
    clock.now = 101
    assert watch.stalled(running) == [1]
    clock.now = 161
    assert watch.stalled(running) == [0, 1]


def test_trial_that_begins_anew_has_all_its_time_again(clock, folders):
    watch = StallWatch(100, clock)
    running = list(enumerate(folders))
    watch.stalled(running)
    clock.now = 90
    folders[0].write_status("RUNNING", pid=2)  # another worker took the run over
    assert watch.stalled([running[0]]) == []  # and the other trial waits for a worker
    clock.now = 150
    assert watch.stalled(running) == []
    clock.now = 195
    assert watch.stalled(running) == [0]


def test_two_trials_of_one_run_progress_together(clock, folders):
    watch = StallWatch(100, clock)
    running = [(0, folders[0]), (1, folders[0])]
    for clock.now in range(0, 400, 80):
        add_epoch(folders[0])
        assert watch.stalled(running) == []


def test_run_without_files_counts_from_its_first_sight(clock, tmp_path):
    watch = StallWatch(100, clock)
    running = [(0, RunFolder.of(tmp_path, "none"))]
    clock.now = 1000
    assert watch.stalled(running) == []
    clock.now = 1050
    assert watch.stalled(running) == []
    clock.now = 1101
    assert watch.stalled(running) == [0]
