"""Batches and the views of them that a model reads.

Shapes: B batch, T text steps, S steps of audio or vision, F raw feature width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    first_row: int = 0
    """Row of the whole batch with which this part of it begins. Only the released positions, which
    count rows, depend on it."""
    row_B: Tensor | None = None
    """int64 row of the whole batch that each row is, where they are in another order; None: they
    follow each other from ``first_row``."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Utterances of one split, padded, with their labels where the split has them.

    Where several workers train together it is one worker's part of a whole batch.
    """

    index_B: np.ndarray
    """int64 row numbers within the split; they seed the masks."""
    complete: View
    labels_B: Tensor | None
    """int64 class labels; None for the sealed test split."""
    others: int = 0
    """Utterances of the whole batch that other workers have."""
    stand_in: bool = False
    """True if there was no utterance left for this worker, and the one here is another's: a model
    cannot read an empty batch. It counts nothing."""

    @property
    def num_whole(self) -> int:
        """Number of utterances of the whole batch."""
        return self.others + (0 if self.stand_in else len(self.index_B))

    @property
    def share(self) -> float:
        """Part of the whole batch's utterances that are here, in [0, 1]."""
        return (self.num_whole - self.others) / self.num_whole

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on a device."""
        view = self.complete
        labels_B = self.labels_B
        return replace(
            self,
            complete=replace(
                view,
                token_ids_BT=view.token_ids_BT.to(device, non_blocking=True),
                audio_BSF=view.audio_BSF.to(device, non_blocking=True),
                vision_BSF=view.vision_BSF.to(device, non_blocking=True),
                valid=view.valid.map(lambda valid: _bool(valid.to(device, non_blocking=True))),
            ),
            labels_B=None if labels_B is None else labels_B.to(device, non_blocking=True),
        )


def _bool(mask: Tensor) -> BoolTensor:
    assert mask.dtype == torch.bool
    return mask  # type: ignore[return-value]
