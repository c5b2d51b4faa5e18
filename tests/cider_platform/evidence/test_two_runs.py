"""Two runs on the same utterances, from made-up stored predictions."""

import json

import numpy as np
import pytest
from stored_predictions import store

from cider.condition import Condition
from cider.errors import NothingMatchedError, UsageError
from cider.metrics import METRICS
from cider_platform.evidence.quantity import condition_of
from cider_platform.evidence.two_runs import compare_runs
from cider_platform.layout import RunFolder
from cider_platform.results import find_run

NUM = 150
PLACE = Condition("rmfm", 0.5)


def write_predictions(made_up, run, skill, *, names="u", seed=0):
    """Write predictions of a skill under ``PLACE``; return scores and labels."""
    folder = RunFolder.of(made_up.results, run)
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 3, NUM)
    scores_NC = rng.normal(size=(NUM, 3))
    scores_NC[np.arange(NUM), labels_N] += skill
    store(folder, PLACE, scores_NC, labels_N, names=names)
    return scores_NC, labels_N


@pytest.fixture
def pair(made_up):
    first, second = made_up.run(1), made_up.run(1, maci__mcm=False)
    return first, second


def test_better_run_is_found_better_by_both_tests(made_up, pair):
    first_NC, labels_N = write_predictions(made_up, pair[0], 3.0)
    write_predictions(made_up, pair[1], 0.5)
    first, second = (find_run(made_up.results, each) for each in pair)
    found = compare_runs(first, second, PLACE)
    assert (found.metric, found.accuracy, found.condition) == ("acc2", "acc2", "rmfm@0.5")
    assert found.first_value == METRICS["acc2"](first_NC, labels_N)
    assert found.bootstrap.difference == pytest.approx(found.first_value - found.second_value)
    assert found.utterances == int((labels_N != 1).sum())
    apart = (found.mcnemar.only_first - found.mcnemar.only_second) / found.utterances
    assert apart == pytest.approx(found.bootstrap.difference)
    assert max(found.mcnemar.p, found.bootstrap.p) < 0.01
    other = compare_runs(second, first, PLACE, "f1")
    assert other.bootstrap.difference < 0
    assert (other.metric, other.accuracy) == ("f1", "acc2")
    assert other.mcnemar.only_second == found.mcnemar.only_first


def test_runs_on_other_utterances_or_tasks_are_refused(made_up, pair):
    write_predictions(made_up, pair[0], 1.0)
    write_predictions(made_up, pair[1], 1.0, names="v")
    first, second = (find_run(made_up.results, each) for each in pair)
    with pytest.raises(UsageError, match="same test utterances"):
        compare_runs(first, second, PLACE)
    seven = find_run(made_up.results, made_up.run(data={"task": "seven_class"}))
    with pytest.raises(UsageError, match="one task"):
        compare_runs(first, seven, PLACE)
    with pytest.raises(UsageError, match="unknown metric 'acc7'"):
        compare_runs(first, second, PLACE, "acc7")


def test_run_without_the_evaluation_names_the_command(made_up, pair):
    write_predictions(made_up, pair[0], 1.0)
    first, second = (find_run(made_up.results, each) for each in pair)
    with pytest.raises(NothingMatchedError, match=f"evaluate {pair[1]} --missing rmfm --rates 0.5"):
        compare_runs(first, second, PLACE)
    with pytest.raises(NothingMatchedError, match="--missing smm --kept LA"):
        compare_runs(first, second, Condition("smm", 0.0, "LA"))
    with pytest.raises(NothingMatchedError, match=r"under none@0; .* --missing none$"):
        compare_runs(first, second, Condition("none", 0.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none", 0.5, ""), "protocol none has no rate"),
        (("smm", 0.5, "LA"), "protocol smm has no rate"),
        (("smm", None, ""), "one of L, A, V, LA, LV, AV"),
        (("rmm", 0.1, "LA"), "a kept set is only for the protocol smm"),
        (("rmm", None, ""), "needs a missing rate"),
        (("nothing", None, ""), "unknown missing protocol 'nothing'"),
    ],
)
def test_condition_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        condition_of(*arguments)


def test_condition_is_named_by_protocol_and_rate_or_kept_set():
    assert condition_of("none") == Condition("none", 0.0)
    assert condition_of("rmfm", 0.3) == Condition("rmfm", 0.3)
    assert condition_of("smm", None, "LA") == Condition("smm", 0.0, "LA")


def test_command_prints_a_table_and_json(made_up, pair, run_cli):
    for run, skill in zip(pair, (2.0, 0.5), strict=True):
        write_predictions(made_up, run, skill)
    command = ("runs", "significance", *pair, "--missing", "rmfm", "--rate", "0.5",
               "--results", made_up.results)  # fmt: skip
    code, out, err = run_cli(*command)
    assert code == 0
    assert "p, McNemar mid-p" in out
    assert "of other seeds this says nothing" in err
    document = json.loads(run_cli(*command, "--json")[1])
    assert document["schema"] == "cider.runs.significance/1"
    data = document["data"]
    assert (data["first"], data["second"]) == pair
    assert data["bootstrap"]["interval"]["low"] < data["bootstrap"]["difference"]
