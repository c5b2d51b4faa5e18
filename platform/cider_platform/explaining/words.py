"""Words behind token ids, and what the training split says of them.

Shapes: N utterances, W token ids of the vocabulary, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cider.data.synthetic.vocabulary import FIRST_WORD_ID, VOCABULARY
from cider.data.tokenizer_source import local_vocabulary
from cider.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cider.data.loader import BatchSource
    from cider.data.store import FeatureStore

SCRATCH = "scratch"
SMOOTHING = 10.0
"""Utterances that are added to each class before words are counted."""
_ROLES = {"pad": "[PAD]", "unknown": "[UNK]", "start": "[CLS]", "end": "[SEP]", "mask": "[MASK]"}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words of token ids; an id without a known word is shown as the number it is."""

    tokens: Mapping[int, str]
    origin: str
    """Where the words come from, or why there are only ids: a sentence's end."""

    def word(self, token_id: int) -> str:
        """Return the token of an id, or the id as text."""
        return self.tokens.get(token_id, str(token_id))

    def text(self, ids: Iterable[int]) -> str:
        """Return ids as a line of text, with the pieces of a word put together."""
        line = ""
        for token_id in ids:
            token = self.word(token_id)
            piece = token.removeprefix("##")
            line += piece if token != piece or not line else f" {piece}"
        return line


def vocabulary_of(store: FeatureStore, encoder: str) -> Vocabulary:
    """Return the words of a corpus's token ids; the network is not asked.

    Args:
        store: the corpus.
        encoder: source of the run's text encoder, whose tokenizer made the ids.
    """
    record = store.manifest.tokenizer
    special = {token_id: _ROLES[role] for role, token_id in record.special_ids.items()}
    synthetic = VOCABULARY.tokenizer()
    if record == synthetic:
        words = dict(enumerate(VOCABULARY.words, start=FIRST_WORD_ID))
        return Vocabulary(words | special, "words of the synthetic vocabulary")
    if encoder == SCRATCH:
        encoder = store.manifest.default_encoder
    if encoder == SCRATCH:
        reason = f"the corpus says no more of its tokenizer than the name {record.name!r}"
        return Vocabulary(special, f"shown as token ids: {reason}")
    try:
        return Vocabulary(local_vocabulary(encoder, record), f"words of the tokenizer of {encoder}")
    except StoreError as error:
        return Vocabulary(special, f"shown as token ids: {error}")


class WordCounts:
    """In how many training utterances of each class a word occurs.

    Args:
        train: the training split with its labels.
        num_classes: C.
        vocab_size: W.
    """

    def __init__(self, train: BatchSource, num_classes: int, vocab_size: int) -> None:
        assert train.labels_N is not None
        distinct = [np.unique(train.split.token_ids(row)) for row in range(len(train))]
        classes_E = np.repeat(train.labels_N, [len(ids) for ids in distinct])
        pairs_E = np.concatenate(distinct).astype(np.int64) * num_classes + classes_E
        counts = np.bincount(pairs_E, minlength=vocab_size * num_classes)
        self.counts_WC: np.ndarray = counts.reshape(vocab_size, num_classes)
        self.utterances_C: np.ndarray = np.bincount(train.labels_N, minlength=num_classes)

    def log_probs(self, words: Iterable[int]) -> np.ndarray:
        """Return log P(class | these words), float64 (C,), by counting alone.

        Naive Bayes: the share of the class times, for every word, the share of the class's
        utterances that contain it. Each class counts as having ``SMOOTHING`` utterances more, which
        contain the word as often as all utterances do, so that a small class is not favoured by
        words it never met. Words that no training utterance contains say nothing.

        Args:
            words: distinct token ids that are words; none gives the shares of the classes.
        """
        counts_WC = self.counts_WC[list(words)]
        counts_WC = counts_WC[counts_WC.sum(axis=1) > 0]
        overall_W1 = counts_WC.sum(axis=1, keepdims=True) / self.utterances_C.sum()
        share_WC = (counts_WC + SMOOTHING * overall_W1) / (self.utterances_C + SMOOTHING)
        with np.errstate(divide="ignore"):  # a class that the training split lacks
            prior_C = np.log(self.utterances_C / self.utterances_C.sum())
        joint_C: np.ndarray = prior_C + np.log(share_WC).sum(axis=0)
        log_probs_C: np.ndarray = joint_C - np.logaddexp.reduce(joint_C)
        return log_probs_C
