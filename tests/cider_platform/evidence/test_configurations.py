"""Two configurations over their seeds, from made-up runs."""

import json

import pytest

from cider.errors import NothingMatchedError, UsageError
from cider_platform.evidence.configurations import compare_configurations
from cider_platform.evidence.quantity import Quantity
from cider_platform.results import all_runs, find_run

AREA = Quantity(protocol="rmfm", metric="acc2")


def compared(made_up, first, second, quantity=AREA):
    runs = [find_run(made_up.results, each) for each in (first, second)]
    return compare_configurations(all_runs(made_up.results), *runs, quantity)


def test_configurations_are_paired_by_seed_whichever_runs_name_them(made_up):
    first = made_up.seeds([0.60, 0.62, 0.64, 0.66])
    second = made_up.seeds([0.59, 0.60, 0.61], maci__mcm=False)
    made_up.seeds([0.1], model__layers=4)  # a third configuration
    found = compared(made_up, first[2], second[0])
    assert found.first == pytest.approx({1: 0.60, 2: 0.62, 3: 0.64, 4: 0.66})
    assert found.paired.seeds == (1, 2, 3)
    assert found.paired.difference.mean == pytest.approx(0.02)
    assert found.paired.test.p == found.paired.test.smallest_p == 0.25
    assert found.first_summary.num_seeds == 4
    assert found.differs == {"maci.mcm": (True, False)}
    assert found.evaluate == ()
    swapped = compared(made_up, second[1], first[0])
    assert swapped.paired.difference.mean == pytest.approx(-0.02)


def test_runs_that_are_not_complete_or_not_evaluated_are_left_out(made_up):
    first = made_up.seeds([0.60, 0.62])
    late = made_up.run(seed=3)
    made_up.run(seed=4, state="FAILED")
    second = made_up.seeds([0.59, 0.60], maci__mcm=False)
    found = compared(made_up, late, second[0])
    assert sorted(found.first) == [1, 2]
    assert [line.split()[2] for line in found.evaluate] == [late]
    at_rate = compared(made_up, first[0], second[0], Quantity(protocol="rmm", metric="f1", rate=0))
    assert at_rate.quantity == "f1 at rmm@0"
    assert at_rate.paired.seeds == (1, 2)


def test_runs_of_one_configuration_are_refused(made_up):
    runs = made_up.seeds([0.60, 0.62])
    with pytest.raises(UsageError, match="differ in the seed alone"):
        compared(made_up, *runs)


def test_configurations_without_a_common_evaluated_seed_name_a_command(made_up):
    (first,) = made_up.seeds([0.60])
    second = made_up.run(seed=1, maci__mcm=False)
    with pytest.raises(NothingMatchedError, match=rf"begin with: .* evaluate {second} "):
        compared(made_up, first, second)


def test_metric_of_another_task_is_refused(made_up):
    (first,) = made_up.seeds([0.60])
    (second,) = made_up.seeds([0.60], maci__mcm=False)
    with pytest.raises(UsageError, match="unknown metric 'acc7'"):
        compared(made_up, first, second, Quantity(protocol="rmfm", metric="acc7"))


def test_command_prints_seeds_fields_and_test(made_up, run_cli):
    first = made_up.seeds([0.60, 0.62, 0.64])
    second = made_up.seeds([0.59, 0.60, 0.61], maci__mcm=False)
    command = ("runs", "over-seeds", first[0], second[0], "--results", made_up.results)
    code, out, _ = run_cli(*command)
    assert code == 0
    assert "acc2 at rmfm@auilc" in out
    assert "maci.mcm" in out
    assert "difference on 3 common seeds: +0.0200" in out
    assert "smallest p these seeds can reach: 0.25" in out
    document = json.loads(run_cli(*command, "--json")[1])
    assert document["schema"] == "cider.runs.over-seeds/1"
    assert document["data"]["paired"]["seeds"] == [1, 2, 3]
    code, _, err = run_cli(*command, "--missing", "smm")
    assert code == 2
    assert "smm needs a kept set" in err
    assert run_cli(*command, "--missing", "none")[0] == 0
