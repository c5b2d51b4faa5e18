"""Many tests in one table: Holm's correction, and stars that are given only where they can be.

Source: Holm (1979), "A simple sequentially rejective multiple test procedure". It bounds the chance
of any false star in the table, whatever the tests have in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cider.significance.paired import MOST_EXACT_PAIRS, smallest_p

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHA = 0.05
"""Level of a star, after correction."""


def holm(ps: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values, in the order given; none of none.

    Args:
        ps: the p value of every test of the table, in [0, 1].

    Raises:
        ValueError: if one is outside [0, 1].
    """
    values = np.asarray(ps, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p values lie in [0, 1], got {values.tolist()}")
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return [float(each) for each in adjusted]


def is_reachable(smallest: float, num_tests: int, *, alpha: float = ALPHA) -> bool:
    """Return whether tests with this smallest p could have a star in a table of so many tests.

    Holm compares the smallest p of the table with alpha / tests. A test that cannot get there could
    still follow another one; it is not counted on, because then a star would say more of its
    neighbours than of itself.
    """
    return smallest * num_tests <= alpha


def seeds_needed(num_tests: int, *, alpha: float = ALPHA) -> int:
    """Return how many seeds each of so many sign-flip tests needs for a star to be possible.

    Raises:
        ValueError: if no number of seeds is enough, because drawn sign patterns end at a p of 1e-4.
    """
    for count in range(1, MOST_EXACT_PAIRS + 2):
        if is_reachable(smallest_p(count), num_tests, alpha=alpha):
            return count
    raise ValueError(f"no number of seeds gives a star among {num_tests} tests at {alpha}")


def star(adjusted_p: float, smallest: float, num_tests: int, *, alpha: float = ALPHA) -> str:
    """Return ``*`` for a difference that is significant after correction, else nothing.

    Args:
        adjusted_p: by ``holm``.
        smallest: smallest p that the test could have had, before correction.
        num_tests: tests of the table.
        alpha: level.
    """
    return "*" if is_reachable(smallest, num_tests, alpha=alpha) and adjusted_p <= alpha else ""
