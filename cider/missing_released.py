"""The published code's masks: one draw for a whole split from NumPy's legacy generator.

Each function repeats one protocol's draws in their published order, padding included; a position is
kept where its draw is greater than the rate. ``cider.missing.released_masks`` removes padding and
keeps the first and last token. Shapes: N utterances of a split, T padded steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cider.modality import Modality, PerModality

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Split:
    """A split and how it loses data."""

    seed: int
    rate: float
    """Missing rate in [0, 1]."""
    lengths: PerModality[np.ndarray]
    """Valid steps, int (N,)."""
    pad_to: PerModality[int]
    kept: frozenset[Modality]
    """smm only: the modalities that stay."""

    @property
    def num_rows(self) -> int:
        """Number of utterances, N."""
        return len(self.lengths.text)

    def generator(self) -> np.random.RandomState:
        """Return the legacy generator, seeded afresh as before every published draw."""
        # Parity: the published draws come from this generator.
        return np.random.RandomState(self.seed)


Masks = PerModality[np.ndarray]


def _none(split: Split) -> Masks:
    return split.pad_to.map(lambda steps: np.ones((split.num_rows, steps), dtype=bool))


def _rmfm(split: Split) -> Masks:
    text, audio, vision = split.pad_to
    draws = split.generator().uniform(size=(split.num_rows, text + audio + vision))
    kept = draws > split.rate
    return PerModality(kept[:, :text], kept[:, text : text + audio], kept[:, text + audio :])


def _rmfm_per_modality(split: Split) -> Masks:
    generator = split.generator()
    return split.pad_to.map(
        lambda steps: generator.uniform(size=(split.num_rows, steps)) > split.rate
    )


def _rmm(split: Split) -> Masks:
    kept = split.generator().uniform(size=(split.num_rows, len(Modality))) > split.rate
    columns = PerModality(kept[:, :1], kept[:, 1:2], kept[:, 2:])
    return columns.zip_map(
        split.pad_to, lambda column, steps: np.broadcast_to(column, (split.num_rows, steps))
    )


def _tmfm(split: Split) -> Masks:
    draws = split.generator().uniform(size=(split.num_rows, split.pad_to.text))
    return _shared(split, draws > split.rate)


def _stmfm(split: Split) -> Masks:
    generator = split.generator()
    kept = np.ones((split.num_rows, split.pad_to.text), dtype=bool)
    for row, num_steps in zip(kept, split.lengths.text.tolist(), strict=True):
        # Differs from the reference: an utterance of less than three tokens has nothing to lose.
        if num_steps > 2:
            block = round((num_steps - 2) * split.rate)
            start = int(generator.randint(1, num_steps - block))
            row[start : start + block] = False
    return _shared(split, kept)


def _shared(split: Split, kept: np.ndarray) -> Masks:
    # Steps of a modality that is padded further than the text are padding, whatever they get here.
    widest = np.pad(kept, ((0, 0), (0, max(split.pad_to) - split.pad_to.text)))
    return split.pad_to.map(lambda steps: widest[:, :steps])


def _smm(split: Split) -> Masks:
    # Published as three independent masks with rates 0 and 1, so its draws decide nothing.
    flags = PerModality(*(modality in split.kept for modality in Modality))
    return flags.zip_map(split.pad_to, lambda flag, steps: np.full((split.num_rows, steps), flag))


PROTOCOLS: dict[str, Callable[[Split], Masks]] = {
    "none": _none,
    "rmfm": _rmfm,
    "rmfm_per_modality": _rmfm_per_modality,
    "rmm": _rmm,
    "tmfm": _tmfm,
    "stmfm": _stmfm,
    "smm": _smm,
}
