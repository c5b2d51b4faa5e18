"""Summaries over seeds against scipy, and their degenerate cases."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cider.significance import (
    Interval,
    bca_interval,
    compare_paired,
    compare_with_constant,
    sign_flip,
    summarise,
)
from cider.significance.seeds import RESAMPLES

# Sums of multiples of 1/1024 are exact, so no tie depends on the order of a sum.
DYADIC = st.lists(
    st.integers(0, 1024).map(lambda value: value / 1024), min_size=2, max_size=12
).filter(lambda values: len(set(values)) > 1)


@given(DYADIC, st.sampled_from([0.8, 0.9, 0.95]), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_bca_interval_equals_scipy_to_1e9(values, level, seed):
    found = bca_interval(values, level=level, seed=seed)
    reference = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=RESAMPLES, method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    assert found.low == pytest.approx(reference.low, abs=1e-9)
    assert found.high == pytest.approx(reference.high, abs=1e-9)
    assert min(values) <= found.low <= found.high <= max(values)
    assert (found.level, found.method) == (level, "bca")


def test_interval_does_not_depend_on_the_order_of_resampled_values():
    # Of three values, many resamples have the mean itself, up to rounding: they are ties.
    values = [0.1, 0.2, 0.3]
    shares = [np.mean(list(each)) for each in itertools.permutations(values)]
    assert len(set(shares)) > 1
    low, high = bca_interval(values).low, bca_interval(values).high
    assert low + high == pytest.approx(0.4, abs=0.02)


def test_interval_moves_and_grows_with_its_values():
    values = np.array([0.61, 0.64, 0.7, 0.72, 0.55])
    first = bca_interval(values)
    moved, scaled = bca_interval(values + 1), bca_interval(values * 3)
    assert (moved.low, moved.high) == pytest.approx((first.low + 1, first.high + 1))
    assert (scaled.low, scaled.high) == pytest.approx((first.low * 3, first.high * 3))


def test_skewed_values_have_an_interval_that_reaches_further_to_their_long_side():
    values = [0.0, 0.01, 0.02, 0.0, 0.01, 0.03, 0.02, 0.4]
    found = bca_interval(values)
    assert found.high - np.mean(values) > 2 * (np.mean(values) - found.low)


def test_one_value_has_neither_deviation_nor_interval():
    found = summarise([0.7])
    assert (found.num_seeds, found.mean, found.sd, found.interval) == (1, 0.7, None, None)


def test_equal_values_have_an_interval_that_says_so():
    found = summarise([0.7, 0.7, 0.7])
    assert found.sd == 0.0
    assert found.interval == Interval(0.7, 0.7, 0.95, "all equal")


def test_summary_has_n_minus_one_below_the_line():
    values = [0.6, 0.65, 0.8]
    found = summarise(values)
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    assert found.mean == pytest.approx(np.mean(values))


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_level_that_is_no_share_is_refused(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        bca_interval([0.1, 0.2], level=level)


def test_interval_contains_with_a_margin_for_rounding():
    interval = Interval(0.70, 0.72)
    assert interval.contains(0.72)
    assert not interval.contains(0.7204)
    assert interval.contains(0.7204, margin=0.0005)


def test_models_are_compared_on_common_seeds_alone():
    first = {1: 0.7, 2: 0.72, 3: 0.69, 9: 0.1}
    second = {1: 0.68, 2: 0.69, 3: 0.68, 8: 0.9}
    found = compare_paired(first, second)
    assert found.seeds == (1, 2, 3)
    assert found.difference.mean == pytest.approx(0.02)
    assert found.test == sign_flip([first[each] - second[each] for each in (1, 2, 3)])
    assert compare_paired(second, first).difference.mean == pytest.approx(-0.02)
    with pytest.raises(ValueError, match="common seeds"):
        compare_paired({1: 0.5}, {2: 0.5})


def test_comparison_with_a_published_number_is_of_the_differences():
    found = compare_with_constant([0.70, 0.74, 0.72], 0.721)
    assert found.seeds == ()
    assert found.difference.mean == pytest.approx(-0.001)
    assert found.test.smallest_p == 0.25
