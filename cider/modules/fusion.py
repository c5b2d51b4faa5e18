"""Attention over a fused sequence: Multimodal Composite Attention (Eq. 7-12) and the plain form.

All seven subset attentions of MCA cost one: the scores are cut into blocks by key modality, every
block is read once (``cider.modules.attention``), and a subset's output is the mean of its members'
reads weighted by their masses. The maps after the attention (Eq. 9-12) are linear without anything
between, and are multiplied into one matrix per query modality. The published form, seven boolean
masks and a softmax each, is ``tests/reference/ref_fusion.py``.

Shapes: B batch, L fused steps, D width, H heads, S keys of one modality,
K head width, T queries of one modality, G subsets of a modality (4), E = G D.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from cider.modality import SUBSETS, Modality
from cider.modules.attention import HIDDEN, SMALL, block_attention
from cider.modules.dropout import Dropout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import BoolTensor, Tensor

MODALITIES = tuple(Modality)
SUBSETS_OF: tuple[tuple[int, ...], ...] = tuple(
    tuple(number for number, subset in enumerate(SUBSETS) if modality in subset)
    for modality in MODALITIES
)
"""The four subsets each modality is part of (Eq. 10), the trimodal one first."""


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

    def forward(self, x_BLD: Tensor, valid_BL: BoolTensor | None) -> tuple[Tensor, Tensor, bool]:
        """Return scores (B, H, S, L), key by query, and values (B, H, S, K), of all keys S = L.

        The third result is whether the scores of all keys are known to be small, padded ones aside.

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
        small = _products_are_small(q_BHLK.detach(), k_BHLK.detach())
        if valid_BL is not None:
            # One more column, 1 times HIDDEN, puts the mask into the product: no pass over B H L L.
            hide_BL = torch.where(valid_BL, 0.0, HIDDEN).to(q_BHLK.dtype)
            hide_BHL1 = hide_BL[:, None, :, None].expand(-1, self.num_heads, -1, 1)
            q_BHLK = F.pad(q_BHLK, (0, 1), value=1.0)
            k_BHLK = torch.cat([k_BHLK, hide_BHL1], dim=-1)
        return k_BHLK @ q_BHLK.transpose(-1, -2), v_BHLK, small


def _products_are_small(q_BHLK: Tensor, k_BHLK: Tensor) -> bool:
    """Return whether no product of a query and a key can leave -SMALL to SMALL (Cauchy-Schwarz)."""
    if q_BHLK.device.type != "cpu":
        return False  # the answer would have to be waited for
    longest = [torch.linalg.vector_norm(x, dim=-1).amax() for x in (q_BHLK, k_BHLK)]
    return float(longest[0] * longest[1]) <= SMALL


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
        self.dropout = dropout
        self.dropout_all = dropout_all
        self.subset_out = nn.ModuleList(nn.Linear(width, width) for _ in SUBSETS)
        self.summary = nn.ModuleList(nn.Linear(4 * width, width) for _ in MODALITIES)
        self.final = nn.Linear(width, width)

    def forward(
        self, x_BLD: Tensor, lengths: Sequence[int], valid_BL: BoolTensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the fused sequence (B, L, D) and the scores (B, H, L, L).

        Args:
            x_BLD: text, audio and vision one after the other.
            lengths: the three segments' lengths.
            valid_BL: True where a key may be attended to; None lets every key.
        """
        scores_BHSL, v_BHSK, small = self.scores(x_BLD, valid_BL)
        reads = [
            torch.split(read_BHKL.flatten(1, 2), list(lengths), dim=-1)
            for read_BHKL in self._read_subsets(scores_BHSL, v_BHSK, lengths, small=small)
        ]
        fused = []
        for query, subsets in enumerate(SUBSETS_OF):
            read_BET = torch.cat([reads[subset][query] for subset in subsets], dim=1)
            weight_DE, bias_D = self._output_map(query)
            fused.append(weight_DE @ read_BET + bias_D[:, None])
        return torch.cat(fused, dim=-1).transpose(1, 2), scores_BHSL.transpose(-1, -2)

    def _read_subsets(
        self, scores_BHSL: Tensor, v_BHSK: Tensor, lengths: Sequence[int], *, small: bool
    ) -> list[Tensor]:
        """Return what every query reads from each of the seven subsets, (B, H, K, L) each."""
        rate = self.dropout if self.training else 0.0
        # Split, not sliced: the gradient of a split is one concatenation.
        pairs = list(
            zip(
                torch.split(scores_BHSL, list(lengths), dim=-2),
                torch.split(v_BHSK, list(lengths), dim=-2),
                strict=True,
            )
        )
        blocks = [block_attention(*pair, rate, small=small) for pair in pairs]
        plain = [block[0] for block in blocks]
        masses = [block[1] for block in blocks]
        if rate == 0:
            return [_combine(subset, plain, masses) for subset in SUBSETS]
        dropped: list[Tensor] = [block[2] for block in blocks]  # type: ignore[misc]
        reads = [_combine(SUBSETS[0], dropped, masses)]
        for subset in SUBSETS[1:]:
            if self.dropout_all:
                dropped = [block_attention(*pair, rate, small=small)[2] for pair in pairs]  # type: ignore[misc]
            reads.append(_combine(subset, dropped if self.dropout_all else plain, masses))
        return reads

    def _output_map(self, query: int) -> tuple[Tensor, Tensor]:
        """Return one modality's map from its four subsets' reads: weight (D, 4D), bias (D,).

        Eq. 9-12: each subset's projection, the modality's summary of four, the final projection.
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


def _combine(subset: tuple[Modality, ...], reads: list[Tensor], masses: list[Tensor]) -> Tensor:
    """Return the mean of the members' reads (B, H, K, L), weighted by their masses (B, H, 1, L)."""
    first, *others = (MODALITIES.index(modality) for modality in subset)
    read_BHKL, mass_BH1L = reads[first], masses[first]
    for number in others:
        share_BH1L = torch.sigmoid(masses[number] - mass_BH1L)
        read_BHKL = read_BHKL + share_BH1L * (reads[number] - read_BHKL)
        mass_BH1L = torch.logaddexp(mass_BH1L, masses[number])
    return read_BHKL


class PlainAttention(nn.Module):
    """Ordinary multi-head self-attention over the fused sequence (the Table V ablation)."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.scores = ScoreProjection(width, num_heads)
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(width, width)

    def forward(
        self, x_BLD: Tensor, lengths: Sequence[int], valid_BL: BoolTensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the attended sequence (B, L, D) and the scores (B, H, L, L)."""
        if sum(lengths) != x_BLD.shape[1]:
            raise ValueError(f"segment lengths {lengths} do not add up to {x_BLD.shape[1]}")
        scores_BHSL, v_BHSK, _ = self.scores(x_BLD, valid_BL)
        weights_BHSL = self.dropout(scores_BHSL.softmax(dim=-2))
        read_BHKL = v_BHSK.transpose(-1, -2) @ weights_BHSL
        return self.out(read_BHKL.flatten(1, 2).transpose(1, 2)), scores_BHSL.transpose(-1, -2)
