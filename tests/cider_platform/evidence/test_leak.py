"""The leak meter on made-up studies whose every score is known."""

import json

import numpy as np
import pytest
from optuna.storages import InMemoryStorage
from stored_predictions import store

from cider.condition import Condition
from cider.counterfactual import TAUS, subtract
from cider.errors import NothingMatchedError, UsageError
from cider.metrics import METRICS
from cider.spec import RunSpec, SelectionConfig
from cider_platform.evidence.leak import TrialScores, measure_leak, optimism_of
from cider_platform.evidence.predictions import read_predictions
from cider_platform.layout import RunFolder, StudyFolder
from cider_platform.search.ledger import Ledger
from cider_platform.search.space import parse_axis
from cider_platform.search.storage import Storage, open_rdb
from cider_platform.search.study import define, open_storage

SPACE = (parse_axis("optimizer.lr=log:1e-4:1e-2"),)
NUM = 200
LABELS = np.random.default_rng(0).integers(0, 3, NUM)


def write_study(results, values, *, rule="validation", objectives=(), repeats=(), url=""):
    """Write a study whose trials have these validation scores; trial n has run ``%016x`` of n."""
    spec = RunSpec(selection=SelectionConfig(rule=rule))
    pruner = {"name": "none"}
    definition = define(spec, SPACE, sampler="random", pruner=pruner, objectives=objectives)
    ledger = Ledger(InMemoryStorage(), "demo", definition)
    for number, value in enumerate(values):
        assert ledger.ask(len(values)).number == number
        run = repeats.index(number) if number in repeats else number
        ledger.note(number, run=f"{run:016x}", seed=1111)
        if value is None:
            ledger.fail(number, "the loss is not finite")
        else:
            ledger.complete(number, value)
    folder = StudyFolder.of(results, "demo")
    storage = open_rdb(Storage.parse(url)) if url else open_storage(folder)
    stored = Ledger(storage, "demo", definition)
    stored._study.add_trials(ledger._study.get_trials())


def write_evaluation(results, number, rate, *, skill, counterfactual=0.0, seed=None):
    """Write an evaluation with predictions of a skill; return their accuracy (acc2)."""
    folder = RunFolder.of(results, f"{number:016x}")
    rng = np.random.default_rng([number, int(rate * 10)] if seed is None else seed)
    scores_NC = rng.normal(size=(NUM, 3))
    scores_NC[np.arange(NUM), LABELS] += skill
    bias_NC = counterfactual * rng.normal(size=(NUM, 3))
    scores_NC += bias_NC
    log_probs_NC = scores_NC - np.log(np.exp(scores_NC).sum(axis=1, keepdims=True))
    acc2 = METRICS["acc2"](log_probs_NC, LABELS)
    store(
        folder,
        Condition("rmfm", rate),
        log_probs_NC,
        LABELS,
        counterfactual_NC=bias_NC if counterfactual else None,
        test={"acc2": acc2},
    )
    return acc2


def write_both(results, number, **options):
    return np.mean([write_evaluation(results, number, rate, **options) for rate in (0.0, 0.5)])


def test_honest_study_without_counterfactuals_leaks_by_its_trials_alone(tmp_path):
    write_study(tmp_path, [0.70, 0.75, 0.72, None])
    tests = [write_both(tmp_path, number, skill=skill) for number, skill in enumerate((2, 1, 1.5))]
    found = measure_leak(tmp_path, "demo")
    assert (found.complete, len(found.scores), found.missing) == (3, 3, ())
    assert found.conditions == ("rmfm@0", "rmfm@0.5")
    assert found.optimism.selected_on_validation == pytest.approx(tests[1])
    assert found.optimism.total == pytest.approx(max(tests) - tests[1])
    assert found.optimism.total == pytest.approx(found.optimism.by_trial)
    assert (found.optimism.by_epoch, found.optimism.by_tau) == (0.0, 0.0)
    assert found.marks == ("synthetic",)


def test_tau_chosen_on_test_is_its_own_part(tmp_path):
    write_study(tmp_path, [0.70, 0.75])
    for number in range(2):
        write_both(tmp_path, number, skill=1.0, counterfactual=1.0)
    found = measure_leak(tmp_path, "demo")
    oracle = []
    for number in range(2):
        folder = RunFolder.of(tmp_path, f"{number:016x}")
        best = [
            max(
                METRICS["acc2"](
                    subtract(each.log_probs_NC, each.counterfactual_NC, tau, "log_probability"),
                    LABELS,
                )
                for tau in TAUS
            )
            for each in (
                read_predictions(folder, Condition("rmfm", rate), "log_probability")
                for rate in (0.0, 0.5)
            )
        ]
        oracle.append(np.mean(best))
    assert found.optimism.best_on_test == pytest.approx(max(oracle))
    assert found.optimism.by_tau > 0
    assert 0 < found.optimism.tau_share <= 1
    parts = found.optimism.by_trial + found.optimism.by_epoch + found.optimism.by_tau
    assert found.optimism.total == pytest.approx(parts)


def test_trial_that_was_not_evaluated_is_named_with_its_command(tmp_path):
    write_study(tmp_path, [0.70, 0.75, 0.72])
    write_both(tmp_path, 1, skill=1.0)
    write_both(tmp_path, 2, skill=1.0)
    write_evaluation(tmp_path, 0, 0.0, skill=1.0)  # one of its two conditions
    found = measure_leak(tmp_path, "demo")
    assert [each.trial for each in found.scores] == [1, 2]
    assert found.optimism is not None
    assert found.missing == (
        "cider-platform evaluate 0000000000000000 --missing rmfm --rates 0,0.5",
    )


def test_optimism_is_unknown_without_the_trial_that_validation_chooses(tmp_path, run_cli):
    write_study(tmp_path, [0.70, 0.75, 0.72])
    write_both(tmp_path, 0, skill=1.0)
    found = measure_leak(tmp_path, "demo")
    assert (found.optimism, found.chance) == (None, None)
    assert len(found.missing) == 2
    code, out, err = run_cli("study", "leak", "demo", "--results", tmp_path)
    assert (code, out) == (0, "")
    assert "is not evaluated" in err
    assert "missing evaluations: 2" in err


def test_one_evaluated_trial_of_several_says_nothing_of_luck(tmp_path, run_cli):
    write_study(tmp_path, [0.70, 0.75])
    write_both(tmp_path, 1, skill=1.0)
    found = measure_leak(tmp_path, "demo")
    assert found.optimism.by_trial == 0.0
    assert found.chance is None
    _, out, err = run_cli("study", "leak", "demo", "--results", tmp_path)
    assert "luck alone" not in out
    assert "at least this" in err


def test_one_trial_has_no_optimism_by_trial_and_none_by_chance(tmp_path):
    write_study(tmp_path, [0.7])
    write_both(tmp_path, 0, skill=1.0)
    found = measure_leak(tmp_path, "demo")
    assert found.optimism.total == 0.0
    assert found.optimism.tau_share is None
    assert (found.chance.mean, found.chance.p) == (0.0, 1.0)


def test_equal_proposals_that_share_a_run_are_one_draw(tmp_path):
    write_study(tmp_path, [0.70, 0.75, 0.70], repeats=(2,))
    write_both(tmp_path, 0, skill=1.0)
    write_both(tmp_path, 1, skill=1.0)
    found = measure_leak(tmp_path, "demo")
    assert found.complete == 2
    assert [each.trial for each in found.scores] == [0, 1]


def test_chance_comes_near_the_optimism_of_trials_that_are_equally_good(tmp_path):
    rng = np.random.default_rng(5)
    write_study(tmp_path, [float(each) for each in 0.7 + 0.01 * rng.normal(size=30)])
    for number in range(30):
        write_both(tmp_path, number, skill=1.0)
    found = measure_leak(tmp_path, "demo")
    assert found.chance.num_trials == 30
    # Independent trials: the binomial deviation over the polar utterances of two rates.
    polar = int((LABELS != 1).sum())
    accuracy = np.mean([each.test for each in found.scores])
    binomial = np.sqrt(accuracy * (1 - accuracy) / (2 * polar))
    assert found.chance.sd == pytest.approx(binomial, rel=0.1)
    assert found.optimism.by_trial < 3 * found.chance.mean
    assert found.chance.p > 0.01


def test_trials_that_are_truly_better_on_test_exceed_chance(tmp_path):
    write_study(tmp_path, [0.75, 0.70, 0.70, 0.70])
    for number, skill in enumerate((0.0, 4.0, 0.0, 0.0)):
        write_both(tmp_path, number, skill=skill)
    found = measure_leak(tmp_path, "demo")
    assert found.optimism.by_trial > 0.3
    assert found.chance.p < 0.01


def write_published(results, number, epochs):
    """Write the epochs of a run of the published selection: (test, test at valid tau, valid)."""
    folder = RunFolder.of(results, f"{number:016x}")
    folder.root.mkdir(parents=True)
    lines = [
        {"score": test, "published": {"test_at_valid_tau": honest, "valid_score": valid}}
        for test, honest, valid in epochs
    ]
    folder.epochs.write_text("".join(json.dumps(each) + "\n" for each in lines))


def test_published_selection_is_taken_apart_by_trial_epoch_and_tau(tmp_path):
    write_study(tmp_path, [0.80, 0.83], rule="published")
    write_published(tmp_path, 0, [(0.80, 0.78, 0.60), (0.79, 0.74, 0.72)])
    write_published(tmp_path, 1, [(0.83, 0.76, 0.70), (0.80, 0.75, 0.71)])
    found = measure_leak(tmp_path, "demo")
    # Validation chooses trial 0, epoch 2 (.72): its honest test score is .74.
    assert found.optimism.selected_on_validation == pytest.approx(0.74)
    assert found.optimism.by_trial == pytest.approx(0.75 - 0.74)
    assert found.optimism.by_epoch == pytest.approx(0.78 - 0.75)
    assert found.optimism.by_tau == pytest.approx(0.83 - 0.78)
    assert found.optimism.total == pytest.approx(0.83 - 0.74)
    assert "published selection" in found.marks
    assert found.chance is None


def test_study_that_a_database_keeps_is_measured_there(tmp_path, run_cli):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    write_study(tmp_path, [0.70, 0.75], url=url)
    write_both(tmp_path, 1, skill=1.0)
    assert run_cli("study", "leak", "demo", "--results", tmp_path)[0] == 3
    code, _, err = run_cli("study", "leak", "demo", "--results", tmp_path, "--storage", url)
    assert code == 0
    assert "1 of 2 complete runs" in err


def test_published_study_with_another_objective_is_refused(tmp_path):
    write_study(tmp_path, [0.8], rule="published", objectives=["valid/acc2@0.3"])
    with pytest.raises(UsageError, match="valid/acc2, was recorded for both choices"):
        measure_leak(tmp_path, "demo")


def test_study_that_reads_no_labels_is_refused(tmp_path):
    write_study(tmp_path, [1000.0], objectives=["parameters"])
    with pytest.raises(UsageError, match="reads no labels"):
        measure_leak(tmp_path, "demo")


def test_study_without_a_complete_trial_or_a_name_matches_nothing(tmp_path):
    write_study(tmp_path, [None])
    with pytest.raises(NothingMatchedError, match="no complete trial"):
        measure_leak(tmp_path, "demo")
    with pytest.raises(NothingMatchedError, match="no study 'other'"):
        measure_leak(tmp_path, "other")


def test_area_objective_weighs_conditions_as_the_area_does(tmp_path):
    write_study(tmp_path, [0.7, 0.71], objectives=["valid/auilc/acc2"])
    rates = [step / 10 for step in range(11)]
    for number in range(2):
        for rate in rates:
            write_evaluation(tmp_path, number, rate, skill=1.5)
    found = measure_leak(tmp_path, "demo")
    assert len(found.conditions) == 11
    assert found.chance.sd > 0
    assert 0 < found.optimism.selected_on_validation < 1


def test_optimism_of_no_trial_is_refused():
    with pytest.raises(ValueError, match="at least one trial"):
        optimism_of([])


def test_first_of_trials_with_the_same_validation_score_is_the_honest_choice():
    scores = [
        TrialScores(
            trial=trial, run="ab", validation=0.7, test=test, test_epoch=test, test_tau=test
        )
        for trial, test in ((0, 0.6), (1, 0.65))
    ]
    assert optimism_of(scores).selected_on_validation == 0.6
    assert optimism_of(scores[::-1]).total == pytest.approx(0.05)


def test_command_shows_the_parts_and_json_has_them(tmp_path, run_cli):
    write_study(tmp_path, [0.70, 0.75, 0.72])
    for number in range(3):
        write_both(tmp_path, number, skill=1.0, counterfactual=0.3)
    code, out, err = run_cli("study", "leak", "demo", "--results", tmp_path)
    assert code == 0
    assert "optimism of choosing on test" in out
    assert "from luck alone with 3 trials" in out
    assert "[synthetic]" in out
    assert "3 of 3 complete runs" in err
    _, out, _ = run_cli("study", "leak", "demo", "--results", tmp_path, "--json")
    document = json.loads(out)
    assert document["schema"] == "cider.study.leak/1"
    data = document["data"]
    assert data["evaluated"] == data["complete"] == 3
    parts = (data["optimism"][name] for name in ("by_trial", "by_epoch", "by_tau"))
    assert sum(parts) == pytest.approx(data["optimism"]["total"])
    assert data["chance"]["num_trials"] == 3
