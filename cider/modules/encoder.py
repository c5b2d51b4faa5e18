"""The pre-norm transformer around a fusion attention (Eq. 13).

Shapes: B batch, L fused steps, D width, H heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from cider.modules.dropout import Dropout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import BoolTensor, Tensor


class FusionLayer(nn.Module):
    """LayerNorm, attention, residual; LayerNorm, feed-forward of four times the width, residual."""

    def __init__(
        self,
        attention: nn.Module,
        width: int,
        *,
        relu_dropout: float,
        residual_dropout: float,
        residual_normalised: bool,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        for linear in (self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.relu_dropout = Dropout(relu_dropout)
        self.residual_dropout = Dropout(residual_dropout)
        self.residual_normalised = residual_normalised

    def forward(
        self, x_BLD: Tensor, lengths: Sequence[int], valid_BL: BoolTensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the layer's output (B, L, D) and its attention scores (B, H, L, L)."""
        normed_BLD = self.attention_norm(x_BLD)
        attended_BLD, scores_BHLL = self.attention(normed_BLD, lengths, valid_BL)
        # Differs between paper and release: Eq. 13 adds the normalised input.
        kept_BLD = normed_BLD if self.residual_normalised else x_BLD
        x_BLD = kept_BLD + self.residual_dropout(attended_BLD)

        normed_BLD = self.feed_forward_norm(x_BLD)
        hidden = self.relu_dropout(self.expand(normed_BLD).relu())
        kept_BLD = normed_BLD if self.residual_normalised else x_BLD
        return kept_BLD + self.residual_dropout(self.contract(hidden)), scores_BHLL


class FusionEncoder(nn.Module):
    """Fusion layers one after the other, and a last LayerNorm.

    Args:
        layers: the layers, in order.
        width: D.
    """

    def __init__(self, layers: Sequence[FusionLayer], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, x_BLD: Tensor, lengths: Sequence[int], valid_BL: BoolTensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the fused sequence (B, L, D) and the last layer's scores (B, H, L, L)."""
        for layer in self.layers:
            x_BLD, scores_BHLL = layer(x_BLD, lengths, valid_BL)
        return self.norm(x_BLD), scores_BHLL

    def scores(
        self, x_BLD: Tensor, lengths: Sequence[int], valid_BL: BoolTensor | None
    ) -> list[Tensor]:
        """Return every layer's scores (B, H, L, L), first layer first; ``forward`` has the last."""
        found = []
        for layer in self.layers:
            x_BLD, scores_BHLL = layer(x_BLD, lengths, valid_BL)
            found.append(scores_BHLL)
        return found


def stack(num_layers: int, width: int, make: Callable[[], FusionLayer]) -> FusionEncoder:
    """Return an encoder of ``num_layers`` new layers."""
    return FusionEncoder([make() for _ in range(num_layers)], width)
