"""A BERT encoder over texts of different lengths in one pass, without padding.

Everything in BERT but attention acts on tokens alone. So the tokens of all texts stand one after
the other, every linear layer is one product over all of them (and its weights get one gradient),
and attention alone looks at one *run* after the other: neighbouring texts of one length.

Shapes: R texts of a group or run, T their steps, N tokens of all texts, F width, H heads, K head
width.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from cider.modules.dropout import keep_values

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
    """Return the last layer's states (R, T, F) of every group, zero at padding.

    Args:
        bert: a ``transformers.BertModel``.
        token_ids: int64 (R, T) per group.
        valid: bool (R, T) per group, True at tokens, which come first, and False at padding. The
            fewer times the length changes from a row to the next, the fewer runs there are.
    """
    runs = [_runs(valid_RT) for valid_RT in valid]
    parts = [
        ids_RT[rows, :steps]
        for ids_RT, of_group in zip(token_ids, runs, strict=True)
        for rows, steps in of_group
    ]
    shapes = [ids_RT.shape for ids_RT in parts]
    sizes = [ids_RT.numel() for ids_RT in parts]
    ids_1N = torch.cat([ids_RT.flatten() for ids_RT in parts]).unsqueeze(0)
    position_1N = torch.cat(
        [torch.arange(steps, device=ids_1N.device).repeat(rows) for rows, steps in shapes]
    ).unsqueeze(0)
    x_NF: Tensor = bert.embeddings(input_ids=ids_1N, position_ids=position_1N)[0]  # type: ignore[operator]
    for layer in bert.encoder.layer:  # type: ignore[union-attr]
        attention = layer.attention.self
        projections = [
            torch.split(project(x_NF), sizes)
            for project in (attention.query, attention.key, attention.value)
        ]
        rate = attention.dropout.p if attention.training else 0.0
        read_NF = torch.cat(
            [
                _attend(
                    [part_NF.view(*shape, attention.num_attention_heads, -1) for part_NF in of_run],
                    rate,
                )
                for shape, *of_run in zip(shapes, *projections, strict=True)
            ]
        )
        attended_NF = layer.attention.output(read_NF, x_NF)
        x_NF = layer.output(layer.intermediate(attended_NF), attended_NF)
    states = iter(
        part_NF.view(*shape, -1)
        for part_NF, shape in zip(torch.split(x_NF, sizes), shapes, strict=True)
    )
    return [
        torch.cat([F.pad(next(states), (0, 0, 0, longest - steps)) for _, steps in of_group])
        for of_group, longest in zip(runs, [each.shape[1] for each in valid], strict=True)
    ]


def _runs(valid_RT: BoolTensor) -> list[tuple[slice, int]]:
    """Return the rows and the length of every run of neighbouring texts of one length."""
    lengths = valid_RT.sum(dim=1).tolist()
    found, start = [], 0
    for length, run in groupby(lengths):
        stop = start + len(list(run))
        found.append((slice(start, stop), length))
        start = stop
    return found


def _attend(projected_RTHK: Sequence[Tensor], dropout: float) -> Tensor:
    """Return what the tokens of each text of a run read from one another, (R T, F)."""
    q_RHTK, k_RHTK, v_RHTK = (part_RTHK.transpose(1, 2) for part_RTHK in projected_RTHK)
    if dropout == 0:
        read_RHTK = F.scaled_dot_product_attention(q_RHTK, k_RHTK, v_RHTK)
    else:
        # torch has no fused attention with dropout on the CPU; its composed form draws dearly.
        scores_RHTT = (q_RHTK / math.sqrt(q_RHTK.shape[-1])) @ k_RHTK.transpose(-1, -2)
        keep_RHTT, scale = keep_values(scores_RHTT, dropout)
        kept_RHTT = scores_RHTT.softmax(dim=-1) * keep_RHTT.mul_(scale)
        read_RHTK = kept_RHTT @ v_RHTK
    return read_RHTK.transpose(1, 2).flatten(0, 1).flatten(1)
