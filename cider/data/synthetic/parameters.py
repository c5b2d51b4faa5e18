"""Every generating parameter of the synthetic corpora, with its default.

The strengths were tuned so that text alone tells most, each modality tells something, and bias
words mislead a model that trusts them on the OOD test; ``docs/synthetic.md`` has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cider.data.synthetic.name import DEFAULT_VALIDATION_SHIFT

Response = Literal["polarity", "arousal", "intensity"]
Shape = Literal["level", "trend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WordParameters:
    """Shares of the kinds of words, in [0, 1], and how far they lean with the label, in [0, 1)."""

    function: float = 0.62
    """Share of function words; topic words take what the other kinds leave."""
    function_lean: float = 0.2
    """Training association of function words, half of them with the label and half against it: the
    positive half's share is (1 + lean * polarity) / 2."""
    negator: float = 0.01
    """Share of negators. The next word is always a sentiment word with its polarity reversed."""
    bias: float = 0.08
    """Share of bias words."""
    bias_lean: float = 0.5
    """Training association of bias words, as ``function_lean``."""
    sentiment: float = 0.02
    """Share of sentiment words at arousal 0, in a neutral utterance."""
    sentiment_arousal: float = 0.18
    """What arousal 1 adds to that share."""
    strong: float = 0.25
    """Share of strong words among sentiment words at intensity 0."""
    strong_intensity: float = 0.5
    """What intensity 1 adds to that share."""
    irony: float = 0.07
    """Share of utterances whose sentiment words, all of them, have their polarity reversed; in
    (0, 1). It keeps the best accuracy below 1 without making words hard to learn."""
    mild_lean: float = 0.9
    """Lean of mild sentiment words, as ``function_lean``, in every split."""
    strong_lean: float = 0.98
    """Lean of strong sentiment words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A group of features that one response moves.

    An utterance's coefficient is ``response + spread * normal``: people differ, so that more frames
    never tell more than the coefficient. Frames are ``amplitude * coefficient * shape(time)`` along
    the channel's direction, plus unit AR(1) noise in every feature.
    """

    response: Response
    """What moves it; see ``responses``."""
    shape: Shape
    """``level``: all frames alike; ``trend``: -1 in the first frame to 1 in the last."""
    width_share: float
    """Share of the modality's features; rounded down, at least one."""
    amplitude: float
    """Euclidean norm over features of a movement by coefficient 1, in units of the noise."""
    spread: float
    """Standard deviation of the coefficient between utterances of one label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameParameters:
    """Frames of one modality."""

    channels: tuple[Channel, ...]
    unaligned_correlation: float
    """AR(1) coefficient of the noise between frames, in [0, 1). Assumed."""
    aligned_correlation: float
    """The same between words; the median measured on word-aligned MOSI."""
    length_spread: float = 0.3
    """Standard deviation of the logarithm of frames per word, unaligned data. Assumed."""


def _channels(polarity: float, trend: float, arousal: float) -> tuple[Channel, ...]:
    """Return a modality's three channels from the spreads of their coefficients."""
    return (
        Channel(
            response="polarity", shape="level", width_share=0.4, amplitude=0.9, spread=polarity
        ),
        Channel(response="polarity", shape="trend", width_share=0.2, amplitude=0.9, spread=trend),
        Channel(response="arousal", shape="level", width_share=0.2, amplitude=0.9, spread=arousal),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """The whole model; the manifest of a synthetic corpus records it."""

    polarity_offset: float = 0.95
    """Size of the polarity of the smallest label that is not zero; it rises linearly to 1 at 3."""
    arousal_offset: float = 0.75
    """The same for arousal."""
    words: WordParameters = field(default_factory=WordParameters)
    audio: FrameParameters = field(
        default_factory=lambda: FrameParameters(
            channels=_channels(3.0, 4.0, 0.15), unaligned_correlation=0.75, aligned_correlation=0.06
        )
    )
    vision: FrameParameters = field(
        default_factory=lambda: FrameParameters(
            channels=_channels(3.6, 4.0, 0.2), unaligned_correlation=0.75, aligned_correlation=0.34
        )
    )
    ood_reversal: float = 1.0
    """OOD test: function and bias words lean minus this times as much as in training."""
    validation_shift: float = DEFAULT_VALIDATION_SHIFT
    """OOD validation, in [0, 1]: 0 is the training distribution, 1 the test's, linear between."""


def responses(grid_G: np.ndarray, parameters: Parameters) -> dict[Response, np.ndarray]:
    """Return what the label drives, by name.

    ``polarity`` in [-1, 1] has the label's sign and, but for 0, nearly one size; ``arousal`` in
    [0, 1] is large for any label but 0; ``intensity`` in [0, 1] grows with the label's size from 0.

    Args:
        grid_G: (G,) labels in [-3, 3].
        parameters: has the responses of the smallest label that is not zero.

    Returns:
        float64 (G,) each.
    """

    def rise(offset: float) -> np.ndarray:
        return np.where(grid_G == 0, 0.0, offset + (1 - offset) * np.abs(grid_G) / 3)

    return {
        "polarity": np.sign(grid_G) * rise(parameters.polarity_offset),
        "arousal": rise(parameters.arousal_offset),
        "intensity": np.abs(grid_G) / 3,
    }
