"""Cut padded frames to their utterances and repair what is not finite, counting everything.

Shapes: B rows of one batch, S padded steps, F feature width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

_VALUE_KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "minus_infinity": np.isneginf,
    "plus_infinity": np.isposinf,
    "not_a_number": np.isnan,
}


def content_lengths(frames_BSF: np.ndarray) -> np.ndarray:
    """Return the number of steps up to the last one that is not all zero, int64 (B,)."""
    nonzero_BS = (frames_BSF != 0).any(axis=2)
    steps = frames_BSF.shape[1]
    from_end_B = nonzero_BS[:, ::-1].argmax(axis=1)
    return np.where(nonzero_BS.any(axis=1), steps - from_end_B, 0).astype(np.int64)


def cut_frames(
    frames_BSF: np.ndarray, lengths_B: np.ndarray, name: str, counts: Counter[str]
) -> list[np.ndarray]:
    """Return each utterance's frames, finite and without padding.

    Args:
        frames_BSF: padded frames of any number type; left as they are.
        lengths_B: int64, steps of each utterance, at most S.
        name: audio or vision, for the counts.
        counts: grows by what was found: ``<name>_values_<kind>`` (repaired values by kind),
            ``<name>_frames_repaired``, ``<name>_frames_beyond_length`` (not all zero, left out) and
            ``<name>_utterances_without_frames`` (stored as one zero frame, because attention over
            no frame at all is undefined).

    Returns:
        B float32 arrays (steps, F) with at least one step; views where nothing was repaired.
    """
    with np.errstate(over="ignore"):  # A float64 beyond float32 becomes infinite, and is repaired.
        frames_BSF = np.asarray(frames_BSF, np.float32)
    valid_BS = np.arange(frames_BSF.shape[1]) < lengths_B[:, None]
    counts[f"{name}_frames_beyond_length"] += int(((frames_BSF != 0).any(axis=2) & ~valid_BS).sum())
    bad_BSF = ~np.isfinite(frames_BSF)
    bad_BSF &= valid_BS[:, :, None]
    if bad_BSF.any():
        for kind, is_kind in _VALUE_KINDS.items():
            counts[f"{name}_values_{kind}"] += int(is_kind(frames_BSF[bad_BSF]).sum())
        counts[f"{name}_frames_repaired"] += int(bad_BSF.any(axis=2).sum())
        frames_BSF = np.where(bad_BSF, np.float32(0), frames_BSF)
    counts[f"{name}_utterances_without_frames"] += int((lengths_B == 0).sum())
    nothing_1F = np.zeros((1, frames_BSF.shape[2]), np.float32)
    return [
        frames_SF[:length] if length else nothing_1F
        for frames_SF, length in zip(frames_BSF, lengths_B.tolist(), strict=True)
    ]
