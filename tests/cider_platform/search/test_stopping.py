"""Why a pruner stopped a trial, for each of the pruners."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from cider_platform.search.pruning import PRUNERS, pruner_definition
from cider_platform.search.stopping import stop_reason


def study_of(scores, pruner):
    """Return a study whose trials have come to the epochs that ``scores`` has values for."""
    definition = pruner_definition(pruner, epochs=9, grace=1)
    options = {name: value for name, value in definition.items() if name != "name"}
    study = optuna.create_study(direction="maximize", pruner=PRUNERS[pruner](**options))
    for values in scores:
        epochs = dict(enumerate(values, start=1))
        study.add_trial(create_trial(state=TrialState.RUNNING, intermediate_values=epochs))
    return study, definition


def decided(study, trial):
    return study.pruner.prune(study, study.trials[trial])


@pytest.mark.parametrize("pruner", ["asha", "hyperband"])
def test_value_that_was_needed_is_where_the_pruner_begins_to_let_pass(pruner):
    others = [[0.5], [0.4], [0.9], [0.7], [0.6], [0.3], [0.8], [0.2]]
    study, definition = study_of([*others, [0.1]], pruner)
    number = len(others)
    assert decided(study, number)
    reason = stop_reason(definition, study.trials, study.trials[number])
    assert reason["value"] == 0.1
    for value, stops in ((reason["needed"] + 1e-9, False), (reason["needed"], True)):
        again, _ = study_of([*others, [value]], pruner)
        assert decided(again, number) == stops


def test_hyperband_compares_within_the_bracket_alone():
    study, definition = study_of([[0.5], [0.9], [0.4], [0.9], [0.1]], "hyperband")
    brackets = [study.pruner.bracket(number) for number in range(5)]
    reason = stop_reason(definition, study.trials, study.trials[4])
    assert reason["reached"] == brackets.count(brackets[4])
    assert brackets[0] == brackets[4] == 0
    assert (reason["rung"], reason["needed"]) == (0, 0.5)


def test_pruner_without_rungs_still_tells_the_place_among_the_others():
    study, definition = study_of([[0.5, 0.6], [0.4, 0.3], [0.2, 0.1]], "median")
    reason = stop_reason(definition, study.trials, study.trials[2])
    assert reason == {"epoch": 2, "value": 0.1, "reached": 3, "better": 2}


def test_trial_without_an_epoch_has_no_reason():
    study, definition = study_of([[]], "asha")
    assert stop_reason(definition, study.trials, study.trials[0]) == {}
