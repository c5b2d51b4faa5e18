"""Attention over a block of keys and the divergence of two attentions, with their own gradients.

A block's result does not depend on the other blocks of its row: it comes with its *mass*, the
log-sum-exp of its scores, and blocks are put together later by their masses. Written as autograd
functions because these are the only places that touch every query-key pair: one buffer is allocated
per block and worked on in place, where the composed form allocates one per operation.

Scores lie key by query in memory: a maximum or a sum over keys then runs over rows of queries,
and no product needs a transposed copy. On a CPU that halves the time of a block.

Shapes: B batch, H heads, L queries, S keys of the block, K head width, J = K + 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cider.modules.dropout import keep_values

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN = -1e30
"""Score of a padded key. Finite, so that a row with nothing but padding is no NaN."""

_LOWEST = -40.0
# exp(-40) = 4e-18 vanishes beside exp(0) = 1 in a sum. Unbounded, hidden scores underflow, and a
# CPU leaves its vectorised exponential (measured: 0.6 ns become 6 to 21 ns each); bounded at -80
# instead, products with the values are denormal, which slows matrix products as much.

SMALL = 35.0
"""Scores within this of 0 need no subtraction before the exponential: exp(35) = 2e15, and float32
holds the sum of any number of such."""

_LOWEST_SMALL = -2 * SMALL
# As above: exp(-70) = 4e-31 vanishes even beside exp(-35), and its products are not denormal.


def _exponentials(scores_BHSL: Tensor, *, small: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return exp(scores - top) (B, H, S, L), its sum over keys and the top, (B, H, 1, L) each.

    The top is taken as 0, and returned as None, where scores are ``small``.
    """
    top_BH1L = None
    if small:
        exponent_BHSL = scores_BHSL.clamp(min=_LOWEST_SMALL).exp_()
    else:
        top_BH1L = scores_BHSL.amax(dim=-2, keepdim=True)
        exponent_BHSL = torch.sub(scores_BHSL, top_BH1L).clamp_(min=_LOWEST).exp_()
    return exponent_BHSL, exponent_BHSL.sum(dim=-2, keepdim=True), top_BH1L


def _mass(total_BH1L: Tensor, top_BH1L: Tensor | None) -> Tensor:
    return total_BH1L.log() if top_BH1L is None else total_BH1L.log().add_(top_BH1L)


class _BlockAttention(torch.autograd.Function):
    """See ``block_attention``."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's context has no public type
        scores_BHSL: Tensor,
        v_BHSK: Tensor,
        dropout: float,
        small: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        exponent_BHSL, total_BH1L, top_BH1L = _exponentials(scores_BHSL, small=small)
        v_BHKS = v_BHSK.transpose(-1, -2)
        read_BHKL = (v_BHKS @ exponent_BHSL).div_(total_BH1L)
        kept_BHSL = dropped_BHKL = None
        if dropout > 0:
            kept_BHSL, ctx.scale = keep_values(scores_BHSL, dropout)
            dropped_BHKL = (v_BHKS @ kept_BHSL.mul_(exponent_BHSL)).mul_(ctx.scale / total_BH1L)
        ctx.save_for_backward(exponent_BHSL, total_BH1L, v_BHSK, read_BHKL, kept_BHSL, dropped_BHKL)
        return read_BHKL, _mass(total_BH1L, top_BH1L), dropped_BHKL

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        exponent_BHSL, total_BH1L, v_BHSK, read_BHKL, kept_BHSL, dropped_BHKL = ctx.saved_tensors
        read_grad, mass_grad, dropped_grad = grads
        # With N = E V, Z = sum E: read = N / Z, mass = top + log Z.
        sums_BHKL = read_grad / total_BH1L
        total_BH1L_grad = mass_grad / total_BH1L - (sums_BHKL * read_BHKL).sum(-2, keepdim=True)
        v_grad = exponent_BHSL @ sums_BHKL.transpose(-1, -2)
        if kept_BHSL is not None:
            total_BH1L_grad -= (dropped_grad * dropped_BHKL).sum(-2, keepdim=True) / total_BH1L
            dropped_sums_BHKL = dropped_grad * (ctx.scale / total_BH1L)
            v_grad = v_grad + kept_BHSL @ dropped_sums_BHKL.transpose(-1, -2)
        # The gradient of Z goes to every key alike: one more column of sums against a value of 1.
        sums_BHJL = torch.cat([sums_BHKL, total_BH1L_grad], dim=-2)
        values_BHSJ = torch.cat([v_BHSK, torch.ones_like(v_BHSK[..., :1])], dim=-1)
        scores_grad = (values_BHSJ @ sums_BHJL).mul_(exponent_BHSL)
        if kept_BHSL is not None:
            scores_grad.addcmul_(v_BHSK @ dropped_sums_BHKL, kept_BHSL)
        return scores_grad, v_grad, None, None


def block_attention(
    scores_BHSL: Tensor, v_BHSK: Tensor, dropout: float = 0.0, *, small: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return what every query reads from a block of keys, and the block's mass.

    Args:
        scores_BHSL: scores before softmax, key by query; ``HIDDEN`` at padded keys.
        v_BHSK: values.
        dropout: share of attention weights dropped for the third result, in [0, 1).
        small: True promises that all scores but those of padded keys lie within ``SMALL`` of 0.
            Nothing has to be subtracted from them then, which saves two passes over them.

    Returns:
        softmax(scores) V, transposed (B, H, K, L), which merges heads without a copy and keeps
        queries contiguous; the log-sum-exp of the scores (B, H, 1, L); and, with dropout, the read
        through weights that were dropped out and scaled up, otherwise None.
    """
    read: tuple[Tensor, Tensor, Tensor | None] = _BlockAttention.apply(  # type: ignore[no-untyped-call]
        scores_BHSL, v_BHSK, dropout, small
    )
    return read


class _AttentionDivergence(torch.autograd.Function):
    """See ``attention_divergence``."""

    @staticmethod
    def forward(ctx: Any, scores_BHSL: Tensor, target_BHSL: Tensor) -> Tensor:  # noqa: ANN401
        weights_BHSL, mass_BHL = _weights_and_mass(scores_BHSL)
        target_weights_BHSL, target_mass_BHL = _weights_and_mass(target_BHSL)
        expected_BHL = (target_BHSL - scores_BHSL).mul_(target_weights_BHSL).sum(dim=-2)
        ctx.save_for_backward(weights_BHSL.sub_(target_weights_BHSL))
        return expected_BHL - target_mass_BHL + mass_BHL

    @staticmethod
    def backward(ctx: Any, grad_BHL: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        (difference_BHSL,) = ctx.saved_tensors
        return difference_BHSL * grad_BHL.unsqueeze(-2), None


def _weights_and_mass(scores_BHSL: Tensor) -> tuple[Tensor, Tensor]:
    exponent_BHSL, total_BH1L, top_BH1L = _exponentials(scores_BHSL, small=False)
    return exponent_BHSL.div_(total_BH1L), _mass(total_BH1L, top_BH1L).squeeze(-2)


def attention_divergence(scores_BHLS: Tensor, target_BHLS: Tensor) -> Tensor:
    """Return KL(softmax(target) || softmax(scores)) of every row (B, H, L).

    Args:
        scores_BHLS: scores before softmax, query by key.
        target_BHLS: scores to match; no gradient flows into them.
    """
    divergence_BHL: Tensor = _AttentionDivergence.apply(  # type: ignore[no-untyped-call]
        scores_BHLS.transpose(-1, -2), target_BHLS.detach().transpose(-1, -2)
    )
    return divergence_BHL
