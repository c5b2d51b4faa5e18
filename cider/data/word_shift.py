"""How far the association between words and labels differs between two sets of utterances.

For a word w and a set A let P(positive | w, A) be the share of positive utterances among those
utterances of A that contain w and are not neutral. The word shift of sets A and B is the mean of
|P(positive | w, A) - P(positive | w, B)| over a fixed list of words. A word which fewer than ten
such utterances of A or of B contain counts as 0, so that a shift cannot grow by making words rare.
A word is a token id that is not special. Chance alone makes a shift above 0: compare it with
``chance_shift``. Shapes: N utterances, W words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cider.data.labels import class_labels
from cider.spec import NUM_CLASSES

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_COUNT = 10
"""Fewest utterances of each set that must contain a word."""
_CHANCE_DRAWS = 20


@dataclass(frozen=True, slots=True)
class WordTable:
    """Which utterances contain which words, as pairs, over all splits of a corpus."""

    token_W: np.ndarray
    """int64: token id of each word, ascending."""
    utterance_E: np.ndarray
    """int64 (pairs,): row of each pair, ascending."""
    word_E: np.ndarray
    """int64 (pairs,): word of each pair, in [0, W)."""
    positive_N: np.ndarray
    """bool: label above 0."""
    polar_N: np.ndarray
    """bool: label not 0. Only these utterances count."""
    stratum_N: np.ndarray
    """int64: class of both tasks together."""

    @property
    def num_words(self) -> int:
        """W."""
        return len(self.token_W)

    def counts(self, member_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how many polar, and how many positive utterances of a set contain each word.

        Args:
            member_N: True for the utterances of the set.

        Returns:
            Two int64 (W,).
        """
        pairs = (member_N & self.polar_N)[self.utterance_E]
        words = self.word_E[pairs]
        positive = words[self.positive_N[self.utterance_E[pairs]]]
        return (
            np.bincount(words, minlength=self.num_words),
            np.bincount(positive, minlength=self.num_words),
        )

    def shift(self, first_N: np.ndarray, second_N: np.ndarray) -> float:
        """Return the word shift between two sets, given as membership masks."""
        counts = [self.counts(member_N) for member_N in (first_N, second_N)]
        counted_W = (counts[0][0] >= MIN_COUNT) & (counts[1][0] >= MIN_COUNT)
        first_W, second_W = (positive_W / np.maximum(total_W, 1) for total_W, positive_W in counts)
        return float(np.where(counted_W, np.abs(first_W - second_W), 0.0).sum() / self.num_words)

    def chance_shift(self, size_first: int, size_second: int, rng: np.random.Generator) -> float:
        """Return the mean word shift between random sets of these sizes."""
        total = len(self.positive_N)
        shifts = []
        for _ in range(_CHANCE_DRAWS):
            order = rng.permutation(total)
            masks = np.zeros((2, total), bool)
            masks[0, order[:size_first]] = True
            masks[1, order[size_first : size_first + size_second]] = True
            shifts.append(self.shift(masks[0], masks[1]))
        return float(np.mean(shifts))


def build_word_table(
    token_ids: Sequence[np.ndarray],
    labels_N: np.ndarray,
    special_ids: set[int],
    first_N: np.ndarray,
    second_N: np.ndarray,
) -> WordTable:
    """Return the table of the words that are frequent in two sets.

    Args:
        token_ids: N arrays of token ids.
        labels_N: regression labels.
        special_ids: token ids that are no words.
        first_N: membership mask of the first set.
        second_N: membership mask of the second set.
    """
    three_N = class_labels(labels_N, "three_class")
    seven_N = class_labels(labels_N, "seven_class")
    distinct = [np.unique(ids_T) for ids_T in token_ids]
    utterance_E = np.repeat(np.arange(len(distinct)), [len(ids) for ids in distinct])
    token_E = np.concatenate(distinct).astype(np.int64)
    word_E = ~np.isin(token_E, list(special_ids))
    utterance_E, token_E = utterance_E[word_E], token_E[word_E]
    every = WordTable(
        token_W=np.arange(int(token_E.max(initial=0)) + 1),
        utterance_E=utterance_E,
        word_E=token_E,
        positive_N=three_N == 2,
        polar_N=three_N != 1,
        stratum_N=three_N * NUM_CLASSES["seven_class"] + seven_N,
    )
    frequent_V = np.ones(every.num_words, bool)
    for member_N in (first_N, second_N):
        frequent_V &= every.counts(member_N)[0] >= MIN_COUNT
    kept_E = frequent_V[token_E]
    number_V = np.cumsum(frequent_V) - 1
    return WordTable(
        token_W=np.flatnonzero(frequent_V),
        utterance_E=utterance_E[kept_E],
        word_E=number_V[token_E[kept_E]],
        positive_N=every.positive_N,
        polar_N=every.polar_N,
        stratum_N=every.stratum_N,
    )


def label_distance(first_N: np.ndarray, second_N: np.ndarray, stratum_N: np.ndarray) -> float:
    """Return the total variation distance between the class distributions of two sets, in [0, 1].

    Args:
        first_N: membership mask.
        second_N: membership mask.
        stratum_N: int64 class of each utterance.
    """
    size = int(stratum_N.max()) + 1
    first, second = (
        np.bincount(stratum_N[member_N], minlength=size) / max(int(member_N.sum()), 1)
        for member_N in (first_N, second_N)
    )
    return float(np.abs(first - second).sum() / 2)
