"""A batch cut into groups of utterances of similar length, each without the others' padding.

One long utterance in a batch makes all the others as long: of MOSI's texts a batch of 128 is padded
to 50 steps where the mean is 15, and attention grows with the square of it. Losses are sums over
utterances divided by counts of the whole batch, so the losses of groups, and their gradients, add
up to the batch's, and a group's activations are freed before the next one's are computed. Only the
rounding of sums and which elements dropout draws differ.

Shapes: B batch, R rows of a group, T text steps, S frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from cider.modality import PerModality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import BoolTensor, Tensor

    from cider.data.batch import Batch, View

LINEAR_STEPS = 50
"""Steps at which the part of a step's work that grows with the length of a text (projections, GRUs,
feed-forward layers) is as large as the part that grows with its square (attention). Measured."""
START = 5000
"""What a group costs whatever is in it, in the unit of ``cuts``: about one text of 50 tokens.
Measured on a CPU without the text encoder."""


@dataclass(frozen=True, slots=True)
class Group:
    """Some utterances of a batch."""

    view: View
    """Their complete view."""
    observed: PerModality[BoolTensor]
    """True where a position was kept."""
    labels_R: Tensor
    share: float
    """Part of the whole batch's utterances that are here, in [0, 1]."""


def whole_batch(batch: Batch, observed: PerModality[BoolTensor]) -> list[Group]:
    """Return a batch as its only group, padded as it is."""
    assert batch.labels_B is not None
    return [Group(batch.complete, observed, batch.labels_B, batch.share)]


def by_length(batch: Batch, observed: PerModality[BoolTensor]) -> list[Group]:
    """Return a batch in groups of similar numbers of tokens, longest first.

    Args:
        batch: on any device.
        observed: True where a position was kept.
    """
    assert batch.labels_B is not None
    groups = []
    for row_R, steps in rows_by_length(batch.complete):
        groups.append(
            Group(
                cut_view(batch.complete, row_R, steps),
                _masks(observed, row_R, steps),
                batch.labels_B[row_R],
                batch.share * len(row_R) / len(batch.labels_B),
            )
        )
    return groups


def rows_by_length(view: View) -> list[tuple[Tensor, PerModality[int]]]:
    """Return for every group which rows it has (R,), on the view's device, and its longest lengths.

    Rows are in the order of their numbers of tokens, longest first.
    """
    lengths = view.valid.map(lambda mask_BT: mask_BT.sum(dim=1).cpu())
    order_B = torch.argsort(lengths.text, descending=True, stable=True)
    found = []
    for start, stop in cuts(lengths.text[order_B].tolist()):
        row_R = order_B[start:stop]
        # At least one step: utterances may have no frame of a modality at all.
        steps = PerModality(*(max(int(length_B[row_R].max()), 1) for length_B in lengths))
        found.append((row_R.to(view.token_ids_BT.device), steps))
    return found


def cuts(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return the bounds of groups of least work.

    Args:
        lengths: tokens of every text, longest first; at least one.
    """
    length_B = np.asarray(lengths, dtype=np.float64)
    work_B = length_B * (length_B + LINEAR_STEPS)
    rows = np.arange(len(lengths) + 1)
    least, begins = np.zeros(len(lengths) + 1), np.zeros(len(lengths) + 1, dtype=np.int64)
    for stop in rows[1:]:
        # The last group begins with the row that makes it and the best cuts before it cheapest.
        costs = least[:stop] + START + (stop - rows[:stop]) * work_B[:stop]
        begins[stop] = costs.argmin()
        least[stop] = costs[begins[stop]]
    bounds = [len(lengths)]
    while bounds[-1] > 0:
        bounds.append(int(begins[bounds[-1]]))
    return list(pairwise(reversed(bounds)))


def cut_view(view: View, row_R: Tensor, steps: PerModality[int]) -> View:
    """Return some rows of a view, as far as they are content."""
    rows_B = view.row_B
    if rows_B is None:
        rows_B = torch.arange(len(view.token_ids_BT), device=row_R.device) + view.first_row
    return replace(
        view,
        token_ids_BT=view.token_ids_BT[:, : steps.text][row_R],
        audio_BSF=view.audio_BSF[:, : steps.audio][row_R],
        vision_BSF=view.vision_BSF[:, : steps.vision][row_R],
        valid=_masks(view.valid, row_R, steps),
        row_B=rows_B[row_R],
    )


def _masks(
    masks: PerModality[BoolTensor], row_R: Tensor, steps: PerModality[int]
) -> PerModality[BoolTensor]:
    return masks.zip_map(steps, lambda mask_BT, count: mask_BT[:, :count][row_R])  # type: ignore[arg-type, return-value]
