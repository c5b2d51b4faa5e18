"""Seeds: who is repeated, who is best, and the ranking on seeds never searched on."""

import math
from types import SimpleNamespace

import pytest

from cider.errors import UsageError
from cider.spec import RunSpec
from cider_platform.execution.capacity import Slots
from cider_platform.layout import StudyFolder
from cider_platform.search.driver import Plan
from cider_platform.search.fresh_seeds import FIRST_FRESH_SEED, final_plan, finalists, standings
from cider_platform.search.ledger import Ledger
from cider_platform.search.racing import LEAST_PAIRS, Racing, best_configuration, next_repeat
from cider_platform.search.space import parse_axis
from cider_platform.search.study import define, open_storage

SPACE = (parse_axis("loss.joint=float:0:1"),)


def open_ledger(root, racing, name="study", starts=()):
    definition = define(
        RunSpec(), SPACE, sampler="tpe", pruner={"name": "none"}, racing=racing, starts=starts
    )
    return Ledger(open_storage(StudyFolder.of(root, name)), name, definition)


def score(proposal):
    """Nearer to 0.7 is better, and every seed has noise of its own."""
    noise = 0.01 * math.sin(1000 * proposal.values["loss.joint"] + proposal.seed)
    return 1 - abs(proposal.values["loss.joint"] - 0.7) + noise


def finish(ledger, total):
    while (proposal := ledger.ask(total)) is not None:
        ledger.complete(proposal.number, score(proposal))
    return ledger.trials()


def test_one_seed_never_repeats(tmp_path):
    trials = finish(open_ledger(tmp_path, Racing()), 8)
    assert {trial.repeats for trial in trials} == {None}
    assert {trial.seed for trial in trials} == {1111}


def test_halving_gives_the_best_third_a_second_seed_and_the_best_ninth_a_third(tmp_path):
    trials = finish(open_ledger(tmp_path, Racing(seeds=3)), 26)
    repeats = [trial for trial in trials if trial.repeats is not None]
    for trial in repeats:
        proposer = trials[trial.repeats]
        assert trial.params == proposer.params
        before = [t for t in repeats if t.repeats == trial.repeats and t.number < trial.number]
        assert trial.seed == proposer.seed + len(before) + 1
        if not before:
            others = [t.value for t in trials[: trial.number] if t.repeats is None]
            assert sum(value > proposer.value for value in others) < len(others) // 3
    assert {trial.seed for trial in trials} == {1111, 1112, 1113}
    assert 4 <= len(repeats) <= 14


def test_repeats_of_an_interrupted_study_are_those_of_an_undisturbed_one(tmp_path):
    racing = Racing(seeds=3)
    undisturbed = finish(open_ledger(tmp_path, racing, "one"), 16)
    for number in range(16):
        lost = open_ledger(tmp_path, racing, "two").ask(16)
        ledger = open_ledger(tmp_path, racing, "two")
        again = ledger.ask(16)
        assert (again.number, again.seed, again.values) == (number, lost.seed, lost.values)
        ledger.complete(number, score(again))
    plain = [(t.params, t.seed, t.repeats, t.value) for t in undisturbed]
    assert [(t.params, t.seed, t.repeats, t.value) for t in ledger.trials()] == plain


def test_repeat_is_not_stopped_because_its_mean_needs_all_seeds(tmp_path):
    definition = define(
        RunSpec(),
        SPACE,
        sampler="random",
        pruner={"name": "asha", "grace": 1, "reduction": 3},
        racing=Racing(seeds=2),
    )
    ledger = Ledger(open_storage(StudyFolder.of(tmp_path, "study")), "study", definition)
    for _ in range(3):
        proposal = ledger.ask(9)
        ledger.report(proposal.number, 1, 0.9)
        ledger.complete(proposal.number, 0.9)
    repeat = ledger.ask(9)
    assert repeat.repeats is not None
    assert ledger.report(repeat.number, 1, 0.1) is False
    ledger.complete(repeat.number, 0.1)
    fresh = ledger.ask(9)
    assert fresh.repeats is None
    assert ledger.report(fresh.number, 1, 0.05) is True


def trial(number, values, repeats=None, state="COMPLETE"):
    return SimpleNamespace(
        number=number, values=values, repeats=repeats, state=state, params={"x": repeats or number}
    )


def test_lucky_single_seed_does_not_beat_a_mean_over_more_seeds():
    trials = [trial(0, (0.8,)), trial(1, (0.95,)), trial(2, (0.7,), repeats=0)]
    assert best_configuration(trials).number == 0
    assert best_configuration(trials[:2]).number == 1
    assert best_configuration(trials[:2], minimise=True).number == 0
    assert best_configuration([trial(0, None, state="FAIL")]) is None


def test_wilcoxon_gives_up_a_configuration_that_is_worse_on_every_common_seed():
    racing = Racing(seeds=6, rule="wilcoxon")
    trials = [trial(0, (0.9,)), trial(1, (0.5,))]
    while (found := next_repeat(trials, racing)) is not None:
        base = 0.9 if found.number == 0 else 0.5
        trials.append(trial(len(trials), (base + 0.01 * len(found.trials),), repeats=found.number))
    seeds = [sum(each.repeats == number for each in trials) + 1 for number in (0, 1)]
    assert seeds == [6, LEAST_PAIRS]


def test_failed_or_running_seed_keeps_its_configuration_from_the_next():
    waiting = [trial(0, (0.9,)), trial(1, (0.5,)), trial(2, (0.4,))]
    assert next_repeat(waiting, Racing(seeds=3)).number == 0
    for state in ("RUNNING", "FAIL"):
        blocked = [*waiting, trial(3, None, repeats=0, state=state)]
        assert next_repeat(blocked, Racing(seeds=3)) is None


def test_seeds_out_of_range_are_refused():
    with pytest.raises(UsageError, match="seeds per configuration"):
        Racing(seeds=0)


def test_final_ranking_uses_fresh_seeds_and_orders_by_their_mean_alone(tmp_path):
    trials = finish(open_ledger(tmp_path, Racing(seeds=2)), 9)
    leading = finalists(trials, minimise=False)
    plan = Plan(
        study="study",
        spec=RunSpec(),
        space=SPACE,
        total=9,
        racing=Racing(seeds=2),
        slots=Slots(slots=1, cpus_per_trial=1, gpus_per_trial=0.0),
    )
    fresh = final_plan(plan, leading, 2)
    assert fresh.study.startswith("study.final-")
    assert fresh.total == 2 * len(leading) == 6
    ledger = open_ledger(tmp_path, fresh.racing, fresh.study, fresh.starts)
    # The search's order is turned round on the fresh seeds.
    while (proposal := ledger.ask(fresh.total)) is not None:
        place = proposal.number % len(leading)
        assert proposal.values == dict(leading[place].params)
        ledger.note(proposal.number, run=f"run{proposal.number}")
        ledger.complete(proposal.number, 0.5 + 0.1 * place)
    outcome = SimpleNamespace(trials=ledger.trials(), objectives=["valid/acc2"])
    ranking = standings(leading, outcome)
    assert [each.trial for each in ranking] == [each.number for each in reversed(leading)]
    searched = {each.seed for each in trials}
    for each in ranking:
        assert each.seeds == [1111 + FIRST_FRESH_SEED, 1112 + FIRST_FRESH_SEED]
        assert not searched & set(each.seeds)
    assert ranking[0].to_dict()["mean"] == pytest.approx(0.7)
    assert ranking[0].to_dict()["sd"] == pytest.approx(0.0)
