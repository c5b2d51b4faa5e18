"""The plain form of Multimodal Composite Attention, which fast ones are measured against.

Without dropout it is ``tests/reference/ref_fusion.py``; with dropout, of the trimodal subset's
weights as published, it is written out here and otherwise the same.

Shapes: B batch, L fused steps, D width, H heads, K head width.
"""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from measuring import ROOT
from torch.nn import functional as F

from cider.modality import SUBSETS, Modality
from cider.modules.fusion import CompositeAttention, segments_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from torch import BoolTensor, Tensor, nn


def _reference() -> ModuleType:
    path = ROOT / "tests" / "reference" / "ref_fusion.py"
    spec = importlib.util.spec_from_file_location("ref_fusion", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = _reference()


def plain(
    module: CompositeAttention, x_BLD: Tensor, lengths: Sequence[int], valid_BL: BoolTensor | None
) -> tuple[Tensor, Tensor]:
    """Return what ``CompositeAttention`` returns, with its parameters, the plain way."""
    if not module.training or module.dropout == 0:
        return REFERENCE.composite_attention(module, x_BLD, lengths, valid_BL)
    scores_BHLL, v_BHLK = module.scores(x_BLD, None)
    reads = []
    keep_GL = REFERENCE.keep_table(lengths).to(x_BLD.device)
    for keep_L, subset, out in zip(keep_GL, SUBSETS, module.subset_out, strict=True):
        hidden = ~keep_L[None, None, None, :]
        if valid_BL is not None:
            hidden = hidden | ~valid_BL[:, None, None, :]
        weights_BHLL = scores_BHLL.masked_fill(hidden, -torch.inf).softmax(dim=-1)
        if module.dropout_all or len(subset) == len(Modality):
            weights_BHLL = F.dropout(weights_BHLL, module.dropout)
        reads.append(out((weights_BHLL @ v_BHLK).transpose(1, 2).flatten(2)))
    fused = [
        summary(
            torch.cat(
                [
                    y_BLD[:, rows]
                    for y_BLD, subset in zip(reads, SUBSETS, strict=True)
                    if modality in subset
                ],
                dim=-1,
            )
        )
        for modality, rows, summary in zip(
            Modality, segments_of(lengths), module.summary, strict=True
        )
    ]
    return module.final(torch.cat(fused, dim=1)), scores_BHLL


@contextmanager
def plain_attention_in(model: nn.Module) -> Iterator[None]:
    """Let every composite attention of a model compute the plain form for a while."""
    changed = [part for part in model.modules() if isinstance(part, CompositeAttention)]
    for part in changed:
        part.forward = partial(plain, part)
    try:
        yield
    finally:
        for part in changed:
            del part.forward
