"""Attention weights read out of a fusion layer's scores, for looking at: nothing trains with them.

``cider.modules.fusion`` never makes these weights: it reads each block of keys once. Here they are
what its outputs are equal to, a softmax of the scores over the keys of one modality subset (Eq. 8).

Shapes: B batch, H heads, L fused steps, Q queries and S keys of one subset, M modalities (3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cider.modality import Modality
from cider.modules.fusion import segments_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def subset_steps(lengths: Sequence[int], subset: Sequence[Modality]) -> Tensor:
    """Return the fused steps of a subset's modalities, int64 (Q,), in fused order.

    Args:
        lengths: steps of text, audio and vision in the fused sequence.
        subset: the modalities.
    """
    segments = zip(Modality, segments_of(lengths), strict=True)
    return torch.cat(
        [
            torch.arange(segment.start, segment.stop)
            for modality, segment in segments
            if modality in subset
        ]
    )


def subset_weights(
    scores_BHLL: Tensor, lengths: Sequence[int], subset: Sequence[Modality]
) -> Tensor:
    """Return the attention weights of one modality subset, (B, H, Q, S); rows add up to 1.

    Args:
        scores_BHLL: a fusion layer's scores, query by key; padded keys score ``HIDDEN``.
        lengths: steps of text, audio and vision in the fused sequence.
        subset: the modalities whose steps are queries and keys, one of ``SUBSETS``.
    """
    steps_Q = subset_steps(lengths, subset).to(scores_BHLL.device)
    return scores_BHLL[:, :, steps_Q][..., steps_Q].softmax(dim=-1)


def key_shares(scores_BHLL: Tensor, lengths: Sequence[int], subset: Sequence[Modality]) -> Tensor:
    """Return how a subset's attention divides among the modalities of its keys, (B, H, L, M).

    No weight is made: a modality's share is the softmax of the blocks' log-sum-exps.

    Args:
        scores_BHLL: a fusion layer's scores, query by key.
        lengths: steps of text, audio and vision in the fused sequence.
        subset: the modalities that may be read; others have the share 0.

    Returns:
        Shares that add up to 1 over the last dimension, for every query of the fused sequence, also
        for those of modalities that are not in the subset.
    """
    blocks = torch.split(scores_BHLL, list(lengths), dim=-1)
    masses = [
        block_BHLS.logsumexp(dim=-1)
        if modality in subset
        else torch.full_like(block_BHLS[..., 0], -torch.inf)
        for modality, block_BHLS in zip(Modality, blocks, strict=True)
    ]
    return torch.stack(masses, dim=-1).softmax(dim=-1)
