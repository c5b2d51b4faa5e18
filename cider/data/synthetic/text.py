"""Words given the label: a Markov chain whose only memory is whether a negator came last.

Legend: N utterances, T words, G label grid, K word kinds, J = 2K counts, H = 2G states (labels of
sincere, then of ironic utterances). Because words of one kind differ in nothing but frequency, how
often each kind occurred, after a negator or not, is all that a transcript tells about the label.
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
        self, parameters: WordParameters, response: dict[Response, np.ndarray], association: float
    ) -> None:
        """Tabulate the chain.

        Args:
            parameters: shares and leans of the kinds.
            response: (G,) what each label drives; see ``responses``.
            association: how far function and bias words lean in this split, in [-1, 1], as a
                multiple of their training association.
        """
        self._irony = parameters.irony
        polarity_G = response["polarity"]
        self._num_labels = len(polarity_G)
        polarity_H = np.concatenate([polarity_G, -polarity_G])
        arousal_H, intensity_H = np.tile(response["arousal"], 2), np.tile(response["intensity"], 2)
        plain_HK = np.zeros((len(polarity_H), _NUM_KINDS))
        plain_HK[:, WordKind.NEGATOR] = parameters.negator
        # Irony reverses what is said, not who says it: these words follow the label itself.
        lean_H = association * np.tile(polarity_G, 2)
        for kind, sign, share, lean in (
            (WordKind.FUNCTION_POSITIVE, 1, parameters.function, parameters.function_lean),
            (WordKind.FUNCTION_NEGATIVE, -1, parameters.function, parameters.function_lean),
            (WordKind.BIAS_POSITIVE, 1, parameters.bias, parameters.bias_lean),
            (WordKind.BIAS_NEGATIVE, -1, parameters.bias, parameters.bias_lean),
        ):
            plain_HK[:, kind] = share * (1 + sign * lean * lean_H) / 2
        share_H = parameters.sentiment + parameters.sentiment_arousal * arousal_H
        plain_HK += share_H[:, None] * _sentiment(parameters, polarity_H, intensity_H)
        plain_HK[:, WordKind.TOPIC] = 1 - plain_HK.sum(axis=1)
        self._plain_HK = plain_HK
        self._negated_HK = _sentiment(parameters, -polarity_H, intensity_H)

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
        ironic_N = rng.random(len(labels_N)) < self._irony
        state_N = labels_N + self._num_labels * ironic_N
        uniform_NT = rng.random((len(labels_N), int(lengths_N.max())))
        words_NT = _invert(self._plain_HK, state_N, uniform_NT)
        negated_NT = _invert(self._negated_HK, state_N, uniform_NT)
        after_negator_N = np.zeros(len(labels_N), bool)
        for t in range(uniform_NT.shape[1]):
            words_NT[after_negator_N, t] = negated_NT[after_negator_N, t]
            after_negator_N = VOCABULARY.kind_W[words_NT[:, t]] == WordKind.NEGATOR
        words_NT[np.arange(uniform_NT.shape[1]) >= lengths_N[:, None]] = NO_WORD
        return words_NT

    def log_likelihood(self, counts_NJ: np.ndarray, words: Words = "all") -> np.ndarray:
        """Return the log-likelihood of every label, up to a constant per utterance.

        Args:
            counts_NJ: what ``kind_counts`` returns.
            words: which words are looked at. ``unbiased`` leaves out which way function and bias
                words lean; ``bias`` looks at nothing else, as in the counterfactual text.

        Returns:
            float64 (N, G).
        """
        # Together these kinds have one share for all labels: their number tells nothing.
        is_bias_K = np.isin(np.arange(_NUM_KINDS), BIAS_KINDS)
        seen_K = {"all": np.ones_like(is_bias_K), "unbiased": ~is_bias_K, "bias": is_bias_K}[words]
        chain_HJ = np.concatenate([self._plain_HK, self._negated_HK], axis=1)
        # A kind that cannot follow has probability 0 and count 0, and adds nothing.
        log_HJ = np.log(np.where(chain_HJ > 0, chain_HJ, 1.0)) * np.tile(seen_K, 2)
        sincere_NG, ironic_NG = np.split(counts_NJ @ log_HJ.T, 2, axis=1)
        sincere, ironic = np.log([1 - self._irony, self._irony])
        return np.asarray(np.logaddexp(sincere + sincere_NG, ironic + ironic_NG))


def kind_counts(words_NT: np.ndarray) -> np.ndarray:
    """Count the kinds of words in transcripts.

    Args:
        words_NT: word numbers, ``NO_WORD`` where there is none.

    Returns:
        float64 (N, J): per kind, first the words in general, then those after a negator.
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
    parameters: WordParameters, polarity_H: np.ndarray, intensity_H: np.ndarray
) -> np.ndarray:
    """Return the probability of each kind among sentiment words, (H, K)."""
    strong_H = parameters.strong + parameters.strong_intensity * intensity_H
    share_HK = np.zeros((len(polarity_H), _NUM_KINDS))
    for kind, sign, part_H, lean in (
        (WordKind.MILD_POSITIVE, 1, 1 - strong_H, parameters.mild_lean),
        (WordKind.MILD_NEGATIVE, -1, 1 - strong_H, parameters.mild_lean),
        (WordKind.STRONG_POSITIVE, 1, strong_H, parameters.strong_lean),
        (WordKind.STRONG_NEGATIVE, -1, strong_H, parameters.strong_lean),
    ):
        share_HK[:, kind] = part_H * (1 + sign * lean * polarity_H) / 2
    return share_HK


def _invert(kind_HK: np.ndarray, state_N: np.ndarray, uniform_NT: np.ndarray) -> np.ndarray:
    """Return the word numbers at places in [0, 1) of each state's cumulative distribution."""
    rows_HW = np.cumsum(kind_HK[:, VOCABULARY.kind_W] * VOCABULARY.share_W, axis=1)
    rows_HW = np.minimum(rows_HW, 1.0)
    rows_HW[:, -1] = 1.0  # the last word can always occur; the sum may have been rounded below 1
    # One sorted array holds every state's row, each one higher, so that one search serves all.
    rows_HW += np.arange(len(rows_HW))[:, None]
    found_NT = np.searchsorted(rows_HW.ravel(), uniform_NT + state_N[:, None], side="right")
    return np.asarray(found_NT - state_N[:, None] * rows_HW.shape[1])
