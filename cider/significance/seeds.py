"""What several seeds say: mean, standard deviation, BCa interval, and differences between models.

Sources: Efron (1987), "Better bootstrap confidence intervals", for BCa; its acceleration by the
jackknife as in Efron and Tibshirani (1993), chapter 14. Shapes: S seeds, R resamples, U distinct
resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import fsum, sqrt
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Literal

import numpy as np

from cider.significance.paired import SignFlip, finite, sign_flip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RESAMPLES = 9_999
LEVEL = 0.95
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval; both ends belong to it."""

    low: float
    high: float
    level: float = LEVEL
    method: Literal["bca", "percentile", "all equal"] = "bca"
    """``all equal``: the values did not differ, so low and high are that value and the interval
    says nothing of what other seeds would give."""

    def contains(self, value: float, *, margin: float = 0.0) -> bool:
        """Return whether a value lies in the interval, widened by ``margin`` at both ends."""
        return self.low - margin <= value <= self.high + margin


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedSummary:
    """One number over several seeds."""

    num_seeds: int
    mean: float
    sd: float | None
    """Standard deviation with n - 1 below the line; None of one seed."""
    interval: Interval | None
    """Of the mean; None of one seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedSeeds:
    """A difference on the same seeds: what it is, and whether its sign could be chance."""

    seeds: tuple[int, ...]
    """Seeds that both have; empty where one side is a constant."""
    difference: SeedSummary
    test: SignFlip


def summarise(
    values_S: Sequence[float] | np.ndarray, *, level: float = LEVEL, seed: int = 0
) -> SeedSummary:
    """Return mean, standard deviation (n - 1) and BCa interval of the mean.

    Args:
        values_S: one value per seed; at least one, all finite.
        level: of the interval, between 0 and 1.
        seed: of the resamples.
    """
    found_S = finite(values_S, "a summary over seeds")
    return SeedSummary(
        num_seeds=len(found_S),
        mean=fmean(found_S.tolist()),
        sd=_deviation(found_S) if len(found_S) > 1 else None,
        interval=bca_interval(found_S, level=level, seed=seed),
    )


def _deviation(values_S: np.ndarray) -> float:
    """Return the standard deviation with n - 1 below the line; exactly 0 of equal values."""
    if np.ptp(values_S) == 0:
        return 0.0
    apart_S = values_S - fmean(values_S.tolist())
    return sqrt(fsum((apart_S * apart_S).tolist()) / (len(values_S) - 1))


def bca_interval(
    values_S: Sequence[float] | np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Return the bias-corrected and accelerated bootstrap interval of a mean.

    Degenerate cases: one value has no interval (None); values that are all equal have the interval
    from that value to itself, marked ``all equal``. With few values the interval is too narrow:
    figures are in ``docs/statistics.md``.

    Args:
        values_S: at least one value, all finite.
        level: confidence level, between 0 and 1.
        resamples: how many means are drawn.
        seed: of the drawing; the same seed gives the same interval.
    """
    found_S = finite(values_S, "an interval")
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies between 0 and 1, got {level}")
    if len(found_S) == 1:
        return None
    if np.ptp(found_S) == 0:
        return Interval(float(found_S[0]), float(found_S[0]), level, "all equal")
    mean = float(found_S.mean())
    held_US, times_U = _draws(len(found_S), resamples, seed)
    means_U = (held_US @ found_S) / len(found_S)
    normal = NormalDist()
    # Resamples that hold the same values in another order differ by rounding; they are ties.
    margin = _ROUNDING * float(np.abs(found_S).max())
    lower, upper = means_U < mean - margin, means_U <= mean + margin
    below = float(times_U[lower].sum() + times_U[upper].sum()) / (2 * resamples)
    bias = normal.inv_cdf(min(max(below, 0.5 / resamples), 1 - 0.5 / resamples))
    acceleration = _acceleration(found_S)
    shares = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + normal.inv_cdf(share)
        shares.append(normal.cdf(bias + shifted / (1 - acceleration * shifted)))
    low, high = _quantiles(means_U, times_U, shares)
    return Interval(low, high, level)


@lru_cache(maxsize=8)
def _draws(num_values: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each distinct resample holds each value (U, S), and how often it was drawn.

    The order within a resample changes no mean, so of 9,999 resamples of 8 values some 3,500 are
    distinct. A table asks for the same ones every time.
    """
    index_RS = np.random.default_rng(seed).integers(0, num_values, size=(resamples, num_values))
    held_RS = np.zeros((resamples, num_values))
    np.add.at(held_RS, (np.arange(resamples)[:, None], index_RS), 1.0)
    held_US, times_U = np.unique(held_RS, axis=0, return_counts=True)
    for each in (held_US, times_U):
        each.flags.writeable = False
    return held_US, times_U


def _quantiles(
    values_U: np.ndarray, times_U: np.ndarray, shares: Sequence[float]
) -> Iterator[float]:
    """Yield quantiles of repeated values, linear between neighbours."""
    order_U = np.argsort(values_U)
    sorted_U = values_U[order_U]
    upto_U = np.cumsum(times_U[order_U])
    last = int(upto_U[-1]) - 1
    for share in shares:
        place = share * last
        first = min(int(place), last)
        ranks = (first, min(first + 1, last))
        low, high = sorted_U[np.searchsorted(upto_U, ranks, side="right")]
        yield float(low + (high - low) * (place - first))


def _acceleration(values_S: np.ndarray) -> float:
    """Return the acceleration of a mean, from its jackknife values."""
    without_S = (values_S.sum() - values_S) / (len(values_S) - 1)
    apart_S = without_S.mean() - without_S
    return float((apart_S**3).sum() / (6 * (apart_S**2).sum() ** 1.5))


def compare_paired(
    first: Mapping[int, float], second: Mapping[int, float], *, seed: int = 0
) -> PairedSeeds:
    """Compare two models on the seeds that both have.

    Args:
        first: a value per seed.
        second: the other model's; its value is subtracted from the first's.
        seed: of resamples and drawn sign patterns.

    Raises:
        ValueError: if they share no seed.
    """
    common = tuple(sorted(first.keys() & second.keys()))
    if not common:
        raise ValueError(
            f"models are compared on common seeds, got {sorted(first)} and {sorted(second)}"
        )
    differences_S = np.array([first[each] - second[each] for each in common])
    return _compared(common, differences_S, seed)


def compare_with_constant(
    values_S: Sequence[float] | np.ndarray, constant: float, *, seed: int = 0
) -> PairedSeeds:
    """Compare values over seeds with a number that is taken as exact, e.g. a published one.

    The number has an error of its own, which nobody knows if it was published alone; the interval
    and the test see only that of the values.
    """
    return _compared((), finite(values_S, "a comparison") - constant, seed)


def _compared(seeds: tuple[int, ...], differences_S: np.ndarray, seed: int) -> PairedSeeds:
    return PairedSeeds(
        seeds=seeds,
        difference=summarise(differences_S, seed=seed),
        test=sign_flip(differences_S, seed=seed),
    )
