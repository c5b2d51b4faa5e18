"""What real evaluations store is what the evidence reads: short trainings on the tiny corpus."""

import pytest
from optuna.storages import InMemoryStorage
from tiny_corpus import write_tiny_corpus

from cider.condition import Condition
from cider.metrics import METRICS
from cider.models.cider.config import Config
from cider.spec import DataConfig, RunSpec, SelectionConfig, TextEncoderConfig, TrainingConfig
from cider_platform.evidence.configurations import compare_configurations
from cider_platform.evidence.leak import measure_leak
from cider_platform.evidence.predictions import read_predictions
from cider_platform.evidence.quantity import Quantity, metrics_by_condition
from cider_platform.evidence.two_runs import compare_runs
from cider_platform.layout import RunFolder, StudyFolder
from cider_platform.results import all_runs, find_run
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.evaluation import conditions_of, evaluate_run
from cider_platform.runs.trial import train_run
from cider_platform.search.ledger import Ledger
from cider_platform.search.space import parse_axis
from cider_platform.search.study import define, open_storage

SPACE = (parse_axis("model.layers=choice:1,2"),)


@pytest.fixture(scope="module", params=["validation", "published"])
def studied(request, tmp_path_factory):
    """Results root with a study ``demo`` of two evaluated runs."""
    root = tmp_path_factory.mktemp("real")
    write_tiny_corpus(root / "store")
    runtime = Runtime(root / "store", root / "results", threads=1)
    base = resolve(
        RunSpec(
            data=DataConfig(dataset="tiny"),
            model=Config(width=8, heads=2, layers=1),
            text_encoder=TextEncoderConfig(width=8, layers=1),
            training=TrainingConfig(epochs=2, batch_size=12),
            selection=SelectionConfig(rule=request.param, rates=(0.0, 0.5)),
        ),
        runtime,
    )
    definition = define(base, SPACE, sampler="random", pruner={"name": "none"})
    ledger = Ledger(InMemoryStorage(), "demo", definition)
    for layers in (1, 2):
        spec = RunSpec.from_dict(
            {**base.to_dict(), "model": {**base.to_dict()["model"], "layers": layers}}
        )
        *_, last = train_run(spec, runtime)
        proposal = ledger.ask(2)
        ledger.note(proposal.number, run=spec.run_id, seed=spec.seed)
        ledger.complete(proposal.number, last.best_score)
        folder = RunFolder.of(runtime.results, spec.run_id)
        evaluate_run(folder, runtime, conditions_of("rmfm", [0.0, 0.5]))
    storage = open_storage(StudyFolder.of(runtime.results, "demo"))
    Ledger(storage, "demo", definition)._study.add_trials(ledger._study.get_trials())
    return runtime.results, request.param


def test_stored_predictions_give_the_metrics_of_the_evaluation(studied):
    results, _ = studied
    for run in all_runs(results):
        values = metrics_by_condition(run)
        for rate in (0.0, 0.5):
            found = read_predictions(run.folder, Condition("rmfm", rate), "log_probability")
            assert len(found.ids) == 12
            for name in ("acc2", "f1", "has0_acc2"):
                value = METRICS[name](found.scores(), found.labels_N)
                assert value == pytest.approx(values["rmfm", rate, ""][name])
            assert found.best_on_test("acc2") >= values["rmfm", rate, ""]["acc2"] - 1e-12


def test_leak_of_a_trained_study_is_measured_whole(studied):
    results, rule = studied
    found = measure_leak(results, "demo")
    assert (found.rule, found.complete, len(found.scores)) == (rule, 2, 2)
    assert (found.missing, found.conditions) == ((), ("rmfm@0", "rmfm@0.5"))
    parts = found.optimism
    assert min(parts.by_trial, parts.by_epoch, parts.by_tau) >= 0
    assert parts.total == pytest.approx(parts.by_trial + parts.by_epoch + parts.by_tau)
    assert found.chance.num_trials == 2
    if rule == "published":
        scores = {each.run: each for each in found.scores}
        for run in all_runs(results):
            assert scores[run.run_id].test_tau == pytest.approx(run.result["score"])
            honest = run.result["optimism"]["selected_on_validation"]
            assert scores[run.run_id].test == pytest.approx(honest)


def test_two_trained_runs_are_compared_by_utterance_and_by_seed(studied):
    results, _ = studied
    first, second = (find_run(results, run.run_id) for run in all_runs(results))
    by_utterance = compare_runs(first, second, Condition("rmfm", 0.5))
    assert by_utterance.first_value == pytest.approx(
        metrics_by_condition(first)["rmfm", 0.5, ""]["acc2"]
    )
    assert "synthetic" in by_utterance.marks
    quantity = Quantity(protocol="rmfm", metric="acc2", rate=0.5)
    by_seed = compare_configurations(all_runs(results), first, second, quantity)
    assert by_seed.paired.difference.mean == pytest.approx(by_utterance.bootstrap.difference)
    assert list(by_seed.differs) == ["model.layers"]
