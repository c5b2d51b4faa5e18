"""Choose a test set by simulated annealing, so that words speak for other labels than in the rest.

A step swaps one utterance of the test set with one of the pool (everything else) that has the same
class in both tasks: the size and the label histogram of the test set never change, only its words
do. The objective, the word shift between test and pool, is updated from the words that the two
utterances do not share; one step costs about 10 microseconds. N is the number of utterances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from cider.data.word_shift import MIN_COUNT, WordTable

if TYPE_CHECKING:
    from cider.data.progress import Progress

STEPS_PER_UTTERANCE = 40
"""Default number of steps for each utterance of the corpus."""
_WARM_UP = 500
"""Proposals from which the first temperature is taken: their mean change of the objective."""
_COOLING = 1e-3
"""Last temperature as a share of the first."""
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Annealed:
    """Where the annealing ended."""

    test_N: np.ndarray
    """bool: the chosen test set."""
    steps: int
    accepted: int


class _Counts:
    """For each word: its utterances in the whole corpus and in the test set, and its gap."""

    def __init__(self, table: WordTable, test_N: np.ndarray) -> None:
        whole = table.counts(np.ones_like(test_N))
        test = table.counts(test_N)
        # Lists, not arrays: the loop below reads single numbers, which lists do far faster.
        self.total, self.positive = whole[0].tolist(), whole[1].tolist()
        self.test_total, self.test_positive = test[0].tolist(), test[1].tolist()
        self.gaps = [
            self.gap(word, *counts)
            for word, counts in enumerate(zip(self.test_total, self.test_positive, strict=True))
        ]

    def gap(self, word: int, test_total: int, test_positive: int) -> float:
        """Return the gap of a word if the test set had these counts of it."""
        pool_total = self.total[word] - test_total
        if test_total < MIN_COUNT or pool_total < MIN_COUNT:
            return 0.0
        pool_positive = self.positive[word] - test_positive
        gap: float = abs(test_positive / test_total - pool_positive / pool_total)
        return gap

    def propose(
        self, leaving: frozenset[int], joining: frozenset[int], positive: int
    ) -> tuple[float, list[tuple[int, int, int, float]]]:
        """Return the change of the summed gaps, and the new (word, counts, gap) it comes from.

        Args:
            leaving: words of the utterance that leaves the test set.
            joining: words of the utterance that joins it.
            positive: 1 if both are positive, 0 if both are negative.
        """
        gain, changes = 0.0, []
        for words, step in ((leaving - joining, -1), (joining - leaving, 1)):
            for word in words:
                total = self.test_total[word] + step
                positives = self.test_positive[word] + step * positive
                gap = self.gap(word, total, positives)
                gain += gap - self.gaps[word]
                changes.append((word, total, positives, gap))
        return gain, changes

    def apply(self, changes: list[tuple[int, int, int, float]]) -> None:
        """Make a proposed swap real."""
        for word, total, positives, gap in changes:
            self.test_total[word] = total
            self.test_positive[word] = positives
            self.gaps[word] = gap


class _Swaps:
    """The utterances that may change places: polar, and with a partner of their class."""

    def __init__(self, table: WordTable, test_N: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng
        self.words = _word_sets(table)
        self.positive = table.positive_N.astype(int).tolist()
        self.inside: list[int] = []
        self.stratum_of: list[list[int]] = []
        for stratum in np.unique(table.stratum_N[table.polar_N]):
            members_N = table.stratum_N == stratum
            outside = np.flatnonzero(members_N & ~test_N).tolist()
            inside = np.flatnonzero(members_N & test_N).tolist() if outside else []
            self.inside += inside
            self.stratum_of += [outside] * len(inside)

    def draw(self, count: int) -> list[tuple[int, int, float]]:
        """Return places in ``inside`` and in the partner's list, and uniform numbers."""
        place_C = self._rng.integers(len(self.inside), size=count).tolist()
        share_C, chance_C = self._rng.random((2, count)).tolist()
        return [
            (place, int(share * len(self.stratum_of[place])), chance)
            for place, share, chance in zip(place_C, share_C, chance_C, strict=True)
        ]

    def swap(self, place: int, other: int) -> None:
        """Let two utterances change places."""
        outside = self.stratum_of[place]
        self.inside[place], outside[other] = outside[other], self.inside[place]


def anneal(
    table: WordTable,
    test_N: np.ndarray,
    *,
    steps: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Annealed:
    """Return a test set of the same size and label histogram whose words are shifted.

    Args:
        table: the words of all utterances.
        test_N: bool, the test set to start from.
        steps: proposals; 0 changes nothing.
        rng: draws the proposals; the same generator gives the same set.
        progress: called every few thousand steps.
    """
    swaps = _Swaps(table, test_N, rng)
    if not swaps.inside or not table.num_words:
        return Annealed(test_N.copy(), 0, 0)
    counts = _Counts(table, test_N)
    hot = _first_temperature(counts, swaps)
    before = list(swaps.inside)
    accepted = 0
    for start in range(0, steps, _BLOCK):
        for step, (place, other, chance) in enumerate(
            swaps.draw(min(_BLOCK, steps - start)), start
        ):
            leaving, joining = swaps.inside[place], swaps.stratum_of[place][other]
            gain, changes = counts.propose(
                swaps.words[leaving], swaps.words[joining], swaps.positive[leaving]
            )
            if gain < 0 and chance >= math.exp(gain / (hot * _COOLING ** (step / steps))):
                continue
            counts.apply(changes)
            swaps.swap(place, other)
            accepted += 1
        if progress is not None:
            progress("anneal", min(start + _BLOCK, steps), steps)
    chosen_N = test_N.copy()
    chosen_N[before] = False
    chosen_N[swaps.inside] = True
    return Annealed(chosen_N, steps, accepted)


def _word_sets(table: WordTable) -> list[frozenset[int]]:
    ends_N = np.searchsorted(table.utterance_E, np.arange(len(table.polar_N) + 1))
    words = table.word_E.tolist()
    return [frozenset(words[start:end]) for start, end in pairwise(ends_N.tolist())]


def _first_temperature(counts: _Counts, swaps: _Swaps) -> float:
    sizes = []
    for place, other, _ in swaps.draw(_WARM_UP):
        leaving, joining = swaps.inside[place], swaps.stratum_of[place][other]
        gain, _ = counts.propose(
            swaps.words[leaving], swaps.words[joining], swaps.positive[leaving]
        )
        sizes.append(abs(gain))
    return max(float(np.mean(sizes)), np.finfo(float).tiny)
