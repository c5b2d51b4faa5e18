"""Stored predictions: whole, readable without the model, of masks that models share."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_corpus import write_tiny_corpus

from cider.condition import Condition
from cider.errors import CiderError, NothingMatchedError, SealedTestError
from cider.models.cider.config import Config
from cider.models.late_fusion.config import Config as LateFusion
from cider.spec import (
    DataConfig,
    OptimizerConfig,
    RunSpec,
    SelectionConfig,
    TextEncoderConfig,
    TrainingConfig,
)
from cider.training.evaluation import Predictions
from cider_platform.grids.leftovers import find_leftovers
from cider_platform.layout import RunFolder
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.conditions import conditions_of
from cider_platform.runs.evaluation import evaluate_run
from cider_platform.runs.predictions import (
    Answers,
    read_predictions,
    stored_conditions,
    write_predictions,
)
from cider_platform.runs.scoring import score
from cider_platform.runs.trial import train_run


@pytest.fixture
def runtime(tmp_path):
    write_tiny_corpus(tmp_path / "store")
    return Runtime(tmp_path / "store", tmp_path / "results", threads=1)


def tiny_spec(**changes):
    spec = RunSpec(
        data=DataConfig(dataset="tiny"),
        model=Config(width=8, heads=2, layers=1),
        text_encoder=TextEncoderConfig(width=8, layers=1),
        training=TrainingConfig(epochs=2, batch_size=10),
        optimizer=OptimizerConfig(lr=1e-2),
    )
    return replace(spec, **changes)


def run(spec, runtime):
    spec = resolve(spec, runtime)
    for _ in train_run(spec, runtime):
        pass
    return RunFolder.of(runtime.results, spec.run_id)


@pytest.mark.parametrize("rule", ["validation", "published"])
def test_stored_predictions_give_the_row_of_the_evaluation_without_the_model(runtime, rule):
    folder = run(tiny_spec(selection=SelectionConfig(rule=rule)), runtime)
    conditions = [*conditions_of("rmfm", [0.3, 1.0]), *conditions_of("smm", [], "LA")]
    rows = evaluate_run(folder, runtime, conditions)
    folder.best.unlink()  # no model
    spec = RunSpec.from_dict(json.loads(folder.spec.read_text()))
    assert stored_conditions(folder) == conditions
    for condition, row in zip(conditions, rows, strict=True):
        stored = read_predictions(folder, condition)
        offline = score(spec, stored.valid, stored.test)
        assert offline == {name: row[name] for name in offline}
        assert stored.masks == row["masks"]
        assert len(stored.test.ids) == len(stored.valid.ids) == 12


def test_stored_predictions_are_one_data_set_partitioned_by_protocol(runtime):
    folder = run(tiny_spec(), runtime)
    evaluate_run(folder, runtime, [*conditions_of("rmfm", [0.3, 0.6]), *conditions_of("smm", [])])
    table = pq.read_table(folder.predictions).to_pandas()
    assert len(table) == 8 * 24
    assert set(table["protocol"]) == {"rmfm", "smm"}
    assert set(table.query("protocol == 'rmfm'")["rate"]) == {0.3, 0.6}
    assert set(table.query("split == 'test' and kept == 'LA'")["label"]) == {0, 1, 2}


def test_masks_of_one_seed_have_the_same_hash_whatever_the_model_and_its_batches(runtime):
    conditions = [*conditions_of("rmfm", [0.0, 0.5]), *conditions_of("rmm", [0.0, 0.5])]

    def hashes(**changes):
        rows = evaluate_run(run(tiny_spec(**changes), runtime), runtime, conditions)
        return [row["masks"] for row in rows]

    one_epoch = TrainingConfig(epochs=1, batch_size=7)
    first = hashes(training=one_epoch)
    full = TrainingConfig(epochs=1, batch_size=24, padding="full")
    assert hashes(training=full, model=LateFusion(width=8)) == first
    # Rate 0 keeps everything under either protocol; otherwise protocols and splits differ.
    assert first[0] == first[2]
    assert len({each[split] for each in first for split in ("valid", "test")}) == 6
    other = hashes(training=one_epoch, seed=2)
    assert [a == b for a, b in zip(first, other, strict=True)] == [True, False, True, False]


def test_predictions_that_are_not_there_or_not_readable_are_refused(runtime):
    folder = run(tiny_spec(training=TrainingConfig(epochs=1)), runtime)
    (condition,) = conditions_of("rmfm", [0.3])
    with pytest.raises(NothingMatchedError, match=r"no stored predictions under rmfm@0\.3"):
        read_predictions(folder, condition)
    path = folder.predictions_file("test-rmfm-0.3")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1")
    with pytest.raises(CiderError, match="remove it and evaluate again"):
        read_predictions(folder, condition)
    folder.frozen.unlink()
    with pytest.raises(SealedTestError, match="is not frozen"):
        read_predictions(folder, condition)


def test_predictions_whose_writing_was_cut_off_are_no_predictions_but_left_over(
    tmp_path, monkeypatch
):
    folder = RunFolder.of(tmp_path, "abcd")
    answers = Answers(["a"], np.array([1]), Predictions(np.zeros((1, 3)), None))
    path = folder.predictions_file("test-rmfm-0.5")

    def killed(*_):
        raise KeyboardInterrupt

    folder.write_status("COMPLETE")
    monkeypatch.setattr(Path, "replace", killed)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # nor did it clean up
    with pytest.raises(KeyboardInterrupt):
        write_predictions(path, Condition("rmfm", 0.5), {"test": answers}, {"test": ""})
    assert not path.exists()
    assert stored_conditions(folder) == []
    (left,) = find_leftovers(tmp_path)
    assert left.what == "half-written file"
    assert left.path.parent == path.parent
