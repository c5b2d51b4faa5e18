"""Whether two sets of predictions of the same utterances differ: the paired bootstrap.

It speaks of other utterances, not of other seeds: two trainings of one model differ by it, too.
Source: Efron and Tibshirani (1993), chapter 16. Shapes: N utterances, R resamples, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cider.significance.seeds import LEVEL, Interval

if TYPE_CHECKING:
    from collections.abc import Callable

RESAMPLES = 1_999
_CHUNK_NUMBERS = 4_000_000
"""Drawn indices held at once: 32 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapDifference:
    """A metric of the first model minus that of the second, on one split."""

    difference: float
    interval: Interval
    """Percentile interval over resampled utterances."""
    p: float
    """Two-sided, by inverting the percentile interval; at least 2 / (resamples + 1)."""
    resamples: int
    """How many had a value: a metric is undefined if no utterance belongs to it."""


def bootstrap_difference(
    metric: Callable[[np.ndarray, np.ndarray], float],
    first_NC: np.ndarray,
    second_NC: np.ndarray,
    labels_N: np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> BootstrapDifference:
    """Draw utterances with replacement, the same for both models, and compare the metric.

    Args:
        metric: a function of scores and labels, e.g. of ``cider.metrics.METRICS``.
        first_NC: scores of the first model.
        second_NC: scores of the second model for the same utterances in the same order.
        labels_N: class labels.
        level: of the interval, between 0 and 1.
        resamples: how often utterances are drawn.
        seed: of the drawing.

    Raises:
        ValueError: if shapes do not fit, or the metric is undefined.
    """
    if not len(labels_N) or not len(first_NC) == len(second_NC) == len(labels_N):
        raise ValueError(
            "both models must have predicted the same utterances, at least one, got "
            f"{len(first_NC)}, {len(second_NC)} and {len(labels_N)} labels"
        )
    difference = metric(first_NC, labels_N) - metric(second_NC, labels_N)
    if math.isnan(difference):
        raise ValueError("the metric is undefined for these utterances")
    rng, found, left = np.random.default_rng(seed), [], resamples
    while left:
        rows = min(left, max(1, _CHUNK_NUMBERS // len(labels_N)))
        for index in rng.integers(0, len(labels_N), size=(rows, len(labels_N))):
            drawn_N = labels_N[index]
            found.append(metric(first_NC[index], drawn_N) - metric(second_NC[index], drawn_N))
        left -= rows
    values_R = np.array(found)
    values_R = values_R[~np.isnan(values_R)]
    low, high = np.quantile(values_R, [(1 - level) / 2, (1 + level) / 2])
    sides = (int((values_R <= 0).sum()), int((values_R >= 0).sum()))
    return BootstrapDifference(
        difference=difference,
        interval=Interval(float(low), float(high), level, "percentile"),
        p=min(1.0, 2 * (min(sides) + 1) / (len(values_R) + 1)),
        resamples=len(values_R),
    )
