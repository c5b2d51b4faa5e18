"""What a search makes of trials whose memory ran out, and of profiles; no device, no Ray."""

import pytest

from cider.spec import RunSpec
from cider_platform.execution.faults import is_out_of_memory, memory_words, sentence
from cider_platform.layout import RunFolder, StudyFolder
from cider_platform.runs import run_log
from cider_platform.search.budget import Budget, Clock
from cider_platform.search.diagnosis import Evidence, cause_of
from cider_platform.search.ledger import Ledger
from cider_platform.search.packing import Packing, Profile
from cider_platform.search.search import MAX_WORKER_DEATHS, Report, Search
from cider_platform.search.space import parse_axis
from cider_platform.search.study import define, open_storage, open_study, read_study
from cider_platform.search.why import why_trial


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError("no room"), True),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("shape mismatch"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_errors_that_mean_memory_are_known(error, is_memory):
    assert is_out_of_memory(error) is is_memory
    assert sentence(error, "folder").startswith("out of memory (") is is_memory
    if is_memory:
        assert memory_words(error).startswith("out of memory (")


@pytest.fixture
def search(tmp_path):
    def make(packing, changes=None, total=4, clock=None):
        folder = StudyFolder.of(tmp_path, "study")
        space = (parse_axis("optimizer.lr=log:1e-4:1e-1"),)
        definition = define(RunSpec(), space, sampler="random", pruner={"name": "none"})
        return Search(
            Ledger(open_storage(folder), "study", definition),
            RunSpec(),
            total=total,
            results=tmp_path,
            resolve=lambda each: each,
            listener=[].append if changes is None else changes.append,
            packing=packing,
            clock=clock,
        )

    return make


def begin_run(search, tmp_path):
    """Hand out a trial and write its status as its worker would."""
    job = search.next_job()
    folder = RunFolder.of(tmp_path, job.spec.run_id)
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.write_status("RUNNING")
    return job


def finish(search, number):
    search.on_report(number, Report(history=[(1, 0.5)], is_finished=True))


def test_trial_that_runs_out_goes_on_with_more_room_as_the_same_trial(search, tmp_path):
    changes = []
    tried = search(Packing(limit=2, room=0.5), changes, total=3)
    first, second = begin_run(tried, tmp_path), begin_run(tried, tmp_path)
    assert tried.on_report(0, Report(history=[], out_of_memory="out of memory (full)"))
    assert tried.next_job() is None, "it waits until the other one ends, and nobody passes it"
    assert not tried.is_over
    assert tried.on_report(0, Report(history=[(1, 0.1)])) is False, "its old worker is not heard"
    tried.on_lost(0, "nor is its end")
    finish(tried, 1)
    again = tried.next_job()
    assert again == first
    assert tried.next_job() is None, "it runs alone"
    finish(tried, 0)
    # Others of its shape begin with the larger room at once.
    third = begin_run(tried, tmp_path)
    assert tried.packing.room(third.number) == 1.0
    finish(tried, 2)
    assert tried.next_job() is None
    assert tried.is_over
    states = [(change.number, change.state) for change in changes if change.number == 0]
    assert states == [(0, each) for each in ("RUNNING", "WAITING", "RUNNING", "COMPLETE")]
    trials = tried.ledger.trials()
    assert [trial.state for trial in trials] == ["COMPLETE"] * 3
    assert len({trial.run for trial in trials}) == 3
    assert second.spec.run_id == trials[1].run
    told = why_trial(open_study(tmp_path, "study"), read_study(tmp_path, "study")[1], 0, tmp_path)
    assert "out of memory (full); queued again" in told.summary
    assert told.memory_ran_out


def test_trial_that_runs_out_alone_fails_with_a_sentence(search, tmp_path):
    tried = search(Packing(limit=2, room=0.5), total=2)
    begin_run(tried, tmp_path)
    tried.on_report(0, Report(history=[], out_of_memory="out of memory (full)"))
    assert tried.next_job().number == 0
    tried.on_report(0, Report(history=[], out_of_memory="out of memory (full)"))
    record = tried.ledger.trials()[0]
    assert record.state == "FAIL"
    assert record.error.startswith(
        "out of memory (full), though nothing else of this search ran beside it; lower"
    )
    assert RunFolder.of(tmp_path, record.run).state == "FAILED"
    told = why_trial(open_study(tmp_path, "study"), read_study(tmp_path, "study")[1], 0, tmp_path)
    assert told.cause == "out of memory"
    assert told.memory_ran_out
    assert tried.next_job().number == 1, "the others go on"


@pytest.mark.parametrize(
    "reason",
    [
        "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.",
        "Worker exit type: NODE_OUT_OF_MEMORY Worker exit detail: Task was killed",
    ],
)
def test_worker_that_was_killed_for_memory_gets_more_room(search, tmp_path, reason):
    tried = search(Packing(limit=4, room=0.25))
    job = begin_run(tried, tmp_path)
    tried.on_death(0, reason)
    assert tried.next_job() == job
    assert tried.packing.room(0) == 0.5
    tried.on_death(0, "Worker exit type: SYSTEM_ERROR Worker exit detail: it died")
    assert tried.next_job() == job
    assert tried.packing.room(0) == 0.5, "another death is no reason for more room"
    tried.on_death(0, reason)
    assert tried.next_job() == job
    # It may have been another program that took the memory, so the trial is not given up at once.
    tried.on_death(0, reason)
    assert tried.next_job() == job
    tried.on_death(0, reason)
    assert tried.next_job().number == 1
    assert tried.ledger.trials()[0].error == f"its worker process died 3 times: {reason}"


def test_reason_of_a_worker_that_ray_ended_for_memory_is_found_behind_its_traceback(tmp_path):
    frames = "".join(
        f'  File "/packages/ray/tune/module_{number}.py", line {number}, in resolve_future\n'
        "    result = ray.get(future)\n"
        for number in range(8)
    )
    written = tmp_path / "error.txt"
    written.write_text(
        "Failure # 1 (occurred at 2026-01-01_00-00-00)\nTraceback (most recent call last):\n"
        f"{frames}"
        "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.\n"
        "Memory on the node was 15.1GB / 16.0GB (0.95), which exceeds the threshold of 0.95."
    )
    reason = run_log.last_failure(written)
    assert reason.startswith("ray.exceptions.OutOfMemoryError: Task was killed due to the node")
    assert cause_of(Evidence(text=reason)).is_memory


def test_worker_that_dies_again_and_again_fails_its_trial(search, tmp_path):
    tried = search(Packing(limit=4, room=0.25))
    begin_run(tried, tmp_path)
    for _ in range(MAX_WORKER_DEATHS):
        tried.on_death(0, "SIGKILL")
        assert tried.next_job().number == 0
    tried.on_death(0, "SIGKILL")
    record = tried.ledger.trials()[0]
    assert (record.state, record.error) == ("FAIL", "its worker process died 3 times: SIGKILL")


def test_deaths_count_only_while_a_trial_comes_no_further(search, tmp_path):
    tried = search(Packing(limit=4, room=0.25))
    begin_run(tried, tmp_path)
    for epoch in range(1, 3 * MAX_WORKER_DEATHS):  # a machine that is taken away every night
        tried.on_report(0, Report(history=[(each, 0.5) for each in range(1, epoch + 1)]))
        tried.on_death(0, "SIGKILL")
        assert tried.next_job().number == 0
    for _ in range(MAX_WORKER_DEATHS):
        # The new worker tells what is known, and dies before another epoch.
        tried.on_report(0, Report(history=[(each, 0.5) for each in range(1, epoch + 1)]))
        assert tried.ledger.trials()[0].state == "RUNNING"
        tried.on_death(0, "SIGKILL")
        tried.next_job()
    assert tried.ledger.trials()[0].state == "FAIL"


def test_gpu_trial_that_was_alone_is_begun_again_with_its_share(search, tmp_path):
    tried = search(Packing(limit=4, on_gpu=True), clock=Clock(Budget()))
    job = begin_run(tried, tmp_path)
    assert tried.next_job() is None
    seen = Profile(
        shape=job.shape,
        peak_bytes=10**9,
        available_bytes=8 * 10**10,
        seconds_per_epoch=1.0,
        epoch=1,
        device="cuda",
    ).to_dict()
    assert tried.on_report(0, Report(history=[(1, 0.5)], profile=seen)), "stop it"
    assert tried.next_job() == job
    assert tried.packing.gpus(0) == 0.25
    assert tried.next_job().number == 1
    before = tried.ledger.trials()[0]
    assert before.epochs == 1
    assert before.gpu_seconds == pytest.approx(before.seconds, abs=2e-3)
    # In its last epoch it would not pay.
    other = search(Packing(limit=4, on_gpu=True), total=6)
    last = begin_run(other, tmp_path)
    assert not other.on_report(last.number, Report(history=[(1, 0.5)], is_last=True, profile=seen))
