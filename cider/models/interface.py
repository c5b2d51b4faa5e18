"""What a model offers: a backbone with a joint representation; encoder and head are put around it.

Shapes: B batch, T text steps, S frames, F feature width, J joint width, C classes, H heads, L fused
steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import BoolTensor, Tensor

    from cider.data.batch import View
    from cider.modality import Modality, PerModality


@dataclass(frozen=True, slots=True)
class InputShapes:
    """What a backbone is built for."""

    widths: PerModality[int]
    """Feature width per modality; text: the encoder's."""
    lengths: PerModality[int]
    """Longest sequence of the corpus per modality: what full padding pads to."""
    aligned: bool
    """True where audio and vision have one frame per token."""


@dataclass(frozen=True, slots=True)
class AttentionScores:
    """Scores of the last fusion layer, before softmax; padded keys score -1e30 where masked."""

    scores_BHLL: Tensor
    """Query by key."""
    valid_BL: BoolTensor | None
    """True where a step takes part, as query and as key; None where every step does."""


@dataclass(frozen=True, slots=True)
class FusionScores:
    """What one view's fusion layers attend to, for looking at; see ``Backbone.fusion_scores``."""

    layers: tuple[Tensor, ...]
    """Scores of every layer before softmax, (B, H, L, L), first layer first."""
    lengths: PerModality[int]
    """Steps of each modality in the fused sequence; they add up to L."""
    valid: PerModality[BoolTensor]
    """True where a fused step is content, (B, steps)."""
    subsets: tuple[tuple[Modality, ...], ...]
    """The modality subsets that read the scores, each with a softmax over its own keys."""
    alignment: tuple[Tensor, Tensor] | None = None
    """What each text step reads of the frames of audio and vision, (B, T, S) each, where a model
    brings them to text length (WSAM); otherwise None."""


@dataclass(frozen=True, slots=True)
class BackboneOutput:
    """What a backbone computes from one view."""

    joint_BJ: Tensor
    """The joint representation h_m."""
    attention: AttentionScores | None = None
    """For attention distillation; None if the model has no such scores."""
    reconstruction: PerModality[Tensor] | None = None
    """(B, T, F) text states and (B, S, F) frames; None if the model reconstructs nothing."""


@dataclass(frozen=True, slots=True)
class ModelOutput(BackboneOutput):
    """What the whole model computes from one view."""

    log_probs_BC: Tensor | None = None
    """Log-probabilities; set by the whole model, never by a backbone."""
    text_BTF: Tensor | None = None
    """The text encoder's states."""

    def detached(self) -> ModelOutput:
        """Return what a distillation compares with: no gradient, no reconstructions."""
        attention = self.attention
        if attention is not None:
            attention = replace(attention, scores_BHLL=attention.scores_BHLL.detach())
        assert self.text_BTF is not None
        return ModelOutput(
            joint_BJ=self.joint_BJ.detach(), attention=attention, text_BTF=self.text_BTF.detach()
        )


class Backbone(nn.Module):
    """A network from a view and its encoded text to a joint representation.

    Attributes:
        joint_width: J.
        class_width: width D of MACI's class encoders.
    """

    joint_width: int
    class_width: int

    @property
    def reads_padding(self) -> bool:
        """False promises that how far a batch is padded changes no joint representation.

        An evaluation under many conditions then sorts utterances by length and cuts padding off.
        """
        return True

    def forward(self, view: View, text_BTF: Tensor) -> BackboneOutput:
        """Return the joint representation and what the distillation terms need."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def without_reconstruction(self, view: View, text_BTF: Tensor) -> BackboneOutput:
        """Return what ``forward`` does; reconstructions, which nothing will read, may be None."""
        output: BackboneOutput = self(view, text_BTF)
        return output

    def represent(self, view: View, text_BTF: Tensor) -> Tensor:
        """Return the joint representation (B, J) alone, all that a prediction needs."""
        output: BackboneOutput = self(view, text_BTF)
        return output.joint_BJ

    def fusion_scores(self, view: View, text_BTF: Tensor) -> FusionScores | None:  # noqa: ARG002
        """Return what the fusion layers attend to; None for a model without such attention.

        Read-only and never called in training. ``cider.modules.subset_weights`` makes weights of
        the scores.
        """
        return None
