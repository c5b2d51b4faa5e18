"""Durations from past runs: which runs count, how early stopping enters, what calibration gives."""

from __future__ import annotations

import json
import os
from datetime import datetime

import pytest
from tiny_corpus import write_tiny_corpus

from cider.config import with_field
from cider.spec import RunSpec
from cider_platform.grids.calibrate import calibrate
from cider_platform.grids.estimates import History, calibration_file, shape_of
from cider_platform.layout import RunFolder
from cider_platform.runs.evaluation import conditions_of, evaluate_run
from cider_platform.runs.trial import Runtime, resolve, train_run

SPEC = {
    "data": {"dataset": "tiny"},
    "model": {"name": "late_fusion", "width": 8},
    "text_encoder": {"width": 8, "layers": 1},
    "training": {"epochs": 20, "patience": 5, "batch_size": 24},
}


def spec_of(**changes):
    spec = RunSpec.from_dict(SPEC)
    for path, value in changes.items():
        spec = with_field(spec, path.replace("__", "."), value)
    return spec


def write_run(results, run_id, *, epochs, seconds, other=0, state="COMPLETE", device="cpu",
              threads=1, evaluated=(), **changes):  # fmt: skip
    """Write the files of a run that ended, as a training leaves them."""
    folder = RunFolder.of(results, run_id)
    folder.evaluation.mkdir(parents=True)
    folder.spec.write_text(json.dumps(spec_of(**changes).to_dict()))
    where = {"device": device, "gpu": None, "cpu": "Xeon", "threads": threads}
    folder.fingerprint.write_text(json.dumps({"environment": where}))
    lines = [json.dumps({"epoch": number + 1, "seconds": seconds}) for number in range(epochs)]
    folder.epochs.write_text("".join(f"{line}\n" for line in lines))
    if state == "COMPLETE":
        folder.result.write_text(json.dumps({"epochs": epochs, "seconds": epochs * seconds}))
    minutes, rest = divmod(int(epochs * seconds + other), 60)
    ended = f"2026-11-01T10:{minutes:02d}:{rest:02d}+00:00"
    folder.write_status(state, started="2026-11-01T10:00:00+00:00", ended=ended)
    for number, at in enumerate(evaluated):
        path = folder.evaluation_file(f"test-rmfm-{number}")
        path.write_text("{}")
        os.utime(path, (at, at))


def training(results, spec=None, device="cpu", **options):
    values = (spec or spec_of()).to_dict()
    return History.read(results).training(values, device=device, **options)


def test_training_takes_each_past_run_as_a_whole(tmp_path):
    write_run(tmp_path, "a", epochs=8, seconds=2.0, other=4)
    write_run(tmp_path, "b", epochs=12, seconds=3.0, other=1, seed=7, optimizer__lr=0.01)
    found = training(tmp_path)
    assert sorted(found.seconds) == [8 * 2 + 4, 12 * 3 + 1]
    assert found.basis == "2 past runs of this shape on Xeon"


@pytest.mark.parametrize(
    "other",
    [{"model__width": 16}, {"training__batch_size": 12}, {"data__task": "seven_class"},
     {"data__dataset": "huge"}, {"maci__mcm": False}, {"selection__rates": (0.0,)}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_run_of_another_shape_does_not_count(tmp_path, other):
    write_run(tmp_path, "a", epochs=8, seconds=2.0, **other)
    assert training(tmp_path) is None
    assert training(tmp_path, spec_of(**other)).seconds == (16.0,)


@pytest.mark.parametrize(
    "same",
    [{"seed": 3}, {"loss__joint": 0.1}, {"optimizer__lr": 0.1}, {"training__epochs": 99},
     {"text_encoder__dropout": 0.5}, {"missing__protocol": "rmm"}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_fields_that_cost_nothing_leave_the_shape_alone(same):
    assert shape_of(spec_of(**same).to_dict()) == shape_of(spec_of().to_dict())


def test_shape_ignores_what_a_search_varies_and_what_another_encoder_has_not():
    wide = spec_of(model__width=16)
    assert shape_of(wide.to_dict()) != shape_of(spec_of().to_dict())
    varied = {"model.width"}
    assert shape_of(wide.to_dict(), varied) == shape_of(spec_of().to_dict(), varied)
    named = [
        spec_of(text_encoder__source="bert", text_encoder__width=width).to_dict()
        for width in (8, 16)
    ]
    assert shape_of(named[0]) == shape_of(named[1])


def test_shape_of_an_embedded_corpus_is_the_same_with_its_encoder_named():
    plain = spec_of(data__dataset="synthetic-mosi")
    named = spec_of(data__dataset="synthetic-mosi", text_encoder__source="scratch")
    assert shape_of(plain.to_dict()) == shape_of(named.to_dict())


def test_more_epochs_are_counted_only_where_a_run_stopped_by_itself(tmp_path):
    write_run(tmp_path, "stopped", epochs=8, seconds=1.0)
    write_run(tmp_path, "limited", epochs=20, seconds=1.0)
    assert sorted(training(tmp_path, spec_of(training__epochs=50)).seconds) == [8, 50]
    assert sorted(training(tmp_path, spec_of(training__epochs=5)).seconds) == [5, 5]


def test_other_patience_assumes_every_epoch_and_says_so(tmp_path):
    write_run(tmp_path, "a", epochs=8, seconds=1.0)
    found = training(tmp_path, spec_of(training__patience=9))
    assert found.seconds == (20.0,)
    assert "none with patience 9: all 20 epochs assumed" in found.basis


def test_pruned_runs_count_for_a_search_alone(tmp_path):
    write_run(tmp_path, "pruned", epochs=2, seconds=1.0, state="PRUNED", model__width=16)
    write_run(tmp_path, "whole", epochs=9, seconds=1.0)
    assert training(tmp_path).seconds == (9.0,)
    assert sorted(training(tmp_path, searched=["model.width"]).seconds) == [2, 9]
    assert training(tmp_path, spec_of(model__width=16)) is None


def test_device_decides_and_as_many_threads_are_preferred(tmp_path):
    write_run(tmp_path, "one", epochs=1, seconds=8.0, threads=1)
    write_run(tmp_path, "four", epochs=1, seconds=3.0, threads=4)
    write_run(tmp_path, "gpu", epochs=1, seconds=1.0, device="cuda")
    assert training(tmp_path, device="cuda").seconds == (1.0,)
    assert training(tmp_path, threads=4).seconds == (3.0,)
    assert sorted(training(tmp_path, threads=2).seconds) == [3, 8]


def test_run_that_was_interrupted_has_no_other_seconds(tmp_path):
    write_run(tmp_path, "a", epochs=10, seconds=5.0, other=-40)
    assert training(tmp_path).seconds == (50.0,)


def test_damaged_run_is_left_out(tmp_path):
    write_run(tmp_path, "a", epochs=4, seconds=1.0)
    write_run(tmp_path, "b", epochs=4, seconds=1.0)
    write_run(tmp_path, "c", epochs=4, seconds=1.0)
    RunFolder.of(tmp_path, "b").fingerprint.write_text('{"environment": {}}')
    RunFolder.of(tmp_path, "c").fingerprint.unlink()
    assert training(tmp_path).seconds == (4.0,)


def test_evaluation_takes_what_it_took_right_after_a_training(tmp_path):
    trained = datetime.fromisoformat("2026-11-01T10:00:40+00:00").timestamp()
    # Three conditions at the end of one pass; a fourth was evaluated hours later.
    times = (trained + 6, trained + 6, trained + 6, trained + 9000)
    write_run(tmp_path, "a", epochs=4, seconds=10.0, evaluated=times)
    history, spec = History.read(tmp_path), spec_of().to_dict()
    found = history.evaluation(spec, conditions=11, device="cpu")
    assert found.seconds == (22.0,)
    assert history.evaluation(spec, conditions=11, device="cuda") is None


def test_evaluation_hours_after_the_training_tells_nothing(tmp_path):
    write_run(tmp_path, "a", epochs=4, seconds=10.0, evaluated=(100.0, 101.0))
    found = History.read(tmp_path).evaluation(spec_of().to_dict(), conditions=2, device="cpu")
    assert found.basis == "at most an epoch per condition"


def test_evaluation_without_a_past_one_is_bounded_by_epochs(tmp_path):
    write_run(tmp_path, "a", epochs=4, seconds=9.0)
    found = History.read(tmp_path).evaluation(spec_of().to_dict(), conditions=3, device="cpu")
    assert found.seconds == (27.0,)
    assert found.basis == "at most an epoch per condition"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runtime whose results hold one real, evaluated run of three epochs."""
    folder = tmp_path_factory.mktemp("estimates")
    write_tiny_corpus(folder / "store")
    runtime = Runtime(folder / "store", folder / "results", threads=1)
    spec = resolve(spec_of(training__epochs=3), runtime)
    assert len(list(train_run(spec, runtime))) == 3
    run = RunFolder.of(runtime.results, spec.run_id)
    evaluate_run(run, runtime, conditions_of("rmfm", [0.0, 0.5, 1.0]))
    return runtime


def test_real_run_of_the_shape_is_found(trained):
    (run,) = History.read(trained.results).runs
    status = RunFolder.of(trained.results, resolve(RunSpec.from_dict(run.spec), trained).run_id)
    took = [datetime.fromisoformat(status.read_status()[name]) for name in ("started", "ended")]
    assert run.other_seconds == pytest.approx(
        max(0, (took[1] - took[0]).total_seconds() - 3 * run.seconds_per_epoch)
    )
    spec = resolve(spec_of(training__epochs=3, seed=2), trained)
    found = training(trained.results, spec, threads=1)
    assert len(found.seconds) == 1
    assert 0 < found.seconds[0] < 60
    history = History.read(trained.results)
    assert 0 < history.evaluation(spec.to_dict(), conditions=1, device="cpu").seconds[0] < 60


def test_calibration_gives_an_epoch_of_the_size_of_a_real_one(trained, tmp_path):
    runtime = Runtime(trained.store, tmp_path, threads=1)
    assert training(tmp_path) is None
    measured = calibrate(spec_of(), runtime, steps=2)
    (real,) = (run.seconds_per_epoch for run in History.read(trained.results).runs)
    assert real / 5 < measured.seconds_per_epoch < real * 5
    found = training(tmp_path)
    assert found.seconds == (measured.start_seconds + 20 * measured.seconds_per_epoch,)
    assert found.basis.endswith("all 20 epochs assumed")
    evaluated = History.read(tmp_path).evaluation(spec_of().to_dict(), conditions=2, device="cpu")
    assert evaluated.seconds[0] > measured.start_seconds
    assert [path.name for path in tmp_path.iterdir()] == ["calibrations"]


def test_calibrated_shape_takes_its_epochs_from_runs_of_other_shapes(trained, tmp_path):
    write_run(tmp_path, "other", epochs=6, seconds=100.0, model__width=16)
    measured = calibrate(spec_of(), Runtime(trained.store, tmp_path, threads=1), steps=1)
    found = training(tmp_path)
    assert found.seconds == (measured.start_seconds + 6 * measured.seconds_per_epoch,)
    assert found.basis.endswith("epochs of 1 past run of other shapes")


def test_unreadable_calibration_counts_as_none(tmp_path):
    path = calibration_file(tmp_path, spec_of().to_dict(), "cpu")
    path.parent.mkdir()
    for text in ("{", '{"measured": {"seconds_per_epoch": 1}}'):
        path.write_text(text)
        assert training(tmp_path) is None
