"""Sinusoidal positions ("Attention Is All You Need", section 3.5).

Shapes: N positions, D width.
"""

from __future__ import annotations

import math

import torch


def sinusoids(num_positions: int, width: int) -> torch.Tensor:
    """Return position encodings (N, D), float32: sines at even, cosines at odd columns.

    Args:
        num_positions: N, the number of positions.
        width: D, even.
    """
    position_N1 = torch.arange(num_positions, dtype=torch.float32).unsqueeze(1)
    frequency_K = torch.exp(
        torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width)
    )
    table_ND = torch.zeros(num_positions, width)
    table_ND[:, 0::2] = torch.sin(position_N1 * frequency_K)
    table_ND[:, 1::2] = torch.cos(position_N1 * frequency_K)
    return table_ND
