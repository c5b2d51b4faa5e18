"""CIDer, read top to bottom: unimodal compression, fusion, joint representation, reconstruction.

Equation numbers are the paper's (arXiv 2506.10452). The text encoder (Eq. 2) comes before this
network, the causal head (Eq. 20-24) after it, so that both serve other models too.

Shapes: B batch, T text steps, S frames, L fused steps (3T after alignment), D width, F raw feature
width, J joint width (3D), H heads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from cider.modality import SUBSETS, Modality, PerModality
from cider.models.interface import (
    AttentionScores,
    Backbone,
    BackboneOutput,
    FusionScores,
    InputShapes,
)
from cider.modules import recurrence
from cider.modules.alignment import WordAlignment, word_positions
from cider.modules.dropout import Dropout
from cider.modules.encoder import FusionLayer, stack
from cider.modules.fusion import CompositeAttention, PlainAttention, segments_of
from cider.modules.pooling import AttentionPooling
from cider.modules.positions import sinusoids
from cider.modules.reconstruction import FrameReconstruction

if TYPE_CHECKING:
    from torch import BoolTensor, Tensor

    from cider.data.batch import View
    from cider.models.cider.config import Config

FRAMES = (Modality.AUDIO, Modality.VISION)


class CiderBackbone(Backbone):
    """The model-specific part of CIDer, up to the joint representation h_m.

    Args:
        config: sizes, dropouts and the differences between paper and release.
        shapes: widths and longest lengths of the corpus.
    """

    positions_ND: Tensor

    def __init__(self, config: Config, shapes: InputShapes) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.joint_width = 3 * width
        self.class_width = width
        self.align_words = config.wsam and not shapes.aligned

        # Unimodal compression
        self.projections = _per_modality(
            lambda modality: nn.Conv1d(shapes.widths[modality], width, kernel_size=1, bias=False)
        )
        if self.align_words or config.unused_wsam:
            self.alignments = nn.ModuleDict(
                {modality.value: WordAlignment(width) for modality in FRAMES}
            )
        self.recurrences = _per_modality(lambda _: nn.GRU(width, width, batch_first=True))

        # Fusion
        fused_lengths = shapes.lengths
        if self.align_words or shapes.aligned:
            fused_lengths = PerModality(*(shapes.lengths.text,) * 3)
        self.fused_lengths = fused_lengths
        num_positions = max(sum(fused_lengths), 1024)
        # Not persistent: a constant. Parity: the published table has 1024 rows, indexed by sample.
        self.register_buffer("positions_ND", sinusoids(num_positions, width), persistent=False)
        self.embedding_dropout = Dropout(config.embedding_dropout)
        self.encoder = stack(config.layers, width, self._fusion_layer)
        self.pools = _per_modality(lambda _: AttentionPooling(width))

        # Joint representation
        self.joint_hidden = nn.Linear(3 * width, 3 * width)
        self.joint_out = nn.Linear(3 * width, 3 * width)
        self.output_dropout = Dropout(config.output_dropout)

        # Reconstruction
        self.text_reconstruction = nn.Linear(width, shapes.widths.text)
        self.frame_reconstructions = nn.ModuleDict(
            {
                modality.value: FrameReconstruction(
                    fused_lengths[modality],
                    shapes.lengths[modality],
                    width,
                    shapes.widths[modality],
                )
                for modality in FRAMES
            }
        )

    def _fusion_layer(self) -> FusionLayer:
        config = self.config
        attention: nn.Module
        if config.fusion == "mct":
            attention = CompositeAttention(
                config.width,
                config.heads,
                config.attention_dropout,
                dropout_all=config.dropout_subsets == "all",
            )
        else:
            attention = PlainAttention(config.width, config.heads, config.attention_dropout)
        return FusionLayer(
            attention,
            config.width,
            relu_dropout=config.relu_dropout,
            residual_dropout=config.residual_dropout,
            residual_normalised=config.residual == "normalised",
        )

    def forward(self, view: View, text_BTF: Tensor) -> BackboneOutput:
        """Return h_m, the last layer's attention scores and the reconstructions of one view."""
        output, fused, valid = self._read(view, text_BTF)
        return replace(output, reconstruction=self._reconstruct(fused, valid, view))

    def without_reconstruction(self, view: View, text_BTF: Tensor) -> BackboneOutput:
        """Return h_m and the last layer's attention scores of one view."""
        return self._read(view, text_BTF)[0]

    def _read(
        self, view: View, text_BTF: Tensor
    ) -> tuple[BackboneOutput, PerModality[Tensor], PerModality[BoolTensor]]:
        """Return the output without reconstructions, the fused states, and which are content."""
        states, valid = self._compress(view, text_BTF)
        fused, scores_BHLL = self._fuse(states, valid, _rows(view))
        output = BackboneOutput(
            joint_BJ=self._joint(fused, valid),
            attention=AttentionScores(
                scores_BHLL,
                torch.cat(list(valid), dim=1) if self.config.mask_fusion_padding else None,  # type: ignore[arg-type]
            ),
        )
        return output, fused, valid

    @property
    def reads_padding(self) -> bool:
        """True as released: padded steps take part in fusion or pooling."""
        return not (self.config.mask_fusion_padding and self.config.mask_pooling_padding)

    def represent(self, view: View, text_BTF: Tensor) -> Tensor:
        """Return h_m alone (B, J): nothing is reconstructed."""
        return self._read(view, text_BTF)[0].joint_BJ

    def _compress(
        self, view: View, text_BTF: Tensor
    ) -> tuple[PerModality[Tensor], PerModality[BoolTensor]]:
        """Return temporal features H (B, T, D) per modality and which steps of them are content."""
        x = self._project(view, text_BTF)
        valid = view.valid
        if self.align_words:
            words_BT = word_positions(valid.text)
            for modality in FRAMES:  # Eq. 4
                x[modality] = self.alignments[modality.value](
                    x[Modality.TEXT], x[modality], words_BT, valid[modality]
                )
            valid = PerModality(valid.text, valid.text, valid.text)
        states = recurrence.run(  # Eq. 5
            [self.recurrences[modality.value] for modality in Modality],  # type: ignore[misc]
            [x[modality] for modality in Modality],
        )
        return PerModality(*states), valid

    def _project(self, view: View, text_BTF: Tensor) -> dict[Modality, Tensor]:
        """Return projections X (B, S, D) of every modality at its own length (Eq. 3)."""
        inputs = PerModality(text_BTF, view.audio_BSF, view.vision_BSF)
        # A convolution over one frame is a product with its weight, which needs no transposed copy.
        return {
            modality: F.linear(inputs[modality], self._projection_weight(modality))
            for modality in Modality
        }

    def _projection_weight(self, modality: Modality) -> Tensor:
        weight_DF1: Tensor = self.projections[modality.value].weight  # type: ignore[assignment]
        return weight_DF1.squeeze(-1)

    def _fuse(
        self, states: PerModality[Tensor], valid: PerModality[BoolTensor], rows: slice | Tensor
    ) -> tuple[PerModality[Tensor], Tensor]:
        """Return the fused states (B, T, D) per modality and the last scores (B, H, L, L)."""
        x_BLD, lengths, valid_BL = self._fused_input(states, valid, rows)
        x_BLD, scores_BHLL = self.encoder(x_BLD, lengths, valid_BL)
        return PerModality(*(x_BLD[:, rows] for rows in segments_of(lengths))), scores_BHLL

    def _fused_input(
        self, states: PerModality[Tensor], valid: PerModality[BoolTensor], rows: slice | Tensor
    ) -> tuple[Tensor, list[int], BoolTensor | None]:
        """Return the fused sequence (B, L, D), its segments' lengths, and which keys are read."""
        lengths = [state_BTD.shape[1] for state_BTD in states]
        x_BLD = torch.cat(list(states), dim=1)  # Eq. 6
        x_BLD = self.embedding_dropout(self._with_positions(x_BLD, lengths, rows))
        valid_BL = torch.cat(list(valid), dim=1) if self.config.mask_fusion_padding else None
        return x_BLD, lengths, valid_BL  # type: ignore[return-value]

    def fusion_scores(self, view: View, text_BTF: Tensor) -> FusionScores:
        """Return the scores of every fusion layer for one view, and WSAM's weights."""
        states, valid = self._compress(view, text_BTF)
        x_BLD, lengths, valid_BL = self._fused_input(states, valid, _rows(view))
        return FusionScores(
            tuple(self.encoder.scores(x_BLD, lengths, valid_BL)),
            PerModality(*lengths),
            valid,
            # A plain transformer has one attention over everything.
            SUBSETS if self.config.fusion == "mct" else SUBSETS[:1],
            self._alignment_weights(view, text_BTF) if self.align_words else None,
        )

    def _alignment_weights(self, view: View, text_BTF: Tensor) -> tuple[Tensor, Tensor]:
        """Return WSAM's weights of audio and vision, (B, T, S) each (Eq. 4)."""
        x, words_BT = self._project(view, text_BTF), word_positions(view.valid.text)
        audio_BTS, vision_BTS = (
            self.alignments[modality.value].weights(  # type: ignore[operator]
                x[Modality.TEXT], x[modality], words_BT, view.valid[modality]
            )
            for modality in FRAMES
        )
        return audio_BTS, vision_BTS

    def _with_positions(self, x_BLD: Tensor, lengths: list[int], rows: slice | Tensor) -> Tensor:
        if self.config.positions == "batch_index":
            # Parity: the published encoder is time first but its table batch first, so that row b
            # of the table goes to every step of sample b.
            return x_BLD + self.positions_ND[rows, None, :]
        # A step's position does not depend on how far its batch is padded: each modality starts at
        # the end of the longest sequence of the one before.
        starts = [rows.start for rows in segments_of(list(self.fused_lengths))]
        position_LD = torch.cat(
            [
                self.positions_ND[start : start + length]
                for start, length in zip(starts, lengths, strict=True)
            ]
        )
        return x_BLD + position_LD

    def _joint(self, fused: PerModality[Tensor], valid: PerModality[BoolTensor]) -> Tensor:
        """Return h_m (B, J) (Eq. 14, 15)."""
        pooled_BJ = torch.cat(
            [
                self.pools[modality.value](
                    fused[modality], valid[modality] if self.config.mask_pooling_padding else None
                )
                for modality in Modality
            ],
            dim=-1,
        )
        joint_BJ: Tensor = self.joint_out(self.output_dropout(self.joint_hidden(pooled_BJ).relu()))
        return joint_BJ + pooled_BJ if self.config.joint_residual else joint_BJ

    def _reconstruct(
        self, fused: PerModality[Tensor], valid: PerModality[BoolTensor], view: View
    ) -> PerModality[Tensor]:
        """Return reconstructed text states and frames (Eq. 16)."""
        frames = PerModality(view.token_ids_BT, view.audio_BSF, view.vision_BSF)
        audio_BSF, vision_BSF = (
            self.frame_reconstructions[modality.value](
                fused[modality],
                valid[modality] if self.config.mask_reconstruction_padding else None,
                frames[modality].shape[1],
            )
            for modality in FRAMES
        )
        return PerModality(self.text_reconstruction(fused.text), audio_BSF, vision_BSF)


def _rows(view: View) -> slice | Tensor:
    """Return which rows of the whole batch a view's rows are."""
    if view.row_B is not None:
        return view.row_B
    return slice(view.first_row, view.first_row + len(view.token_ids_BT))


def _per_modality(make: object) -> nn.ModuleDict:
    assert callable(make)
    return nn.ModuleDict({modality.value: make(modality) for modality in Modality})
