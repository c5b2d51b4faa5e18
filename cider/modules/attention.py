"""Attention over a block of keys and the divergence of two attentions, with their own gradients.

A block's result does not depend on the other blocks of its row: it comes with its *mass*, the
log-sum-exp of its scores, and blocks are put together later by their masses. Written as autograd
functions because these are the only places that touch every query-key pair: one buffer is allocated
per block and worked on in place, where the composed form allocates one per operation.

Shapes: B batch, H heads, L queries, S keys of the block, K head width, J = K + 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cider.modules.dropout import dropout_mask

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN = -1e30
"""Score of a padded key. Finite, so that a row with nothing but padding is no NaN."""

_LOWEST = -40.0
# exp(-40) = 4e-18 vanishes beside exp(0) = 1 in a sum. Unbounded, hidden scores underflow, and a
# CPU leaves its vectorised exponential (measured: 0.6 ns become 6 to 21 ns each); bounded at -80
# instead, products with the values are denormal, which slows matrix products as much.


class _BlockAttention(torch.autograd.Function):
    """See ``block_attention``."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's context has no public type
        scores_BHLS: Tensor,
        v_BHSK: Tensor,
        keep_BHLS: Tensor | None,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        top_BHL1 = scores_BHLS.amax(dim=-1, keepdim=True)
        exponent_BHLS = torch.sub(scores_BHLS, top_BHL1).clamp_(min=_LOWEST).exp_()
        total_BHL1 = exponent_BHLS.sum(dim=-1, keepdim=True)
        total_BH1L, top_BH1L = total_BHL1.transpose(-1, -2), top_BHL1.transpose(-1, -2)
        v_BHKS = v_BHSK.transpose(-1, -2)
        read_BHKL = (v_BHKS @ exponent_BHLS.transpose(-1, -2)).div_(total_BH1L)
        kept_BHLS = dropped_BHKL = None
        if keep_BHLS is not None:
            kept_BHLS = torch.where(keep_BHLS, exponent_BHLS, 0.0)
            dropped_BHKL = (v_BHKS @ kept_BHLS.transpose(-1, -2)).mul_(scale / total_BH1L)
        ctx.scale = scale
        ctx.save_for_backward(exponent_BHLS, total_BH1L, v_BHSK, read_BHKL, kept_BHLS, dropped_BHKL)
        return read_BHKL, top_BH1L + total_BH1L.log(), dropped_BHKL

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        exponent_BHLS, total_BH1L, v_BHSK, read_BHKL, kept_BHLS, dropped_BHKL = ctx.saved_tensors
        read_grad, mass_grad, dropped_grad = grads
        # With N = E V, Z = sum E: read = N / Z, mass = top + log Z.
        sums_BHKL = read_grad / total_BH1L
        total_BH1L_grad = mass_grad / total_BH1L - (sums_BHKL * read_BHKL).sum(-2, keepdim=True)
        v_grad = (sums_BHKL @ exponent_BHLS).transpose(-1, -2)
        if kept_BHLS is not None:
            total_BH1L_grad -= (dropped_grad * dropped_BHKL).sum(-2, keepdim=True) / total_BH1L
            dropped_sums_BHKL = dropped_grad * (ctx.scale / total_BH1L)
            v_grad = v_grad + (dropped_sums_BHKL @ kept_BHLS).transpose(-1, -2)
        # The gradient of Z goes to every key alike: one more column of sums against a value of 1.
        sums_BHJL = torch.cat([sums_BHKL, total_BH1L_grad], dim=-2)
        values_BHSJ = torch.cat([v_BHSK, torch.ones_like(v_BHSK[..., :1])], dim=-1)
        scores_grad = (sums_BHJL.transpose(-1, -2) @ values_BHSJ.transpose(-1, -2)).mul_(
            exponent_BHLS
        )
        if kept_BHLS is not None:
            through_BHLS = dropped_sums_BHKL.transpose(-1, -2) @ v_BHSK.transpose(-1, -2)
            scores_grad.addcmul_(through_BHLS, kept_BHLS)
        return scores_grad, v_grad, None, None


def block_attention(
    scores_BHLS: Tensor, v_BHSK: Tensor, dropout: float = 0.0
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return what every query reads from a block of keys, and the block's mass.

    Args:
        scores_BHLS: scores before softmax; ``HIDDEN`` at padded keys.
        v_BHSK: values.
        dropout: share of attention weights dropped for the third result, in [0, 1).

    Returns:
        softmax(scores) V, transposed (B, H, K, L), which merges heads without a copy and keeps
        queries contiguous; the log-sum-exp of the scores (B, H, 1, L); and, with dropout, the read
        through weights that were dropped out and scaled up, otherwise None.
    """
    keep_BHLS, scale = None, 1.0
    if dropout > 0:
        keep_BHLS, scale = dropout_mask(scores_BHLS, dropout)
    read: tuple[Tensor, Tensor, Tensor | None] = _BlockAttention.apply(  # type: ignore[no-untyped-call]
        scores_BHLS, v_BHSK, keep_BHLS, scale
    )
    return read


class _AttentionDivergence(torch.autograd.Function):
    """See ``attention_divergence``."""

    @staticmethod
    def forward(ctx: Any, scores_BHLS: Tensor, target_BHLS: Tensor) -> Tensor:  # noqa: ANN401
        weights_BHLS, mass_BHL = _softmax_and_mass(scores_BHLS)
        target_weights_BHLS, target_mass_BHL = _softmax_and_mass(target_BHLS)
        expected_BHL = (target_BHLS - scores_BHLS).mul_(target_weights_BHLS).sum(dim=-1)
        ctx.save_for_backward(weights_BHLS.sub_(target_weights_BHLS))
        return expected_BHL - target_mass_BHL + mass_BHL

    @staticmethod
    def backward(ctx: Any, grad_BHL: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        (difference_BHLS,) = ctx.saved_tensors
        return difference_BHLS * grad_BHL.unsqueeze(-1), None


def _softmax_and_mass(scores_BHLS: Tensor) -> tuple[Tensor, Tensor]:
    weights_BHLS = scores_BHLS.softmax(dim=-1)
    # The largest weight is exp(top - mass): no second pass of exponentials is needed.
    mass_BHL = scores_BHLS.amax(dim=-1) - weights_BHLS.amax(dim=-1).log()
    return weights_BHLS, mass_BHL


def attention_divergence(scores_BHLS: Tensor, target_BHLS: Tensor) -> Tensor:
    """Return KL(softmax(target) || softmax(scores)) of every row (B, H, L).

    Args:
        scores_BHLS: scores before softmax.
        target_BHLS: scores to match; no gradient flows into them.
    """
    divergence_BHL: Tensor = _AttentionDivergence.apply(  # type: ignore[no-untyped-call]
        scores_BHLS, target_BHLS.detach()
    )
    return divergence_BHL
