"""A BERT encoder over groups of texts that are padded to different lengths, in one pass.

Everything in BERT but attention acts on tokens alone. So the tokens of all groups stand one after
the other, every linear layer is one product over all of them (and its weights get one gradient, not
one per group), and attention alone looks at the groups one by one.

Shapes: R texts of a group, T steps of a group, N tokens of all groups, F width, H heads, K head
width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from cider.modules.dropout import dropout_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import BoolTensor, Tensor, nn


def can_pack(backbone: nn.Module) -> bool:
    """Return whether a Hugging Face encoder is a BERT that ``packed_states`` computes."""
    config = getattr(backbone, "config", None)
    return getattr(config, "model_type", "") == "bert" and not config.is_decoder  # type: ignore[union-attr]


def packed_states(
    bert: nn.Module, token_ids: Sequence[Tensor], valid: Sequence[BoolTensor]
) -> list[Tensor]:
    """Return the last layer's states (R, T, F) of every group.

    Args:
        bert: a ``transformers.BertModel``.
        token_ids: int64 (R, T) per group.
        valid: bool (R, T) per group, True where a token may be attended to.
    """
    shapes = [ids_RT.shape for ids_RT in token_ids]
    sizes = [rows * steps for rows, steps in shapes]
    device = token_ids[0].device
    ids_1N = torch.cat([ids_RT.flatten() for ids_RT in token_ids]).unsqueeze(0)
    position_1N = torch.cat(
        [torch.arange(steps, device=device).repeat(rows) for rows, steps in shapes]
    ).unsqueeze(0)
    x_NF: Tensor = bert.embeddings(input_ids=ids_1N, position_ids=position_1N)[0]  # type: ignore[operator]
    masks = [
        None if bool(mask_RT.all()) else mask_RT[:, None, None, :] for mask_RT in valid
    ]  # without a mask, attention has faster kernels
    for layer in bert.encoder.layer:  # type: ignore[union-attr]
        attention = layer.attention.self
        projections = [
            torch.split(map_to(x_NF), sizes)
            for map_to in (attention.query, attention.key, attention.value)
        ]
        read_NF = torch.cat(
            [
                _attend(
                    [part_NF.view(*shape, attention.num_attention_heads, -1) for part_NF in parts],
                    mask_R11T,
                    attention.dropout.p if attention.training else 0.0,
                )
                for shape, mask_R11T, *parts in zip(shapes, masks, *projections, strict=True)
            ]
        )
        attended_NF = layer.attention.output(read_NF, x_NF)
        x_NF = layer.output(layer.intermediate(attended_NF), attended_NF)
    return [
        part_NF.view(*shape, -1)
        for part_NF, shape in zip(torch.split(x_NF, sizes), shapes, strict=True)
    ]


def _attend(projected_RTHK: Sequence[Tensor], valid_R11T: Tensor | None, dropout: float) -> Tensor:
    """Return what the tokens of one group read from each other, (R T, F)."""
    q_RHTK, k_RHTK, v_RHTK = (part_RTHK.transpose(1, 2) for part_RTHK in projected_RTHK)
    if dropout == 0:
        read_RHTK = F.scaled_dot_product_attention(q_RHTK, k_RHTK, v_RHTK, attn_mask=valid_R11T)
    else:
        # torch has no fused attention with dropout on the CPU; its composed form draws dearly.
        scores_RHTT = (q_RHTK / math.sqrt(q_RHTK.shape[-1])) @ k_RHTK.transpose(-1, -2)
        if valid_R11T is not None:
            scores_RHTT = scores_RHTT.masked_fill(~valid_R11T, torch.finfo(scores_RHTT.dtype).min)
        keep_RHTT, scale = dropout_mask(scores_RHTT, dropout)
        kept_RHTT = scores_RHTT.softmax(dim=-1) * keep_RHTT.to(scores_RHTT.dtype).mul_(scale)
        read_RHTK = kept_RHTT @ v_RHTK
    return read_RHTK.transpose(1, 2).flatten(0, 1).flatten(1)
