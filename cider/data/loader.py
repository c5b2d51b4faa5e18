"""Padded batches out of a mapped split, without worker processes.

Shapes: B batch, T text steps, S frames, F feature width, N utterances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from cider.data.batch import Batch, View
from cider.modality import Modality, PerModality

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import BoolTensor, Tensor

    from cider.data.store import SplitView


class BatchSource:
    """Batches of one split.

    Args:
        split: the mapped split.
        labels_N: class labels (N,) int64, or None for the sealed test split.
        widths: feature width of audio and vision.
        longest: the corpus's longest sequence per modality: what full padding pads to.
        full_padding: pad to ``longest``; otherwise to the longest sequence of the batch.
    """

    def __init__(
        self,
        split: SplitView,
        labels_N: np.ndarray | None,
        *,
        widths: dict[str, int],
        longest: PerModality[int],
        full_padding: bool,
    ) -> None:
        self.split = split
        self.labels_N = labels_N
        self.widths = widths
        self.longest = longest
        self.full_padding = full_padding

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, batch_size: int, order_N: np.ndarray | None = None) -> Iterator[Batch]:
        """Yield every utterance once, in the given order or the stored one."""
        if order_N is None:
            order_N = np.arange(len(self.split))
        for start in range(0, len(order_N), batch_size):
            yield self.batch(order_N[start : start + batch_size])

    def batch(self, index_B: np.ndarray) -> Batch:
        """Return the utterances at these rows, padded with zeros."""
        lengths = self.split.lengths.map(lambda lengths_N: lengths_N[index_B])
        padded = self.padded(lengths)
        token_ids_BT = np.zeros((len(index_B), padded.text), dtype=np.int64)
        for row, index in enumerate(index_B):
            token_ids_BT[row, : lengths.text[row]] = self.split.token_ids(int(index))
        view = View(
            torch.from_numpy(token_ids_BT),
            self._frames(Modality.AUDIO, index_B, lengths.audio, padded.audio),
            self._frames(Modality.VISION, index_B, lengths.vision, padded.vision),
            lengths.zip_map(padded, _valid),
        )
        labels_B = None if self.labels_N is None else torch.from_numpy(self.labels_N[index_B])
        return Batch(np.asarray(index_B, dtype=np.int64), view, labels_B)

    def padded(self, lengths: PerModality[np.ndarray]) -> PerModality[int]:
        """Return the padded length of a batch whose sequences have these lengths (B,)."""
        if self.full_padding:
            return self.longest
        # At least one step: a batch may have no frame of a modality at all.
        return lengths.map(lambda lengths_B: max(int(lengths_B.max()), 1))

    def _frames(
        self, modality: Modality, index_B: np.ndarray, lengths_B: np.ndarray, padded: int
    ) -> Tensor:
        frames_BSF = np.zeros((len(index_B), padded, self.widths[modality]), dtype=np.float32)
        for row, index in enumerate(index_B):
            # The only copy of the mapped file: from the page cache into the batch.
            frames_BSF[row, : lengths_B[row]] = self.split.frames(modality, int(index))
        return torch.from_numpy(frames_BSF)


def _valid(lengths_B: np.ndarray, padded: int) -> BoolTensor:
    valid_BT: BoolTensor = torch.from_numpy(np.arange(padded) < lengths_B[:, None])  # type: ignore[assignment]
    return valid_BT
