from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cider.counterfactual import TAUS, choose_tau, subtract
from cider.errors import UsageError
from cider.metrics import METRICS

SPACES = ("log_probability", "probability")


def some_log_probs(seed, num_rows=40, num_classes=3):
    rng = np.random.default_rng(seed)
    return np.log(rng.dirichlet(np.ones(num_classes), size=num_rows))


def test_taus_are_the_published_grid():
    assert len(TAUS) == 31
    assert TAUS[:3] == (0.0, 0.1, 0.2)
    assert TAUS[-1] == 3.0


@pytest.mark.parametrize("space", SPACES)
def test_tau_zero_leaves_the_predictions(space):
    log_probs, counterfactual = some_log_probs(0), some_log_probs(1)
    scores = subtract(log_probs, counterfactual, 0.0, space)
    np.testing.assert_array_equal(scores.argsort(axis=1), log_probs.argsort(axis=1))


def test_subtraction_is_of_log_probabilities_or_probabilities():
    factual, counterfactual = np.log([[0.5, 0.2, 0.3]]), np.log([[0.8, 0.1, 0.1]])
    log_scores = subtract(factual, counterfactual, 0.5, "log_probability")
    np.testing.assert_allclose(log_scores, factual - 0.5 * counterfactual)
    scores = subtract(factual, counterfactual, 0.5, "probability")
    np.testing.assert_allclose(scores, [[0.1, 0.15, 0.25]])


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("space", SPACES)
def test_underflowed_probabilities_give_finite_scores(space, tau):
    log_probs = np.array([[0.0, -np.inf, -np.inf]], dtype=np.float32)
    assert np.isfinite(subtract(log_probs, log_probs, tau, space)).all()


def test_unknown_space_and_metric_are_refused_with_the_known_ones():
    log_probs, labels = some_log_probs(0), np.zeros(40, dtype=int)
    with pytest.raises(UsageError, match="known: log_probability, probability"):
        subtract(log_probs, log_probs, 0.0, "logits")
    with pytest.raises(UsageError, match="unknown metric 'accuracy'; known: acc2, acc3, acc7"):
        choose_tau([log_probs], [log_probs], labels, "accuracy", "log_probability")


def test_subtract_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="same two-dimensional shape"):
        subtract(some_log_probs(0), some_log_probs(0, num_rows=39), 0.1, "probability")
    # One array where a list of conditions belongs.
    with pytest.raises(ValueError, match="same two-dimensional shape"):
        choose_tau(some_log_probs(0), some_log_probs(1), np.zeros(40), "acc3", "probability")


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("metric", ["acc2", "f1", "has0_acc2", "has0_f1", "acc3", "f1_3"])
@given(seed=st.integers(0, 10_000), num_conditions=st.integers(1, 3))
@settings(max_examples=5, deadline=None)
def test_chosen_tau_is_the_smallest_of_the_best_over_conditions(
    space, metric, seed, num_conditions
):
    factual = [some_log_probs(seed + row) for row in range(num_conditions)]
    counterfactual = [some_log_probs(seed + 100 + row) for row in range(num_conditions)]
    labels = np.random.default_rng(seed).integers(0, 3, 40)

    tau, value = choose_tau(factual, counterfactual, labels, metric, space)

    means = {
        each: np.mean(
            [
                METRICS[metric](subtract(left, right, each, space), labels)
                for left, right in zip(factual, counterfactual, strict=True)
            ]
        )
        for each in TAUS
    }
    assert value == pytest.approx(max(means.values()))
    assert means[tau] == pytest.approx(value)
    assert all(means[each] < value - 1e-9 for each in TAUS if each < tau)


def test_tau_that_changes_nothing_is_zero():
    log_probs = some_log_probs(3)
    uniform = np.full_like(log_probs, np.log(1 / 3))
    labels = log_probs.argmax(axis=1)
    assert choose_tau([log_probs], [uniform], labels, "acc3", "log_probability") == (0.0, 1.0)


def test_tau_removes_a_bias_towards_one_class():
    # The bias words answer "positive" for everyone; the true class is the second choice.
    labels = np.array([0, 0, 2, 2])
    factual = np.log([[0.4, 0.1, 0.5], [0.45, 0.05, 0.5], [0.1, 0.1, 0.8], [0.05, 0.05, 0.9]])
    counterfactual = np.log(np.tile([0.2, 0.3, 0.5], (4, 1)))
    tau, value = choose_tau([factual], [counterfactual], labels, "acc2", "log_probability")
    assert value == 1.0
    assert tau == 0.3


def test_undefined_metric_gives_tau_zero_and_nan():
    log_probs, labels = some_log_probs(0), np.ones(40, dtype=int)
    tau, value = choose_tau([log_probs], [log_probs], labels, "acc2", "log_probability")
    assert tau == 0.0
    assert math.isnan(value)
