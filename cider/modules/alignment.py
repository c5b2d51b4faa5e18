"""Word-level Self-aligned Attention Module, WSAM (Eq. 4): frames brought to text length.

Shapes: B batch, T text steps, S audio or vision steps, D width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import BoolTensor, Tensor


class WordAlignment(nn.Module):
    """One-head attention from text positions to the frames of another modality."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self, text_BTD: Tensor, frames_BSD: Tensor, words_BT: BoolTensor, valid_BS: BoolTensor
    ) -> Tensor:
        """Return frames summarised per text position, (B, T, D).

        Args:
            text_BTD: projected text, the queries.
            frames_BSD: projected frames, keys and values.
            words_BT: True at words; [CLS], [SEP] and padding are not words and get only the bias of
                the output projection.
            valid_BS: True at frames that are not padding.
        """
        weights_BTS, attend_BT1 = self._attend(text_BTD, frames_BSD, words_BT, valid_BS)
        aligned_BTD = (weights_BTS @ self.value(frames_BSD)) * attend_BT1
        out_BTD: Tensor = self.out(aligned_BTD)
        return out_BTD

    def weights(
        self, text_BTD: Tensor, frames_BSD: Tensor, words_BT: BoolTensor, valid_BS: BoolTensor
    ) -> Tensor:
        """Return what every text position reads, (B, T, S), for looking at.

        Rows of words add up to 1; those of other positions, and of an utterance without frames, are
        0. The arguments are those of ``forward``.
        """
        weights_BTS, attend_BT1 = self._attend(text_BTD, frames_BSD, words_BT, valid_BS)
        return weights_BTS * attend_BT1

    def _attend(
        self, text_BTD: Tensor, frames_BSD: Tensor, words_BT: BoolTensor, valid_BS: BoolTensor
    ) -> tuple[Tensor, Tensor]:
        """Return the weights (B, T, S), and which text positions read at all (B, T, 1)."""
        q_BTD = self.query(text_BTD) / math.sqrt(text_BTD.shape[-1])
        logits_BTS = q_BTD @ self.key(frames_BSD).transpose(1, 2)
        logits_BTS = logits_BTS.masked_fill(
            ~valid_BS.unsqueeze(1), torch.finfo(logits_BTS.dtype).min
        )
        weights_BTS = logits_BTS.softmax(dim=-1)
        # An utterance without frames attends to nothing at all, not to its padding.
        attend_BT1 = (words_BT & valid_BS.any(dim=-1, keepdim=True)).unsqueeze(-1)
        return weights_BTS, attend_BT1


def word_positions(valid_BT: BoolTensor) -> BoolTensor:
    """Return (B, T): True at valid positions other than the first and the last valid one."""
    words_BT: BoolTensor = valid_BT.clone()  # type: ignore[assignment]
    words_BT[:, 0] = False
    last_B = valid_BT.sum(dim=1).clamp_min(1) - 1
    words_BT[torch.arange(len(last_B), device=last_B.device), last_B] = False
    return words_BT
