"""A BERT layer over the tokens of many texts as one operation, with its gradient written by hand.

The composed form in ``cider.modules.packed_text`` starts about 25 operations per length of text
and layer, its backward pass included, and each writes a tensor of its own. Here every text is read
where it stands, softmax and dropout see the scores of all texts in one row, residuals are added
inside products, and the backward pass works in the buffers it was given. Values and draws are those
of the composed form; sums of the gradient are rounded in another order.

Shapes: N tokens of all texts, F width, I inner width, H heads, K head width, T steps of a text,
P query-key pairs of all texts and heads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cider.modules.dropout import dropout_mask, dropout_scale, scaled_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


class _Settings(NamedTuple):
    num_heads: int
    attention_dropout: float
    hidden_dropout: float
    eps: float
    """Of both LayerNorms."""


def can_fuse(bert: nn.Module, device: torch.device) -> bool:
    """Return whether ``packed_layer`` computes what a BERT's layers do, draws included.

    Only in training: without a gradient the composed form is as fast, and has torch's fused
    attention. Not on a GPU, whose kernels cannot be started text by text; not in a product's lower
    precision; not with an activation other than GELU; and not with heads whose number is no
    multiple of four: four weights share a draw, and texts would begin in the middle of one.
    """
    config: Any = bert.config
    return (
        bert.training
        and torch.is_grad_enabled()
        and device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and config.hidden_act == "gelu"
        and config.num_attention_heads % 4 == 0
    )


def packed_layer(layer: nn.Module, x_NF: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return a BERT layer's output (N, F).

    Args:
        layer: a ``transformers`` ``BertLayer`` of a model that ``can_fuse`` accepts.
        x_NF: the tokens of all texts, one text after the other.
        lengths: T of every text.
    """
    attention: Any = layer.attention
    output: Any = layer.output
    reads: Any = attention.self
    inner: Any = layer.intermediate
    settings = _Settings(
        reads.num_attention_heads,
        reads.dropout.p if layer.training else 0.0,
        output.dropout.p if layer.training else 0.0,
        output.LayerNorm.eps,
    )
    modules: tuple[Any, ...] = (
        reads.query,
        reads.key,
        reads.value,
        attention.output.dense,
        attention.output.LayerNorm,
        inner.dense,
        output.dense,
        output.LayerNorm,
    )
    weights = [tensor for module in modules for tensor in (module.weight, module.bias)]
    out_NF: Tensor = _Layer.apply(list(lengths), settings, x_NF, *weights)  # type: ignore[no-untyped-call]
    return out_NF


class _Layer(torch.autograd.Function):
    """See ``packed_layer``."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's context has no public type
        lengths: list[int],
        settings: _Settings,
        x_NF: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        *inputs, out_FF, out_F, scale1_F, shift1_F, up_IF, up_I, down_FI, down_F = weights[:-2]
        scale2_F, shift2_F = weights[-2:]
        width, rate = x_NF.shape[1], settings.hidden_dropout
        joint_N3F = x_NF.new_empty(len(x_NF), 3, width)
        for number in range(3):
            weight_FF, bias_F = inputs[2 * number : 2 * number + 2]
            torch.addmm(bias_F, x_NF, weight_FF.t(), out=joint_N3F[:, number])
        read_NF, weights_P, keep_P = _attend(joint_N3F, lengths, settings)
        sum1_NF = torch.addmm(out_F, read_NF, out_FF.t())
        keep1_NF = _drop_and_add(sum1_NF, x_NF, rate)
        y_NF, mean1_N, spread1_N = torch.native_layer_norm(
            sum1_NF, [width], scale1_F, shift1_F, settings.eps
        )
        inner_NI = torch.addmm(up_I, y_NF, up_IF.t())
        sum2_NF = torch.addmm(down_F, F.gelu(inner_NI), down_FI.t())
        keep2_NF = _drop_and_add(sum2_NF, y_NF, rate)
        z_NF, mean2_N, spread2_N = torch.native_layer_norm(
            sum2_NF, [width], scale2_F, shift2_F, settings.eps
        )
        ctx.lengths, ctx.settings = lengths, settings
        attended = (x_NF, joint_N3F, weights_P, keep_P, read_NF, keep1_NF)
        norms = (sum1_NF, mean1_N, spread1_N, sum2_NF, mean2_N, spread2_N)
        ctx.save_for_backward(*attended, *norms, y_NF, inner_NI, keep2_NF, *weights)
        return z_NF

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:  # noqa: ANN401
        x_NF, joint_N3F, weights_P, keep_P, read_NF, keep1_NF = ctx.saved_tensors[:6]
        norm1, norm2 = ctx.saved_tensors[6:9], ctx.saved_tensors[9:12]
        y_NF, inner_NI, keep2_NF, *weights = ctx.saved_tensors[12:]
        query_FF, _, key_FF, _, value_FF, _, out_FF, _, scale1_F, shift1_F = weights[:10]
        up_IF, _, down_FI, _, scale2_F, shift2_F = weights[10:]
        settings, rate = ctx.settings, ctx.settings.hidden_dropout

        # The gradient of a sum of two is that of either: ``flow`` is the residual's, in place.
        flow_NF, *norm2_grads = _norm_backward(grads[0], norm2, scale2_F, shift2_F)
        down_NF = _dropped(flow_NF, keep2_NF, rate)
        # GELU is computed again: to write it to fresh memory and keep it takes as long.
        down_grads = _linear_grads(down_NF, F.gelu(inner_NI))
        inner_grad_NI = down_NF @ down_FI
        torch.ops.aten.gelu_backward.grad_input(inner_grad_NI, inner_NI, grad_input=inner_grad_NI)
        up_grads = _linear_grads(inner_grad_NI, y_NF)
        flow_NF.addmm_(inner_grad_NI, up_IF)

        flow_NF, *norm1_grads = _norm_backward(flow_NF, norm1, scale1_F, shift1_F)
        out_NF = _dropped(flow_NF, keep1_NF, rate)
        out_grads = _linear_grads(out_NF, read_NF)
        joint_grad_N3F = _attend_backward(
            out_NF @ out_FF, read_NF, joint_N3F, weights_P, keep_P, ctx.lengths, settings
        )
        input_grads: list[Tensor] = []
        for number, weight_FF in enumerate((query_FF, key_FF, value_FF)):
            part_NF = joint_grad_N3F[:, number]
            input_grads += _linear_grads(part_NF, x_NF)
            flow_NF.addmm_(part_NF, weight_FF)
        attention_grads = (*input_grads, *out_grads, *norm1_grads)
        return None, None, flow_NF, *attention_grads, *up_grads, *down_grads, *norm2_grads


def _norm_backward(
    grad_NF: Tensor, norm: tuple[Tensor, ...], scale_F: Tensor, shift_F: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of a LayerNorm's input, scale and shift."""
    input_NF, mean_N, spread_N = norm
    found: tuple[Tensor, ...] = torch.ops.aten.native_layer_norm_backward(
        grad_NF.contiguous(),
        input_NF,
        scale_F.shape,
        mean_N,
        spread_N,
        scale_F,
        shift_F,
        [True] * 3,
    )
    return found


def _linear_grads(grad_NI: Tensor, input_NF: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of a linear layer's weight (I, F) and bias (I,)."""
    return grad_NI.t() @ input_NF, grad_NI.sum(dim=0)


def _drop_and_add(sum_NF: Tensor, residual_NF: Tensor, dropout: float) -> Tensor | None:
    """Drop elements of a sum out, add a residual to it, in place; return which were kept."""
    if dropout == 0:
        sum_NF.add_(residual_NF)
        return None
    keep_NF, scale = dropout_mask(sum_NF, dropout)
    torch.add(residual_NF, sum_NF.mul_(scaled_mask(keep_NF, scale, sum_NF.dtype)), out=sum_NF)
    return keep_NF


def _dropped(grad_NF: Tensor, keep_NF: Tensor | None, dropout: float) -> Tensor:
    if keep_NF is None:
        return grad_NF
    return scaled_mask(keep_NF, dropout_scale(dropout), grad_NF.dtype).mul_(grad_NF)


def _texts(x_NMF: Tensor, lengths: list[int], num_heads: int) -> list[tuple[Tensor, ...]]:
    """Return views (H, T, K) of every text's part of M matrices."""
    num_tokens, num_matrices, width = x_NMF.shape
    split_NMHK = x_NMF.view(num_tokens, num_matrices, num_heads, width // num_heads)
    parts = split_NMHK.permute(1, 2, 0, 3).unbind()
    return list(zip(*(torch.split(part, lengths, dim=1) for part in parts), strict=True))


def _pairs(flat_P: Tensor, lengths: list[int], num_heads: int) -> list[Tensor]:
    """Return views (H, T, T) of every text's query-key pairs."""
    sizes = [num_heads * steps * steps for steps in lengths]
    return [
        part.view(num_heads, steps, steps)
        for part, steps in zip(torch.split(flat_P, sizes), lengths, strict=True)
    ]


def _attend(
    joint_N3F: Tensor, lengths: list[int], settings: _Settings
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return what every token reads from its text (N, F), the weights, and which were kept."""
    num_tokens, _, width = joint_N3F.shape
    num_heads, rate = settings.num_heads, settings.attention_dropout
    texts = _texts(joint_N3F, lengths, num_heads)
    weights_P = joint_N3F.new_empty(num_heads * sum(steps * steps for steps in lengths))
    scale = 1 / math.sqrt(width // num_heads)
    for (q_HTK, k_HTK, _), pairs_HTT in zip(
        texts, _pairs(weights_P, lengths, num_heads), strict=True
    ):
        keys_HKT = k_HTK.transpose(1, 2)
        torch.baddbmm(pairs_HTT, q_HTK, keys_HKT, beta=0, alpha=scale, out=pairs_HTT)
        torch.softmax(pairs_HTT, dim=-1, out=pairs_HTT)
    keep_P, used_P = None, weights_P
    if rate > 0:
        keep_P, kept_scale = dropout_mask(weights_P, rate)
        used_P = scaled_mask(keep_P, kept_scale, weights_P.dtype).mul_(weights_P)
    read_NF = joint_N3F.new_empty(num_tokens, width)
    places = [place for (place,) in _texts(read_NF.unsqueeze(1), lengths, num_heads)]
    # Into blocks of their own first: torch multiplies head by head where a result has gaps.
    reads = [
        pairs_HTT @ v_HTK
        for (*_, v_HTK), pairs_HTT in zip(texts, _pairs(used_P, lengths, num_heads), strict=True)
    ]
    torch._foreach_copy_(places, reads)
    return read_NF, weights_P, keep_P


def _attend_backward(
    grad_NF: Tensor,
    read_NF: Tensor,
    joint_N3F: Tensor,
    weights_P: Tensor,
    keep_P: Tensor | None,
    lengths: list[int],
    settings: _Settings,
) -> Tensor:
    """Return the gradient of queries, keys and values (N, 3, F)."""
    num_tokens, _, width = joint_N3F.shape
    num_heads = settings.num_heads
    kept_P, used_P = None, weights_P
    if keep_P is not None:
        kept_P = scaled_mask(keep_P, dropout_scale(settings.attention_dropout), weights_P.dtype)
        used_P = kept_P * weights_P
    texts = _texts(joint_N3F, lengths, num_heads)
    flow_P = torch.empty_like(weights_P)
    flows = _pairs(flow_P, lengths, num_heads)
    found = []
    for (*_, v_HTK), (grad_HTK,), flow_HTT, used_HTT in zip(
        texts,
        _texts(grad_NF.unsqueeze(1), lengths, num_heads),
        flows,
        _pairs(used_P, lengths, num_heads),
        strict=True,
    ):
        found.append(used_HTT.transpose(1, 2) @ grad_HTK)
        torch.bmm(grad_HTK, v_HTK.transpose(1, 2), out=flow_HTT)
    if kept_P is not None:
        flow_P.mul_(kept_P)
    # What a softmax's row subtracts, the mean of its gradients by its weights, is the product of
    # what was read with its gradient.
    mean_HN1 = (grad_NF * read_NF).view(num_tokens, num_heads, -1).sum(-1).t().unsqueeze(-1)
    for flow_HTT, mean_HT1 in zip(flows, torch.split(mean_HN1, lengths, dim=1), strict=True):
        flow_HTT.sub_(mean_HT1)
    flow_P.mul_(weights_P).mul_(1 / math.sqrt(width // num_heads))
    for (q_HTK, k_HTK, _), flow_HTT in zip(texts, flows, strict=True):
        found += [flow_HTT @ k_HTK, flow_HTT.transpose(1, 2) @ q_HTK]
    joint_grad_N3F = torch.empty_like(joint_N3F)
    places = _texts(joint_grad_N3F, lengths, num_heads)
    into = [value for *_, value in places] + [part for q, k, _ in places for part in (q, k)]
    torch._foreach_copy_(into, found)
    return joint_grad_N3F
