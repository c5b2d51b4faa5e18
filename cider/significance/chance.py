"""What luck alone gives to whoever takes the best of many on the test split.

The model. T trials have the same true accuracy; what differs on the test split is which of its
utterances each happens to have right. A trial's luck there is normal with mean 0 and one standard
deviation, and so is its luck on validation; over trials the two have a correlation rho. Whoever
chooses on test gets the largest test luck; whoever chooses on validation gets the test luck of the
trial that is luckiest there. The difference is the optimism of chance. Its mean is
sd (1 - rho) E, with E the expected maximum of T standard normal numbers, and 0 of one trial.

Assumptions: trials are exchangeable and their lucks independent of each other; the common part,
that the test split is easy or hard for all of them, cancels in the difference and is taken out of
the standard deviation. Rho is what is observed over the trials, and counts all that validation and
test agree on, true differences too: then chance is given the smaller share. Negative rho is taken
as 0.

Source of the expected maximum: Harter (1961), "Expected values of normal order statistics".
Shapes: T trials, N utterances, R simulations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SIMULATIONS = 4_000
_LEAST_FOR_CORRELATION = 3
_CHUNK_NUMBERS = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChanceOptimism:
    """Optimism that as many trials would show if none was better than another."""

    num_trials: int
    sd: float
    """Standard deviation of one trial's own luck on the test split."""
    correlation: float
    """Between the trials' luck on validation and on test."""
    mean: float
    """Expected optimism: exact under the model."""
    upper: float
    """95 % of simulated optimisms are at most this."""
    p: float
    """Share of simulated optimisms that are at least the observed one."""


def expected_maximum(count: int) -> float:
    """Return the expected maximum of ``count`` independent standard normal numbers; 0 of one.

    By integration over the density of the maximum, to about 1e-10.
    """
    if count < 1:
        raise ValueError(f"a maximum is of at least one number, got {count}")
    if count == 1:
        return 0.0
    x = np.linspace(-12.0, 12.0, 4_801)
    below = np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in x])
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    values = x * count * density * below ** (count - 1)
    # The ends are 0 to all digits, where the trapezoidal rule converges faster than any power.
    return float(values.sum() * (x[1] - x[0]))


def own_luck(right_TN: np.ndarray) -> float:
    """Return the standard deviation of one trial's accuracy that it does not share with the others.

    Args:
        right_TN: 1 where a trial has an utterance right, 0 where not; in between where it is a mean
            over conditions. At least two trials and one utterance.

    Returns:
        Root of (mean variance - mean covariance) / N: half the variance of a difference between two
        trials. Independent trials of accuracy p have the binomial root of p (1 - p) / N.
    """
    num_trials, num_utterances = right_TN.shape
    if num_trials < 2 or not num_utterances:
        raise ValueError(f"luck shows between at least two trials, got shape {right_TN.shape}")
    centred_TN = right_TN - right_TN.mean(axis=1, keepdims=True)
    covariance_TT = centred_TN @ centred_TN.T / num_utterances
    own = float(np.trace(covariance_TT))
    shared = (float(covariance_TT.sum()) - own) / (num_trials * (num_trials - 1))
    return math.sqrt(max(0.0, own / num_trials - shared) / num_utterances)


def observed_correlation(valid_T: np.ndarray, test_T: np.ndarray) -> float:
    """Return the correlation of validation and test scores over trials, in [0, 1].

    0 of fewer than three trials, of scores that are all equal, and where it is negative.
    """
    if len(valid_T) < _LEAST_FOR_CORRELATION or np.ptp(valid_T) == 0 or np.ptp(test_T) == 0:
        return 0.0
    return float(np.clip(np.corrcoef(valid_T, test_T)[0, 1], 0.0, 1.0))


def chance_optimism(
    num_trials: int,
    sd: float,
    correlation: float,
    observed: float,
    *,
    simulations: int = SIMULATIONS,
    seed: int = 0,
) -> ChanceOptimism:
    """Return the optimism of chance alone.

    Args:
        num_trials: trials that were compared; at least 1.
        sd: of a trial's own luck (``own_luck``), at least 0.
        correlation: between luck on validation and on test, in [0, 1].
        observed: the optimism that was seen.
        simulations: studies drawn for the quantile and the share.
        seed: of the drawing.
    """
    if num_trials < 1 or sd < 0 or not 0 <= correlation <= 1:
        raise ValueError(
            "chance needs at least one trial, a standard deviation of at least 0 and a correlation "
            f"in [0, 1], got {num_trials}, {sd} and {correlation}"
        )
    drawn_R = _simulated(num_trials, sd, correlation, simulations, seed)
    return ChanceOptimism(
        num_trials=num_trials,
        sd=sd,
        correlation=correlation,
        mean=sd * (1 - correlation) * expected_maximum(num_trials),
        upper=float(np.quantile(drawn_R, 0.95)),
        p=(1 + int((drawn_R >= observed).sum())) / (simulations + 1),
    )


def _simulated(
    num_trials: int, sd: float, correlation: float, simulations: int, seed: int
) -> np.ndarray:
    rng, found, left = np.random.default_rng(seed), [], simulations
    while left:
        rows = min(left, max(1, _CHUNK_NUMBERS // num_trials))
        valid_RT, own_RT = rng.normal(size=(2, rows, num_trials))
        test_RT = correlation * valid_RT + math.sqrt(1 - correlation**2) * own_RT
        honest_R = test_RT[np.arange(rows), valid_RT.argmax(axis=1)]
        found.append(sd * (test_RT.max(axis=1) - honest_R))
        left -= rows
    drawn_R: np.ndarray = np.concatenate(found)
    return drawn_R
