"""Sign flips and McNemar against scipy and statsmodels, and where they have nothing to say."""

import itertools
import math
import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cider.significance import mcnemar, sign_flip, smallest_p
from cider.significance.paired import DRAWS, MOST_EXACT_PAIRS

DIFFERENCES = st.lists(st.integers(-40, 40).map(lambda value: value / 64), min_size=1, max_size=9)


def by_hand(differences):
    """Share of all sign patterns whose sum is at least as far from 0; dyadic sums are exact."""
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [abs(sum(s * d for s, d in zip(each, differences, strict=True))) for each in patterns]
    return sum(each >= abs(sum(differences)) for each in sums) / len(patterns)


@given(DIFFERENCES)
@settings(max_examples=60, deadline=None)
def test_sign_flip_equals_the_share_of_all_patterns(differences):
    found = sign_flip(differences)
    assert found.is_exact
    assert found.p == pytest.approx(by_hand(differences), abs=1e-12)
    assert found.smallest_p <= found.p <= 1
    assert found.mean_difference == pytest.approx(np.mean(differences))
    mirrored = sign_flip([-each for each in differences])
    assert mirrored.p == found.p


@pytest.mark.parametrize("num_pairs", [2, 5, 8, 11])
def test_sign_flip_equals_scipy_to_1e9(num_pairs):
    differences = np.random.default_rng(num_pairs).normal(0.3, 1, num_pairs)
    reference = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert abs(sign_flip(differences).p - reference.pvalue) < 1e-9


@pytest.mark.parametrize(("num_pairs", "expected"), [(1, 1.0), (5, 0.0625), (8, 0.0078125)])
def test_smallest_p_is_reached_when_all_differences_have_one_sign(num_pairs, expected):
    found = sign_flip(np.full(num_pairs, 0.013) + np.arange(num_pairs) * 1e-3)
    assert found.p == found.smallest_p == smallest_p(num_pairs) == expected


def test_equal_pairs_do_not_count_for_the_smallest_p():
    found = sign_flip([0.1, 0.2, 0.0, 0.0, 0.0])
    assert (found.num_pairs, found.p, found.smallest_p) == (5, 0.5, 0.5)
    assert sign_flip([0.0, 0.0]).p == sign_flip([0.0, 0.0]).smallest_p == 1.0
    assert smallest_p(0) == 1.0


def test_sign_flip_of_many_pairs_is_drawn_repeatable_and_never_zero():
    differences = np.random.default_rng(1).normal(0.35, 1, 30)
    found = sign_flip(differences, seed=3)
    assert not found.is_exact
    assert found == sign_flip(differences, seed=3)
    assert found != sign_flip(differences, seed=4)
    # Of normal differences the permutation test comes near the t test.
    assert found.p == pytest.approx(scipy.stats.ttest_1samp(differences, 0).pvalue, abs=0.02)
    extreme = sign_flip(np.ones(MOST_EXACT_PAIRS + 6))
    assert extreme.p == extreme.smallest_p == 1 / (DRAWS + 1)


def test_differences_that_rounding_splits_are_still_ties():
    # 0.1 + 0.2 - 0.3 is not 0 in binary, and 0.3 - 0.1 is not 0.2.
    assert sign_flip([0.1, 0.2, -0.3]).p == 1.0
    assert sign_flip([0.3 - 0.1, 0.2, 0.1]).p == sign_flip([0.2, 0.2, 0.1]).p == 0.25


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf]])
def test_differences_that_are_no_numbers_are_refused(values):
    with pytest.raises(ValueError, match="at least one value, all finite"):
        sign_flip(values)


def answers(only_first, only_second, both=7):
    first = [True] * only_first + [False] * only_second + [True] * both
    second = [False] * only_first + [True] * only_second + [True] * both
    return np.array(first, bool), np.array(second, bool)


@given(st.integers(0, 80), st.integers(0, 80))
@settings(max_examples=60, deadline=None)
def test_mcnemar_equals_the_binomial_test_of_scipy(only_first, only_second):
    found = mcnemar(*answers(only_first, only_second))
    assert (found.only_first, found.only_second) == (only_first, only_second)
    count = only_first + only_second
    if not count:
        assert (found.p, found.mid_p, found.smallest_p) == (1.0, 1.0, 1.0)
        return
    reference = scipy.stats.binomtest(only_first, count).pvalue
    assert found.p == pytest.approx(reference, abs=1e-9)
    chances = scipy.stats.binom(count, 0.5).pmf(np.arange(count + 1))
    apart = np.abs(np.arange(count + 1) - count / 2)
    here = abs(only_first - count / 2)
    mid_p = chances[apart > here].sum() + chances[apart == here].sum() / 2
    assert found.mid_p == pytest.approx(mid_p, abs=1e-9)
    assert found.smallest_p <= found.p <= 1


def test_mcnemar_equals_statsmodels_to_1e9():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other libraries warn of while they are imported
        from statsmodels.stats.contingency_tables import mcnemar as reference
    for only_first, only_second in ((3, 9), (10, 10), (0, 6), (210, 262)):
        expected = reference([[5, only_first], [only_second, 5]], exact=True).pvalue
        assert abs(mcnemar(*answers(only_first, only_second)).p - expected) < 1e-9


def test_mcnemar_of_thousands_of_utterances_is_exact():
    found = mcnemar(*answers(1_700, 1_500))
    assert found.p == pytest.approx(scipy.stats.binomtest(1_700, 3_200).pvalue, rel=1e-9)
    assert found.smallest_p == 0.0 or found.smallest_p < 1e-300


def test_mcnemar_of_different_utterances_is_refused():
    with pytest.raises(ValueError, match="per utterance"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))
