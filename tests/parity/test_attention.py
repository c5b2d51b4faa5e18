"""Block attention and attention divergence, whose gradients are written by hand."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from cider.modules.attention import (
    HIDDEN,
    attention_divergence,
    block_attention,
)
from cider.modules.dropout import dropout_mask


def tensors(dtype=torch.float64, keys=5):
    generator = torch.Generator().manual_seed(4)
    shapes = [(2, 3, keys, 4), (2, 3, keys, 6)]  # key by query
    return [
        torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes
    ]


def test_block_attention_equals_softmax_and_logsumexp():
    scores, values = tensors()
    read, mass, dropped = block_attention(scores, values)
    torch.testing.assert_close(read.mT, scores.softmax(-2).mT @ values)
    torch.testing.assert_close(mass, scores.logsumexp(-2, keepdim=True))
    assert dropped is None


@pytest.mark.parametrize("level", [-33.0, 0.0, 33.0])
def test_small_scores_need_no_subtraction(level):
    scores, values = tensors(torch.float32)
    hidden = scores.detach() / 2 + level
    hidden[:, :, 3:] = HIDDEN
    reads = []
    for small in (False, True):
        given = hidden.clone().requires_grad_()
        read, mass, _ = block_attention(given, values, small=small)
        (read.square().sum() + mass.sum()).backward()
        reads.append((read, mass, given.grad))
    for plain, quick in zip(*reads, strict=True):
        torch.testing.assert_close(quick, plain)


@pytest.mark.parametrize("keys", [1, 5])
def test_block_attention_passes_gradcheck(keys):
    for small in (False, True):
        assert gradcheck(
            lambda *given: block_attention(*given, small=small)[:2],  # noqa: B023 - called at once
            tensors(keys=keys),
        )


def test_block_attention_with_dropout_passes_gradcheck():
    def read(*given):
        torch.manual_seed(9)
        return block_attention(*given, dropout=0.4)

    assert gradcheck(read, tensors())


def test_block_attention_dropout_is_the_dropped_softmax():
    scores, values = tensors()
    torch.manual_seed(9)
    dropped = block_attention(scores, values, dropout=0.4)[2]
    torch.manual_seed(9)
    keep, scale = dropout_mask(scores, 0.4)
    torch.testing.assert_close(dropped.mT, (scores.softmax(-2) * keep * scale).mT @ values)


def test_block_attention_hidden_keys_get_no_weight_and_no_gradient():
    scores, values = tensors(torch.float32)
    hidden = scores.detach().clone()
    hidden[:, :, 2:] = HIDDEN
    hidden.requires_grad_()
    read, mass, _ = block_attention(hidden, values)
    torch.testing.assert_close(read.mT, scores[:, :, :2].softmax(-2).mT @ values[:, :, :2])
    torch.testing.assert_close(mass, scores[:, :, :2].logsumexp(-2, keepdim=True))
    (read.sum() + mass.sum()).backward()
    assert hidden.grad[:, :, 2:].abs().max() < 1e-15


def test_block_attention_with_nothing_but_hidden_keys_is_finite():
    _, values = tensors(torch.float32)
    scores = torch.full((2, 3, 5, 4), HIDDEN, requires_grad=True)
    read, mass, _ = block_attention(scores, values)
    (read.sum() + mass.mul(0).sum()).backward()
    assert torch.isfinite(read).all()
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("shift", [0.0, 90.0, -200.0])
def test_block_attention_does_not_depend_on_the_level_of_the_scores(shift):
    scores, values = tensors(torch.float32)
    read, mass, _ = block_attention(scores + shift, values)
    torch.testing.assert_close(read.mT, scores.softmax(-2).mT @ values, rtol=1e-4, atol=1e-4)
    expected = scores.logsumexp(-2, keepdim=True)
    torch.testing.assert_close(mass - shift, expected, rtol=0, atol=1e-4)


def test_attention_divergence_equals_kl_and_passes_gradcheck():
    scores, _ = tensors()
    target = tensors()[0].detach().flip(0) * 2
    expected = F.kl_div(
        scores.log_softmax(-1), target.log_softmax(-1), reduction="none", log_target=True
    )
    torch.testing.assert_close(attention_divergence(scores, target), expected.sum(-1))
    assert gradcheck(lambda given: attention_divergence(given, target), (scores,))


def test_attention_divergence_of_equal_scores_is_zero_and_hidden_keys_do_not_count():
    scores = tensors(torch.float32)[0].detach().mT.clone()
    with torch.no_grad():
        scores[..., 3:] = HIDDEN
        torch.testing.assert_close(attention_divergence(scores, scores), torch.zeros(2, 3, 4))
        other = scores + 0.0
        other[..., 0] += 1
        cut = attention_divergence(other[..., :3], scores[..., :3])
        torch.testing.assert_close(attention_divergence(other, scores), cut)


@pytest.mark.parametrize("dropout", [0.1, 0.5])
@pytest.mark.parametrize("size", [1, 3, 200_001])
def test_dropout_mask_has_the_shape_and_the_rate(dropout, size):
    torch.manual_seed(0)
    keep, scale = dropout_mask(torch.empty(size), dropout)
    assert keep.shape == (size,)
    assert keep.dtype == torch.bool
    assert scale == pytest.approx(1 / (1 - dropout), rel=1e-4)
    if size > 1000:
        assert keep.float().mean() == pytest.approx(1 - dropout, abs=0.005)
        neighbours = (keep[1:] == keep[:-1]).float().mean()
        assert neighbours == pytest.approx(dropout**2 + (1 - dropout) ** 2, abs=0.005)
