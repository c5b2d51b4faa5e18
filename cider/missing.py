"""Missing-data protocols: which positions of an utterance a model may observe.

A protocol draws one *level* per position of an utterance, and a position is observed while its
level is above the missing rate. So one draw gives the masks of every rate: a position observed at
some rate is observed at every lower one. Draws depend on the seed, the epoch and the row number of
the utterance alone, never on workers, order, batch size or padding.

In every mask True means observed. Padding is never observed; the first and the last token of an
utterance, [CLS] and [SEP], always are. Shapes: B utterances, T padded steps of a modality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cider import missing_released
from cider.config import check_range
from cider.errors import UsageError
from cider.modality import KEPT_SETS, Modality, PerModality, modalities_of
from cider.registry import lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cider.spec import MissingConfig

ALWAYS, NEVER = np.inf, -np.inf
"""Levels of positions that no rate drops, and that no rate keeps."""

RELEASED_SEED = 1111
"""Seed the published evaluation gives NumPy's legacy generator before every split and rate."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """What a protocol draws from."""

    rng: np.random.Generator
    lengths: PerModality[int]
    """Steps that are content."""
    kept: frozenset[Modality]
    """smm only: the modalities that stay."""


Levels = PerModality[np.ndarray | float]
"""A level per step of each modality, or one number where all steps of a modality share it."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """A way of losing data."""

    draw: Callable[[Utterance], Levels]
    aligned_only: bool
    """It drops time steps that the three modalities share."""
    uses_rate: bool
    """False: the missing rate has no say."""
    in_blocks: bool
    """Levels count dropped steps, because a block's length is rounded to whole steps."""


_PROTOCOLS: dict[str, Protocol] = {}


def protocol(
    name: str, *, aligned_only: bool = False, uses_rate: bool = True, in_blocks: bool = False
) -> Callable[[Callable[[Utterance], Levels]], Callable[[Utterance], Levels]]:
    """Register the function that draws a protocol's levels; see ``Protocol`` for the fields."""

    def register(draw: Callable[[Utterance], Levels]) -> Callable[[Utterance], Levels]:
        _PROTOCOLS[name] = Protocol(draw, aligned_only, uses_rate, in_blocks)
        return draw

    return register


def names() -> list[str]:
    """Return the name of every protocol."""
    return sorted(_PROTOCOLS)


def uses_rate(name: str) -> bool:
    """Return whether a protocol has a missing rate; ``none`` and ``smm`` have not.

    Raises:
        UsageError: if there is no such protocol.
    """
    return lookup("missing protocol", name, _PROTOCOLS).uses_rate


def needs_aligned(name: str) -> bool:
    """Return whether a protocol drops time steps that the modalities share (tmfm, stmfm).

    Raises:
        UsageError: if there is no such protocol.
    """
    return lookup("missing protocol", name, _PROTOCOLS).aligned_only


def training_masks(
    config: MissingConfig,
    lengths: PerModality[np.ndarray],
    indices: np.ndarray,
    *,
    seed: int,
    epoch: int,
    pad_to: PerModality[int],
) -> PerModality[np.ndarray]:
    """Draw which positions of a batch are observed in one epoch.

    ``train_rate="per_sample"`` draws one rate from [0, 1) per utterance (the paper). It holds for
    all three modalities under every protocol, rmfm_per_modality included: the paper gives its
    three masks the same r, and says that they lose data "with equal probability". At equal rates
    rmfm and rmfm_per_modality therefore have the same distribution; only their draws differ.

    ``train_rate="per_position"`` is the published code's: a rate per position. A uniform level is
    above an independent uniform rate with probability one half, so that is a rate of 0.5
    everywhere. A block of stmfm has no positions to draw rates for, and keeps one per utterance.

    Args:
        config: protocol, kept set and ``train_rate``.
        lengths: number of valid steps, int (B,) per modality.
        indices: row numbers within the training split, int (B,).
        seed: the run's seed.
        epoch: 1-based epoch; 0 is evaluation's.
        pad_to: padded length per modality.

    Returns:
        bool (B, T) per modality, True = observed.

    Raises:
        UsageError: if the protocol is unknown, or does not fit its kept set or the lengths.
    """
    if epoch < 1:
        raise ValueError(f"epoch must be at least 1 (0 is evaluation's), got {epoch}")
    chosen = _find(config.protocol, config.kept, lengths)
    rngs = [np.random.default_rng([seed, epoch, index]) for index in indices.tolist()]
    if config.train_rate == "per_sample" or chosen.in_blocks:
        rate_B = np.array([rng.random() for rng in rngs])
    else:
        rate_B = np.full(len(rngs), 0.5)
    levels = _draw_levels(chosen, rngs, lengths, pad_to, config.kept)
    return _observed(chosen, levels, lengths, rate_B)


class EvaluationMasks:
    """Masks of some utterances at any missing rate, from one draw per utterance.

    At rate 0 everything valid is observed, at rate 1 only [CLS] and [SEP] are (of tmfm and stmfm:
    in all three modalities, whose steps they share). Masks of two rates are nested, for stmfm too.

    Args:
        name: the protocol.
        lengths: number of valid steps, int (B,) per modality.
        indices: row numbers within the split, int (B,).
        seed: the run's seed.
        pad_to: padded length per modality.
        kept: smm only: the modalities that stay.

    Raises:
        UsageError: if the protocol is unknown, or does not fit its kept set or the lengths.
    """

    def __init__(
        self,
        name: str,
        lengths: PerModality[np.ndarray],
        indices: np.ndarray,
        *,
        seed: int,
        pad_to: PerModality[int],
        kept: str = "",
    ) -> None:
        self._protocol = _find(name, kept, lengths)
        self._lengths = lengths
        rngs = [np.random.default_rng([seed, 0, index]) for index in indices.tolist()]
        self._levels = _draw_levels(self._protocol, rngs, lengths, pad_to, kept)

    def at(self, rate: float) -> PerModality[np.ndarray]:
        """Return bool (B, T) per modality, True = observed, at a missing rate in [0, 1].

        Raises:
            UsageError: if the rate is outside [0, 1].
        """
        check_range("missing rate", rate, 0.0, 1.0)
        rate_B = np.full(len(self._lengths.text), rate)
        return _observed(self._protocol, self._levels, self._lengths, rate_B)


def evaluation_masks(
    name: str,
    rate: float,
    lengths: PerModality[np.ndarray],
    indices: np.ndarray,
    *,
    seed: int,
    pad_to: PerModality[int],
    kept: str = "",
) -> PerModality[np.ndarray]:
    """Return which positions are observed at one missing rate; see ``EvaluationMasks``."""
    masks = EvaluationMasks(name, lengths, indices, seed=seed, pad_to=pad_to, kept=kept)
    return masks.at(rate)


def released_masks(
    name: str,
    rate: float,
    lengths: PerModality[np.ndarray],
    *,
    pad_to: PerModality[int],
    seed: int = RELEASED_SEED,
    kept: str = "",
) -> PerModality[np.ndarray]:
    """Return the masks of a whole split in the published draw order, bit for bit.

    Args:
        name: the protocol.
        rate: missing rate in [0, 1]; none and smm have none.
        lengths: number of valid steps of every utterance of the split, int (N,) per modality.
        pad_to: padded length per modality. The published code draws for padding too, so it
            must be the corpus's full padding to give the published masks.
        seed: seed of the legacy generator.
        kept: smm only: the modalities that stay.

    Returns:
        bool (N, T) per modality, True = observed.

    Raises:
        UsageError: if the protocol is unknown or was not published, does not fit its kept set or
            the lengths, or the rate is outside [0, 1].
    """
    chosen = _find(name, kept, lengths)
    check_range("missing rate", rate, 0.0, 1.0)
    draw = lookup("published missing protocol", name, missing_released.PROTOCOLS)
    drawn = draw(missing_released.Split(seed, rate, lengths, pad_to, _kept_modalities(kept)))
    valid = lengths.zip_map(pad_to, lambda length_N, steps: np.arange(steps) < length_N[:, None])
    observed = valid.zip_map(drawn, lambda valid_NT, drawn_NT: valid_NT & drawn_NT)
    for mask_NT in observed if chosen.aligned_only else [observed.text]:
        _set_ends(mask_NT, lengths.text, value=True)
    return observed


@protocol("none", uses_rate=False)
def _none(_: Utterance) -> Levels:
    """Keep everything."""
    return PerModality(ALWAYS, ALWAYS, ALWAYS)


@protocol("rmfm")
def _rmfm(utterance: Utterance) -> Levels:
    """Drop positions of the three modalities by one mask over their concatenation (the paper)."""
    text, audio, vision = utterance.lengths
    levels = _uniform(utterance.rng, text + audio + vision)
    return PerModality(levels[:text], levels[text : text + audio], levels[text + audio :])


@protocol("rmfm_per_modality")
def _rmfm_per_modality(utterance: Utterance) -> Levels:
    """Drop positions by three independent masks; no modality's draws depend on another."""
    streams = utterance.rng.spawn(len(Modality))
    return PerModality(*map(_uniform, streams, utterance.lengths))


@protocol("rmm")
def _rmm(utterance: Utterance) -> Levels:
    """Lose each modality as a whole, independently."""
    return PerModality(*_uniform(utterance.rng, len(Modality)).tolist())


@protocol("tmfm", aligned_only=True)
def _tmfm(utterance: Utterance) -> Levels:
    """Drop time steps, from all modalities at once."""
    levels = _uniform(utterance.rng, utterance.lengths.text)
    levels[:1] = levels[-1:] = ALWAYS
    return PerModality(levels, levels, levels)


@protocol("stmfm", aligned_only=True, in_blocks=True)
def _stmfm(utterance: Utterance) -> Levels:
    """Drop one block of consecutive time steps, from all modalities at once.

    The block has round((n - 2) * rate) steps and starts uniformly at 1 .. n - block - 1. To nest
    the blocks of all rates, a block grows by one step at a time, to the left or to the right: of
    n - 2 uniform draws those below one more draw stand for steps to the left of the block, and
    growing takes the draws away in their order. How many remain on the left is then the rank of
    one uniform draw among others, which is uniform whatever the block's length.
    """
    inner = max(utterance.lengths.text - 2, 0)
    side = utterance.rng.random()
    goes_left = utterance.rng.random(inner) < side
    turn = np.arange(1.0, inner + 1)
    levels = np.full(utterance.lengths.text, ALWAYS)
    levels[1 : inner + 1] = np.concatenate([turn[goes_left][::-1], turn[~goes_left]])
    return PerModality(levels, levels, levels)


@protocol("smm", uses_rate=False)
def _smm(utterance: Utterance) -> Levels:
    """Lose the modalities that are not in the kept set."""
    kept = utterance.kept
    return PerModality(*(ALWAYS if modality in kept else NEVER for modality in Modality))


def _uniform(rng: np.random.Generator, size: int) -> np.ndarray:
    # In (0, 1], so that rate 0 drops nothing and rate 1 everything, without exception.
    return 1.0 - rng.random(size)


def _kept_modalities(kept: str) -> frozenset[Modality]:
    return modalities_of(kept) if kept else frozenset()


def _find(name: str, kept: str, lengths: PerModality[np.ndarray]) -> Protocol:
    chosen = lookup("missing protocol", name, _PROTOCOLS)
    if name == "smm" and kept not in KEPT_SETS:
        raise UsageError(
            f"missing protocol smm needs a kept set, one of {', '.join(KEPT_SETS)}, got {kept!r}"
        )
    if name != "smm" and kept:
        raise UsageError(f"only missing protocol smm has a kept set, got {kept!r} with {name}")
    if chosen.aligned_only and not all(map(np.array_equal, [lengths.text] * 3, lengths)):
        raise UsageError(
            f"missing protocol {name} drops shared time steps and needs aligned data, got "
            "utterances with unequal numbers of tokens and frames; use an aligned corpus"
        )
    return chosen


def _draw_levels(
    chosen: Protocol,
    rngs: Sequence[np.random.Generator],
    lengths: PerModality[np.ndarray],
    pad_to: PerModality[int],
    kept: str,
) -> PerModality[np.ndarray]:
    """Return the level of every position, float64 (B, T) per modality; padding has NEVER."""
    kept_modalities = _kept_modalities(kept)
    levels = pad_to.map(lambda steps: np.full((len(rngs), steps), NEVER))
    rows = zip(*(length_B.tolist() for length_B in lengths), strict=True)
    for row, (rng, steps) in enumerate(zip(rngs, rows, strict=True)):
        drawn = chosen.draw(Utterance(rng, PerModality(*steps), kept_modalities))
        for levels_BT, values, length in zip(levels, drawn, steps, strict=True):
            levels_BT[row, :length] = values
    _set_ends(levels.text, lengths.text, value=ALWAYS)
    return levels


def _set_ends(table_BT: np.ndarray, length_B: np.ndarray, *, value: float) -> None:
    """Set the first and the last valid step of every row that has one."""
    (rows,) = np.nonzero(length_B)
    table_BT[rows, 0] = value
    table_BT[rows, length_B[rows] - 1] = value


def _observed(
    chosen: Protocol,
    levels: PerModality[np.ndarray],
    lengths: PerModality[np.ndarray],
    rate_B: np.ndarray,
) -> PerModality[np.ndarray]:
    if chosen.in_blocks:
        # np.round rounds half to even, as the published block length does.
        rate_B = np.round(np.maximum(lengths.text - 2, 0) * rate_B)
    return levels.map(lambda levels_BT: levels_BT > rate_B[:, None])
