"""Predictions on a stored corpus: an evaluation's numbers, and what does not fit is refused."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_corpus import write_tiny_corpus
from typer.testing import CliRunner

from cider.errors import CiderError, UsageError
from cider.spec import DataConfig, RunSpec
from cider_platform.cli import app
from cider_platform.layout import RunFolder, read_json
from cider_platform.runs import prediction
from cider_platform.runs.assembly import batch_source
from cider_platform.runs.conditions import conditions_of
from cider_platform.runs.evaluation import FrozenRun
from cider_platform.runs.prediction import predict, probabilities
from cider_platform.runs.trial import Runtime, resolve, train_run

DATA = DataConfig(dataset="tiny")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A complete run of the tiny corpus and its runtime."""
    folder = tmp_path_factory.mktemp("predict")
    write_tiny_corpus(folder / "store")
    write_tiny_corpus(folder / "store", dataset="other", seed=5)
    runtime = Runtime(folder / "store", folder / "results", threads=1)
    spec = RunSpec.from_dict({
        "data": {"dataset": "tiny"},
        "model": {"name": "late_fusion", "width": 8},
        "text_encoder": {"width": 8, "layers": 1},
        "training": {"epochs": 2, "batch_size": 5},
    })  # fmt: skip
    spec = resolve(spec, runtime)
    list(train_run(spec, runtime))
    return RunFolder.of(runtime.results, spec.run_id), runtime


def test_predictions_are_those_of_an_evaluation_with_the_runs_tau(trained, tmp_path):
    folder, runtime = trained
    assert predict(folder, runtime, DATA, tmp_path / "p.parquet", splits=["test"]) == 12
    run = FrozenRun(folder, runtime)
    test = batch_source(run.store, run.spec, "test")
    (expected,) = run.predict(test, conditions_of("none", [])).predictions
    tau = read_json(folder.frozen)["tau"]
    scores_NC = expected.scores(tau, "log_probability")
    table = pq.read_table(tmp_path / "p.parquet")
    found = table.to_pydict()
    assert found["id"] == test.split.ids
    assert set(found["split"]) == {"test"}
    shares_NC = np.exp(scores_NC) / np.exp(scores_NC).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.array(found["probabilities"]), shares_NC, rtol=1e-5)
    names = ["negative", "neutral", "positive"]
    assert found["prediction"] == [names[index] for index in scores_NC.argmax(axis=1)]
    facts = json.loads(table.schema.metadata[b"cider"])
    assert facts["run"] == folder.run_id
    assert (facts["classes"], facts["tau"], facts["synthetic"]) == (names, tau, True)


def test_a_few_batches_at_a_time_give_the_same_numbers_and_both_files(
    trained, tmp_path, monkeypatch
):
    folder, runtime = trained
    predict(folder, runtime, DATA, tmp_path / "whole.parquet")
    monkeypatch.setattr(prediction, "BATCHES_AT_A_TIME", 1)
    assert predict(folder, runtime, DATA, tmp_path / "parts.arrow") == 24 + 12 + 12
    parts = pa.ipc.open_file(tmp_path / "parts.arrow").read_all()
    whole = pq.read_table(tmp_path / "whole.parquet")
    for column in ("id", "split", "prediction"):
        assert parts[column].to_pylist() == whole[column].to_pylist()
    np.testing.assert_allclose(
        parts["probabilities"].to_pylist(), whole["probabilities"].to_pylist(), rtol=1e-5
    )
    assert parts["probabilities"].num_chunks == 5 + 3 + 3


def test_new_corpus_is_predicted_without_any_label(trained, tmp_path):
    folder, runtime = trained
    labels = list((runtime.store / "other").rglob("*.labels.arrow"))
    assert len(labels) == 3
    for path in labels:
        path.rename(path.with_suffix(".gone"))
    done = CliRunner().invoke(app, [
        "predict", folder.run_id[:6], "--dataset", "other", "--out", str(tmp_path / "o.parquet"),
        "--store", str(runtime.store), "--results", str(runtime.results), "--device", "cpu",
        "--threads", "1", "--json",
    ])  # fmt: skip
    for path in labels:
        path.with_suffix(".gone").rename(path)
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)["data"]
    assert (data["run"], data["utterances"]) == (folder.run_id, 48)
    found = pq.read_table(tmp_path / "o.parquet")
    assert found.num_rows == 48
    sums = np.array(found["probabilities"].to_pylist()).sum(axis=1)
    np.testing.assert_allclose(sums, 1.0, rtol=1e-12)


def test_corpus_that_does_not_fit_is_refused_and_leaves_no_file(trained, tmp_path):
    folder, runtime = trained
    write_tiny_corpus(runtime.store, alignment="aligned")
    aligned = DataConfig(dataset="tiny", alignment="aligned")
    out = tmp_path / "p.parquet"
    with pytest.raises(CiderError, match="was trained on unaligned data, tiny is aligned"):
        predict(folder, runtime, aligned, out)
    for field, value, told in [
        ("widths", {"audio": 9, "vision": 7}, "reads features of widths"),
        ("max_lengths", {"text": 99, "audio": 12, "vision": 15}, "text of up to 99 steps"),
        ("tokenizer", {"name": "roberta", "vocab_size": 140}, "token ids of synthetic"),
    ]:
        corpus = write_tiny_corpus(runtime.store, dataset=f"bad-{field.replace('_', '-')}")
        manifest = read_json(corpus / "manifest.json")
        manifest[field] = {**manifest[field], **value}
        (corpus / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(CiderError, match=told):
            predict(folder, runtime, DataConfig(dataset=corpus.parent.name), out)
    assert list(tmp_path.iterdir()) == []


def test_file_of_another_kind_or_one_that_is_there_is_refused(trained, tmp_path):
    folder, runtime = trained
    with pytest.raises(UsageError, match=r"--out must end with \.parquet or \.arrow"):
        predict(folder, runtime, DATA, tmp_path / "p.csv")
    taken = tmp_path / "p.parquet"
    taken.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        predict(folder, runtime, DATA, taken)
    assert taken.read_text() == "mine"


def test_run_that_is_not_complete_predicts_nothing(tmp_path, trained):
    folder = RunFolder.of(tmp_path, "0123456789abcdef")
    folder.write_status("FAILED", error="x")
    with pytest.raises(CiderError, match="is not complete"):
        predict(folder, trained[1], DATA, tmp_path / "p.parquet")


def test_probabilities_keep_the_order_and_are_the_models_own_without_tau():
    log_probs_NC = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
    np.testing.assert_allclose(
        probabilities(log_probs_NC, "log_probability"), np.exp(log_probs_NC), rtol=1e-12
    )
    np.testing.assert_allclose(
        probabilities(np.exp(log_probs_NC), "probability"), np.exp(log_probs_NC), rtol=1e-12
    )
    scores_NC = np.array([[0.3, -0.4, -0.1], [-0.5, -0.5, -0.5]])
    found = probabilities(scores_NC, "probability")
    np.testing.assert_allclose(found, [[0.7, 0.0, 0.3], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-12)
