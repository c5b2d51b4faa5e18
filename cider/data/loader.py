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


ALL = (0, 1)
"""The only one of one part."""


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

    def batches(
        self,
        batch_size: int,
        order_N: np.ndarray | None = None,
        *,
        part: tuple[int, int] = ALL,
        turn: tuple[int, int] = ALL,
    ) -> Iterator[Batch]:
        """Yield every utterance once, in the given order or the stored one.

        Args:
            batch_size: utterances per whole batch.
            order_N: row numbers; None is the stored order.
            part: ``(number, count)``: of each batch only this one of so many parts.
            turn: ``(number, count)``: only every ``count``-th batch, from this one on.
        """
        if order_N is None:
            order_N = np.arange(len(self.split))
        first, step = turn
        for start in range(first * batch_size, len(order_N), step * batch_size):
            yield self.batch(order_N[start : start + batch_size], part)

    def batch(self, index_B: np.ndarray, part: tuple[int, int] = ALL) -> Batch:
        """Return the utterances at these rows, padded with zeros.

        Args:
            index_B: row numbers of the whole batch.
            part: ``(number, count)``: only this one of so many nearly equal parts, padded as far as
                the whole batch, so that nothing computed from it depends on the division. A part
                without an utterance stands in the batch's first one (``Batch.stand_in``).
        """
        padded = self.padded(self.split.lengths.map(lambda lengths_N: lengths_N[index_B]))
        num_whole = len(index_B)
        rows = part_rows(num_whole, *part)
        stand_in = rows.start == rows.stop
        index_B = index_B[:1] if stand_in else index_B[rows]
        lengths = self.split.lengths.map(lambda lengths_N: lengths_N[index_B])
        token_ids_BT = np.zeros((len(index_B), padded.text), dtype=np.int64)
        for row, index in enumerate(index_B):
            token_ids_BT[row, : lengths.text[row]] = self.split.token_ids(int(index))
        view = View(
            torch.from_numpy(token_ids_BT),
            self._frames(Modality.AUDIO, index_B, lengths.audio, padded.audio),
            self._frames(Modality.VISION, index_B, lengths.vision, padded.vision),
            lengths.zip_map(padded, _valid),
            first_row=0 if stand_in else rows.start,
        )
        labels_B = None if self.labels_N is None else torch.from_numpy(self.labels_N[index_B])
        return Batch(
            np.asarray(index_B, dtype=np.int64),
            view,
            labels_B,
            others=num_whole - (rows.stop - rows.start),
            stand_in=stand_in,
        )

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


def part_rows(num_rows: int, number: int, count: int) -> slice:
    """Return the rows of one of ``count`` parts in order; the first parts have one row more."""
    size, longer = divmod(num_rows, count)
    start = number * size + min(number, longer)
    return slice(start, start + size + (number < longer))


def _valid(lengths_B: np.ndarray, padded: int) -> BoolTensor:
    valid_BT: BoolTensor = torch.from_numpy(np.arange(padded) < lengths_B[:, None])  # type: ignore[assignment]
    return valid_BT
