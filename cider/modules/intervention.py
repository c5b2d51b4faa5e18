"""Classification heads: the Multimodal Causal Module (Eq. 20-24) and the plain classifier.

Shapes: B batch, J joint width, D width, C classes, F feature width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from cider.modality import Modality, PerModality

if TYPE_CHECKING:
    from torch import Tensor


def _class_encoder(num_features: int, width: int, *, layer_norm: bool) -> nn.Sequential:
    """Three linear layers with ReLU between (Eq. 21), optionally normalised before each ReLU."""
    between: list[nn.Module] = [nn.ReLU()]
    if layer_norm:
        between = [nn.LayerNorm(width, elementwise_affine=False), nn.ReLU()]
    return nn.Sequential(
        nn.Linear(num_features, width), *between,
        nn.Linear(width, width), *between,
        nn.Linear(width, width),
    )  # fmt: skip


class CausalHead(nn.Module):
    """Backdoor adjustment: P(Y | do(L)) = sum_i P(Y | joint, class i) P(i).

    Wraps any joint representation. The class means and the prior come from the training split. In
    training mode they are used as they are; otherwise every class has the same prior and the mean
    features of all classes (the paper's footnote 4).

    Args:
        joint_width: J.
        width: D of the class encoders.
        class_features: (C, F) mean features of every class, per modality.
        prior_C: share of every class in the training split; sums to 1.
        layer_norm: LayerNorm without affine in the audio and vision class encoders.
    """

    prior_C: Tensor
    text_features_CF: Tensor
    audio_features_CF: Tensor
    vision_features_CF: Tensor

    def __init__(
        self,
        joint_width: int,
        width: int,
        class_features: PerModality[Tensor],
        prior_C: Tensor,
        *,
        layer_norm: bool,
    ) -> None:
        super().__init__()
        num_classes = len(prior_C)
        self.encoders = nn.ModuleDict(
            {
                modality.value: _class_encoder(
                    class_features[modality].shape[1],
                    width,
                    layer_norm=layer_norm and modality is not Modality.TEXT,
                )
                for modality in Modality
            }
        )
        self.classifiers = nn.ModuleList(
            nn.Linear(joint_width + 3 * width, num_classes) for _ in range(num_classes)
        )
        # Not persistent: they are facts of the training split, kept beside the weights.
        self.register_buffer("prior_C", prior_C.clone(), persistent=False)
        for modality in Modality:
            name = f"{modality.value}_features_CF"
            self.register_buffer(name, class_features[modality].clone(), persistent=False)

    def _confounders(self, *, as_trained: bool) -> Tensor:
        """Return the encoded class means (C, 3D), those of all classes alike outside training."""
        encoded = []
        for modality in Modality:
            features_CF = getattr(self, f"{modality.value}_features_CF")
            if not as_trained:
                features_CF = features_CF.mean(dim=0, keepdim=True).expand_as(features_CF)
            encoded.append(self.encoders[modality.value](features_CF))
        return torch.cat(encoded, dim=-1)

    def forward(self, joint_BJ: Tensor) -> Tensor:
        """Return log P(Y | do(L)), (B, C)."""
        return self._adjusted(joint_BJ, as_trained=self.training)

    def with_training_priors(self, joint_BJ: Tensor) -> Tensor:
        """Return log-probabilities (B, C) under the training split's priors and class means.

        What the head computes in training, in either mode: the label bias is still in it.
        """
        return self._adjusted(joint_BJ, as_trained=True)

    def _adjusted(self, joint_BJ: Tensor, *, as_trained: bool) -> Tensor:
        confounders_CE = self._confounders(as_trained=as_trained)
        num_classes = len(self.classifiers)
        prior_C = self.prior_C
        if not as_trained:
            prior_C = torch.full_like(prior_C, 1.0 / num_classes)
        joint_width = joint_BJ.shape[-1]
        # Classifier i reads [joint, confounders of class i]: its weight is split instead of copying
        # the joint representation C times (Eq. 22, 23).
        weight_COE = torch.stack([linear.weight for linear in self.classifiers])  # type: ignore[misc]
        bias_CO = torch.stack([linear.bias for linear in self.classifiers])  # type: ignore[misc]
        from_joint_BCO = torch.einsum("bj,coj->bco", joint_BJ, weight_COE[..., :joint_width])
        from_class_CO = torch.einsum("ce,coe->co", confounders_CE, weight_COE[..., joint_width:])
        logits_BCO = from_joint_BCO + (from_class_CO + bias_CO)
        # Eq. 24: the prior weights probabilities; in logs for the sake of precision.
        return (logits_BCO.log_softmax(dim=-1) + prior_C.log()[:, None]).logsumexp(dim=1)


class LinearHead(nn.Module):
    """One linear classifier on the joint representation: the model without MCM (Table V)."""

    def __init__(self, joint_width: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(joint_width, num_classes)

    def forward(self, joint_BJ: Tensor) -> Tensor:
        """Return log P(Y), (B, C)."""
        log_probs_BC: Tensor = self.classifier(joint_BJ).log_softmax(dim=-1)
        return log_probs_BC
