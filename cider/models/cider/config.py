"""Configuration of CIDer's network; a field the published code decides otherwise says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cider.config import check_positive, check_range
from cider.errors import UsageError

if TYPE_CHECKING:
    from cider.models.interface import Backbone, InputShapes


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The network of the paper's section III-B; MACI and the losses are configured apart."""

    name: ClassVar[str] = "cider"
    version: ClassVar[int] = 3
    """Raised whenever the same configuration would compute other numbers than before."""

    layers: int = 2
    """Layers of the Multimodal Composite Transformer. Searched over 1-4 (Table II)."""
    heads: int = 4
    """Attention heads; must divide ``width``. Searched over 1, 2, 4, 8 (Table II)."""
    width: int = 32
    """Hidden width d of every modality. Published: 32."""
    attention_dropout: float = 0.1
    """Dropout of fusion attention weights, in [0, 1). Searched over 0-0.5 (Table II)."""
    embedding_dropout: float = 0.1
    """Dropout of the fused sequence before layer 1. Searched over 0-0.5 (Table II)."""
    output_dropout: float = 0.1
    """Dropout inside the joint representation. Searched over 0-0.5 (Table II)."""
    relu_dropout: float = 0.1
    """Dropout inside the feed-forward layers. Published: 0.1."""
    residual_dropout: float = 0.1
    """Dropout of every residual branch. Published: 0.1."""

    fusion: Literal["mct", "vanilla"] = "mct"
    """``vanilla`` replaces MCT by a plain transformer over the same sequence (Table V)."""
    wsam: bool = True
    """False keeps audio and vision at their own lengths in unaligned data (Table V)."""

    positions: Literal["time", "batch_index"] = "time"
    """Released: ``batch_index``, sinusoids indexed by the sample's place in the batch."""
    mask_fusion_padding: bool = True
    """Released: False, padded positions are attended to in fusion."""
    mask_pooling_padding: bool = True
    """Released: False, padded positions take part in attention pooling."""
    mask_reconstruction_padding: bool = True
    """Released: False, padded text steps feed the length maps of the reconstruction heads."""
    residual: Literal["input", "normalised"] = "input"
    """What a residual branch is added to. Released: the input; Eq. 13 writes LN(input)."""
    joint_residual: bool = True
    """Released: True, the joint representation adds the pooled concatenation; Eq. 15 does not."""
    dropout_subsets: Literal["trimodal", "all"] = "trimodal"
    """Subsets whose attention weights are dropped out. Released: only the trimodal one."""
    unused_wsam: bool = False
    """Released: True, aligned data builds two alignment blocks that nothing calls."""

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "width"):
            check_positive(f"model.{name}", getattr(self, name))
        for name in ("attention", "embedding", "output", "relu", "residual"):
            check_range(f"model.{name}_dropout", getattr(self, f"{name}_dropout"), 0.0, 0.95)
        if self.width % self.heads:
            raise UsageError(
                f"model.heads must divide model.width, got {self.heads} heads of width {self.width}"
            )
        if self.width % 2:
            raise UsageError(f"model.width must be even for sinusoids, got {self.width}")

    def build(self, shapes: InputShapes) -> Backbone:
        """Build the network for inputs of these shapes (imports torch)."""
        from cider.models.cider.model import CiderBackbone

        return CiderBackbone(self, shapes)
