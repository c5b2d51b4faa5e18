"""Conditions on runs as people type them, and what of them is refused."""

import pytest

from cider.errors import NothingMatchedError, UsageError
from cider_platform.runs.query import Where, needs_evaluations, parse_where, select

RUNS = [
    {"run": "a", "dataset": "mosi", "seed": 1, "marks": [], "test.acc2@0.5": 0.71, "on": True},
    {"run": "b", "dataset": "mosei", "seed": 10, "marks": ["synthetic", "published selection"]},
    {"run": "c", "dataset": "mosi", "seed": 2, "marks": [], "test.acc2@0.5": 0.69, "on": False},
]


def names(*where, sort=""):
    return [RUNS[number]["run"] for number in select(RUNS, parse_where(where), sort)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ([], "abc"),
        (["dataset=mosi"], "ac"),
        (["dataset==mosi", "seed=1"], "a"),
        (["dataset!=mosi"], "b"),
        (["dataset ~ MOS"], "abc"),
        (["test.acc2@0.5>0.7"], "a"),
        (["test.acc2@0.5 <= 0.71"], "ac"),  # b has none, so it never matches
        (["test.acc2@0.5!=0.71"], "c"),
        (["seed>=2"], "bc"),
        (["seed=2.0"], "c"),
        (["marks=synthetic"], "b"),
        (["marks!=synthetic"], "ac"),
        (["marks~published"], "b"),
        (["on=true"], "a"),
        (["run=z"], ""),
    ],
)
def test_runs_that_meet_every_condition_are_chosen(where, expected):
    assert "".join(names(*where)) == expected


def test_sorting_is_by_number_and_runs_without_the_field_come_last():
    assert names(sort="seed") == ["a", "c", "b"]
    assert names(sort="-seed") == ["b", "c", "a"]
    assert names(sort="-test.acc2@0.5") == ["a", "c", "b"]
    assert names(sort="test.acc2@0.5") == ["c", "a", "b"]
    assert names("dataset=mosi", sort="-run") == ["c", "a"]


@pytest.mark.parametrize("text", ["", "dataset", "=mosi", "dataset=", "a b=c", ">0.7"])
def test_text_that_is_no_condition_is_refused(text):
    with pytest.raises(UsageError, match="a condition is FIELD=VALUE"):
        parse_where([text])


def test_order_of_something_that_is_no_number_is_refused():
    with pytest.raises(UsageError, match="> compares numbers, got 'high'"):
        parse_where(["seed>high"])
    assert not Where("dataset", ">", "1").holds(RUNS[0])  # nor is the run's own value one


def test_field_that_no_run_has_is_refused_with_those_near_it():
    with pytest.raises(UsageError, match="no run has a field 'datset'; near it: dataset"):
        names("datset=mosi")
    with pytest.raises(UsageError, match="no run has a field 'sead'"):
        names(sort="-sead")
    with pytest.raises(NothingMatchedError, match=r"cider-platform evaluate makes such numbers"):
        names("test.rmm.acc2@0.5>0.1")
    assert select([], parse_where(["anything=1"])) == []


def test_fields_of_evaluations_are_told_from_others():
    assert needs_evaluations(["dataset", "tau.rmm@0.5"])
    assert not needs_evaluations(["dataset", "valid.acc2"])
