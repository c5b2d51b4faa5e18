"""Tests of paired measurements: sign flips over seeds, McNemar on the utterances of one seed.

Sources: Fisher (1935) for permutations of signs; Phipson and Smyth (2010) for the p of drawn
permutations, which is never 0; McNemar (1947); Fagerland, Lydersen and Laake (2013) for the mid-p.
All tests are two-sided. Shapes: P pairs, N utterances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_EXACT_PAIRS = 14
"""With more pairs, sign patterns are drawn: 2 ** 14 are 16,384."""
DRAWS = 9_999
"""Drawn sign patterns; the smallest p is then 1 / 10,000."""
_ROUNDING = 1e-12
"""Sums closer than this share of the largest possible one are equal: they differ by rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignFlip:
    """What the paired permutation test of signs found."""

    num_pairs: int
    mean_difference: float
    p: float
    """Two-sided: share of the sign patterns whose mean is at least as far from 0."""
    smallest_p: float
    """What p could have been at least with these pairs; equal pairs (difference 0) do not count."""
    is_exact: bool
    """True if every sign pattern was looked at, False if they were drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """What McNemar's test found; it looks only at utterances that one of the two has right."""

    only_first: int
    """Utterances that the first has right and the second wrong."""
    only_second: int
    p: float
    """Exact two-sided binomial p: never above its level, and conservative."""
    mid_p: float
    """With half the weight of what was observed: close to its level, can be a little above it."""
    smallest_p: float
    """Exact p if all these utterances were the first's, or all the second's."""


def smallest_p(num_pairs: int) -> float:
    """Return the smallest two-sided p that a sign-flip test of this many pairs can have.

    2 / 2 ** n: all differences on one side, or all on the other. With 5 pairs it is 0.0625, with 8
    0.0078. With more than ``MOST_EXACT_PAIRS`` it is 1 / (draws + 1). Without a pair it is 1.
    """
    if num_pairs > MOST_EXACT_PAIRS:
        return 1 / (DRAWS + 1)
    return min(1.0, 2.0 ** (1 - num_pairs))


def sign_flip(differences_P: Sequence[float] | np.ndarray, *, seed: int = 0) -> SignFlip:
    """Test that paired differences are symmetric about 0, by flipping their signs.

    Args:
        differences_P: one difference per pair, e.g. per seed; at least one, all finite.
        seed: of the drawn patterns, where there are more than ``MOST_EXACT_PAIRS`` pairs.

    Raises:
        ValueError: for no difference, or one that is no number.
    """
    values_P = finite(differences_P, "a sign-flip test")
    # A pair that is equal has no sign to flip: it changes neither sums nor their shares.
    nonzero_P = values_P[values_P != 0]
    is_exact = len(nonzero_P) <= MOST_EXACT_PAIRS
    observed = abs(float(nonzero_P.sum())) - _ROUNDING * float(np.abs(nonzero_P).sum())
    if is_exact:
        p = float((_all_sums(nonzero_P) >= observed).mean())
    else:
        rng = np.random.default_rng(seed)
        signs = rng.integers(0, 2, size=(DRAWS, len(nonzero_P)), dtype=np.int8) * 2 - 1
        p = (1 + int((np.abs(signs @ nonzero_P) >= observed).sum())) / (DRAWS + 1)
    return SignFlip(
        num_pairs=len(values_P),
        mean_difference=float(values_P.mean()),
        p=p,
        smallest_p=smallest_p(len(nonzero_P)),
        is_exact=is_exact,
    )


def _all_sums(values_P: np.ndarray) -> np.ndarray:
    """Return absolute sums under every sign pattern; the last sign stays, by symmetry."""
    if not len(values_P):
        return np.zeros(1)
    sums = values_P[-1:]
    for value in values_P[:-1]:
        sums = np.concatenate([sums + value, sums - value])
    absolute: np.ndarray = np.abs(sums)
    return absolute


def mcnemar(first_right_N: np.ndarray, second_right_N: np.ndarray) -> McNemar:
    """Test that two models have the same accuracy, on the same utterances.

    Args:
        first_right_N: True where the first model's prediction is right.
        second_right_N: the same of the second model, in the same order.

    Raises:
        ValueError: if the two have different lengths.
    """
    first_N, second_N = np.asarray(first_right_N, bool), np.asarray(second_right_N, bool)
    if first_N.shape != second_N.shape or first_N.ndim != 1:
        raise ValueError(
            "McNemar's test needs one answer of each model per utterance, got shapes "
            f"{first_N.shape} and {second_N.shape}"
        )
    only_first, only_second = int((first_N & ~second_N).sum()), int((second_N & ~first_N).sum())
    count, fewer = only_first + only_second, min(only_first, only_second)
    if not count:  # nothing was observed that could speak against equality
        return McNemar(only_first=0, only_second=0, p=1.0, mid_p=1.0, smallest_p=1.0)
    # Whole numbers until the last division: exact for any number of utterances.
    ways = [1]
    for index in range(fewer):
        ways.append(ways[-1] * (count - index) // (index + 1))
    total = 1 << count
    if only_first == only_second:
        p, mid_p = 1.0, 1 - ways[-1] / total / 2
    else:
        tail = 2 * sum(ways)
        p, mid_p = tail / total, (tail - ways[-1]) / total
    return McNemar(
        only_first=only_first,
        only_second=only_second,
        p=p,
        mid_p=mid_p,
        smallest_p=min(1.0, math.ldexp(2.0, -count)),
    )


def finite(values: Sequence[float] | np.ndarray, what: str) -> np.ndarray:
    """Return values as float64 if there is at least one and all are finite."""
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise ValueError(f"{what} needs at least one value, all finite, got {found.tolist()}")
    return found
