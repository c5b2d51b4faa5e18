"""Late fusion: the mean of each modality through one layer, then one layer over all three.

Shapes: B batch, T steps, F feature width, D width, J joint width (3D).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from cider.modality import Modality, PerModality
from cider.models.interface import Backbone, BackboneOutput, InputShapes
from cider.modules.dropout import Dropout

if TYPE_CHECKING:
    from torch import BoolTensor, Tensor

    from cider.data.batch import View
    from cider.models.late_fusion.config import Config


class LateFusionBackbone(Backbone):
    """Mean features per modality, fused last."""

    def __init__(self, config: Config, shapes: InputShapes) -> None:
        super().__init__()
        self.joint_width = 3 * config.width
        self.class_width = config.width
        self.unimodal = nn.ModuleDict(
            {
                modality.value: nn.Linear(shapes.widths[modality], config.width)
                for modality in Modality
            }
        )
        self.dropout = Dropout(config.dropout)
        self.joint = nn.Linear(3 * config.width, self.joint_width)

    @property
    def reads_padding(self) -> bool:
        """False: means are over valid steps."""
        return False

    def forward(self, view: View, text_BTF: Tensor) -> BackboneOutput:
        """Return the joint representation (B, J); nothing to distil from attention or features."""
        inputs = PerModality(text_BTF, view.audio_BSF, view.vision_BSF)
        hidden = [
            self.unimodal[modality.value](_mean(inputs[modality], view.valid[modality])).relu()
            for modality in Modality
        ]
        return BackboneOutput(joint_BJ=self.joint(self.dropout(torch.cat(hidden, dim=-1))))


def _mean(x_BTF: Tensor, valid_BT: BoolTensor) -> Tensor:
    """Return the mean over valid steps (B, F); zero where there is none."""
    weight_BT = valid_BT / valid_BT.sum(dim=1, keepdim=True).clamp_min(1)
    return (weight_BT.unsqueeze(1) @ x_BTF).squeeze(1)
