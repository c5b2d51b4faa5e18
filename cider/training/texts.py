"""The texts of a split read once by a frozen encoder, before the first epoch.

Read in a fixed order rather than as batches meet them: how sums are rounded depends on what is read
together, and a run that goes on from a checkpoint shall meet the very states it had before.

Shapes: R texts of a block, T text steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from cider.data.loader import BatchSource
    from cider.models.emotion import EmotionModel

BLOCK = 64
"""Texts read together."""


@torch.no_grad()
def read_texts(model: EmotionModel, source: BatchSource, device: torch.device) -> None:
    """Let a frozen encoder read every text of a split, in blocks of similar length, shortest first.

    Nothing is read where the encoder is trained, where somebody reads padding, whose states differ
    from batch to batch, or beyond the cache's limit of memory.

    Args:
        model: the whole model.
        source: the split; its complete texts.
        device: where the model lies.
    """
    encoder = model.text_encoder
    if encoder.fine_tune or model.backbone.reads_padding:
        return
    length_N = source.split.lengths.text
    order_N = np.argsort(length_N, kind="stable")
    state_bytes = 4 * encoder.width
    for start in range(0, len(order_N), BLOCK):
        index_R = order_N[start : start + BLOCK]
        size = int(length_N[index_R].sum()) * state_bytes
        if encoder.cache.num_bytes + size > encoder.cache.limit_mib * 2**20:
            return
        ids_RT = np.zeros((len(index_R), int(length_N[index_R].max())), dtype=np.int64)
        for row, index in enumerate(index_R):
            ids_RT[row, : length_N[index]] = source.split.token_ids(int(index))
        valid_RT = torch.from_numpy(np.arange(ids_RT.shape[1]) < length_N[index_R][:, None])
        encoder.encode(
            [torch.from_numpy(ids_RT).to(device)],
            [valid_RT.to(device)],  # type: ignore[list-item]
            padding=False,
            recurring=True,
        )
