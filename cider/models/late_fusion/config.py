"""Configuration of the smallest model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cider.config import check_positive, check_range

if TYPE_CHECKING:
    from cider.models.interface import Backbone, InputShapes


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Mean over the valid steps of each modality, one layer each, one layer together."""

    name: ClassVar[str] = "late_fusion"
    version: ClassVar[int] = 2

    width: int = 32
    """Hidden width of every modality; the joint representation has three times as many."""
    dropout: float = 0.1
    """Dropout before the joint layer, in [0, 1)."""

    def __post_init__(self) -> None:
        check_positive("model.width", self.width)
        check_range("model.dropout", self.dropout, 0.0, 0.95)

    def build(self, shapes: InputShapes) -> Backbone:
        """Build the network for inputs of these shapes (imports torch)."""
        from cider.models.late_fusion.model import LateFusionBackbone

        return LateFusionBackbone(self, shapes)
