"""Words given the label: a Markov chain whose only memory is whether a negator came last.

Legend: N utterances, T words, G label grid, K word kinds, W words. Because words of one kind differ
in nothing but frequency, how often each kind occurred, after a negator or not, is all that a
transcript tells about the label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from cider.data.synthetic.vocabulary import BIAS_KINDS, VOCABULARY, WordKind

if TYPE_CHECKING:
    from cider.data.synthetic.parameters import Response, WordParameters

Words = Literal["all", "unbiased", "bias"]
NO_WORD = -1
"""Fills word arrays behind the end of an utterance."""
_NUM_KINDS = len(WordKind)


class WordModel:
    """The word chain of one split."""

    def __init__(
        self, parameters: WordParameters, response: dict[Response, np.ndarray], bias_lean: float
    ) -> None:
        """Tabulate the chain.

        Args:
            parameters: shares and leans of the kinds.
            response: (G,) polarity and arousal of every label.
            bias_lean: association of bias words with the label in this split, in (-1, 1).
        """
        polarity_G, arousal_G = response["polarity"], response["arousal"]
        plain_GK = np.zeros((len(polarity_G), _NUM_KINDS))
        plain_GK[:, WordKind.FUNCTION] = parameters.function
        plain_GK[:, WordKind.NEGATOR] = parameters.negator
        for kind, sign in zip(BIAS_KINDS, (1, -1), strict=True):
            plain_GK[:, kind] = parameters.bias * (1 + sign * bias_lean * polarity_G) / 2
        share_G = parameters.sentiment + parameters.sentiment_arousal * arousal_G
        plain_GK += share_G[:, None] * _sentiment(parameters, polarity_G, arousal_G)
        plain_GK[:, WordKind.TOPIC] = 1 - plain_GK.sum(axis=1)
        negated_GK = _sentiment(parameters, -polarity_G, arousal_G)
        self._chain_CGK = np.stack([plain_GK, negated_GK])
        """Probability of each kind: [0] in general, [1] after a negator."""
        self._cumulative = [_sorted_rows(kind_GK) for kind_GK in self._chain_CGK]

    def sample(
        self, labels_N: np.ndarray, lengths_N: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw transcripts.

        Args:
            labels_N: int64 (N,) numbers of grid points.
            lengths_N: int64 (N,) words per utterance, at least 1.
            rng: source of randomness.

        Returns:
            int64 (N, T) word numbers, ``NO_WORD`` from an utterance's length on.
        """
        uniform_NT = rng.random((len(labels_N), int(lengths_N.max())))
        # One sorted array holds every label's cumulative row, so that one search serves all.
        plain_NT, negated_NT = (
            np.searchsorted(rows, uniform_NT + labels_N[:, None], side="right")
            - labels_N[:, None] * len(VOCABULARY.words)
            for rows in self._cumulative
        )
        after_negator_N = np.zeros(len(labels_N), bool)
        for t in range(uniform_NT.shape[1]):
            plain_NT[after_negator_N, t] = negated_NT[after_negator_N, t]
            after_negator_N = VOCABULARY.kind_W[plain_NT[:, t]] == WordKind.NEGATOR
        plain_NT[np.arange(uniform_NT.shape[1]) >= lengths_N[:, None]] = NO_WORD
        return plain_NT

    def log_likelihood(self, counts_NJ: np.ndarray, words: Words = "all") -> np.ndarray:
        """Return the log-likelihood of every label, up to a constant per utterance.

        Args:
            counts_NJ: what ``kind_counts`` returns, J = 2K.
            words: which words are looked at. ``unbiased`` leaves out which way bias words lean;
                ``bias`` looks at nothing else, as in the counterfactual text.

        Returns:
            float64 (N, G).
        """
        # A kind that cannot follow has probability 0 and count 0, and adds nothing.
        log_CGK = np.log(np.where(self._chain_CGK > 0, self._chain_CGK, 1.0))
        # The share of bias words is the same for all labels, so without them nothing is lost.
        is_bias_K = np.isin(np.arange(_NUM_KINDS), BIAS_KINDS)
        seen_K = {"all": np.ones_like(is_bias_K), "unbiased": ~is_bias_K, "bias": is_bias_K}[words]
        return np.asarray(counts_NJ @ np.concatenate(list(log_CGK * seen_K), axis=1).T)


def kind_counts(words_NT: np.ndarray) -> np.ndarray:
    """Count the kinds of words in transcripts.

    Args:
        words_NT: word numbers, ``NO_WORD`` where there is none.

    Returns:
        float64 (N, 2K): per kind, first the words in general, then those after a negator.
    """
    present_NT = words_NT != NO_WORD
    kinds_NT = VOCABULARY.kind_W[words_NT]
    columns_NT = kinds_NT.copy()
    columns_NT[:, 1:] += _NUM_KINDS * (kinds_NT[:, :-1] == WordKind.NEGATOR)
    counts_NJ = np.zeros((len(words_NT), 2 * _NUM_KINDS))
    rows, _ = np.nonzero(present_NT)
    np.add.at(counts_NJ, (rows, columns_NT[present_NT]), 1.0)
    return counts_NJ


def _sentiment(
    parameters: WordParameters, polarity_G: np.ndarray, arousal_G: np.ndarray
) -> np.ndarray:
    """Return the probability of each kind among sentiment words, (G, K)."""
    strong_G = parameters.strong + parameters.strong_arousal * arousal_G
    share_GK = np.zeros((len(polarity_G), _NUM_KINDS))
    for kind, sign, part_G, lean in (
        (WordKind.MILD_POSITIVE, 1, 1 - strong_G, parameters.mild_lean),
        (WordKind.MILD_NEGATIVE, -1, 1 - strong_G, parameters.mild_lean),
        (WordKind.STRONG_POSITIVE, 1, strong_G, parameters.strong_lean),
        (WordKind.STRONG_NEGATIVE, -1, strong_G, parameters.strong_lean),
    ):
        share_GK[:, kind] = part_G * (1 + sign * lean * polarity_G) / 2
    return share_GK


def _sorted_rows(kind_GK: np.ndarray) -> np.ndarray:
    """Return the cumulative word probabilities of every label, plus its row number, flattened."""
    words_GW = kind_GK[:, VOCABULARY.kind_W] * VOCABULARY.share_W
    rows_GW = np.cumsum(words_GW, axis=1)
    rows_GW = np.minimum(rows_GW, 1.0)
    rows_GW[:, -1] = 1.0  # the last word can always occur; the sum may have been rounded below 1
    return (rows_GW + np.arange(len(rows_GW))[:, None]).ravel()
