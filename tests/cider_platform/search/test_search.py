"""The decisions of a search, with real training and a real study, without the engine."""

from dataclasses import replace

import pytest

from cider.errors import CiderError
from cider.models.cider.config import Config
from cider.spec import DataConfig, OptimizerConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider_platform.execution.capacity import choose_slots, read_auto, usable_cpus, usable_memory
from cider_platform.layout import RunFolder, StudyFolder
from cider_platform.runs.assembly import resolve
from cider_platform.runs.trial import train_run
from cider_platform.search.ledger import Ledger
from cider_platform.search.search import Report, Search, dataset_defaults
from cider_platform.search.space import parse_axis
from cider_platform.search.study import define, open_storage

SPACE = (parse_axis("loss.joint=choice:0,0.5"), parse_axis("optimizer.lr=log:1e-3:1e-1"))
ASHA = {"name": "asha", "grace": 1, "reduction": 2}


@pytest.fixture
def spec(runtime):
    tiny = RunSpec(
        data=DataConfig(dataset="tiny"),
        model=Config(width=8, heads=2, layers=1),
        text_encoder=TextEncoderConfig(width=8, layers=1),
        training=TrainingConfig(epochs=2, batch_size=12),
        optimizer=OptimizerConfig(lr=1e-2),
    )
    return resolve(tiny, runtime)


def make_search(spec, runtime, changes, *, space=SPACE, total=4, pruner=ASHA, name="study"):
    folder = StudyFolder.of(runtime.results, name)
    definition = define(spec, space, sampler="tpe", pruner=pruner)
    return Search(
        Ledger(open_storage(folder), name, definition),
        spec,
        total=total,
        results=runtime.results,
        resolve=lambda each: resolve(each, runtime),
        listener=changes.append,
    )


def run(search, runtime):
    """Train every job the way a worker does, in this process."""
    trained = []
    while (job := search.next_job()) is not None:
        last = job.spec.training.epochs
        for result in train_run(job.spec, runtime):
            trained.append(job.number)
            report = Report(
                history=[(result.epoch, result.best_score)], is_last=result.epoch == last
            )
            if search.on_report(job.number, report):
                break
        else:
            finished = Report(history=[(last, result.best_score)], is_last=True, is_finished=True)
            search.on_report(job.number, finished)
    return trained


def test_search_trains_to_its_total_and_every_trial_ends_as_what_it_was(spec, runtime):
    changes = []
    search = make_search(spec, runtime, changes)
    trained = run(search, runtime)
    trials = search.ledger.trials()
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert all(trial.epochs == trained.count(trial.number) for trial in trials)
    for trial in trials:
        folder = RunFolder.of(runtime.results, trial.run)
        assert folder.state == {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED"}[trial.state]
        assert folder.frozen.exists() == (trial.state == "COMPLETE")
        assert (trial.epochs == 2) or trial.state == "PRUNED"
        assert changes[-1].run or trial.run
    ends = [change.state for change in changes if change.state != "RUNNING"]
    assert ends == [trial.state for trial in trials]
    assert make_search(spec, runtime, changes).next_job() is None


def test_last_epoch_is_never_pruned_because_the_run_is_done(spec, runtime):
    search = make_search(spec, runtime, [], total=2)
    search.next_job()
    search.on_report(0, Report(history=[(1, 0.9)], is_last=True))
    search.next_job()
    assert search.on_report(1, Report(history=[(1, 0.1)], is_last=True)) is False
    assert search.on_report(1, Report(history=[(1, 0.1)])) is True


def test_equal_configurations_share_one_run(spec, runtime):
    space = (parse_axis("loss.joint=choice:0,0.5"),)
    search = make_search(spec, runtime, [], space=space, total=5, pruner={"name": "none"})
    runs = set()
    while (job := search.next_job()) is not None:
        runs.add(job.spec.run_id)
        search.on_report(job.number, Report(history=[(1, 0.5)], is_finished=True))
    assert len(search.ledger.trials()) == 5
    assert len(runs) == 2


def test_configuration_that_does_not_fit_fails_its_trial_and_the_search_goes_on(spec, runtime):
    changes = []
    space = (parse_axis("model.heads=choice:1,2,4,8"), parse_axis("model.width=choice:4,8"))
    search = make_search(spec, runtime, changes, space=space, total=12, pruner={"name": "none"})
    while (job := search.next_job()) is not None:
        search.on_report(job.number, Report(history=[(1, 0.5)], is_finished=True))
    failed = [trial for trial in search.ledger.trials() if trial.state == "FAIL"]
    assert failed
    assert all(
        (trial.params["model.heads"], trial.params["model.width"]) == (8, 4) for trial in failed
    )
    assert all("heads must divide" in trial.error for trial in failed)
    assert len(search.ledger.trials()) == 12


def test_failures_are_told_with_their_error(spec, runtime):
    changes = []
    search = make_search(spec, runtime, changes, total=4)
    for _ in range(4):
        search.next_job()
    search.on_report(0, Report(history=[], error="the loss is not finite"))
    search.on_lost(1, "its worker process died 3 times")
    search.on_report(2, Report(history=[], is_finished=True))
    search.on_report(3, Report(history=[(1, float("-inf"))], is_finished=True))
    errors = [trial.error for trial in search.ledger.trials()]
    assert errors[:3] == [
        "the loss is not finite",
        "its worker process died 3 times",
        "the run ended without an epoch",
    ]
    assert "not finite: -inf" in errors[3]
    assert [change.state for change in changes[4:]] == ["FAIL"] * 4
    assert RunFolder.of(runtime.results, search.ledger.trials()[1].run).state == "FAILED"


def test_word_from_a_trial_that_has_ended_is_ignored(spec, runtime):
    search = make_search(spec, runtime, [], total=1)
    search.next_job()
    search.on_report(0, Report(history=[(1, 0.5)], is_finished=True))
    assert search.on_report(0, Report(history=[(2, 0.9)])) is False
    search.on_lost(0, "late")
    assert [trial.value for trial in search.ledger.trials()] == [0.5]


def test_searched_text_encoder_is_resolved_anew_for_every_trial(spec, runtime):
    space = (parse_axis("text_encoder.source=choice:scratch,no-such-encoder"),)
    changes = []
    search = make_search(spec, runtime, changes, space=space, total=6, pruner={"name": "none"})
    while (job := search.next_job()) is not None:
        assert job.spec.text_encoder.source == "scratch"
        search.on_report(job.number, Report(history=[(1, 0.5)], is_finished=True))
    failed = [change for change in changes if change.state == "FAIL"]
    assert failed
    assert all("no-such-encoder" in change.error for change in failed)


def test_defaults_of_real_corpora_are_the_published_budget():
    assert dataset_defaults("mosei").trials == 300
    assert dataset_defaults("mosei").fields == {}
    assert dataset_defaults("synthetic-mosei").trials < 20


def test_slots_fill_cores_memory_and_gpus():
    assert choose_slots("cpu", slots=7).slots == 7
    fitting = choose_slots("cpu").slots
    assert 1 <= fitting <= usable_cpus()
    assert fitting * 5e8 < max(usable_memory(), 5e8 + 1)
    assert choose_slots("cpu", cpus_per_trial=10_000).slots == 1
    gpu = choose_slots("cuda", gpus_per_trial=0.5, num_gpus=1)
    assert gpu.gpus_per_trial == 0.5
    assert gpu.slots <= 2
    assert not gpu.is_auto
    # Several trials may share the one GPU: their memory decides.
    assert choose_slots("cuda", num_gpus=1, slots=4).slots == 4
    assert choose_slots("cuda", num_gpus=1, slots=4).is_auto
    assert choose_slots("cpu").is_auto
    assert not choose_slots("cpu", slots=2).is_auto
    assert not choose_slots("cuda", num_gpus=2, workers=2).is_auto
    assert (read_auto("--slots", "auto", int), read_auto("--slots", "3", int)) == (None, 3)
    for text, kind in (("0", int), ("-1", float), ("2.5", int), ("nan", float), ("all", int)):
        with pytest.raises(CiderError, match="--slots must be auto or a"):
            read_auto("--slots", text, kind)
    for wrong in ({"slots": 0}, {"cpus_per_trial": 0}):
        with pytest.raises(CiderError, match="at least 1"):
            choose_slots("cpu", **wrong)
    for wrong in ({"gpus_per_trial": 2}, {"gpus_per_trial": 0}, {"slots": 2, "workers": 2}):
        with pytest.raises(CiderError, match="gpus-per-trial"):
            choose_slots("cuda", num_gpus=1, **wrong)
    with pytest.raises(CiderError, match=r"--gpus-per-trial 0\.5 was given, but the device is cpu"):
        choose_slots("cpu", gpus_per_trial=0.5)
    with pytest.raises(CiderError, match="CUDA_VISIBLE_DEVICES"):
        choose_slots("cuda:1", num_gpus=2)


def test_job_differs_from_the_base_in_the_searched_fields_alone(spec, runtime):
    job = make_search(spec, runtime, []).next_job()
    assert job.spec.loss.joint == job.values["loss.joint"]
    assert replace(job.spec, loss=spec.loss, optimizer=spec.optimizer) == spec
