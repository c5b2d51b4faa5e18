"""Attention pooling over time ("naive attention", Eq. 14).

Shapes: B batch, T steps, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import BoolTensor, Tensor


class AttentionPooling(nn.Module):
    """Weighted mean over time, with weights softmax(Linear(tanh(Linear(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, x_BTD: Tensor, valid_BT: BoolTensor | None) -> Tensor:
        """Return the pooled (B, D).

        Args:
            x_BTD: the sequence.
            valid_BT: True where a step may receive weight; None lets every step.
        """
        scores_BT = self.score(torch.tanh(self.hidden(x_BTD))).squeeze(-1)
        if valid_BT is not None:
            # Finite, so that a sequence without any valid step pools to its plain mean, not to NaN.
            scores_BT = scores_BT.masked_fill(~valid_BT, torch.finfo(scores_BT.dtype).min)
        weights_BT = scores_BT.softmax(dim=-1)
        pooled_BD: Tensor = (weights_BT.unsqueeze(1) @ x_BTD).squeeze(1)
        return pooled_BD
