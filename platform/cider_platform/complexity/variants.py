"""What is measured: every registered model, MACI by itself, and CIDer without parts that cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cider.models import names
from cider.published import cells
from cider.published.tables import COMPLEXITY
from cider.registry import lookup
from cider_platform.evidence.paper_runs import ABLATIONS, published_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHANGES_COST = ("w/o MCM", "w/o counterfactual text", "w/o MACI", "w/o WSAM", "w/o MCT")
"""Rows of table V whose network or predictions differ; the others weigh a loss with 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A model, or one without a part."""

    name: str
    """A registered model, or a row of table V."""
    model: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the spec that make it."""

    @property
    def published(self) -> dict[str, float]:
        """Metric -> the number of table VI; empty if the model is not in it."""
        if self.fields:
            return {}
        return {
            cell.metric: cell.value
            for cell in cells(COMPLEXITY)
            if published_name(cell.model) == self.model
        }


def variants(only: Sequence[str] = ()) -> list[Variant]:
    """Return what is to be measured.

    Args:
        only: names; none means every one.

    Raises:
        UsageError: for a name that is none.
    """
    every = {name: Variant(name=name, model=name) for name in names()}
    every |= {row: Variant(name=row, model="cider", fields=ABLATIONS[row]) for row in CHANGES_COST}
    for name in only:
        lookup("model", name, every)
    return [variant for name, variant in every.items() if not only or name in only]
