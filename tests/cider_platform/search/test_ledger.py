"""The study as the only truth: what is proposed, what is told, what a dead driver leaves."""

from dataclasses import replace

import optuna
import pytest

from cider.errors import UsageError
from cider.spec import OptimizerConfig, RunSpec
from cider_platform.layout import StudyFolder
from cider_platform.search.ledger import Ledger, best, counts
from cider_platform.search.pruning import AshaPruner
from cider_platform.search.samplers import SAMPLER_OPTIONS
from cider_platform.search.space import TABLE_II, parse_axis
from cider_platform.search.study import check_same, define, open_storage, read_study

TOTAL = 14
NO_PRUNER = {"name": "none"}


@pytest.fixture
def folder(tmp_path):
    return StudyFolder.of(tmp_path, "study")


def definition(sampler="tpe", pruner=NO_PRUNER, space=TABLE_II, spec=None, **more):
    return define(spec or RunSpec(), space, sampler=sampler, pruner=pruner, **more)


def open_ledger(folder, **changes):
    return Ledger(open_storage(folder), folder.name, definition(**changes))


def score(values):
    return 1.0 - abs(values["loss.joint"] - 0.3) - 0.05 * values["model.layers"]


def finish(ledger, total=TOTAL):
    """Run every trial that is left and return the records."""
    while (proposal := ledger.ask(total)) is not None:
        ledger.complete(proposal.number, score(proposal.values))
    return ledger.trials()


@pytest.mark.parametrize("sampler", sorted(SAMPLER_OPTIONS))
def test_study_interrupted_at_every_trial_proposes_what_an_undisturbed_one_does(tmp_path, sampler):
    undisturbed = finish(open_ledger(StudyFolder.of(tmp_path, "one"), sampler=sampler))
    folder = StudyFolder.of(tmp_path, "two")
    for number in range(TOTAL):
        # This driver dies with a trial in its hands, the next one begins with that trial.
        lost = open_ledger(folder, sampler=sampler).ask(TOTAL)
        assert (lost.number, lost.is_continued) == (number, False)
        ledger = open_ledger(folder, sampler=sampler)
        again = ledger.ask(TOTAL)
        assert again == replace(lost, is_continued=True)
        ledger.complete(again.number, score(again.values))
    assert open_ledger(folder, sampler=sampler).trials() == undisturbed
    assert len({str(trial.params) for trial in undisturbed}) > TOTAL // 2


@pytest.mark.parametrize("sampler", sorted(SAMPLER_OPTIONS))
@pytest.mark.parametrize("kept", [0, 3])
def test_trial_whose_driver_died_while_asking_gets_the_parameters_of_a_whole_ask(
    tmp_path, kept, sampler
):
    whole, half = StudyFolder.of(tmp_path, "whole"), StudyFolder.of(tmp_path, "half")
    for each in (whole, half):
        ledger = open_ledger(each, sampler=sampler)
        for _ in range(12):  # beyond the random start of TPE
            proposal = ledger.ask(TOTAL)
            ledger.complete(proposal.number, score(proposal.values))
    expected = open_ledger(whole, sampler=sampler).ask(TOTAL)
    ledger = open_ledger(half, sampler=sampler)
    assert ledger.ask(TOTAL).values == expected.values
    cut_after_parameters(half, kept)
    ledger = open_ledger(half, sampler=sampler)
    assert len(ledger.trials()[-1].params) == kept
    assert ledger.ask(TOTAL) == replace(expected, is_continued=True)
    assert ledger.trials()[-1].params == expected.values


def cut_after_parameters(folder, kept):
    """Cut the journal after the last trial's first ``kept`` parameters."""
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    folder.journal.write_bytes(b"".join(lines[: len(lines) - len(TABLE_II) + kept]))


def test_total_is_the_whole_study_and_a_larger_one_extends_it(folder):
    assert len(finish(open_ledger(folder), total=3)) == 3
    assert open_ledger(folder).ask(3) is None
    assert not open_ledger(folder).has_work(3)
    assert open_ledger(folder).has_work(5)
    assert len(finish(open_ledger(folder), total=5)) == 5


def test_smaller_total_leaves_interrupted_trials_beyond_it_alone(folder):
    ledger = open_ledger(folder)
    for _ in range(3):
        ledger.ask(3)
    ledger = open_ledger(folder)
    assert [ledger.ask(2).number, ledger.ask(2).number] == [0, 1]
    assert ledger.ask(2) is None


def test_outcomes_are_told_as_what_they_are(folder):
    ledger = open_ledger(folder)
    for _ in range(3):
        ledger.ask(3)
    ledger.report(0, 1, 0.5)
    ledger.report(0, 2, 0.6)
    ledger.complete(0, 0.6)
    ledger.report(1, 1, 0.9)
    ledger.prune(1)
    ledger.note(2, run="abc", seed=7)
    ledger.fail(2, "the loss is not finite")
    assert ledger.live == []
    done, pruned, failed = read_study(folder.root.parents[1], "study")[1]
    assert (done.state, done.value, done.epochs) == ("COMPLETE", 0.6, 2)
    assert (pruned.state, pruned.epochs) == ("PRUNED", 1)
    assert (failed.state, failed.error, failed.run, failed.seed) == (
        "FAIL", "the loss is not finite", "abc", 7,
    )  # fmt: skip
    trials = open_ledger(folder).trials()
    assert counts(trials) == {"COMPLETE": 1, "PRUNED": 1, "FAIL": 1}
    # A pruned trial's higher score after fewer epochs is no final score.
    assert best(trials).number == 0


def test_past_reported_again_changes_nothing_and_decides_the_same(folder):
    asha = {"name": "asha", "grace": 1, "reduction": 2}
    ledger = open_ledger(folder, pruner=asha)
    for number, values in enumerate([(0.9, 0.9), (0.5,)]):
        ledger.ask(3)
        stops = [ledger.report(number, epoch, value) for epoch, value in enumerate(values, 1)]
    assert stops == [True]
    # The driver dies after the decision and before it is told: the next one decides again.
    ledger = open_ledger(folder, pruner=asha)
    assert [ledger.ask(3).number, ledger.ask(3).number] == [0, 1]
    assert ledger.report(1, 1, 0.99) is True
    assert [ledger.report(0, epoch, 0.9) for epoch in (1, 2)] == [False, False]


def test_asha_keeps_one_in_reduction_at_each_rung():
    study = optuna.create_study(
        direction="maximize", pruner=AshaPruner(grace=2, reduction=3), storage=None
    )
    reached = []
    for value in (0.1, 0.2, 0.3, 0.15, 0.25, 0.35, 0.05, 0.34):
        trial = study.ask()
        for epoch in range(1, 8):
            trial.report(value, epoch)
            if trial.should_prune():
                break
        reached.append(epoch)
    # Rungs are at epochs 2 and 6; the last is among the best two of eight, not the best of five.
    assert reached == [7, 7, 7, 2, 2, 7, 2, 6]


def test_of_equal_trials_the_older_goes_on():
    study = optuna.create_study(direction="maximize", pruner=AshaPruner(grace=1, reduction=2))
    stopped = []
    for _ in range(8):
        trial = study.ask()
        trial.report(0.5, 1)
        stopped.append(trial.should_prune())
    # Those already there stay ahead of every newcomer; half of those that came may go on.
    assert stopped == [False] + [True] * 7
    assert [study.pruner.prune(study, each) for each in study.trials] == [False] * 4 + [True] * 4


def test_asha_minimises_when_the_study_does():
    study = optuna.create_study(direction="minimize", pruner=AshaPruner(grace=1, reduction=2))
    stops = []
    for value in (0.2, 0.1, 0.3):
        trial = study.ask()
        trial.report(value, 1)
        stops.append(trial.should_prune())
    assert stops == [False, False, True]


@pytest.mark.parametrize("options", [{"grace": 0, "reduction": 3}, {"grace": 1, "reduction": 1}])
def test_asha_refuses_what_would_stop_everything_or_nothing(options):
    with pytest.raises(UsageError):
        AshaPruner(**options)


def test_study_of_another_definition_is_refused_and_the_field_named(folder):
    finish(open_ledger(folder), total=1)
    storage = open_storage(folder)
    check_same(folder, storage, definition())
    slower = RunSpec(optimizer=OptimizerConfig(lr=1e-4))
    narrow = (parse_axis("model.layers=int:1:2"), *TABLE_II[1:])
    for changes, message in [
        ({"spec": slower}, r"optimizer\.lr = 0\.001, this command says 0\.0001"),
        ({"space": narrow}, r"space\.model\.layers\.high = 4, this command says 2"),
        ({"space": TABLE_II[1:]}, r"space\.model\.layers"),
        ({"sampler": "random"}, r"sampler\.name = 'tpe', this command says 'random'"),
        ({"pruner": {"name": "asha", "grace": 1, "reduction": 3}}, r"pruner\.name"),
    ]:
        with pytest.raises(UsageError, match=message):
            check_same(folder, storage, definition(**changes))


def test_what_a_killed_writer_leaves_in_the_journal_is_put_right(folder):
    finish(open_ledger(folder), total=2)
    whole = folder.journal.read_bytes()
    folder.journal.write_bytes(whole + b'{"op_code":5,"wor')
    lock = folder.journal.with_name("optuna.journal.lock")
    lock.symlink_to(folder.journal)
    assert len(finish(open_ledger(folder), total=3)) == 3
    assert folder.journal.read_bytes().startswith(whole + b'{"')
    assert not lock.is_symlink()


def test_definition_records_sampler_pruner_space_and_versions(folder):
    finish(open_ledger(folder), total=1)
    stored, _ = read_study(folder.root.parents[1], "study")
    assert stored["sampler"]["name"] == "tpe"
    assert stored["sampler"]["constant_liar"] is True
    assert stored["pruner"] == NO_PRUNER
    assert [axis["path"] for axis in stored["space"]] == [axis.path for axis in TABLE_II]
    assert RunSpec.from_dict(stored["base"]) == RunSpec()
    assert stored["versions"]["optuna"] == optuna.__version__
