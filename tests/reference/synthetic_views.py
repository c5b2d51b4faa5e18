"""Read a generated corpus as its generating model sees it. N utterances, T words."""

from __future__ import annotations

import numpy as np

from cider.data.seal import TestPermit
from cider.data.synthetic.text import NO_WORD
from cider.data.synthetic.vocabulary import FIRST_WORD_ID


def labels_of(store, split):
    """Return a split's regression labels, the test split's too."""
    if split == "test":
        return store.test_labels(TestPermit("none", "a test of the generator"))
    return store.split(split).labels


def words_of(view):
    """Return the word numbers of a split, (N, T)."""
    ids = [view.token_ids(row)[1:-1].astype(np.int64) - FIRST_WORD_ID for row in range(len(view))]
    words_NT = np.full((len(ids), max(map(len, ids))), NO_WORD)
    for row, ids_T in enumerate(ids):
        words_NT[row, : len(ids_T)] = ids_T
    return words_NT
