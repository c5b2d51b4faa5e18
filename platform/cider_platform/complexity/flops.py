"""Floating-point operations of a computation, counted by torch while it runs.

``torch.utils.flop_counter`` counts matrix products, convolutions and attention, 2 per multiply-add,
forward and backward. It does not count element-wise operations, softmax, normalisation or look-ups.
Counts are taken on the CPU: there a GRU is made of matrix products, which are counted; on a GPU it
is one kernel, which is not. Fused attention of the CPU is not among what torch counts, so it is
added here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

if TYPE_CHECKING:
    from collections.abc import Callable


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:  # noqa: ANN401
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:  # noqa: ANN401
    return int(sdpa_backward_flop_count(grad, query, key, value))  # type: ignore[no-untyped-call]


def count_flops(compute: Callable[[], object]) -> int:
    """Return the floating-point operations of what a function computes on the CPU."""
    aten: Any = torch.ops.aten
    fused = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=fused) as counter:
        compute()
    return int(counter.get_total_flops())
