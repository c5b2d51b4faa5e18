"""Fingerprints of runs: what is recorded, and what a replay says of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_corpus import write_tiny_corpus

import cider.losses
import cider_platform.runs.fingerprint
import cider_platform.runs.trial
from cider.errors import CiderError, NothingMatchedError, TrainingError, UsageError
from cider.models.cider.config import Config
from cider.spec import DataConfig, OptimizerConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider.training.evaluation import Selected
from cider_platform.cli import main
from cider_platform.layout import RunFolder, read_json, write_json_atomic
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.fingerprint import STEPS, TOLERANCE, Recorder, compare, environment
from cider_platform.runs.replay import replay, sentence
from cider_platform.runs.trial import read_epochs, train_run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("fingerprint")
    write_tiny_corpus(root / "store")
    return root


def spec_with(**training):
    return RunSpec(
        data=DataConfig(dataset="tiny"),
        model=Config(width=8, heads=2, layers=1),
        text_encoder=TextEncoderConfig(width=8, layers=1),
        training=TrainingConfig(**({"epochs": 2, "batch_size": 3} | training)),
        optimizer=OptimizerConfig(lr=1e-2),
    )


def trained(root, results, spec):
    """Train a spec's first epoch; return its run folder."""
    runtime = Runtime(root / "store", results, threads=1)
    spec = resolve(spec, runtime)
    epochs = train_run(spec, runtime)
    next(epochs)
    epochs.close()
    return RunFolder.of(results, spec.run_id)


@pytest.fixture(scope="module")
def run(root):
    """A run whose first epoch is trained."""
    return trained(root, root / "results", spec_with())


@pytest.fixture
def edited(run, root, tmp_path):
    """Function that copies the run with one of its files changed."""

    def edit(name, change):
        folder = RunFolder.of(tmp_path, run.run_id)
        for path in (run.spec, run.fingerprint):
            values = read_json(path)
            values = change(values) if path.name == name else values
            write_json_atomic(folder.root / path.name, values)
        return folder

    return edit


def test_fingerprint_has_the_first_steps_and_where_they_were_computed(run):
    values = read_json(run.fingerprint)
    assert values["run_id"] == run.run_id
    assert len(values["steps"]) == STEPS == 8  # 24 utterances in batches of 3
    terms = {"task_complete", "task_incomplete", "reconstruction", "attention", "joint", "total"}
    assert all(set(step) == terms for step in values["steps"])
    # The mean of the epoch is the mean of its steps, all of which are in the fingerprint.
    (epoch,) = read_epochs(run.epochs)
    mean = np.mean([step["total"] for step in values["steps"]])
    assert epoch["train"]["total"] == pytest.approx(mean, rel=1e-12)
    facts = values["environment"]
    assert (facts["threads"], facts["device"], facts["gpu"]) == (1, "cpu", None)
    assert facts["torch"] == torch.__version__
    assert facts["cpu"]


def test_short_epoch_gives_fewer_steps_and_later_epochs_add_none(root, tmp_path):
    folder = trained(root, tmp_path, spec_with(batch_size=10))
    assert len(read_json(folder.fingerprint)["steps"]) == 3
    before = folder.fingerprint.read_bytes()
    record = Recorder(folder, CPU, steps_per_epoch=3)
    for _ in range(5):
        record(2, {"total": 0.0})
    assert folder.fingerprint.read_bytes() == before


def test_recording_changes_no_number(run, root, tmp_path, monkeypatch):
    monkeypatch.setattr(cider_platform.runs.trial, "Recorder", lambda *_: None)
    folder = trained(root, tmp_path, spec_with())
    assert not folder.fingerprint.exists()
    (with_it,), (without,) = read_epochs(run.epochs), read_epochs(folder.epochs)
    assert with_it | {"seconds": 0} == without | {"seconds": 0}


def test_replay_on_the_same_machine_is_identical_and_touches_nothing(run, root):
    files = {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()}
    found = replay(run, root / "store")
    assert (found.outcome, found.steps, found.changed) == ("identical", STEPS, ())
    assert "to the last digit" in sentence(run.run_id, found)
    assert {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()} == files


def test_replay_with_more_threads_is_identical_or_equal(run, root):
    threads = torch.get_num_threads()
    found = replay(run, root / "store", threads=2)
    assert found.outcome in ("identical", "equal")
    assert found.changed == ("threads",)
    assert "threads not as recorded" in sentence(run.run_id, found)
    assert torch.get_num_threads() == threads


def test_replay_notices_changed_code(run, root, monkeypatch):
    def heavier(log_probs_BC, labels_B, original=cider.losses.task_loss):
        return original(log_probs_BC, labels_B) * 1.000001

    monkeypatch.setattr("cider.training.update.task_loss", heavier)
    found = replay(run, root / "store")
    assert (found.outcome, found.step, found.term) == ("different", 1, "task_complete")
    assert found.replayed == pytest.approx(found.recorded * 1.000001, rel=1e-6)
    assert "leaves its recorded losses at step 1, task_complete" in sentence(run.run_id, found)


def test_replay_notices_code_that_acts_later(run, root, monkeypatch):
    calls = []

    def later(incomplete, complete, original=cider.losses.attention_loss):
        calls.append(1)
        return original(incomplete, complete) * (1.5 if len(calls) == 5 else 1.0)

    monkeypatch.setattr("cider.losses.attention_loss", later)
    found = replay(run, root / "store")
    assert (found.outcome, found.step, found.term) == ("different", 5, "attention")


def test_replay_refuses_a_spec_that_was_changed(edited, root):
    folder = edited("spec.json", lambda spec: spec | {"seed": 2})
    with pytest.raises(CiderError, match=rf"describes run \w+, not {folder.run_id}: it was chang"):
        replay(folder, root / "store")


def test_replay_refuses_another_corpus_of_the_same_name(run, tmp_path):
    write_tiny_corpus(tmp_path / "store", seed=1)
    with pytest.raises(UsageError, match="has changed since this run was specified"):
        replay(run, tmp_path / "store")


def test_replay_notices_data_changed_under_an_unchanged_manifest(run, root, tmp_path):
    original = write_tiny_corpus(tmp_path / "store")
    other = write_tiny_corpus(tmp_path / "other", seed=1)
    for path in other.glob("train*"):
        path.replace(original / path.name)
    # The tiny corpus's statistics, kept beside the store, are those of the data it was made with.
    found = replay(run, tmp_path / "store")
    assert (found.outcome, found.step) == ("different", 1)


def test_replay_of_a_run_without_fingerprint_says_so(edited, root):
    folder = edited("spec.json", dict)
    folder.fingerprint.unlink()
    with pytest.raises(NothingMatchedError, match="has no fingerprint"):
        replay(folder, root / "store")


def test_command_prints_a_sentence_and_ends_with_zero_or_one(
    run, edited, root, monkeypatch, capsys
):
    def command(results, *arguments):
        words = ["runs", "replay", run.run_id[:8], "--store", root / "store", "--results", results]
        monkeypatch.setattr("sys.argv", ["cider-platform", *map(str, [*words, *arguments])])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    code, out, errors = command(root / "results")
    assert (code, out) == (0, "")
    assert errors.startswith(f"identical: the first 8 steps of run {run.run_id}")

    def change(values):
        values["steps"][2]["total"] += 1e-6
        return values

    folder = edited("fingerprint.json", change)
    code, out, errors = command(folder.root.parents[1], "--json")
    assert code == 1
    assert "step 3, total" in errors
    found = json.loads(out)
    assert found["schema"] == "cider.replay/1"
    assert (found["data"]["outcome"], found["data"]["step"]) == ("different", 3)


@pytest.mark.parametrize(
    ("change", "is_exact", "outcome"),
    [
        (0.0, True, "identical"),
        (1e-15, True, "different"),
        (1e-15, False, "equal"),
        (TOLERANCE * 0.9, False, "equal"),
        (TOLERANCE * 1.1, False, "different"),
    ],
)
def test_comparison_allows_what_rounding_may_do_elsewhere(change, is_exact, outcome):
    recorded = [{"total": 1.0, "joint": 0.001} for _ in range(3)]
    replayed = [dict(step) for step in recorded]
    replayed[1]["total"] *= 1 - change
    found = compare(recorded, replayed, changed=(), is_exact=is_exact)
    assert found.outcome == outcome
    if outcome != "identical":
        assert (found.step, found.term) == (2, "total")
        assert found.difference == pytest.approx(change, rel=0.2)


def test_comparison_names_a_term_that_is_new_or_gone():
    found = compare([{"a": 1.0}], [{"b": 1.0}], changed=(), is_exact=False)
    assert (found.outcome, found.term, found.replayed) == ("different", "a", None)


def test_environment_names_what_last_digits_depend_on():
    facts = environment(CPU)
    assert facts["instructions"]
    assert facts["numpy"] == np.__version__
    assert json.loads(json.dumps(facts)) == facts


def test_worker_writes_down_the_spec_that_names_the_run(run):
    assert RunSpec.from_dict(read_json(run.spec)).run_id == run.run_id


class Broken:
    """An update that returns what a real one does, and then breaks a weight."""

    def __init__(self, update, at):
        self.update, self.at, self.calls = update, at, 0

    def __getattr__(self, name):
        return getattr(self.update, name)

    def __call__(self, batch, observed):
        terms = self.update(batch, observed)
        self.calls += 1
        if self.calls == self.at:
            with torch.no_grad():
                next(self.model.head.parameters()).fill_(torch.nan)
        return terms


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (5, r"epoch 1, step 6: the loss is not finite"),
        (8, r"epoch 1, after step 8: predictions on the valid split are NaN"),
        (16, r"epoch 2, after step 8: predictions on the valid split are NaN"),
    ],
)
def test_weights_that_break_end_the_run_with_epoch_and_step(
    root, tmp_path, monkeypatch, at, message
):
    made = cider_platform.runs.trial.two_step_update
    monkeypatch.setattr(
        cider_platform.runs.trial, "two_step_update", lambda *a: Broken(made(*a), at)
    )
    runtime = Runtime(root / "store", tmp_path, threads=1)
    spec = resolve(spec_with(), runtime)
    with pytest.raises(TrainingError, match=message):
        list(train_run(spec, runtime))
    status = RunFolder.of(tmp_path, spec.run_id).read_status()
    assert status["state"] == "FAILED"
    assert status["error"].startswith("epoch ")


def test_undefined_score_ends_the_run_at_the_first_epoch(root, tmp_path, monkeypatch):
    undefined = Selected(0.0, float("nan"))
    monkeypatch.setattr("cider.training.trainer.select_tau", lambda *_: undefined)
    runtime = Runtime(root / "store", tmp_path, threads=1)
    with pytest.raises(TrainingError, match="epoch 1, after step 8: acc2 on the valid split is na"):
        list(train_run(resolve(spec_with(), runtime), runtime))


def test_tolerance_is_documented_where_it_was_measured():
    page = Path(__file__).resolve().parents[3] / "docs" / "failures.md"
    assert f"{cider_platform.runs.fingerprint.TOLERANCE:g}" in page.read_text(encoding="utf-8")
