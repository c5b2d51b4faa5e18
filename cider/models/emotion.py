"""The whole model: text encoder, backbone, head. MACI's head wraps any backbone.

Shapes: B batch, T text steps, C classes, F feature width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from cider.models.interface import ModelOutput
from cider.modules.intervention import CausalHead, LinearHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from cider.data.batch import View
    from cider.modality import PerModality
    from cider.models.interface import Backbone
    from cider.modules.text import TextEncoder
    from cider.spec import MaciConfig


class EmotionModel(nn.Module):
    """Recognise a class from one view of a batch."""

    def __init__(self, text_encoder: TextEncoder, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.backbone = backbone
        self.head = head

    def forward(self, view: View, *, reconstruct: bool = True) -> ModelOutput:
        """Return log-probabilities (B, C), joint representation and distillation material.

        Args:
            view: what the model sees.
            reconstruct: False leaves out the reconstructions, where nothing reads them.
        """
        text_BTF = self.text_encoder(view.token_ids_BT, view.valid.text)
        return self.read(view, text_BTF, reconstruct=reconstruct)

    def encode(self, views: Sequence[View], *, recurring: bool = False) -> list[Tensor]:
        """Return the text states (B, T, F) of several views, which may be padded differently.

        A model that reads no padding gets states of zeros there, without any work on it.

        Args:
            views: what the model sees.
            recurring: True if the same texts will be read again, see ``TextEncoder.encode``.
        """
        token_ids = [view.token_ids_BT for view in views]
        valid = [view.valid.text for view in views]
        return self.text_encoder.encode(
            token_ids, valid, padding=self.backbone.reads_padding, recurring=recurring
        )

    def read(self, view: View, text_BTF: Tensor, *, reconstruct: bool = True) -> ModelOutput:
        """Return what ``forward`` does for a view whose text is encoded."""
        backbone = self.backbone if reconstruct else self.backbone.without_reconstruction
        output = backbone(view, text_BTF)
        return ModelOutput(
            joint_BJ=output.joint_BJ,
            attention=output.attention,
            reconstruction=output.reconstruction,
            log_probs_BC=self.head(output.joint_BJ),
            text_BTF=text_BTF,
        )

    def log_probs(self, view: View, text_BTF: Tensor) -> Tensor:
        """Return log-probabilities (B, C) of a view whose text is encoded, and nothing else."""
        log_probs_BC: Tensor = self.head(self.backbone.represent(view, text_BTF))
        return log_probs_BC

    def num_parameters(self) -> int:
        """Return the number of trainable numbers without the text encoder, as papers count them."""
        return sum(
            parameter.numel()
            for module in (self.backbone, self.head)
            for parameter in module.parameters()
        )


def build_head(
    backbone: Backbone,
    maci: MaciConfig,
    class_features: PerModality[Tensor],
    prior_C: Tensor,
    *,
    layer_norm: bool,
) -> nn.Module:
    """Return MACI's causal head, or the plain classifier if ``maci.mcm`` is False.

    Args:
        backbone: the network whose joint representation the head reads.
        maci: what is asked for.
        class_features: (C, F) mean features of every class of the training split.
        prior_C: share of every class in the training split.
        layer_norm: normalise in the audio and vision class encoders.
    """
    if not maci.mcm:
        return LinearHead(backbone.joint_width, len(prior_C))
    return CausalHead(
        backbone.joint_width,
        backbone.class_width,
        class_features.map(lambda features: features.to(torch.float32)),
        prior_C.to(torch.float32),
        layer_norm=layer_norm,
    )
