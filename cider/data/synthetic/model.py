"""The structural causal model of one synthetic corpus.

Causal graph, as in CIDer's Fig. 5: the label drives sentiment words, audio and vision alike in all
splits. Bias words depend on the label too, but how they do is a property of the split, as is the
label's prior. Given the label and the lengths, which tell nothing about it, words, audio and vision
are independent. N utterances, G label grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cider.data.synthetic.facts import CORPORA, grid_prior, held_out_priors, label_grid
from cider.data.synthetic.frames import FrameModel
from cider.data.synthetic.parameters import Parameters, responses
from cider.data.synthetic.text import WordModel
from cider.spec import SPLITS

if TYPE_CHECKING:
    from cider.spec import Alignment, Split

FEWEST_FRAMES = 4
"""Unaligned audio and vision have at least this many frames, as short recordings do."""
_SPECIAL_TOKENS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitModel:
    """What differs between splits."""

    prior_G: np.ndarray
    """Probability of every label."""
    association: float
    """Lean of function and bias words with the label, as a multiple of that in training."""
    words: WordModel


class CorpusModel:
    """Everything that generates one corpus in one alignment and distribution."""

    def __init__(
        self, corpus: str, *, alignment: Alignment, distribution: str, parameters: Parameters
    ) -> None:
        """Tabulate the model.

        Args:
            corpus: ``mosi`` or ``mosei``.
            alignment: ``unaligned`` or ``aligned``.
            distribution: ``iid`` or ``ood``.
            parameters: the strengths.
        """
        self.facts = CORPORA[corpus]
        self.alignment = alignment
        self.parameters = parameters
        self.grid_G = label_grid(self.facts.label_steps)
        self._response = responses(self.grid_G, parameters)
        self.splits = self._split_models(distribution)
        self.frames: dict[str, FrameModel] = {}
        for modality, own in (("audio", parameters.audio), ("vision", parameters.vision)):
            aligned = alignment == "aligned"
            self.frames[modality] = FrameModel(
                own,
                self._response,
                width=self.facts.widths[modality],
                correlation=own.aligned_correlation if aligned else own.unaligned_correlation,
            )

    @property
    def max_lengths(self) -> dict[str, int]:
        """Padded lengths of text (with its two special tokens), audio and vision."""
        longest = self.facts.max_lengths
        return dict.fromkeys(longest, longest["text"]) if self.alignment == "aligned" else longest

    def sample_word_counts(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return how many words each of ``count`` utterances has, int64 (N,)."""
        normal_N = rng.standard_normal(count)
        words_N = np.exp(self.facts.words_log_mean + self.facts.words_log_std * normal_N)
        most = self.facts.max_lengths["text"] - _SPECIAL_TOKENS
        return np.clip(np.rint(words_N), 1, most).astype(np.int64)

    def sample_frame_counts(
        self, modality: str, words_N: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return how many frames utterances of these numbers of words have, int64 (N,)."""
        if self.alignment == "aligned":
            return words_N + _SPECIAL_TOKENS
        own = self.parameters.audio if modality == "audio" else self.parameters.vision
        pace_N = np.exp(own.length_spread * rng.standard_normal(len(words_N)))
        frames_N = np.rint(words_N * self.facts.frames_per_word[modality] * pace_N)
        return np.clip(frames_N, FEWEST_FRAMES, self.facts.max_lengths[modality]).astype(np.int64)

    def sample_labels(self, split: Split, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return the numbers of grid points of a split's utterances, int64 (N,).

        Systematic sampling: each label occurs as often as its prior says, to within one, so that a
        small corpus has the class shares of the real one too.
        """
        edges_G = np.cumsum(self.splits[split].prior_G)
        places_N = (np.arange(count) + 0.5) / count
        drawn_N = np.searchsorted(edges_G[:-1], places_N, side="right")
        return rng.permutation(drawn_N.astype(np.int64))

    def _split_models(self, distribution: str) -> dict[Split, SplitModel]:
        iid = distribution == "iid"
        p = self.parameters
        train_G = grid_prior(self.facts.train_priors[distribution], self.grid_G)
        test_G = train_G if iid else grid_prior(held_out_priors(self.facts), self.grid_G)
        test_association = 1.0 if iid else -p.ood_reversal
        models: dict[Split, SplitModel] = {}
        for split, shift in zip(SPLITS, (0.0, p.validation_shift, 1.0), strict=True):
            association = (1 - shift) + shift * test_association
            models[split] = SplitModel(
                prior_G=(1 - shift) * train_G + shift * test_G,
                association=association,
                words=WordModel(p.words, self._response, association),
            )
        return models
