"""Bias words: frequent words whose counts differ between classes, and the text made of them.

Shapes: W words, C classes, B utterances, T text steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class SpecialTokens(Protocol):
    """The ids a tokenizer gives its special tokens (``TokenIds``, ``Tokenizer``)."""

    @property
    def pad(self) -> int:
        """[PAD]."""

    @property
    def unknown(self) -> int:
        """[UNK], which also stands for a dropped word."""

    @property
    def start(self) -> int:
        """[CLS]."""

    @property
    def end(self) -> int:
        """[SEP]."""

    @property
    def mask(self) -> int:
        """[MASK]."""


def special_ids(tokens: SpecialTokens) -> tuple[int, ...]:
    """Return the ids that are no words."""
    return (tokens.pad, tokens.unknown, tokens.start, tokens.end, tokens.mask)


@dataclass(frozen=True, slots=True, eq=False)
class BiasWords:
    """Bias words of a training split, the most frequent first; ties by first appearance."""

    ids: np.ndarray
    """Token ids, int64 (W,)."""
    counts: np.ndarray
    """How often each occurs in the split, in all classes, int64 (W,)."""
    cv: np.ndarray
    """Coefficient of variation of each one's counts over classes, float32 (W,)."""

    def __len__(self) -> int:
        return len(self.ids)


def bias_words(
    token_ids: Sequence[np.ndarray],
    class_labels: np.ndarray,
    num_classes: int,
    *,
    special: Collection[int],
    limit: int = 100,
    threshold: float = 0.1,
    classes: Literal["polar", "all"] = "polar",
) -> BiasWords:
    """Return the frequent words whose counts differ markedly between classes (Eq. 26-27).

    A word's coefficient of variation is std / mean of its counts over classes. As published, words
    below the threshold are left out first, and the ``limit`` most frequent of the others remain;
    frequency is the count in all classes, also where the coefficient is over two of them.

    Args:
        token_ids: ids of every utterance of the training split, without padding.
        class_labels: class of every utterance, int (N,) in [0, num_classes).
        num_classes: number of classes, C.
        special: ids that are no words.
        limit: most bias words.
        threshold: smallest coefficient of variation of a bias word.
        classes: ``polar`` takes the coefficient over negative and positive utterances where
            there are three classes (published); ``all`` over every class (the paper's Eq. 26).
    """
    words, counts_WC = _count(token_ids, class_labels, num_classes, special)
    if classes == "polar" and num_classes == 3:
        cv_W = _coefficient_of_variation(counts_WC[:, [0, 2]])
    else:
        cv_W = _coefficient_of_variation(counts_WC)
    total_W = counts_WC.sum(axis=1)
    most_frequent = np.argsort(-total_W, kind="stable")
    # NaN is never a bias word: it compares as False.
    chosen = most_frequent[cv_W[most_frequent] >= threshold][:limit]
    return BiasWords(words[chosen], total_W[chosen], cv_W[chosen])


def _count(
    token_ids: Sequence[np.ndarray],
    class_labels: np.ndarray,
    num_classes: int,
    special: Collection[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the words in order of first appearance, and their counts per class (W, C)."""
    if len(token_ids) != len(class_labels):
        raise ValueError(f"{len(token_ids)} utterances have {len(class_labels)} class labels")
    tokens = np.concatenate([np.zeros(0, dtype=np.int64), *token_ids]).astype(np.int64)
    labels = np.repeat(class_labels, [len(ids) for ids in token_ids]).astype(np.int64)
    is_word = ~np.isin(tokens, list(special))
    tokens, labels = tokens[is_word], labels[is_word]
    words, first, place = np.unique(tokens, return_index=True, return_inverse=True)
    counts = np.bincount(place * num_classes + labels, minlength=len(words) * num_classes)
    appearance = np.argsort(first)
    return words[appearance], counts.reshape(len(words), num_classes)[appearance]


def _coefficient_of_variation(counts_WC: np.ndarray) -> np.ndarray:
    """Return std / mean of each row in float32; NaN for a word of none of the classes."""
    # Differs from the reference: there, a word of no counted class takes over the coefficient of
    # the word before it, and stops the program if there is none.
    # Parity: the published coefficients are float32 throughout.
    counts_WC = counts_WC.astype(np.float32)
    mean_W = counts_WC.mean(axis=1)
    cv_W = np.full(len(counts_WC), np.nan, dtype=np.float32)
    np.divide(counts_WC.std(axis=1), mean_W, out=cv_W, where=mean_W > 0)
    return cv_W


def keep_table(bias_ids: np.ndarray, vocab_size: int, tokens: SpecialTokens) -> np.ndarray:
    """Return which ids stay in counterfactual text: bias words and special tokens.

    Args:
        bias_ids: token ids of the bias words.
        vocab_size: number of token ids.
        tokens: the special tokens.

    Returns:
        bool (vocab_size,), True = stays, False = becomes [MASK].
    """
    kept = np.array([*bias_ids.tolist(), *special_ids(tokens)])
    if kept.min() < 0 or kept.max() >= vocab_size:
        raise ValueError(f"token ids must be in [0, {vocab_size}), got {kept.min()}..{kept.max()}")
    table = np.zeros(vocab_size, dtype=bool)
    table[kept] = True
    return table


def counterfactual_ids(
    token_ids_BT: np.ndarray, keep_V: np.ndarray, tokens: SpecialTokens
) -> np.ndarray:
    """Return the text in which every word that is no bias word is [MASK].

    Args:
        token_ids_BT: complete or incomplete text; a dropped word is [UNK] and stays so.
        keep_V: from ``keep_table``.
        tokens: the special tokens.
    """
    return np.where(keep_V[token_ids_BT], token_ids_BT, token_ids_BT.dtype.type(tokens.mask))
