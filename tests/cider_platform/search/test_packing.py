"""How many trials share a device, by what they are seen to take; no device, no Ray."""

import json
import os
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cider.models.cider.config import Config
from cider.spec import DataConfig, LossConfig, OptimizerConfig, RunSpec, TrainingConfig
from cider_platform.execution.capacity import Slots, usable_memory
from cider_platform.execution.profiling import CONTEXT_BYTES, Meter, give_back
from cider_platform.layout import read_json
from cider_platform.search import packing, packing_record
from cider_platform.search.packing import (
    Packing,
    Profile,
    more_room,
    room_of_one,
    shape_key,
    trials_per_device,
)
from cider_platform.search.packing_record import packing_of

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
