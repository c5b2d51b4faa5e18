"""Loss terms of the two-step update (Eq. 17-19, 28-30), each a pure function.

Shapes: B batch, C classes, T steps, F feature width, H heads, L fused steps, J joint width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from cider.modality import Modality, PerModality
from cider.modules.attention import attention_divergence

if TYPE_CHECKING:
    from torch import BoolTensor, Tensor

    from cider.data.batch import View
    from cider.models.interface import AttentionScores, ModelOutput
    from cider.spec import LossConfig


def task_loss(log_probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Return the mean cross-entropy (scalar) of log-probabilities and class labels."""
    return F.nll_loss(log_probs_BC, labels_B)


def reconstruction_loss(
    predicted_BTF: Tensor,
    target_BTF: Tensor,
    dropped_BT: Tensor,
    num_dropped: Tensor | None = None,
) -> Tensor:
    """Return SmoothL1 over dropped positions (Eq. 17), scalar.

    Args:
        predicted_BTF: what the incomplete view's states reconstruct.
        target_BTF: what was there; no gradient flows into it.
        dropped_BT: True where a valid position was removed. The sum is divided by the number of
            elements there plus 1e-6, so that nothing dropped gives 0.
        num_dropped: positions dropped in the whole batch (scalar), if this is a part of it; the
            losses of all parts then add up to the whole batch's.
    """
    weight_BT1 = dropped_BT.unsqueeze(-1).to(predicted_BTF.dtype)
    error_BTF = F.smooth_l1_loss(predicted_BTF, target_BTF.detach(), reduction="none") * weight_BT1
    count = weight_BT1.sum() if num_dropped is None else num_dropped.to(weight_BT1.dtype)
    return error_BTF.sum() / (count * predicted_BTF.shape[-1] + 1e-6)


def attention_loss(incomplete: AttentionScores, complete: AttentionScores) -> Tensor:
    """Return KL(complete || incomplete) of attention weights (Eq. 18), scalar.

    The sum over rows and columns is divided by batch times heads, as released. Padded keys have no
    weight in either view; padded queries do not count where the scores say what is valid.
    """
    divergence_BHL = attention_divergence(incomplete.scores_BHLL, complete.scores_BHLL)
    if incomplete.valid_BL is not None:
        divergence_BHL = divergence_BHL * incomplete.valid_BL[:, None, :]
    return divergence_BHL.sum() / (divergence_BHL.shape[0] * divergence_BHL.shape[1])


def joint_loss(joint_BJ: Tensor, target_BJ: Tensor) -> Tensor:
    """Return one minus the cosine to the complete view's joint representation (Eq. 19), scalar."""
    return (1.0 - F.cosine_similarity(joint_BJ, target_BJ.detach(), dim=-1)).mean()


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Terms of the second step; a term the model has no material for, or of weight 0, is 0."""

    task: Tensor
    reconstruction: Tensor
    attention: Tensor
    joint: Tensor

    def total(self, weights: LossConfig) -> Tensor:
        """Return the weighted sum that step 2 minimises (Eq. 30)."""
        return (
            self.task
            + weights.reconstruction * self.reconstruction
            + weights.attention * self.attention
            + weights.joint * self.joint
        )


def distillation_terms(
    incomplete: ModelOutput,
    complete: ModelOutput,
    view: View,
    observed: PerModality[BoolTensor],
    labels_B: Tensor,
    weights: LossConfig,
    *,
    share: float = 1.0,
    num_dropped: PerModality[Tensor] | None = None,
) -> LossTerms:
    """Return the terms of step 2; those of all parts of a batch add up to the whole batch's.

    Args:
        incomplete: the model's output for the incomplete view.
        complete: its output for the complete view, as step 1 computed it: the targets.
        view: the complete view, whose features are reconstructed.
        observed: True where a position was kept.
        labels_B: class labels.
        weights: a term of weight 0 is not computed.
        share: part of the whole batch's utterances that are here, in [0, 1]; 1 is all of them.
        num_dropped: dropped positions of the whole batch (scalars); None: of these utterances.
    """
    assert incomplete.log_probs_BC is not None
    zero = torch.zeros((), device=labels_B.device)
    reconstruction = attention = joint = zero
    if weights.reconstruction > 0 and incomplete.reconstruction is not None:
        assert complete.text_BTF is not None
        targets = PerModality(complete.text_BTF, view.audio_BSF, view.vision_BSF)
        for modality in Modality:
            reconstruction = reconstruction + reconstruction_loss(
                incomplete.reconstruction[modality],
                targets[modality],
                view.valid[modality] & ~observed[modality],
                None if num_dropped is None else num_dropped[modality],
            )
    if weights.attention > 0 and incomplete.attention and complete.attention:
        attention = attention_loss(incomplete.attention, complete.attention) * share
    if weights.joint > 0:
        joint = joint_loss(incomplete.joint_BJ, complete.joint_BJ) * share
    task = task_loss(incomplete.log_probs_BC, labels_B) * share
    return LossTerms(task, reconstruction, attention, joint)
