"""Attention over a fused sequence: Multimodal Composite Attention (Eq. 7-12) and the plain form.

All seven subset attentions of MCA cost one. With the scores cut into blocks by key modality k, let
m_k be a block's largest score in a row, E_k = exp(S_k - m_k), Z_k the row sum of E_k and N_k = E_k V_k.
A subset's output is then the mean of N_k / Z_k over its members k with weights softmax_k(m_k +
log Z_k), so one exponential and one product with the values serve every subset. The maps after the
attention (Eq. 9-12) are linear without anything between, and are multiplied into one matrix per query
modality. The published form, seven boolean masks and a softmax each, is
``tests/reference/ref_fusion.py``.

Shapes: B batch, L fused steps, D width, H heads, K head width, R queries of one modality, S keys of
one modality, M key modalities (3), Q query modalities (3), G subsets a modality is part of (4), E 4D.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from cider.modality import SUBSETS, Modality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import BoolTensor, Tensor

MODALITIES = tuple(Modality)
HIDDEN = -1e30
"""Score of a padded key. Finite, so that a row with nothing but padding is no NaN."""

SUBSETS_OF: tuple[tuple[int, ...], ...] = tuple(
    tuple(number for number, subset in enumerate(SUBSETS) if modality in subset)
    for modality in MODALITIES
)
"""The four subsets each modality is part of (Eq. 10), the trimodal one first."""


def _membership(subsets: Sequence[int]) -> list[list[bool]]:
    return [[modality in SUBSETS[number] for modality in MODALITIES] for number in subsets]


def segments_of(lengths: Sequence[int]) -> list[slice]:
    """Return the slice each modality occupies in the fused sequence."""
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    return [slice(start, start + length) for start, length in zip(starts, lengths, strict=True)]


def exponents(scores_BHLS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return exp(scores - top) (B, H, L, S), its row sums and the tops (B, H, L, 1).

    The softmax and the log-sum-exp of a row follow from these three without another exponential.
    """
    # A softmax does not depend on what is subtracted, so no gradient flows through it.
    top_BHL1 = scores_BHLS.detach().amax(dim=-1, keepdim=True)
    # exp(-40) = 4e-18 vanishes beside exp(0) = 1 in the sum. Unbounded, masked scores underflow,
    # and a CPU leaves its vectorised exponential (measured: 0.6 ns becomes 6 to 21 ns each); at -80
    # products with the values are denormal, which slows matrix products as much.
    exponent_BHLS = (scores_BHLS - top_BHL1).clamp_min(-40.0).exp()
    return exponent_BHLS, exponent_BHLS.sum(dim=-1, keepdim=True), top_BHL1


class ScoreProjection(nn.Module):
    """Queries, keys and values of one sequence, split by head, and the scaled scores (Eq. 7)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_width = width // num_heads
        self.joint = nn.Linear(width, 3 * width)
        nn.init.xavier_uniform_(self.joint.weight)
        nn.init.zeros_(self.joint.bias)

    def forward(self, x_BLD: Tensor, valid_BL: BoolTensor | None) -> tuple[Tensor, Tensor]:
        """Return scores (B, H, L, L), query by key, and values (B, H, L, K).

        Args:
            x_BLD: the sequence.
            valid_BL: True where a key may be attended to, others score ``HIDDEN``; None: every key.
        """
        num_samples, length, _ = x_BLD.shape
        split_B3HLK = self.joint(x_BLD).view(
            num_samples, length, 3, self.num_heads, self.head_width
        )
        q_BHLK, k_BHLK, v_BHLK = split_B3HLK.permute(2, 0, 3, 1, 4).unbind(0)
        q_BHLK = q_BHLK / math.sqrt(self.head_width)
        if valid_BL is not None:
            # One more column, 1 times HIDDEN, puts the mask into the product: no pass over B H L L.
            hide_BL = torch.where(valid_BL, 0.0, HIDDEN).to(q_BHLK.dtype)
            hide_BHL1 = hide_BL[:, None, :, None].expand(-1, self.num_heads, -1, 1)
            q_BHLK = F.pad(q_BHLK, (0, 1), value=1.0)
            k_BHLK = torch.cat([k_BHLK, hide_BHL1], dim=-1)
        return q_BHLK @ k_BHLK.transpose(-1, -2), v_BHLK


def _merge_heads(x_BHRK: Tensor) -> Tensor:
    return x_BHRK.transpose(1, 2).flatten(2)


class CompositeAttention(nn.Module):
    """Multimodal Composite Attention: seven modality subsets read one score matrix.

    Args:
        width: D.
        num_heads: H, a divisor of ``width``.
        dropout: of attention weights, in [0, 1).
        dropout_all: False drops weights of the trimodal subset only, as released.
    """

    member_QGM: Tensor

    def __init__(self, width: int, num_heads: int, dropout: float, *, dropout_all: bool) -> None:
        super().__init__()
        self.scores = ScoreProjection(width, num_heads)
        self.dropout = nn.Dropout(dropout)
        self.dropout_all = dropout_all
        self.subset_out = nn.ModuleList(nn.Linear(width, width) for _ in SUBSETS)
        self.summary = nn.ModuleList(nn.Linear(4 * width, width) for _ in MODALITIES)
        self.final = nn.Linear(width, width)
        members = torch.tensor([_membership(subsets) for subsets in SUBSETS_OF])
        # Not persistent: a constant. 0 where a key modality is in the subset, HIDDEN elsewhere.
        self.register_buffer("member_QGM", torch.where(members, 0.0, HIDDEN), persistent=False)

    def forward(
        self, x_BLD: Tensor, lengths: Sequence[int], valid_BL: BoolTensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the fused sequence (B, L, D) and the scores (B, H, L, L).

        Args:
            x_BLD: text, audio and vision one after the other.
            lengths: the three segments' lengths.
            valid_BL: True where a key may be attended to; None lets every key.
        """
        scores_BHLL, v_BHLK = self.scores(x_BLD, valid_BL)
        segments = segments_of(lengths)
        blocks = [_Block(scores_BHLL[..., keys], v_BHLK[:, :, keys]) for keys in segments]
        mass_BHLM = torch.stack([block.mass_BHL for block in blocks], dim=-1)
        read_BHLMK = torch.stack([block.read() for block in blocks], dim=-2)
        dropped = {
            number: torch.stack([block.read(self.dropout) for block in blocks], dim=-2)
            for number in self._dropped_subsets()
        }
        fused = []
        for query, rows in enumerate(segments):
            # Weight of every key modality in every subset the queries are part of.
            share_BHRGM = (mass_BHLM[:, :, rows, None] + self.member_QGM[query]).softmax(dim=-1)
            reads = [dropped.get(number, read_BHLMK) for number in SUBSETS_OF[query]]
            if dropped:
                parts = share_BHRGM.split(1, dim=-2)
                read_BHRGK = torch.cat(
                    [part @ read[:, :, rows] for part, read in zip(parts, reads, strict=True)],
                    dim=-2,
                )
            else:
                read_BHRGK = share_BHRGM @ read_BHLMK[:, :, rows]
            weight_DE, bias_D = self._output_map(query)
            fused.append(F.linear(read_BHRGK.permute(0, 2, 3, 1, 4).flatten(2), weight_DE, bias_D))
        return torch.cat(fused, dim=1), scores_BHLL

    def _dropped_subsets(self) -> range:
        if not (self.training and self.dropout.p > 0):
            return range(0)
        return range(len(SUBSETS)) if self.dropout_all else range(1)

    def _output_map(self, query: int) -> tuple[Tensor, Tensor]:
        """Return one modality's map from its four subsets' reads: weight (D, 4D), bias (D,).

        Eq. 9-12: each subset's own projection, the modality's summary of four, the final projection.
        """
        outs = [self.subset_out[number] for number in SUBSETS_OF[query]]
        weight_GDD = torch.stack([out.weight for out in outs])  # type: ignore[misc]
        bias_GD = torch.stack([out.bias for out in outs])  # type: ignore[misc]
        summary = self.summary[query]
        after_DE = self.final.weight @ summary.weight  # type: ignore[operator]
        width = len(after_DE)
        after_GDD = after_DE.view(width, -1, width).transpose(0, 1)
        weight_DE = (after_GDD @ weight_GDD).transpose(0, 1).reshape(width, -1)
        bias_D = F.linear(
            F.linear(bias_GD.flatten(), summary.weight, summary.bias),  # type: ignore[arg-type]
            self.final.weight,
            self.final.bias,
        )
        return weight_DE, bias_D


class _Block:
    """What every query reads from the keys of one modality, and how much attention is there.

    Args:
        scores_BHLS: scores of those keys.
        v_BHSK: their values.
    """

    def __init__(self, scores_BHLS: Tensor, v_BHSK: Tensor) -> None:
        self.exponent_BHLS, self.sum_BHL1, top_BHL1 = exponents(scores_BHLS)
        self.v_BHSK = v_BHSK
        self.mass_BHL = (top_BHL1 + self.sum_BHL1.log()).squeeze(-1)

    def read(self, dropout: nn.Module | None = None) -> Tensor:
        """Return the values' mean (B, H, L, K), optionally through dropped-out weights."""
        exponent_BHLS = self.exponent_BHLS if dropout is None else dropout(self.exponent_BHLS)
        return (exponent_BHLS @ self.v_BHSK) / self.sum_BHL1


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
        """Return the attended sequence (B, L, D) and the scores (B, H, L, L)."""
        if sum(lengths) != x_BLD.shape[1]:
            raise ValueError(f"segment lengths {lengths} do not add up to {x_BLD.shape[1]}")
        scores_BHLL, v_BHLK = self.scores(x_BLD, valid_BL)
        weights_BHLL = self.dropout(scores_BHLL.softmax(dim=-1))
        return self.out(_merge_heads(weights_BHLL @ v_BHLK)), scores_BHLL
