"""The simulated scheduler against closed forms, bounds and Ray's rules for shares of GPUs."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cider.errors import UsageError
from cider_platform.grids.simulate import Cluster, Node, Simulation, Work, quantile


def trainings(count, seconds=10.0, **resources):
    return [
        Work(id=f"run-{number}", kind="train", seconds=(seconds,), **resources)
        for number in range(count)
    ]


def wall(work, cluster):
    return Simulation(work, cluster).play([each.seconds[0] for each in work]).wall_seconds


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 6, 13])
def test_equal_items_on_k_slots_take_the_rounds_of_k(count, slots):
    cluster = Cluster(nodes=(Node(cpus=64),), slots=slots)
    assert wall(trainings(count), cluster) == 10.0 * math.ceil(count / slots)


def test_chain_takes_the_sum_whatever_the_cluster():
    chain = [
        Work(id=str(number), kind="train", seconds=(5.0,), after=(str(number - 1),) * (number > 0))
        for number in range(6)
    ]
    assert wall(chain, Cluster(nodes=(Node(cpus=64),) * 3)) == 30.0


def test_item_after_several_waits_for_the_last_of_them():
    work = [
        Work(id="short", kind="train", seconds=(1.0,)),
        Work(id="long", kind="train", seconds=(9.0,)),
        Work(id="end", kind="evaluate", seconds=(2.0,), after=("short", "long")),
    ]
    assert wall(work, Cluster(nodes=(Node(cpus=4),))) == 11.0


@settings(deadline=None, max_examples=60)
@given(
    durations=st.lists(st.floats(0.5, 50), min_size=1, max_size=30),
    parents=st.lists(st.integers(0, 29), min_size=30, max_size=30),
    slots=st.integers(1, 5),
)
def test_wall_lies_between_the_bounds_of_list_scheduling(durations, parents, slots):
    """Graham: longest chain and total / k from below, their sum from above."""
    work, chains = [], []
    for number, seconds in enumerate(durations):
        parent = parents[number]
        has_parent = parent < number
        chains.append(seconds + (chains[parent] if has_parent else 0))
        after = (str(parent),) if has_parent else ()
        work.append(Work(id=str(number), kind="train", seconds=(seconds,), after=after))
    found = wall(work, Cluster(nodes=(Node(cpus=slots),)))
    total, longest = sum(durations), max(chains)
    assert found >= max(total / slots, longest) - 1e-9
    assert found <= total / slots + longest + 1e-9


@pytest.mark.parametrize(
    ("share", "at_a_time"), [(1.0, 2), (0.5, 4), (0.4, 4), (0.3, 6), (0.25, 8), (2.0, 1)]
)
def test_share_of_a_gpu_lies_on_one_gpu(share, at_a_time):
    """Two free halves of 0.6 do not make room for 0.7: a share is never split over GPUs."""
    cluster = Cluster(nodes=(Node(cpus=64, gpus=2),))
    assert wall(trainings(at_a_time, gpus=share), cluster) == 10.0
    assert wall(trainings(at_a_time + 1, gpus=share), cluster) == 20.0


def test_gpus_of_one_item_lie_on_one_node():
    pairs = Cluster(nodes=(Node(cpus=8, gpus=3),) * 2)
    assert wall(trainings(2, gpus=2), pairs) == 10.0
    assert wall(trainings(3, gpus=2), pairs) == 20.0


def test_small_item_does_not_wait_behind_one_that_has_no_room():
    work = [
        *trainings(1, gpus=1),
        Work(id="second", kind="train", seconds=(10.0,), gpus=1),
        Work(id="light", kind="evaluate", seconds=(10.0,)),
    ]
    assert wall(work, Cluster(nodes=(Node(cpus=8, gpus=1),))) == 20.0
    one_at_a_time = Cluster(nodes=(Node(cpus=8, gpus=1),), slots=1)
    assert wall(work, one_at_a_time) == 30.0


def test_start_up_is_paid_once_per_worker_and_reuse_is_cheaper():
    cluster = Cluster(
        nodes=(Node(cpus=2),), start_seconds=100.0, cold_seconds=5.0, warm_seconds=0.5
    )
    assert wall(trainings(6), cluster) == 100 + (10 + 5) + 2 * (10 + 0.5)


def test_workers_are_reused_within_a_pool_and_items_without_resources_need_none():
    cluster = Cluster(nodes=(Node(cpus=1),), cold_seconds=5.0, warm_seconds=0.5)
    first = trainings(2, pool="a")
    work = [
        *first,
        Work(id="stage", kind="stage", seconds=(7.0,), cpus=0, after=("run-0", "run-1")),
        *(
            Work(id=f"b{number}", kind="train", seconds=(10.0,), after=("stage",), pool="b")
            for number in range(2)
        ),
    ]
    assert wall(work, cluster) == 2 * (10 + 5 + 10 + 0.5) + 7


def test_node_that_joins_late_takes_work_only_then():
    nodes = (Node(cpus=1), Node(cpus=1, joins_after=15.0))
    # 0-10, 10-20, 20-30 on the first; 15-25 on the second.
    assert wall(trainings(4), Cluster(nodes=nodes)) == 30.0
    assert wall(trainings(1), Cluster(nodes=nodes[1:])) == 25.0


def test_held_resources_and_utilisation_are_counted():
    simulation = Simulation(
        trainings(4, seconds=3600.0, cpus=2, gpus=0.5), Cluster(nodes=(Node(cpus=8, gpus=2),))
    )
    outcome = simulation.play([3600.0] * 4)
    assert (outcome.cpu_seconds, outcome.gpu_seconds) == (4 * 2 * 3600, 4 * 0.5 * 3600)
    forecast = simulation.forecast(draws=3)
    assert forecast.gpu_hours_p50 == forecast.gpu_hours_p90 == 2.0
    assert forecast.utilisation == pytest.approx(1.0)


def test_forecast_is_the_same_for_the_same_seed_and_moves_with_another():
    work = [Work(id=str(number), kind="train", seconds=(5.0, 20.0, 60.0)) for number in range(12)]
    simulation = Simulation(work, Cluster(nodes=(Node(cpus=3),)))
    assert simulation.forecast(seed=4) == simulation.forecast(seed=4)
    assert simulation.forecast(seed=4) != simulation.forecast(seed=5)
    forecast = simulation.forecast(seed=4)
    assert forecast.wall_p50_seconds < forecast.wall_p90_seconds
    assert forecast.draws == 200


def test_forecast_of_one_item_has_the_quantiles_of_its_durations():
    work = [Work(id="a", kind="train", seconds=tuple(float(each) for each in range(1, 101)))]
    forecast = Simulation(work, Cluster(nodes=(Node(cpus=1),))).forecast(draws=4000)
    assert forecast.wall_p50_seconds == pytest.approx(50, abs=4)
    assert forecast.wall_p90_seconds == pytest.approx(90, abs=4)


def test_ten_thousand_items_on_a_thousand_gpus_take_seconds():
    durations = tuple(float(each) for each in range(100, 2000, 37))
    work = [
        Work(id=f"run-{number}", kind="train", seconds=durations, cpus=4, gpus=0.5)
        for number in range(8000)
    ]
    work += [
        Work(
            id=f"evaluate-{cell}",
            kind="evaluate",
            seconds=(30.0,),
            gpus=0.25,
            after=tuple(f"run-{cell * 4 + number}" for number in range(4)),
        )
        for cell in range(2000)
    ]
    cluster = Cluster(nodes=(Node(cpus=64, gpus=8),) * 125)
    begun = time.process_time()
    forecast = Simulation(work, cluster).forecast(draws=3)
    assert time.process_time() - begun < 5
    expected = 8000 * 0.5 * sum(durations) / len(durations) / 3600 + 2000 * 0.25 * 30 / 3600
    assert forecast.gpu_hours_p50 == pytest.approx(expected, rel=0.02)
    assert forecast.wall_p50_seconds >= forecast.gpu_hours_p50 * 3600 / 1000


def test_item_that_fits_on_no_node_is_refused_with_both_sizes():
    with pytest.raises(UsageError, match=r"1 CPUs and 1 GPUs .* has 64 CPUs and 0 GPUs"):
        Simulation(trainings(1, gpus=1), Cluster(nodes=(Node(cpus=64),)))
    with pytest.raises(UsageError, match="no nodes"):
        Simulation(trainings(1), Cluster(nodes=()))
    with pytest.raises(UsageError, match=r"share of one GPU or whole GPUs, got 1\.5"):
        Simulation(trainings(1, gpus=1.5), Cluster(nodes=(Node(cpus=64, gpus=4),)))
    with pytest.raises(UsageError, match="slots must be at least 1, got 0"):
        Simulation(trainings(1), Cluster(nodes=(Node(cpus=1),), slots=0))


def test_circular_unknown_and_repeated_items_are_refused():
    cluster = Cluster(nodes=(Node(cpus=1),))
    one = Work(id="a", kind="train", seconds=(1.0,), after=("b",))
    two = Work(id="b", kind="train", seconds=(1.0,), after=("a",))
    with pytest.raises(ValueError, match="circular: a, b"):
        Simulation([one, two], cluster)
    with pytest.raises(ValueError, match="'b', which is no item"):
        Simulation([one], cluster)
    with pytest.raises(ValueError, match="'b' twice"):
        Simulation([two, two], cluster)


def test_nothing_to_do_takes_no_time():
    outcome = Simulation([], Cluster(nodes=(Node(cpus=1),), start_seconds=9.0)).play([])
    assert outcome.wall_seconds == 0.0


def test_quantile_is_a_value_that_occurs():
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.0
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.9) == 4.0
    assert quantile([7.0], 0.9) == 7.0
