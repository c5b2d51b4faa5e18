"""Holm's correction against statsmodels, and stars only where they can be reached."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cider.significance import holm, is_reachable, seeds_needed, sign_flip, smallest_p, star

PS = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def reference():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other libraries warn of while they are imported
        from statsmodels.stats.multitest import multipletests
    return lambda ps: multipletests(ps, method="holm")[1]


def test_holm_equals_statsmodels_to_1e9(reference):
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 216):
        ps = rng.beta(0.5, 3, count)
        assert np.abs(np.array(holm(ps)) - reference(ps)).max() < 1e-9


@given(PS)
@settings(max_examples=60, deadline=None)
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(ps):
    adjusted = holm(ps)
    for p, each in zip(ps, adjusted, strict=True):
        assert p <= each <= min(1.0, p * len(ps))
    ordered = [each for _, each in sorted(zip(ps, adjusted, strict=True))]
    assert ordered == sorted(ordered)


def test_holm_by_hand_and_of_nothing():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


@pytest.mark.parametrize("ps", [[1.2], [-0.1], [float("nan")]])
def test_p_outside_its_range_is_refused(ps):
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        holm(ps)


def test_star_is_not_given_where_no_number_of_seeds_at_hand_reaches_it():
    five, eight = sign_flip([1.0, 1.1, 1.2, 1.3, 1.4]), sign_flip(np.arange(1.0, 9.0))
    assert star(five.p, five.smallest_p, 1) == ""
    assert star(eight.p, eight.smallest_p, 1) == "*"
    assert star(holm([eight.p] * 6)[0], eight.smallest_p, 6) == "*"
    assert star(holm([eight.p] * 7)[0], eight.smallest_p, 7) == ""
    # Not even where another test of the table would lend it a small adjusted p.
    assert star(0.01, smallest_p(5), 1) == ""
    assert star(0.2, smallest_p(8), 1) == ""


@pytest.mark.parametrize(("tests", "seeds"), [(1, 6), (2, 7), (6, 8), (7, 9), (216, 14)])
def test_seeds_needed_is_the_first_number_that_reaches_a_star(tests, seeds):
    assert seeds_needed(tests) == seeds
    assert is_reachable(smallest_p(seeds), tests)
    assert not is_reachable(smallest_p(seeds - 1), tests)


def test_table_with_more_tests_than_any_number_of_seeds_serves_is_refused():
    with pytest.raises(ValueError, match="no number of seeds"):
        seeds_needed(1_000)
