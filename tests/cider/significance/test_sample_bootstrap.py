"""The paired bootstrap over utterances against scipy, and its refusals."""

import math

import numpy as np
import pytest
import scipy.stats

from cider.metrics import METRICS
from cider.significance import bootstrap_difference


def predictions(num, skill, seed):
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 3, num)
    scores_NC = rng.normal(size=(num, 3))
    scores_NC[np.arange(num), labels_N] += skill
    return scores_NC, labels_N


def test_interval_equals_the_percentile_bootstrap_of_scipy_to_1e9():
    first_NC, labels_N = predictions(120, 1.5, 0)
    second_NC, _ = predictions(120, 1.0, 0)
    found = bootstrap_difference(METRICS["acc3"], first_NC, second_NC, labels_N, resamples=499)
    right = [(each.argmax(axis=1) == labels_N).astype(float) for each in (first_NC, second_NC)]
    reference = scipy.stats.bootstrap(
        (right[0] - right[1],), np.mean, n_resamples=499, method="percentile", batch=499,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert found.difference == pytest.approx(np.mean(right[0] - right[1]))
    assert found.interval.low == pytest.approx(reference.low, abs=1e-9)
    assert found.interval.high == pytest.approx(reference.high, abs=1e-9)
    assert found.interval.method == "percentile"


@pytest.mark.parametrize("name", ["acc2", "f1", "has0_f1"])
def test_better_model_has_a_small_p_and_the_same_model_has_one(name):
    first_NC, labels_N = predictions(300, 3.0, 1)
    second_NC, _ = predictions(300, 0.0, 1)
    better = bootstrap_difference(METRICS[name], first_NC, second_NC, labels_N, resamples=199)
    assert better.p == pytest.approx(2 / 200)
    assert better.interval.low > 0
    same = bootstrap_difference(METRICS[name], first_NC, first_NC, labels_N, resamples=199)
    assert (same.difference, same.p, same.interval.low, same.interval.high) == (0, 1, 0, 0)


def test_same_seed_gives_the_same_numbers_whatever_fits_into_memory(monkeypatch):
    first_NC, labels_N = predictions(50, 1.0, 2)
    second_NC, _ = predictions(50, 0.5, 2)
    arguments = METRICS["f1_3"], first_NC, second_NC, labels_N
    whole = bootstrap_difference(*arguments, resamples=60)
    monkeypatch.setattr("cider.significance.sample_bootstrap._CHUNK_NUMBERS", 350)
    assert bootstrap_difference(*arguments, resamples=60) == whole
    assert bootstrap_difference(*arguments, resamples=60, seed=1) != whole


def test_resample_without_a_value_is_left_out_and_counted():
    labels_N = np.array([1, 1, 1, 2])  # acc2 looks at labels that are not neutral
    scores_NC = np.eye(3)[[1, 1, 1, 2]]
    found = bootstrap_difference(
        METRICS["acc2"], scores_NC, np.eye(3)[[1, 1, 1, 0]], labels_N, resamples=200
    )
    assert found.difference == 1.0
    assert 100 < found.resamples < 180  # (3/4) ** 4 of them hold neutral labels alone
    assert not math.isnan(found.interval.low)


def test_predictions_that_cannot_be_compared_are_refused():
    scores_NC, labels_N = predictions(6, 1.0, 3)
    with pytest.raises(ValueError, match="the same utterances"):
        bootstrap_difference(METRICS["acc3"], scores_NC, scores_NC[:5], labels_N)
    with pytest.raises(ValueError, match="undefined"):
        bootstrap_difference(METRICS["acc2"], scores_NC, scores_NC, np.ones(6, dtype=int))
