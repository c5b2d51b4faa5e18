"""Multimodal Composite Attention in its plain form: seven boolean masks, one softmax each.

The slow twin of ``cider.modules.fusion.CompositeAttention``; it reads that module's parameters.

Shapes: B batch, L fused steps, D width, H heads, K head width, G subsets.
"""

import math

import torch
from torch.nn import functional as F

from cider.modality import SUBSETS, Modality


def keep_table(lengths):
    """Return (G, L): True where subset g may read step l."""
    owner_L = [m for m, length in zip(Modality, lengths, strict=True) for _ in range(length)]
    return torch.tensor([[owner in subset for owner in owner_L] for subset in SUBSETS])


def scores_and_values(projection, x_BLD):
    """Return scaled scores (B, H, L, L), query by key, and values (B, H, L, K) (Eq. 7)."""
    q_BHLK, k_BHLK, v_BHLK = (
        part_BLD.unflatten(-1, (projection.num_heads, -1)).transpose(1, 2)
        for part_BLD in projection.joint(x_BLD).chunk(3, dim=-1)
    )
    return q_BHLK @ k_BHLK.transpose(-1, -2) / math.sqrt(q_BHLK.shape[-1]), v_BHLK


def composite_attention(module, x_BLD, lengths, valid_BL=None, dropout=0.0):
    """Return (B, L, D) fused and (B, H, L, L) scores; dropout is of the trimodal subset's weights,
    as published, or of all where the module says so.
    """
    scores_BHLL, v_BHLK = scores_and_values(module.scores, x_BLD)
    per_subset = []
    keep_GL = keep_table(lengths).to(x_BLD.device)
    for keep_L, subset, out in zip(keep_GL, SUBSETS, module.subset_out, strict=True):
        hidden = ~keep_L[None, None, None, :]
        if valid_BL is not None:
            hidden = hidden | ~valid_BL[:, None, None, :]
        weights_BHLL = scores_BHLL.masked_fill(hidden, -torch.inf).softmax(dim=-1)
        if dropout and (module.dropout_all or len(subset) == len(Modality)):
            weights_BHLL = F.dropout(weights_BHLL, dropout)
        read_BHLK = weights_BHLL @ v_BHLK
        per_subset.append(out(read_BHLK.transpose(1, 2).flatten(2)))
    fused, start = [], 0
    for number, (modality, length) in enumerate(zip(Modality, lengths, strict=True)):
        rows = slice(start, start + length)
        start += length
        read = [
            y_BLD[:, rows] for y_BLD, g in zip(per_subset, SUBSETS, strict=True) if modality in g
        ]
        fused.append(module.summary[number](torch.cat(read, dim=-1)))
    return module.final(torch.cat(fused, dim=1)), scores_BHLL
