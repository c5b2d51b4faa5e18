"""Reconstruction heads: from fused states back to the input features (Eq. 16).

Shapes: B batch, T fused steps of one modality, S its input steps, D width, F input width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import BoolTensor, Tensor


class FrameReconstruction(nn.Module):
    """A map over time from T to S steps, ReLU, then a map from D to F features.

    The time map has a weight for every step of the corpus's longest sequences; a shorter batch uses
    the leading ones, which is the same as padding it with zeros.
    """

    def __init__(self, from_steps: int, to_steps: int, width: int, num_features: int) -> None:
        super().__init__()
        self.over_time = nn.Linear(from_steps, to_steps)
        self.features = nn.Linear(width, num_features)

    def forward(self, x_BTD: Tensor, valid_BT: BoolTensor | None, num_steps: int) -> Tensor:
        """Return reconstructed frames (B, S, F).

        Args:
            x_BTD: fused states of the modality.
            valid_BT: True where a state may be read; None lets every state.
            num_steps: S, the number of frames wanted, at most the corpus's longest.
        """
        if valid_BT is not None:
            x_BTD = x_BTD * valid_BT.unsqueeze(-1)
        from_steps = x_BTD.shape[1]
        hidden_BDS = F.linear(
            x_BTD.transpose(1, 2),
            self.over_time.weight[:num_steps, :from_steps],
            self.over_time.bias[:num_steps],
        ).relu()
        frames_BSF: Tensor = self.features(hidden_BDS.transpose(1, 2))
        return frames_BSF
