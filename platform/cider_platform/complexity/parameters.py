"""Numbers of parameters at the shapes of the published features, without any corpus.

The printed counts of table VI are reached exactly as the mean of the models for three and for
seven classes on unaligned CMU-MOSI with BERT-base's width, without the text encoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cider.config import with_field
from cider.data.datasets import published_sizes
from cider.data.schema import StoreKey
from cider.modality import PerModality
from cider.models.emotion import build_head
from cider.models.interface import InputShapes
from cider.spec import NUM_CLASSES, RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from cider_platform.complexity.variants import Variant

TEXT_WIDTH = 768
"""Of BERT-base, the published text encoder."""


def variant_spec(variant: Variant, base: RunSpec) -> RunSpec:
    """Return a base spec with a variant's model and fields."""
    values = base.to_dict()
    if values["model"]["name"] != variant.model:
        values["model"] = {"name": variant.model}
    spec = RunSpec.from_dict(values)
    for path, value in variant.fields.items():
        spec = with_field(spec, path, value)
    return spec


def parameters_as_published(variant: Variant) -> float:
    """Return the parameters without the text encoder at MOSI's published shapes, task means."""
    return _mean(variant, lambda backbone, head: _count(backbone) + _count(head))


def maci_parameters() -> float:
    """Return the parameters of CIDer's causal head alone at the same shapes: the row MACI."""
    from cider_platform.complexity.variants import variants  # noqa: PLC0415

    (cider,) = variants(["cider"])
    return _mean(cider, lambda _, head: _count(head))


def _mean(variant: Variant, count: Callable[[nn.Module, nn.Module], int]) -> float:
    """Return the mean over the tasks of a count of backbone and head."""
    sizes = published_sizes(StoreKey(dataset="mosi", alignment="unaligned", distribution="iid"))
    assert sizes is not None
    widths = PerModality(TEXT_WIDTH, sizes.widths["audio"], sizes.widths["vision"])
    lengths = PerModality(*(sizes.lengths[name] for name in ("text", "audio", "vision")))
    spec = variant_spec(variant, RunSpec())
    counts = []
    for num_classes in NUM_CLASSES.values():
        backbone = spec.model.build(InputShapes(widths, lengths, aligned=False))
        head = build_head(
            backbone,
            spec.maci,
            widths.map(lambda width, rows=num_classes: torch.zeros(rows, width)),  # type: ignore[misc]
            torch.full((num_classes,), 1 / num_classes),
            layer_norm=spec.class_encoder_layer_norm,
        )
        counts.append(count(backbone, head))
    return sum(counts) / len(counts)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
