"""What must be read with stars and intervals: number of tests, smallest p, seeds needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cider.significance import ALPHA, is_reachable, seeds_needed

if TYPE_CHECKING:
    from collections.abc import Collection

SEEDS_FOR_INTERVALS = 8
"""With 8 a 95 % interval misses in 11 of 100 cases, with 5 in 15, with 3 in 29."""


def family_note(smallest_ps: Collection[float], *, seeds: str, family: str) -> str:
    """Return what a family of sign-flip tests over seeds can show.

    Args:
        smallest_ps: of every test the smallest p that its seeds can reach; at least one.
        seeds: which seeds, e.g. ``seeds`` or ``common seeds``.
        family: what Holm's correction is over, e.g. ``the table``.
    """
    count, smallest = len(smallest_ps), min(smallest_ps)
    text = (
        f"{count} tests (sign flips over {seeds}, two-sided, Holm over {family} at {ALPHA:g}); "
        f"smallest p these seeds can reach: {smallest:.4g}, after correction "
        f"{min(1.0, smallest * count):.4g}"
    )
    if not is_reachable(smallest, count):
        text += f"; no star is possible{_seeds_that_would_do(count)}"
    return text


def _seeds_that_would_do(num_tests: int) -> str:
    try:
        return f", it takes {seeds_needed(num_tests)} seeds"
    except ValueError:
        return " for so many tests"
