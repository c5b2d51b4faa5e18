"""What a comparison lacks until every cell has its seeds."""

import shlex

from cider_platform.evidence.comparison import compare_table
from cider_platform.evidence.ours import OurRuns
from cider_platform.evidence.reproduce import work_for


def work(made_up, table="V", models=("CIDer", "w/o MCM"), **options):
    comparison = compare_table(table, OurRuns.read(made_up.results), models=models)
    return work_for(comparison, **options)


def test_empty_results_lack_every_configuration_once_with_all_its_seeds(made_up):
    found = work(made_up, rules=("validation",), num_seeds=3)
    # Two rows, each with a model for three classes (acc2, f1) and one for seven (acc7).
    assert len(found.trainings) == 4
    assert {each.seeds for each in found.trainings} == {(1111, 1112, 1113)}
    assert sorted(len(each.cells) for each in found.trainings) == [1, 1, 2, 2]
    assert (found.evaluations, found.impossible) == ((), ())
    words = shlex.split(found.trainings[0].commands[1])
    assert words[:2] == ["cider-platform", "train"]
    assert words[words.index("--seed") + 1] == "1112"
    assert len(work(made_up).trainings) == 8  # both selection rules


def test_configuration_that_has_some_seeds_lacks_the_others(made_up):
    runs = made_up.seeds([0.6, 0.61])
    found = work(made_up, rules=("validation",), num_seeds=4, first_seed=1, models=("CIDer",))
    further = next(each for each in found.trainings if each.like)
    assert further.seeds == (3, 4)
    assert further.like == runs[0]
    assert all(":acc7" not in each for each in further.cells)


def test_run_that_is_not_evaluated_lacks_its_evaluation_alone(made_up):
    run = made_up.run()
    found = work(made_up, rules=("validation",), num_seeds=1, models=("CIDer",))
    assert found.evaluations == (f"cider-platform evaluate {run} --missing rmfm --rates 0:1:0.1",)
    assert all(":acc7" in address for each in found.trainings for address in each.cells)


def test_complete_cells_lack_nothing(made_up):
    made_up.seeds([0.6, 0.61])
    made_up.seeds([0.6, 0.61], rule="published")
    found = work(made_up, num_seeds=2, models=("CIDer",))
    assert all(each.wanted.task == "seven_class" for each in found.trainings)


def test_models_that_are_not_here_are_named(made_up):
    found = work(made_up, "IV", ("DMD", "CIDer"))
    assert found.impossible == ("DMD",)
    assert {each.wanted.model for each in found.trainings} == {"cider"}
