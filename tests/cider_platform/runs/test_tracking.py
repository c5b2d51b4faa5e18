"""Live curves: what is written, that it changes nothing, and that its faults end nothing."""

import os
import pickle
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from cider.errors import UsageError
from cider.models.cider.config import Config
from cider.spec import DataConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider.training.workers import Workers
from cider_platform.layout import RunFolder
from cider_platform.results import read_epochs
from cider_platform.runs import run_log, tracking
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.tracking import Tracked, numbers, tracked
from cider_platform.runs.trial import train_run


@pytest.fixture
def spec(runtime):
    tiny = RunSpec(
        data=DataConfig(dataset="tiny"),
        model=Config(width=8, heads=2, layers=1),
        text_encoder=TextEncoderConfig(width=8, layers=1),
        training=TrainingConfig(epochs=3, batch_size=12),
    )
    return resolve(tiny, runtime)


def events_in(folder):
    """Return the events of every event file, oldest file first, reading the record format."""
    found = []
    for path in sorted(folder.iterdir(), key=lambda each: each.stat().st_mtime_ns):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("Q", content, at)
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += 12 + length + 4
    return found


def curves_in(folder):
    """Return {name: {step: value}}; a later value of a step replaces an earlier one."""
    curves = {}
    for event in events_in(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                curves.setdefault(value.tag, {})[event.step] = value.simple_value
    return curves


def folder_of(runtime, spec, group="mine"):
    return runtime.results / "tensorboard" / group / spec.run_id


def without_time(epochs):
    return [{name: value for name, value in each.items() if name != "seconds"} for each in epochs]


def test_curves_hold_every_number_of_every_epoch(spec, runtime):
    train = tracked(train_run, ["tensorboard"], "mine", runtime.results)
    results = [result.to_dict() for result in train(spec, runtime)]
    curves = curves_in(folder_of(runtime, spec))
    for result in results:
        for name, value in numbers(result).items():
            assert curves[name][result["epoch"]] == pytest.approx(value)
    assert {"train/total", "valid/acc2", "valid/acc2@0.5", "score", "tau"} <= set(curves)
    assert len(curves["score"]) == 3
    (described,) = [
        value.tensor.string_val[0].decode()
        for event in events_in(folder_of(runtime, spec))
        for value in event.summary.value
        if value.tag == "spec/text_summary"
    ]
    assert "| optimizer.lr | 0.001 |" in described


def test_curves_are_there_while_the_run_goes_on(spec, runtime):
    training = tracked(train_run, ["tensorboard"], "mine", runtime.results)(spec, runtime)
    next(training)
    assert list(curves_in(folder_of(runtime, spec))["score"]) == [1]
    training.close()


def test_listening_changes_no_number(spec, runtime, tmp_path):
    list(train_run(spec, runtime))
    other = Runtime(runtime.store, tmp_path / "other", threads=1)
    list(tracked(train_run, ["tensorboard"], "mine", other.results)(spec, other))
    plain, heard = (RunFolder.of(each.results, spec.run_id) for each in (runtime, other))
    assert without_time(read_epochs(plain.epochs)) == without_time(read_epochs(heard.epochs))
    assert plain.best.read_bytes() == heard.best.read_bytes()


def test_interrupted_run_continues_its_curves(spec, runtime):
    train = tracked(train_run, ["tensorboard"], "mine", runtime.results)
    first = train(spec, runtime)
    next(first)
    next(first)
    first.close()
    # The checkpoint of epoch 2 is lost, so it is trained again.
    folder = RunFolder.of(runtime.results, spec.run_id)
    shutil.rmtree(folder.checkpoint)
    list(train(spec, runtime))
    assert sorted(curves_in(folder_of(runtime, spec))["score"]) == [1, 2, 3]
    starts = [
        event.step for event in events_in(folder_of(runtime, spec)) if event.session_log.status
    ]
    assert starts == [1]  # TensorBoard drops what it had from there on


def test_run_that_began_without_listener_gets_its_past(spec, runtime):
    training = train_run(spec, runtime)
    next(training)
    training.close()
    list(tracked(train_run, ["tensorboard"], "mine", runtime.results)(spec, runtime))
    assert sorted(curves_in(folder_of(runtime, spec))["score"]) == [1, 2, 3]
    # Finished runs are not trained again, but shown in every group that meets them.
    list(tracked(train_run, ["tensorboard"], "other", runtime.results)(spec, runtime))
    assert sorted(curves_in(folder_of(runtime, spec, "other"))["score"]) == [1, 2, 3]
    list(tracked(train_run, ["tensorboard"], "other", runtime.results)(spec, runtime))
    assert sorted(curves_in(folder_of(runtime, spec, "other"))["score"]) == [1, 2, 3]


class Broken:
    """A tracker that fails from its second epoch on."""

    has_past = False

    def __init__(self, spec, results, group):
        self.epochs = 0

    def epoch(self, step, values):
        self.epochs += 1
        if self.epochs > 1:
            raise OSError(28, "No space left on device")

    def close(self):
        raise RuntimeError("not even that")


def test_fault_of_a_listener_is_one_warning_in_the_log_and_the_run_goes_on(
    spec, runtime, monkeypatch
):
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", Broken)
    train = tracked(train_run, ["tensorboard"], "mine", runtime.results)
    assert [result.epoch for result in train(spec, runtime)] == [1, 2, 3]
    folder = RunFolder.of(runtime.results, spec.run_id)
    assert folder.is_complete
    (warning,) = run_log.read(folder)
    assert warning.kind == "warning"
    assert warning.text == (
        "--log tensorboard gave up, the run goes on: OSError: [Errno 28] No space left on device"
    )


def test_listener_that_cannot_begin_ends_nothing(spec, runtime):
    (runtime.results / "tensorboard").parent.mkdir(parents=True)
    (runtime.results / "tensorboard").write_text("a file where the folder should be")
    train = tracked(train_run, ["tensorboard"], "mine", runtime.results)
    assert len(list(train(spec, runtime))) == 3
    (warning,) = run_log.read(RunFolder.of(runtime.results, spec.run_id))
    assert "gave up" in warning.text


def test_nothing_is_wrapped_where_nothing_is_asked_for(runtime):
    assert tracked(train_run, [], "mine", runtime.results) is train_run


def test_wrapped_training_reaches_workers_by_pickle(runtime):
    train = tracked(train_run, ["tensorboard", "tensorboard"], "mine", runtime.results)
    assert pickle.loads(pickle.dumps(train)) == Tracked(train_run, ("tensorboard",), "mine")


def test_unknown_and_missing_listeners_are_refused_before_anything_runs(runtime, monkeypatch):
    with pytest.raises(UsageError, match="--log must be tensorboard or mlflow, got 'wandb'"):
        tracked(train_run, ["wandb"], "mine", runtime.results)
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'cider-platform\[mlflow\]'"):
        tracked(train_run, ["mlflow"], "mine", runtime.results)


def test_only_the_first_of_several_workers_listens(spec, runtime):
    train = Tracked(lambda spec, runtime: iter(()), ("tensorboard",), "mine")
    for rank in (1, 0):
        assert not folder_of(runtime, spec).exists()
        assert list(train(spec, replace(runtime, workers=Workers(rank, 2)))) == []
    assert folder_of(runtime, spec).exists()


def test_undefined_numbers_are_left_out():
    epoch = {
        "train": {"total": 1.0, "joint": float("nan")},
        "valid": {"acc2": 0.5, "has0": None},
        "score": 0.5, "best_score": 0.5, "tau": 0.0, "seconds": 2.0,
    }  # fmt: skip
    assert numbers(epoch) == {
        "train/total": 1.0, "valid/acc2": 0.5,
        "score": 0.5, "best_score": 0.5, "tau": 0.0, "seconds": 2.0,
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of its many dependencies, which are not ours to judge
def test_mlflow_gets_a_run_per_training_with_its_metrics(spec, runtime, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the optional package mlflow-skinny")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train = tracked(train_run, ["mlflow"], "mine", runtime.results)
    training = train(spec, runtime)
    next(training)
    training.close()
    results = [result.to_dict() for result in train(spec, runtime)]
    assert [result["epoch"] for result in results] == [2, 3]
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{runtime.results / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mine")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == spec.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.lr"] == "0.001"
    history = client.get_metric_history(run.info.run_id, "valid/acc2_at_0.5")
    assert sorted(metric.step for metric in history) == [1, 2, 3]
    assert history[-1].value == pytest.approx(results[-1]["valid"]["acc2@0.5"])
    assert not run_log.read(RunFolder.of(runtime.results, spec.run_id))
    assert not Path("mlruns").exists()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuchstore://here")
    with pytest.raises(UsageError, match="cannot use nosuchstore://here"):
        tracked(train_run, ["mlflow"], "mine", runtime.results)
