"""Batches and the views of them that a model reads.

Shapes: B batch, T text steps, S steps of audio or vision, F raw feature width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import BoolTensor, Tensor

    from cider.modality import PerModality


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The special tokens of a corpus's tokenizer. Defaults: every uncased BERT vocabulary."""

    pad: int = 0
    unknown: int = 100
    start: int = 101
    end: int = 102
    mask: int = 103


@dataclass(frozen=True, slots=True)
class View:
    """One form of a batch: complete, incomplete or counterfactual.

    ``valid`` is True where a step is content and False where it is padding; it is the same in every
    view, because a missing step is still a step.
    """

    token_ids_BT: Tensor
    """int64 token ids."""
    audio_BSF: Tensor
    """float32 frames, zero at padding."""
    vision_BSF: Tensor
    """float32 frames, zero at padding."""
    valid: PerModality[BoolTensor]
    """Boolean (B, T) and (B, S)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Utterances of one split, padded, with their labels where the split has them."""

    index_B: np.ndarray
    """int64 row numbers within the split; they seed the masks."""
    complete: View
    labels_B: Tensor | None
    """int64 class labels; None for the sealed test split."""

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on a device."""
        view = self.complete
        labels_B = self.labels_B
        return Batch(
            self.index_B,
            View(
                view.token_ids_BT.to(device, non_blocking=True),
                view.audio_BSF.to(device, non_blocking=True),
                view.vision_BSF.to(device, non_blocking=True),
                view.valid.map(lambda valid: _bool(valid.to(device, non_blocking=True))),
            ),
            None if labels_B is None else labels_B.to(device, non_blocking=True),
        )


def _bool(mask: Tensor) -> BoolTensor:
    assert mask.dtype == torch.bool
    return mask  # type: ignore[return-value]
