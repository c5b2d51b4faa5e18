"""The tables of ``docs/statistics.md`` are what the code computes."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from cider.significance import (
    ALPHA,
    expected_maximum,
    is_reachable,
    seeds_needed,
    smallest_p,
)
from cider.significance.chance import SIMULATIONS
from cider.significance.paired import DRAWS, MOST_EXACT_PAIRS
from cider.significance.sample_bootstrap import RESAMPLES as UTTERANCE_RESAMPLES
from cider.significance.seeds import RESAMPLES
from cider_platform.evidence import comparison
from cider_platform.evidence.ours import State
from cider_platform.evidence.render import Format


@pytest.fixture(scope="module")
def text(root):
    return (root / "docs" / "statistics.md").read_text(encoding="utf-8")


def rows_of(text, heading):
    """Return the cells of the table whose first heading is this."""
    found = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.M)
    assert found, heading
    return [row.strip("| ").split(" | ") for row in found[1].splitlines()]


def test_smallest_p_of_every_number_of_pairs(text):
    for pairs, smallest, enough in rows_of(text, "Pairs"):
        assert smallest == f"{smallest_p(int(pairs)):.6g}"
        assert (enough == "yes") == is_reachable(smallest_p(int(pairs)), 1)


def test_seeds_for_a_star(text):
    for tests, seeds in rows_of(text, "Tests in the table"):
        assert seeds_needed(int(tests)) == int(seeds)


def test_verdicts_are_those_of_the_code(text):
    named = {name for row in rows_of(text, "Verdict") for name in re.findall(r"`([^`]+)`", row[0])}
    assert named == set(re.findall(r"``([^`]+)``", comparison.__doc__))
    assert set(get_args(State)) - {"measured"} <= named


def test_formats_and_numbers_of_the_prose(text):
    line = re.search(r"^Formats: (.*)\. Numbers", text, re.M)[1]
    assert tuple(re.findall(r"`(\w+)`", line)) == get_args(Format)
    plain = " ".join(text.split())
    assert f"{RESAMPLES:,} resamples" in plain
    assert f"{UTTERANCE_RESAMPLES:,} resamples" in plain
    assert f"Up to {MOST_EXACT_PAIRS} pairs" in plain
    assert f"{DRAWS:,} are drawn" in plain
    assert f"{SIMULATIONS:,} simulated studies" in plain
    assert f"by {ALPHA:g}, whatever" in plain
    assert (
        f"{expected_maximum(5):.2f} for 5, {expected_maximum(100):.2f} for 100, "
        f"{expected_maximum(300):.2f} for 300"
    ) in plain


def test_page_is_ascii(text):
    assert text.isascii()
