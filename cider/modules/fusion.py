"""Attention over a fused sequence: Multimodal Composite Attention (Eq. 7-12) and the plain form.

All seven subset attentions of MCA cost one. The score matrix is cut into blocks by query and key
modality. A block's own softmax gives its values O_qk, its log-sum-exp s_qk; a subset's output for
the queries of q is then the mean of O_qk over its members k with weights softmax_k(s_qk). The
published form, seven boolean masks and a softmax each, is ``tests/reference/ref_fusion.py``.

Shapes: B batch, L fused steps, D width, H heads, K head width, R queries of one modality, M key
modalities (3).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from cider.modality import SUBSETS, Modality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import BoolTensor, Tensor

MODALITIES = tuple(Modality)


def segments_of(lengths: Sequence[int]) -> list[slice]:
    """Return the slice each modality occupies in the fused sequence."""
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    return [slice(start, start + length) for start, length in zip(starts, lengths, strict=True)]


class ScoreProjection(nn.Module):
    """Queries, keys and values of one sequence, split by head, and the scaled scores (Eq. 7)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_width = width // num_heads
        self.joint = nn.Linear(width, 3 * width)
        nn.init.xavier_uniform_(self.joint.weight)
        nn.init.zeros_(self.joint.bias)

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (B, H, L, L), query by key, and values (B, H, L, K)."""
        num_samples, length, _ = x_BLD.shape
        split_B3HLK = self.joint(x_BLD).view(
            num_samples, length, 3, self.num_heads, self.head_width
        )
        q_BHLK, k_BHLK, v_BHLK = split_B3HLK.permute(2, 0, 3, 1, 4).unbind(0)
        scores_BHLL = (q_BHLK / math.sqrt(self.head_width)) @ k_BHLK.transpose(-1, -2)
        return scores_BHLL, v_BHLK


def _merge_heads(x_BHRK: Tensor) -> Tensor:
    return x_BHRK.transpose(1, 2).flatten(2)


def _hide(scores_BHLL: Tensor, valid_BL: BoolTensor | None) -> Tensor:
    """Keep padded keys from getting weight; finite, so that a row of padding is no NaN."""
    if valid_BL is None:
        return scores_BHLL
    return scores_BHLL.masked_fill(~valid_BL[:, None, None, :], -1e30)


class CompositeAttention(nn.Module):
    """Multimodal Composite Attention: seven modality subsets read one score matrix.

    Args:
        width: D.
        num_heads: H, a divisor of ``width``.
        dropout: of attention weights, in [0, 1).
        dropout_all: False drops weights of the trimodal subset only, as released.
    """

    def __init__(self, width: int, num_heads: int, dropout: float, *, dropout_all: bool) -> None:
        super().__init__()
        self.scores = ScoreProjection(width, num_heads)
        self.dropout = nn.Dropout(dropout)
        self.dropout_all = dropout_all
        self.subset_out = nn.ModuleList(nn.Linear(width, width) for _ in SUBSETS)
        self.summary = nn.ModuleList(nn.Linear(4 * width, width) for _ in MODALITIES)
        self.final = nn.Linear(width, width)

    def forward(
        self, x_BLD: Tensor, lengths: Sequence[int], valid_BL: BoolTensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the fused sequence (B, L, D) and the scores (B, H, L, L) before any mask.

        Args:
            x_BLD: text, audio and vision one after the other.
            lengths: the three segments' lengths.
            valid_BL: True where a key may be attended to; None lets every key.
        """
        scores_BHLL, v_BHLK = self.scores(x_BLD)
        hidden_BHLL = _hide(scores_BHLL, valid_BL)
        segments = segments_of(lengths)
        fused = [
            self._attend(number, hidden_BHLL[:, :, rows], v_BHLK, segments)
            for number, rows in enumerate(segments)
        ]
        return self.final(torch.cat(fused, dim=1)), scores_BHLL

    def _attend(
        self, query: int, scores_BHRL: Tensor, v_BHLK: Tensor, segments: list[slice]
    ) -> Tensor:
        """Return what the queries of one modality read from the four subsets it is part of."""
        member_of = [number for number, subset in enumerate(SUBSETS) if MODALITIES[query] in subset]
        dropping = self.training and self.dropout.p > 0
        if dropping and self.dropout_all:
            read = [self._masked(scores_BHRL, v_BHLK, segments, number) for number in member_of]
        else:
            read = self._blockwise(scores_BHRL, v_BHLK, segments, member_of)
            if dropping:  # the trimodal subset again, through dropped-out weights
                read[0] = self.dropout(scores_BHRL.softmax(dim=-1)) @ v_BHLK
        projected = [
            self.subset_out[number](_merge_heads(read_BHRK))
            for number, read_BHRK in zip(member_of, read, strict=True)
        ]
        summed: Tensor = self.summary[query](torch.cat(projected, dim=-1))  # Eq. 10, 11
        return summed

    @staticmethod
    def _blockwise(
        scores_BHRL: Tensor, v_BHLK: Tensor, segments: list[slice], member_of: list[int]
    ) -> list[Tensor]:
        blocks = [scores_BHRL[..., columns] for columns in segments]
        read_BHRMK = torch.stack(
            [
                block_BHRS.softmax(dim=-1) @ v_BHLK[:, :, columns]
                for block_BHRS, columns in zip(blocks, segments, strict=True)
            ],
            dim=-2,
        )
        mass_BHRM = torch.stack([block_BHRS.logsumexp(dim=-1) for block_BHRS in blocks], dim=-1)
        read = []
        for number in member_of:
            keys = [MODALITIES.index(modality) for modality in SUBSETS[number]]
            if len(keys) == 1:
                read.append(read_BHRMK[..., keys[0], :])
                continue
            share_BHR1M = mass_BHRM[..., keys].softmax(dim=-1).unsqueeze(-2)
            read.append((share_BHR1M @ read_BHRMK[..., keys, :]).squeeze(-2))
        return read

    def _masked(
        self, scores_BHRL: Tensor, v_BHLK: Tensor, segments: list[slice], number: int
    ) -> Tensor:
        columns = [segments[MODALITIES.index(modality)] for modality in SUBSETS[number]]
        weights_BHRS = torch.cat([scores_BHRL[..., rows] for rows in columns], dim=-1).softmax(-1)
        values_BHSK = torch.cat([v_BHLK[:, :, rows] for rows in columns], dim=2)
        read_BHRK: Tensor = self.dropout(weights_BHRS) @ values_BHSK
        return read_BHRK


class PlainAttention(nn.Module):
    """Ordinary multi-head self-attention over the fused sequence (the Table V ablation)."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.scores = ScoreProjection(width, num_heads)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, width)

    def forward(
        self, x_BLD: Tensor, lengths: Sequence[int], valid_BL: BoolTensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the attended sequence (B, L, D) and the scores (B, H, L, L) before any mask."""
        if sum(lengths) != x_BLD.shape[1]:
            raise ValueError(f"segment lengths {lengths} do not add up to {x_BLD.shape[1]}")
        scores_BHLL, v_BHLK = self.scores(x_BLD)
        weights_BHLL = self.dropout(_hide(scores_BHLL, valid_BL).softmax(dim=-1))
        return self.out(_merge_heads(weights_BHLL @ v_BHLK)), scores_BHLL
