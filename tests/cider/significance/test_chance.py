"""What luck alone gives to the best of many: closed forms, simulation, degenerate cases."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cider.significance import chance_optimism, expected_maximum, observed_correlation, own_luck


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, 0.0),
        (2, 1 / math.sqrt(math.pi)),
        (3, 3 / (2 * math.sqrt(math.pi))),
        (100, 2.5075936),
        (1000, 3.2414358),
    ],
)
def test_expected_maximum_has_its_known_values(count, expected):
    assert expected_maximum(count) == pytest.approx(expected, abs=1e-7)


def test_maximum_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        expected_maximum(0)


def test_one_trial_has_no_optimism():
    found = chance_optimism(1, 0.02, 0.3, 0.0)
    assert (found.mean, found.upper, found.p) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(("trials", "rho"), [(2, 0.0), (10, 0.5), (300, 0.2)])
def test_simulation_agrees_with_the_closed_form(trials, rho):
    from cider.significance.chance import _simulated

    drawn = _simulated(trials, 0.02, rho, 4_000, 1)
    expected = 0.02 * (1 - rho) * expected_maximum(trials)
    error = 4 * drawn.std() / math.sqrt(len(drawn))
    assert drawn.mean() == pytest.approx(expected, abs=error)
    assert drawn.min() >= 0
    found = chance_optimism(trials, 0.02, rho, expected, seed=1)
    assert found.mean == pytest.approx(expected)
    assert found.upper > found.mean
    assert 0.2 < found.p < 0.8


def test_validation_that_says_all_of_the_test_leaves_no_optimism():
    assert chance_optimism(50, 0.02, 1.0, 0.01).mean == 0.0
    assert chance_optimism(50, 0.02, 1.0, 0.01).upper == 0.0


def test_chance_is_repeatable_and_grows_with_trials():
    few, many = chance_optimism(5, 0.02, 0.0, 0.03), chance_optimism(300, 0.02, 0.0, 0.03)
    assert few == chance_optimism(5, 0.02, 0.0, 0.03)
    assert few.mean < many.mean
    assert few.p < many.p


@pytest.mark.parametrize("arguments", [(0, 0.1, 0.0), (2, -0.1, 0.0), (2, 0.1, 1.1)])
def test_chance_of_impossible_numbers_is_refused(arguments):
    with pytest.raises(ValueError, match="chance needs"):
        chance_optimism(*arguments, 0.0)


def test_luck_of_independent_trials_is_binomial():
    right = np.random.default_rng(0).random((40, 4_000)) < 0.7
    assert own_luck(right.astype(float)) == pytest.approx(math.sqrt(0.21 / 4_000), rel=0.05)


@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_luck_is_half_the_variance_of_differences(trials, utterances, seed):
    right = np.random.default_rng(seed).integers(0, 2, (trials, utterances)).astype(float)
    differences = [
        np.var(right[one] - right[other]) for one in range(trials) for other in range(one)
    ]
    expected = math.sqrt(np.mean(differences) / (2 * utterances))
    assert own_luck(right) == pytest.approx(expected, abs=1e-9)


def test_trials_with_the_same_answers_have_no_luck_of_their_own():
    right = np.tile([1.0, 0.0, 1.0], (5, 1))
    assert own_luck(right) == 0.0
    with pytest.raises(ValueError, match="at least two trials"):
        own_luck(right[:1])


def test_luck_predicts_how_much_scores_of_equal_models_vary():
    rng = np.random.default_rng(3)
    spread, luck = [], []
    for _ in range(200):
        shared = rng.random(500)
        own = rng.random((20, 500))
        right = np.where(rng.random((20, 500)) < 0.6, shared, own) < 0.75
        spread.append(right.mean(axis=1).var(ddof=1))
        luck.append(own_luck(right.astype(float)) ** 2)
    assert np.mean(luck) == pytest.approx(np.mean(spread), rel=0.05)


def test_correlation_counts_only_where_it_can_be_seen():
    rising = np.arange(5.0)
    assert observed_correlation(rising, rising * 2) == pytest.approx(1.0)
    assert observed_correlation(rising, -rising) == 0.0
    assert observed_correlation(rising, np.ones(5)) == 0.0
    assert observed_correlation(rising[:2], rising[:2]) == 0.0
