"""The plain forms that fast ones are measured against: ``tests/reference``, at the same parameters.

They do the same mathematics as the published code does it, dropout included.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from measuring import ROOT
from torch.nn import functional as F

from cider.modules.dropout import Dropout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import BoolTensor, Tensor

    from cider.data.batch import Batch
    from cider.modality import PerModality
    from cider.models.emotion import EmotionModel
    from cider.modules.fusion import CompositeAttention
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


@contextmanager
def plain_forms_in(model: EmotionModel) -> Iterator[None]:
    """Let a model predict, and its text encoder compute, in the plain form for a while."""
    encoder = model.text_encoder
    changed: list[Any] = [part for part in encoder.modules() if isinstance(part, Dropout)]
    for part in changed:
        part.forward = partial(_torch_dropout, part)
    model.forward = partial(_plain_output, model)  # type: ignore[method-assign]
    config: Any = encoder.backbone.config
    before = getattr(config, "_attn_implementation", None)
    if before is not None:
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for part in [*changed, model]:
            del part.forward
        if before is not None:
            config._attn_implementation = before


def _torch_dropout(part: Dropout, x: Tensor) -> Tensor:
    return F.dropout(x, part.p, part.training)


def _plain_output(model: EmotionModel, view: Any, **_: object) -> SimpleNamespace:
    return SimpleNamespace(log_probs_BC=ref_step.forward(model, view)["log_probs"])
