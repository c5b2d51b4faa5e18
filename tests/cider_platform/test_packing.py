"""How many trials share a device, and what follows when memory runs out; no device, no Ray."""

import json
import os
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cider.models.cider.config import Config
from cider.spec import DataConfig, LossConfig, OptimizerConfig, RunSpec, TrainingConfig
from cider_platform import packing, packing_record, run_log
from cider_platform.budget import Budget, Clock
from cider_platform.capacity import Slots, usable_memory
from cider_platform.diagnosis import Evidence, cause_of
from cider_platform.faults import is_out_of_memory, memory_words, sentence
from cider_platform.layout import RunFolder, StudyFolder, read_json
from cider_platform.ledger import Ledger
from cider_platform.packing import (
    Packing,
    Profile,
    more_room,
    room_of_one,
    shape_key,
    trials_per_device,
)
from cider_platform.packing_record import packing_of
from cider_platform.profiling import CONTEXT_BYTES, Meter, give_back
from cider_platform.search import MAX_WORKER_DEATHS, Report, Search
from cider_platform.space import parse_axis
from cider_platform.study import define, open_storage, open_study, read_study
from cider_platform.why import why_trial

GIB = 1024**3
LARGE = st.integers(1, 10**13)


def profile(shape="s", peak=2 * GIB, available=79 * GIB, device="cuda", epoch=1):
    return Profile(
        shape=shape,
        peak_bytes=peak,
        available_bytes=available,
        seconds_per_epoch=1.5,
        epoch=epoch,
        device=device,
    )


@given(LARGE, LARGE, st.integers(1, 1000), st.floats(0, 0.99))
def test_trials_of_a_device_fit_within_its_memory_less_the_margin(peak, available, limit, margin):
    count = trials_per_device(peak, available, limit=limit, margin=margin)
    assert 1 <= count <= limit
    if count > 1:
        assert count * peak <= available * (1 - margin) + 1
    if count < limit:
        assert (count + 1) * peak > available * (1 - margin) - 1


@given(st.integers(1, 10_000))
def test_rooms_of_trials_that_share_a_device_are_at_most_the_device(count):
    room = room_of_one(count)
    assert 0 < room <= 1
    assert count * room <= 1 + 1e-9
    assert round(room * 10_000) == pytest.approx(room * 10_000)


@given(st.floats(0.0001, 1.0))
def test_room_grows_to_a_whole_device_and_no_further(room):
    steps = 0
    while (more := more_room(room)) is not None:
        assert room < more <= 1
        room, steps = more, steps + 1
    assert room == 1
    assert steps <= 14


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), max_size=30),
    st.integers(1, 12),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_whatever_happens_rooms_fit_on_the_devices(trials, limit, devices, chance):
    """Trials of three shapes begin, tell, run out and end in any order."""
    tried = Packing(limit=limit, devices=devices, on_gpu=True)
    live = {}
    for number, (shape, peak) in enumerate(trials):
        if tried.begin(number, shape):
            live[number] = shape
        assert sum(tried.room(each) for each in live) <= devices + 1e-3
        assert len(live) <= limit
        for each in [each for each in live if chance.random() < 0.5]:
            if chance.random() < 0.6:
                stop = tried.learn(each, profile(live[each], peak, 40))
            else:
                had = tried.room(each)
                more = tried.ran_out(each)
                assert more == more_room(had)
                assert tried.room_of(live[each]) >= (more or had)
                stop = True
            if stop:
                tried.end(each)
                del live[each]
    for each in live:
        tried.end(each)
    assert tried.begin(-1, "a"), "an empty machine takes any trial"


def test_shape_is_what_decides_memory():
    base = RunSpec()
    same = [
        replace(base, seed=7),
        replace(base, optimizer=OptimizerConfig(lr=1e-4, text_lr=1e-5)),
        replace(base, training=TrainingConfig(epochs=3, patience=2)),
        replace(base, loss=LossConfig(joint=0.9)),
        replace(base, model=Config(attention_dropout=0.45)),
    ]
    other = [
        replace(base, model=Config(layers=base.model.layers + 1)),
        replace(base, training=TrainingConfig(batch_size=64)),
        replace(base, training=TrainingConfig(padding="full")),
        replace(base, loss=LossConfig(joint=0.0)),
        replace(base, model=Config(attention_dropout=0.0)),
        replace(base, data=DataConfig(content_sha256="0" * 64)),
        replace(base, data=DataConfig(task="seven_class")),
    ]
    assert {shape_key(each) for each in same} == {shape_key(base)}
    keys = [shape_key(each) for each in [base, *other]]
    assert len(set(keys)) == len(keys)
    named = [path.partition(".") for path in packing._FREE]
    for part, _, name in named:
        inside = type(getattr(base, part)) if name else RunSpec
        assert (name or part) in {each.name for each in fields(inside)}


def test_first_trial_has_a_gpu_alone_and_its_memory_decides_for_the_others():
    told = []
    tried = Packing(limit=16, on_gpu=True, listener=lambda *each: told.append(each))
    assert tried.has_place
    assert tried.begin(0, "s")
    assert tried.gpus(0) == 1.0
    assert not tried.has_place
    assert not tried.begin(1, "s")
    # 79 GiB less a tenth take 9 trials of 7.5 GiB. The GPU it holds goes back to Ray first.
    assert tried.learn(0, profile(peak=int(7.5 * GIB)))
    assert told[0][1] == 9
    tried.end(0)
    assert all(tried.begin(number, "s") for number in range(9))
    assert tried.gpus(8) == 0.1111
    assert not tried.begin(9, "s")
    # An unknown shape is taken to need as much as the largest known one; a small one needs less.
    assert tried.room_of("unknown") == 0.1111
    assert not tried.learn(0, profile("s", peak=GIB)), "it was not alone: what is free is unknown"
    assert tried.room_of("s") == 0.1111, "the largest peak of a shape counts"


def test_on_the_cpu_the_first_trial_makes_place_where_it_is():
    tried = Packing(limit=4)
    assert tried.begin(0, "s")
    assert not tried.begin(1, "s")
    assert not tried.learn(0, profile(peak=3 * GIB, available=10 * GIB, device="cpu"))
    assert tried.room(0) == 0.3333
    assert tried.begin(1, "s")
    assert tried.begin(2, "s")
    assert not tried.begin(3, "s")
    assert tried.gpus(0) == 0.0


def test_several_gpus_are_shared_out_and_each_begins_with_one_trial():
    tried = Packing(limit=8, devices=2, on_gpu=True)
    assert [tried.begin(number, "s") for number in range(3)] == [True, True, False]
    assert tried.learn(0, profile(peak=GIB))
    tried.end(0)
    # Cores for 8 on 2 GPUs: four each, though memory would take more.
    assert tried.count("s") == 4
    assert tried.room_of("s") == 0.25


def test_fixed_number_is_obeyed_and_out_of_memory_still_gives_more_room():
    tried = packing_of(Slots(slots=3, cpus_per_trial=1, gpus_per_trial=0.0), os.devnull)
    assert [tried.begin(number, "s") for number in range(4)] == [True, True, True, False]
    assert not tried.learn(0, profile(peak=100 * GIB, available=GIB, device="cpu"))
    assert tried.ran_out(0) == pytest.approx(2 / 3, abs=1e-3)
    tried.end(0)
    assert not tried.begin(0, "s")
    tried.end(1)
    assert tried.begin(0, "s")
    assert tried.ran_out(0) == 1.0
    shares = Slots(slots=4, cpus_per_trial=1, gpus_per_trial=0.5, num_gpus=2)
    gpus = packing_of(shares, os.devnull)
    assert [gpus.begin(number, "s") for number in range(5)] == [True] * 4 + [False]
    assert gpus.gpus(0) == 0.5


def test_decision_is_one_line_told_once_and_kept_for_the_next_command(tmp_path, capsys):
    slots = Slots(slots=8, cpus_per_trial=1, gpus_per_trial=0.0, is_auto=True)
    record = tmp_path / "packing.json"
    tried = packing_of(slots, record)
    tried.begin(0, "s")
    tried.learn(0, profile(peak=GIB, available=4 * GIB, device="cpu"))
    tried.learn(0, profile(peak=2 * GIB, available=4 * GIB, device="cpu", epoch=2))
    assert capsys.readouterr().err.splitlines() == [
        "a trial takes 1.0 GiB of 4.0 GiB and 1.5 s per epoch: 3 trials at a time, 10 % margin kept"
    ]
    known = read_json(record)["shapes"]["s"]
    assert (known["peak_bytes"], known["trials_per_device"], known["epoch"]) == (2 * GIB, 1, 2)
    again = packing_of(slots, record)
    peak = usable_memory() // 4
    record.write_text(json.dumps({"shapes": {"s": {**known, "peak_bytes": peak}}}))
    again = packing_of(slots, record)
    assert again.begin(0, "s")
    assert again.room(0) < 1, "nothing is profiled alone again"
    record.write_text("{damaged")
    damaged = packing_of(slots, record)
    assert damaged.begin(0, "s")
    assert damaged.room(0) == 1.0
    text = packing_record.decision(profile(peak=int(1.9 * GIB)), 8, limit=8)
    assert text == (
        "a trial takes 1.9 GiB of 79.0 GiB and 1.5 s per epoch: 8 trials per GPU (cores for 8), "
        "10 % margin kept"
    )


def test_meter_sees_what_a_training_holds_and_says_so_once():
    meter = Meter("cpu", workers=2)
    before = meter.profile("s", 1, 0.5)
    held = bytearray(150_000_000)
    held[::4096] = b"x" * len(held[::4096])
    after = meter.profile("s", 2, 0.5)
    # Of two workers, 150 MB each.
    assert 2.6e8 < after.peak_bytes - before.peak_bytes < 4.5e8
    assert meter.profile("s", 3, 0.5) is None
    assert after.available_bytes > before.available_bytes - 2e9
    assert (after.device, after.epoch, after.seconds_per_epoch) == ("cpu", 2, 0.5)
    del held
    fresh = Meter("cpu").profile("s", 1, 0.5)
    assert fresh.peak_bytes < after.peak_bytes / 2


@pytest.mark.gpu
def test_meter_sees_what_torch_reserved_of_a_gpu():
    torch = pytest.importorskip("torch")
    meter = Meter("cuda")
    held = torch.empty(GIB, dtype=torch.uint8, device="cuda")
    seen = meter.profile("s", 1, 0.5)
    assert GIB + CONTEXT_BYTES <= seen.peak_bytes < GIB + CONTEXT_BYTES + 2**26
    assert seen.available_bytes > seen.peak_bytes
    assert seen.device == "cuda"
    del held
    give_back("cuda")
    assert torch.cuda.memory_reserved() == 0


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


def test_gpu_trial_that_was_alone_is_begun_again_with_its_share(search, tmp_path):
    tried = search(Packing(limit=4, on_gpu=True), clock=Clock(Budget()))
    job = begin_run(tried, tmp_path)
    assert tried.next_job() is None
    seen = profile(job.shape, peak=GIB).to_dict()
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
