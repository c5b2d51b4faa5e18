"""Samplers by name: what each visits, and that slots do not change it."""

import pytest

from cider.errors import UsageError
from cider.spec import RunSpec
from cider_platform.layout import StudyFolder
from cider_platform.search.ledger import Ledger, pareto
from cider_platform.search.samplers import SAMPLER_OPTIONS, grid_size, grid_values
from cider_platform.search.space import parse_axis
from cider_platform.search.study import define, open_storage

SPACE = (
    parse_axis("model.layers=int:1:3"),
    parse_axis("model.heads=choice:1,2"),
    parse_axis("loss.joint=float:0:0.4:0.2"),
)
NO_PRUNER = {"name": "none"}


def open_ledger(root, name="study", space=SPACE, **changes):
    folder = StudyFolder.of(root, name)
    options = {"sampler": "random", "pruner": NO_PRUNER, **changes}
    return Ledger(open_storage(folder), name, define(RunSpec(), space, **options))


def score(values):
    return values["loss.joint"] + 0.1 * values["model.layers"]


def run_in_batches(ledger, total, slots):
    """Hand out as many trials as there are slots; the last handed out ends first."""
    while True:
        batch = [found for _ in range(slots) if (found := ledger.ask(total)) is not None]
        if not batch:
            return {str(trial.params) for trial in ledger.trials()}
        for proposal in reversed(batch):
            ledger.complete(proposal.number, score(proposal.values))


@pytest.mark.parametrize("sampler", ["random", "grid", "qmc"])
def test_samplers_that_do_not_learn_visit_the_same_configurations_with_any_number_of_slots(
    tmp_path, sampler
):
    one = run_in_batches(open_ledger(tmp_path, "one", sampler=sampler), 12, 1)
    four = run_in_batches(open_ledger(tmp_path, "four", sampler=sampler), 12, 4)
    assert one == four
    assert len(one) > 4


def test_grid_visits_every_configuration_once_in_an_order_of_the_seed_and_ends(tmp_path):
    ledger = open_ledger(tmp_path, sampler="grid")
    visited = run_in_batches(ledger, 300, 1)
    assert len(visited) == len(ledger.trials()) == grid_size(SPACE) == 18
    assert not ledger.has_work(300)
    other = Ledger(
        open_storage(StudyFolder.of(tmp_path, "other")),
        "other",
        define(RunSpec(seed=5), SPACE, sampler="grid", pruner=NO_PRUNER),
    )
    assert run_in_batches(other, 300, 1) == visited
    assert [each.params for each in other.trials()] != [each.params for each in ledger.trials()]


def test_grid_does_not_count_starting_points_as_its_own(tmp_path):
    starts = ({"values": {"model.layers": 2, "model.heads": 1, "loss.joint": 0.2}},)
    ledger = open_ledger(tmp_path, sampler="grid", starts=starts)
    assert len(run_in_batches(ledger, 300, 1)) == 18
    assert len(ledger.trials()) == 19


def test_grid_values_of_every_kind_of_axis():
    assert grid_values(parse_axis("loss.joint=float:0:0.5:0.1")) == (0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert grid_values(parse_axis("model.layers=int:1:4:2")) == (1, 3)
    assert grid_values(parse_axis("model.heads=choice:1,8")) == (1, 8)


def test_grid_over_a_continuous_axis_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(UsageError, match=r"optimizer\.lr=log:0\.001:0\.1 is continuous"):
        open_ledger(tmp_path, space=(parse_axis("optimizer.lr=log:1e-3:1e-1"),), sampler="grid")


def test_starting_points_come_first_and_what_they_leave_out_is_drawn(tmp_path):
    starts = (
        {"values": {"model.layers": 3, "loss.joint": 0.4}},
        {"values": {"model.heads": 2}, "seed": 77},
    )
    ledger = open_ledger(tmp_path, sampler="tpe", starts=starts)
    first, second, third = (ledger.ask(3) for _ in range(3))
    assert (first.values["model.layers"], first.values["loss.joint"]) == (3, 0.4)
    assert first.values["model.heads"] in (1, 2)
    assert (second.values["model.heads"], second.seed) == (2, 77)
    assert (first.seed, third.seed) == (1111, 1111)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "random"])
def test_several_objectives_give_the_pareto_set(tmp_path, sampler):
    objectives = ("valid/acc2@0.0", "parameters")
    ledger = open_ledger(tmp_path, sampler=sampler, objectives=objectives)
    while (proposal := ledger.ask(14)) is not None:
        layers = proposal.values["model.layers"]
        assert ledger.report(proposal.number, 1, 0.5) is False
        ledger.complete(proposal.number, 0.5 + 0.1 * layers * (layers < 3), 1000.0 * layers)
    trials = ledger.trials()
    front = {each.values for each in pareto(trials, objectives)}
    every = {each.values for each in trials}
    assert front == every - {(0.5, 3000.0)}
    assert trials[0].epochs == 1


def test_parts_that_do_not_go_together_are_refused(tmp_path):
    two = ("valid/acc2@0.0", "parameters")
    with pytest.raises(UsageError, match="cmaes has one objective"):
        open_ledger(tmp_path, sampler="cmaes", objectives=two)
    with pytest.raises(UsageError, match="use --pruner none"):
        open_ledger(tmp_path, pruner={"name": "asha", "grace": 1, "reduction": 3}, objectives=two)
    with pytest.raises(UsageError, match="unknown sampler 'bohb'; known: cmaes, gp, grid"):
        open_ledger(tmp_path, sampler="bohb")


def test_every_sampler_has_its_options_written_into_the_study(tmp_path):
    for name, options in SAMPLER_OPTIONS.items():
        stored = open_ledger(tmp_path, name, sampler=name).definition["sampler"]
        assert stored == {"name": name, "seed": 1111, **options}
