"""Counterfactual debiasing of predictions (Eq. 25): subtract what the bias words alone predict.

Shapes: N utterances, C classes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from cider.metrics import METRICS
from cider.registry import lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Space = Literal["log_probability", "probability"]

TAUS: tuple[float, ...] = tuple(step / 10 for step in range(31))
"""Debiasing strengths among which tau is chosen: 0, 0.1, ..., 3. Published."""

_ROUNDING = 1e-12
"""Means of a metric closer than this are equal: different ones are at least 1e-6 apart."""

_SMALLEST_LOG_PROBABILITY = math.log(float(np.finfo(np.float32).smallest_subnormal))
"""A float32 probability that underflowed to 0 is read as the smallest there is."""

_SPACES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    # Released: log-probabilities; Eq. 25 writes probabilities.
    "log_probability": lambda log_probs: np.where(
        np.isneginf(log_probs), _SMALLEST_LOG_PROBABILITY, log_probs
    ),
    "probability": np.exp,
}


def subtract(
    log_probs_NC: np.ndarray, counterfactual_NC: np.ndarray, tau: float, space: Space | str
) -> np.ndarray:
    """Return debiased scores, float64 (N, C); the largest of a row is the prediction.

    Args:
        log_probs_NC: log-probabilities of the factual text.
        counterfactual_NC: log-probabilities of the counterfactual text.
        tau: debiasing strength, at least 0; at 0 the predictions are the factual ones.
        space: what is subtracted, ``log_probability`` or ``probability``.

    Raises:
        UsageError: if there is no such space.
    """
    factual_NC, counterfactual_NC = map(np.asarray, (log_probs_NC, counterfactual_NC))
    if factual_NC.shape != counterfactual_NC.shape or factual_NC.ndim != 2:
        raise ValueError(
            "factual and counterfactual log-probabilities must have the same two-dimensional "
            f"shape, got {factual_NC.shape} and {counterfactual_NC.shape}"
        )
    values = lookup("counterfactual space", space, _SPACES)
    scores_NC: np.ndarray = values(factual_NC.astype(np.float64))
    return scores_NC - tau * values(counterfactual_NC.astype(np.float64))


def choose_tau(
    log_probs: Sequence[np.ndarray],
    counterfactual: Sequence[np.ndarray],
    labels_N: np.ndarray,
    metric: str,
    space: Space | str,
) -> tuple[float, float]:
    """Return the tau of ``TAUS`` with the best mean metric, and that mean.

    Args:
        log_probs: factual log-probabilities (N, C), one array per condition (missing rate).
        counterfactual: counterfactual log-probabilities, one array per condition.
        labels_N: class labels of the utterances, the same in every condition.
        metric: a name in ``cider.metrics.METRICS``.
        space: what is subtracted, ``log_probability`` or ``probability``.

    Returns:
        The smallest of the best taus, and the mean of the metric over conditions. Where the metric
        is undefined (NaN), that is tau 0 and NaN.

    Raises:
        UsageError: if there is no such metric or space.
    """
    function = lookup("metric", metric, METRICS)
    if not len(log_probs):
        raise ValueError("tau is chosen over at least one condition, got none")
    means = []
    for tau in TAUS:
        values = [
            function(subtract(factual_NC, counterfactual_NC, tau, space), labels_N)
            for factual_NC, counterfactual_NC in zip(log_probs, counterfactual, strict=True)
        ]
        means.append(math.fsum(values) / len(values))
    best = max(means)
    if math.isnan(best):
        return TAUS[0], math.nan
    return next(
        (tau, mean) for tau, mean in zip(TAUS, means, strict=True) if mean >= best - _ROUNDING
    )
