"""A run from spec to sealed evaluation: same numbers twice, same numbers after a kill."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_corpus import write_tiny_corpus

from cider.behaviour import with_behaviour
from cider.data.seal import TestPermit, permit_for_frozen_run, permit_for_published_selection
from cider.data.store import FeatureStore, find_store
from cider.errors import (
    CiderError,
    SealedTestError,
    StoreError,
    TrainingError,
    UsageError,
)
from cider.metrics import METRICS
from cider.models.cider.config import Config
from cider.models.late_fusion.config import Config as LateFusion
from cider.spec import (
    DataConfig,
    LossConfig,
    MaciConfig,
    MissingConfig,
    OptimizerConfig,
    RunSpec,
    SelectionConfig,
    TextEncoderConfig,
    TrainingConfig,
)
from cider_platform.layout import RunFolder
from cider_platform.runs.assembly import Runtime, batch_source, open_store, resolve
from cider_platform.runs.evaluation import areas, conditions_of, evaluate_run
from cider_platform.runs.trial import read_epochs, train_run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    write_tiny_corpus(root)
    write_tiny_corpus(root, alignment="aligned")
    return root


@pytest.fixture
def runtime(store, tmp_path):
    return Runtime(store, tmp_path / "results", threads=1)


def tiny_spec(**changes):
    spec = RunSpec(
        data=DataConfig(dataset="tiny"),
        model=Config(width=8, heads=2, layers=1),
        text_encoder=TextEncoderConfig(width=8, layers=1),
        training=TrainingConfig(epochs=3, batch_size=10),
        optimizer=OptimizerConfig(lr=1e-2),
    )
    return replace(spec, **changes)


def run(spec, runtime):
    """Train to the end and return the run's folder."""
    spec = resolve(spec, runtime)
    for _ in train_run(spec, runtime):
        pass
    return RunFolder.of(runtime.results, spec.run_id)


def numbers(folder):
    """Return everything a run computed, without times."""
    epochs = read_epochs(folder.epochs)
    for epoch in epochs:
        del epoch["seconds"]
    weights = {name: tensor.tolist() for name, tensor in load_file(folder.best).items()}
    return epochs, weights, json.loads(folder.frozen.read_text())["weights_sha256"]


def test_same_spec_and_seed_twice_gives_identical_numbers(runtime, tmp_path):
    first = run(tiny_spec(), runtime)
    second = run(tiny_spec(), replace(runtime, results=tmp_path / "other"))
    assert first.run_id == second.run_id
    assert numbers(first) == numbers(second)


def test_another_seed_gives_other_numbers(runtime):
    first, second = run(tiny_spec(), runtime), run(tiny_spec(seed=2), runtime)
    assert numbers(first)[0] != numbers(second)[0]


@pytest.mark.parametrize("checkpoint_every", [1, 2])
def test_stopped_run_continues_to_the_same_numbers(runtime, tmp_path, checkpoint_every):
    spec = tiny_spec(training=TrainingConfig(epochs=5, batch_size=10))
    whole = run(spec, runtime)
    other = replace(runtime, results=tmp_path / "other", checkpoint_every=checkpoint_every)
    epochs = train_run(resolve(spec, other), other)
    for _ in range(3):
        next(epochs)
    epochs.close()
    continued = run(spec, other)
    assert numbers(continued) == numbers(whole)
    assert not continued.last.exists()


def test_stopped_run_with_a_frozen_encoder_continues_to_the_same_numbers(runtime, tmp_path):
    # States that are kept from epoch to epoch are those that a new process reads.
    encoder = TextEncoderConfig(width=64, layers=2, heads=4, fine_tune=False)
    spec = tiny_spec(training=TrainingConfig(epochs=3, batch_size=10), text_encoder=encoder)
    whole = run(spec, runtime)
    other = replace(runtime, results=tmp_path / "other")
    epochs = train_run(resolve(spec, other), other)
    next(epochs)
    epochs.close()
    assert numbers(run(spec, other)) == numbers(whole)


@pytest.mark.parametrize("mib", [0, 1])
def test_memory_for_states_of_recurring_texts_changes_no_score(runtime, tmp_path, mib):
    encoder = TextEncoderConfig(width=8, layers=1, fine_tune=False)
    spec = tiny_spec(training=TrainingConfig(epochs=2, batch_size=10), text_encoder=encoder)
    other = replace(runtime, results=tmp_path / "other", text_cache_mib=mib)
    found = [read_epochs(run(spec, each).epochs) for each in (runtime, other)]
    for one, two in zip(*found, strict=True):
        assert one["train"] == pytest.approx(two["train"], rel=1e-4)
        assert one["valid"] == pytest.approx(two["valid"], nan_ok=True)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from test_trial import tiny_spec
from cider.spec import TrainingConfig
from cider.training import update
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.trial import train_run

runtime = Runtime(Path(sys.argv[1]), Path(sys.argv[2]), threads=1)
calls = 0
def killed_in_the_middle(self, batch, observed, original=update.TwoStepUpdate.__call__):
    global calls
    calls += 1
    if calls == 8:  # the second batch of epoch 3
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, batch, observed)
update.TwoStepUpdate.__call__ = killed_in_the_middle
spec = tiny_spec(training=TrainingConfig(epochs=5, batch_size=10))
for _ in train_run(resolve(spec, runtime), runtime):
    pass
"""


def test_killed_run_continues_to_the_same_numbers(runtime, tmp_path):
    spec = tiny_spec(training=TrainingConfig(epochs=5, batch_size=10))
    whole = run(spec, runtime)
    other = replace(runtime, results=tmp_path / "killed")
    arguments = [str(other.store), str(other.results), str(Path(__file__).parent)]
    path = os.pathsep.join(sys.path)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    folder = RunFolder.of(other.results, whole.run_id)
    assert len(read_epochs(folder.epochs)) == 2
    assert not folder.frozen.exists()
    continued = run(spec, other)
    assert numbers(continued) == numbers(whole)


def test_finished_run_is_not_trained_again(runtime):
    folder = run(tiny_spec(), runtime)
    before = {path: path.stat().st_mtime_ns for path in folder.root.rglob("*")}
    assert list(train_run(resolve(tiny_spec(), runtime), runtime)) == []
    assert {path: path.stat().st_mtime_ns for path in folder.root.rglob("*")} == before


def test_selected_epoch_is_the_best_on_validation_and_patience_ends_the_run(runtime):
    spec = tiny_spec(training=TrainingConfig(epochs=40, patience=2, batch_size=10))
    folder = run(spec, runtime)
    epochs = read_epochs(folder.epochs)
    scores = [epoch["score"] for epoch in epochs]
    frozen = json.loads(folder.frozen.read_text())
    assert frozen["epoch"] == scores.index(max(scores)) + 1
    assert frozen["score"] == max(scores)
    assert len(epochs) == frozen["epoch"] + 2 < 40


@pytest.mark.parametrize(
    "changes",
    [
        {"model": LateFusion(width=8)},
        {"maci": MaciConfig(mcm=False, counterfactual=False)},
        {"model": LateFusion(width=8), "maci": MaciConfig(mcm=False, counterfactual=False)},
        {"loss": LossConfig(reconstruction=0.0, attention=0.0, joint=0.0)},
        {"data": DataConfig(dataset="tiny", task="seven_class")},
        {
            "data": DataConfig(dataset="tiny", alignment="aligned"),
            "missing": MissingConfig(protocol="stmfm"),
        },
        {"missing": MissingConfig(protocol="smm", kept="LA")},
        {"missing": MissingConfig(protocol="none")},
        {"training": TrainingConfig(epochs=1, batch_size=10, gradient_clip=0.1)},
        {"optimizer": OptimizerConfig(decoupled_weight_decay=True, weight_decay=0.1)},
        {"text_encoder": TextEncoderConfig(width=8, layers=1, fine_tune=False)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_kind_of_run_trains_and_evaluates(runtime, changes):
    spec = tiny_spec(**{"training": TrainingConfig(epochs=1, batch_size=10), **changes})
    folder = run(spec, runtime)
    (row,) = evaluate_run(folder, runtime, conditions_of("rmfm", [0.5]))
    assert set(row["test"]) == {n for n, m in METRICS.items() if m.task == spec.data.task}
    assert sum(map(sum, row["confusion"])) == 12


@pytest.mark.parametrize("alignment", ["unaligned", "aligned"])
def test_released_behaviour_trains_and_evaluates(runtime, alignment):
    spec = tiny_spec(data=DataConfig(dataset="tiny", alignment=alignment))
    folder = run(with_behaviour(spec, "released"), runtime)
    rows = evaluate_run(folder, runtime, conditions_of("rmfm", [0.0, 1.0]))
    assert [row["rate"] for row in rows] == [0.0, 1.0]


def test_evaluation_of_a_condition_is_stored_and_not_repeated(runtime):
    folder = run(tiny_spec(), runtime)
    conditions = [*conditions_of("rmfm", [0.0, 0.5, 1.0]), *conditions_of("smm", [])]
    rows = evaluate_run(folder, runtime, conditions)
    assert [row["kept"] for row in rows[3:]] == ["L", "A", "V", "LA", "LV", "AV"]
    assert areas(rows)["acc2"] == pytest.approx(
        0.25 * (rows[0]["test"]["acc2"] + 2 * rows[1]["test"]["acc2"] + rows[2]["test"]["acc2"])
    )
    before = {path: path.stat().st_mtime_ns for path in folder.root.rglob("*.*")}
    assert len(list(folder.evaluation.iterdir())) == len(rows)
    assert evaluate_run(folder, runtime, conditions) == rows
    assert {path: path.stat().st_mtime_ns for path in folder.root.rglob("*.*")} == before
    # Without its predictions, a row is of a version that stored others.
    folder.predictions_file("test-rmfm-0.5").unlink()
    assert evaluate_run(folder, runtime, conditions)[1]["masks"] == rows[1]["masks"]
    assert folder.predictions_file("test-rmfm-0.5").exists()


# The seal


def test_training_and_validation_code_cannot_read_test_labels(runtime, store):
    spec = resolve(tiny_spec(), runtime)
    corpus = open_store(spec, runtime)
    assert batch_source(corpus, spec, "test").labels_N is None
    with pytest.raises(SealedTestError, match="sealed") as caught:
        _ = corpus.split("test").labels
    assert caught.value.exit_code == 5
    with pytest.raises(SealedTestError, match=r"selection\.rule=published"):
        permit_for_published_selection(spec)


def test_training_never_opens_the_test_label_file(runtime, tmp_path):
    """The strongest form of the seal: a run trains without the file being there at all."""
    root = tmp_path / "without"
    folder = write_tiny_corpus(root)
    (folder / "test.labels.arrow").unlink()
    assert run(tiny_spec(), replace(runtime, store=root)).frozen.exists()


def test_unfrozen_run_is_not_evaluated(runtime):
    spec = resolve(tiny_spec(), runtime)
    epochs = train_run(spec, runtime)
    next(epochs)
    epochs.close()
    folder = RunFolder.of(runtime.results, spec.run_id)
    with pytest.raises(SealedTestError, match="is not frozen"):
        evaluate_run(folder, runtime, conditions_of("rmfm", [0.0]))
    folder.frozen.write_text("{}")
    with pytest.raises(SealedTestError, match="lacks run_id, epoch, weights_sha256"):
        permit_for_frozen_run(folder.root)


def test_test_labels_need_a_permit(store):
    corpus = FeatureStore.open(find_store(store, "tiny", "unaligned", "iid", "three_class"))
    with pytest.raises(SealedTestError):
        corpus.test_labels(None)
    assert len(corpus.test_labels(TestPermit("run", "frozen"))) == 12


def test_published_selection_marks_every_artefact_and_reports_optimism(runtime):
    spec = tiny_spec(selection=SelectionConfig(rule="published"))
    folder = run(spec, runtime)
    frozen, result = (json.loads(path.read_text()) for path in (folder.frozen, folder.result))
    assert frozen["selection"] == result["selection"] == "published"
    assert frozen["optimism"]["optimism"] == pytest.approx(
        frozen["optimism"]["selected_on_test"] - frozen["optimism"]["selected_on_validation"]
    )
    assert frozen["optimism"]["optimism"] >= 0
    (row,) = evaluate_run(folder, runtime, conditions_of("rmfm", [0.5]))
    assert row["selection"] == "published"
    assert row["tau_chosen_on"] == "test"
    assert row["optimism_of_tau"] >= 0


def test_published_selection_does_not_change_what_is_trained(runtime):
    """The two rules see the same epochs; only the choice among them differs."""
    honest = read_epochs(run(tiny_spec(), runtime).epochs)
    spec = tiny_spec(selection=SelectionConfig(rule="published"))
    published = read_epochs(run(spec, runtime).epochs)
    assert [e["train"] for e in honest] == [e["train"] for e in published]
    assert [e["valid"] for e in honest] == [e["valid"] for e in published]


# Faults


def test_loss_that_is_not_finite_ends_the_run_with_a_sentence(runtime):
    spec = resolve(tiny_spec(optimizer=OptimizerConfig(lr=1e30)), runtime)
    with pytest.raises(TrainingError, match="the loss is not finite"):
        list(train_run(spec, runtime))
    status = RunFolder.of(runtime.results, spec.run_id).read_status()
    assert status["state"] == "FAILED"
    assert "not finite" in status["error"]


def test_changed_corpus_is_refused(runtime, tmp_path):
    spec = resolve(tiny_spec(), runtime)
    write_tiny_corpus(tmp_path / "other", seed=1)
    with pytest.raises(CiderError, match="has changed since this run was specified"):
        open_store(spec, replace(runtime, store=tmp_path / "other"))


def test_damaged_checkpoint_is_refused_in_a_sentence(runtime):
    spec = resolve(tiny_spec(), runtime)
    epochs = train_run(spec, runtime)
    next(epochs)
    epochs.close()
    folder = RunFolder.of(runtime.results, spec.run_id)
    folder.last.write_bytes(folder.last.read_bytes()[:100])
    with pytest.raises(StoreError, match="cannot be read"):
        list(train_run(spec, runtime))


@pytest.mark.parametrize(
    ("device", "sentence"), [("cuda", "torch sees no CUDA"), ("gpu", "device must be cpu, cuda")]
)
def test_device_that_is_not_there_is_refused_and_nothing_falls_back(runtime, device, sentence):
    import torch

    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UsageError, match=sentence):
        list(train_run(resolve(tiny_spec(), runtime), replace(runtime, device=device)))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("smm", [], "LX"), "unknown kept set 'LX'; known: L, A, V"),
        (("rmfm", [0.1], "LA"), "only for the protocol smm"),
    ],
)
def test_conditions_that_do_not_exist_are_refused(arguments, sentence):
    with pytest.raises(UsageError, match=sentence):
        conditions_of(*arguments)
