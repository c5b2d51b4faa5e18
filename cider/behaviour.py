"""The two named behaviours of the published model: each difference is one typed field.

``corrected`` is the default of every field. ``released`` is what the authors' code (commit 2f86cbe)
computes, so that published weights load and published numbers can be reproduced. Selection on the
test split is not part of it: that is ``selection.rule=published``, asked for by its own name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cider.config import with_field
from cider.registry import lookup

if TYPE_CHECKING:
    from cider.spec import RunSpec

Behaviour = Literal["corrected", "released"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which the published code differs from the corrected model."""

    field: str
    corrected: object
    released: object
    why: str


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "model.positions", "time", "batch_index",
        "the published sinusoids are indexed by place in the batch, so the model has no "
        "order information and a prediction depends on its neighbours",
    ),
    Difference(
        "model.mask_fusion_padding", True, False,
        "the published fusion attends to padded positions as if they were content",
    ),
    Difference(
        "model.mask_pooling_padding", True, False,
        "the published pooling gives weight to padded positions",
    ),
    Difference(
        "model.mask_reconstruction_padding", True, False,
        "the published length maps of the reconstruction heads read padded text steps",
    ),
    Difference(
        "model.unused_wsam", False, True,
        "on aligned data the published model builds, counts and optimises blocks nothing calls",
    ),
    Difference(
        "missing.train_rate", "per_sample", "per_position",
        "the published training draws a rate per position, which is a fixed rate of one half; the "
        "paper describes a random rate per sample",
    ),
    Difference(
        "missing.mask_source", "seeded", "released",
        "the published evaluation draws masks for a whole split from the legacy generator",
    ),
    Difference(
        "training.clear_gradients", True, False,
        "the published second step adds its gradient to that of the first",
    ),
    Difference(
        "training.padding", "groups", "full",
        "with padding attended to, its amount changes the numbers; the published code pads to the "
        "corpus's longest sequence",
    ),
)  # fmt: skip


def with_behaviour(spec: RunSpec, behaviour: str) -> RunSpec:
    """Return ``spec`` with every difference set to a behaviour's value.

    Fields that the spec's model does not have are left out: another model has no such difference.

    Raises:
        UsageError: if ``behaviour`` is neither ``corrected`` nor ``released``.
    """
    released = lookup("behaviour", behaviour, {"corrected": False, "released": True})
    for difference in DIFFERENCES:
        group, name = difference.field.split(".")
        if hasattr(getattr(spec, group), name):
            value = difference.released if released else difference.corrected
            spec = with_field(spec, difference.field, value)
    return spec
