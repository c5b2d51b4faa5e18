"""Packing with Ray: trials run out of memory beside others, or are profiled and put beside them."""

import json
from dataclasses import replace

import pytest
from tiny_corpus import write_tiny_corpus

from cider.models.cider.config import Config
from cider.spec import DataConfig, OptimizerConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider_platform.execution.capacity import Slots
from cider_platform.layout import RunFolder, StudyFolder, read_json
from cider_platform.runs import run_log
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.trial import train_run
from cider_platform.search.driver import Plan, drive
from cider_platform.search.space import parse_axis

GREEDY, HOPELESS, PLAIN = 0.0, 0.25, (0.5, 0.75, 1.0)
ORDER = (GREEDY, 0.5, HOPELESS, 0.75, 1.0)


class Listener:
    """Remembers what a search said."""

    def __init__(self):
        self.changes = []

    def begin(self, trials, total):
        pass

    def change(self, change):
        self.changes.append(change)


def search(root, train, spec, slots, *, total, checkpoint_every=1):
    """Run a study; return its outcome and the states that each trial went through."""
    plan = Plan(
        study="packed",
        spec=spec,
        space=(parse_axis("loss.joint=choice:0.0,0.25,0.5,0.75,1.0"),),
        total=total,
        starts=tuple({"values": {"loss.joint": each}} for each in ORDER),
        sampler="random",
        slots=slots,
    )
    runtime = Runtime(
        root / "store", root / "results", threads=slots.cpus_per_trial,
        checkpoint_every=checkpoint_every,
    )  # fmt: skip
    listener = Listener()
    outcome = drive(plan, runtime, train=train, resolve=lambda each, _: each, listener=listener)
    states = {}
    for change in listener.changes:
        passed = states.setdefault(change.number, [])
        if not passed or passed[-1] != change.state:
            passed.append(change.state)
    return outcome, states


@pytest.fixture(scope="module")
def shortage(tmp_path_factory):
    """A study on a machine whose memory is short, as its trials say, with two slots."""
    root = tmp_path_factory.mktemp("shortage")
    notes = root / "notes"
    notes.mkdir()

    # Of this function's own names alone, so that workers need not import this module.
    def train(spec, runtime):
        import os
        import time
        from types import SimpleNamespace

        import torch

        joint = spec.loss.joint
        here, full = notes / f"running-{joint}", notes / "full"
        others = lambda: [each for each in notes.glob("running-*") if each != here]  # noqa: E731
        with (notes / "begun").open("a") as file:
            file.write(f"{joint} {spec.run_id} {os.getpid()} {torch.get_num_threads()}\n")
        here.touch()
        try:
            deadline = time.monotonic() + 30
            if joint == 0.25:
                raise MemoryError("it never has enough")
            if joint == 0.0 and not full.exists():
                while not others():
                    assert time.monotonic() < deadline, "nobody came"
                    time.sleep(0.02)
                full.touch()
                # What torch says on the CPU.
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            while joint != 0.0 and not full.exists():
                assert time.monotonic() < deadline, "it did not run out"
                time.sleep(0.02)
            for epoch in (1, 2):
                time.sleep(0.2)
                if joint == 0.0:
                    assert not others(), "it was to have the machine to itself"
                yield SimpleNamespace(
                    epoch=epoch, best_score=joint + epoch, best_epoch=epoch, seconds=0.2
                )
        finally:
            here.unlink()

    spec = RunSpec(training=TrainingConfig(epochs=2))
    slots = Slots(slots=2, cpus_per_trial=2, gpus_per_trial=0.0)
    outcome, states = search(root, train, spec, slots, total=5)
    begun = [line.split() for line in (notes / "begun").read_text().splitlines()]
    return outcome, states, begun, root / "results"


def test_trial_that_ran_out_beside_another_completes_alone_and_is_the_same_run(shortage):
    outcome, states, begun, results = shortage
    assert [trial.state for trial in outcome.trials] == [
        "FAIL" if joint == HOPELESS else "COMPLETE" for joint in ORDER
    ]
    assert states[0] == ["RUNNING", "WAITING", "RUNNING", "COMPLETE"]
    times = [float(each[0]) for each in begun]
    assert {joint: times.count(joint) for joint in sorted(set(times))} == {
        GREEDY: 2, HOPELESS: 2, **dict.fromkeys(PLAIN, 1)
    }  # fmt: skip
    assert {each[1] for each in begun} == {trial.run for trial in outcome.trials}
    assert [trial.value for trial in outcome.trials if trial.state == "COMPLETE"] == [
        joint + 2 for joint in (GREEDY, *PLAIN)
    ]
    log = run_log.read(RunFolder.of(results, outcome.trials[0].run))
    assert [each.kind for each in log] == ["begin", "error", "warning", "begin", "end"]
    assert "queued again" in log[2].text


def test_trial_that_runs_out_alone_fails_and_the_others_go_on(shortage):
    outcome, states, _, _ = shortage
    number = ORDER.index(HOPELESS)
    assert states[number] == ["RUNNING", "WAITING", "RUNNING", "FAIL"]
    assert outcome.trials[number].error.startswith(
        "out of memory (it never has enough), though nothing else of this search ran beside it"
    )


def test_trial_has_as_many_threads_as_cores(shortage):
    _, _, begun, _ = shortage
    assert {each[3] for each in begun} == {"2"}


@pytest.mark.slow
def test_first_trial_is_profiled_alone_and_goes_on_beside_others_from_its_checkpoint(
    tmp_path, capsys
):
    write_tiny_corpus(tmp_path / "store")
    spec = RunSpec(
        data=DataConfig(dataset="tiny"),
        model=Config(width=8, heads=2, layers=1),
        text_encoder=TextEncoderConfig(width=8, layers=1),
        training=TrainingConfig(epochs=3, batch_size=12),
        optimizer=OptimizerConfig(lr=1e-2),
    )
    alone = Runtime(tmp_path / "store", tmp_path / "alone", threads=1)
    spec = resolve(spec, alone)
    # A GPU that Ray only counts: the trials train on the CPU, and its memory is the limit.
    slots = Slots(slots=2, cpus_per_trial=1, gpus_per_trial=1.0, num_gpus=1, is_auto=True)
    outcome, states = search(tmp_path, train_run, spec, slots, total=3)
    assert [trial.state for trial in outcome.trials] == ["COMPLETE"] * 3
    assert states[0] == ["RUNNING", "WAITING", "RUNNING", "COMPLETE"]
    assert states[1] == states[2] == ["RUNNING", "COMPLETE"]
    trial = outcome.trials[0]
    assert 0.3 * trial.seconds < trial.gpu_seconds < trial.seconds
    assert "2 trials at a time (cores for 2), 10 % margin kept" in capsys.readouterr().err
    folder = RunFolder.of(tmp_path / "results", trial.run)
    seen = read_json(folder.profile)
    kept = read_json(StudyFolder.of(tmp_path / "results", "packed").packing)["shapes"]
    assert seen["shape"] in kept
    assert 5e7 < seen["peak_bytes"] < 3e9
    # Put back after an epoch and gone on, it is the run that it would have been.
    whole = replace(spec, loss=replace(spec.loss, joint=GREEDY))
    list(train_run(whole, alone))
    assert without_time(folder) == without_time(RunFolder.of(alone.results, whole.run_id))


def without_time(folder):
    lines = [json.loads(line) for line in folder.epochs.read_text().splitlines()]
    return [{**line, "seconds": None} for line in lines]
