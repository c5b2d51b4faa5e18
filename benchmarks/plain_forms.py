"""The plain forms that fast ones are measured against: ``tests/reference``, at the same parameters.

They do the same mathematics as the published code does it, dropout included.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from measuring import ROOT
from torch.nn import functional as F

from cider.modules.dropout import Dropout
from cider.views import counterfactual_view, incomplete_view

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import BoolTensor, Tensor

    from cider.data.batch import Batch
    from cider.data.loader import BatchSource
    from cider.modality import PerModality
    from cider.models.emotion import EmotionModel
    from cider.modules.fusion import CompositeAttention
    from cider.training.evaluation import Masks, Predictor
    from cider.training.update import TwoStepUpdate

sys.path.insert(0, str(ROOT / "tests" / "reference"))

import ref_fusion
import ref_step


def plain_fusion(
    module: CompositeAttention, x_BLD: Tensor, lengths: Sequence[int], valid_BL: BoolTensor | None
) -> tuple[Tensor, Tensor]:
    """Return what ``CompositeAttention`` returns, with its parameters, the plain way."""
    rate = module.dropout if module.training else 0.0
    return ref_fusion.composite_attention(module, x_BLD, lengths, valid_BL, rate)


def plain_update(
    update: TwoStepUpdate, batch: Batch, observed: PerModality[BoolTensor]
) -> dict[str, float]:
    """Do what ``TwoStepUpdate`` does, with its model and optimiser, the plain way."""
    parts = (update.model, update.optimizer, batch, observed, update.weights, update.token_ids)
    return ref_step.two_step(*parts)


@torch.no_grad()
def plain_predict(predictor: Predictor, source: BatchSource, masks: Masks) -> None:
    """Do what ``Predictor.predict`` does, with its model, the plain way."""
    predictor.model.eval()
    for batch in source.batches(predictor.batch_size):
        view = incomplete_view(batch.complete, masks.of(batch), predictor.token_ids)
        ref_step.forward(predictor.model, view)
        if predictor.kept_words is not None:
            view = counterfactual_view(view, predictor.kept_words, predictor.token_ids)
            ref_step.forward(predictor.model, view)


@contextmanager
def plain_encoder_in(model: EmotionModel) -> Iterator[None]:
    """Let a model's text encoder compute in the plain form for a while."""
    encoder = model.text_encoder
    changed: list[Any] = [part for part in encoder.modules() if isinstance(part, Dropout)]
    for part in changed:
        part.forward = partial(_torch_dropout, part)
    config: Any = encoder.backbone.config
    before = getattr(config, "_attn_implementation", None)
    if before is not None:
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for part in changed:
            del part.forward
        if before is not None:
            config._attn_implementation = before


def _torch_dropout(part: Dropout, x: Tensor) -> Tensor:
    return F.dropout(x, part.p, part.training)
