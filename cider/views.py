"""The incomplete and the counterfactual view of a batch.

Shapes: B batch, T text steps, S frames, F feature width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import BoolTensor, Tensor

    from cider.data.batch import TokenIds, View
    from cider.modality import PerModality


def incomplete_view(view: View, observed: PerModality[BoolTensor], ids: TokenIds) -> View:
    """Return the view without what was dropped: [UNK] for tokens, zeros for frames.

    Args:
        view: the complete view.
        observed: True where a position was kept; False at padding, which stays padding.
        ids: the special tokens.
    """
    return replace(
        view,
        token_ids_BT=incomplete_text(view.token_ids_BT, view.valid.text, observed.text, ids),
        audio_BSF=view.audio_BSF * observed.audio.unsqueeze(-1),
        vision_BSF=view.vision_BSF * observed.vision.unsqueeze(-1),
    )


def counterfactual_view(view: View, kept_words: Tensor, ids: TokenIds) -> View:
    """Return the view with counterfactual text: every word that is no bias word (Eq. 27) is [MASK].

    Args:
        view: a complete or incomplete view; its audio and vision stay.
        kept_words: boolean (vocabulary,), True for special tokens and bias words.
        ids: the special tokens.
    """
    return replace(view, token_ids_BT=counterfactual_text(view.token_ids_BT, kept_words, ids))


def incomplete_text(
    token_ids_BT: Tensor, valid_BT: Tensor, observed_BT: Tensor, ids: TokenIds
) -> Tensor:
    """Return the token ids with [UNK] where a valid token was not observed."""
    return token_ids_BT.masked_fill(valid_BT & ~observed_BT, ids.unknown)


def counterfactual_text(token_ids_BT: Tensor, kept_words: Tensor, ids: TokenIds) -> Tensor:
    """Return the token ids with [MASK] where ``kept_words`` (vocabulary,) is False."""
    return torch.where(kept_words[token_ids_BT], token_ids_BT, ids.mask)
