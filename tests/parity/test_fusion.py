"""The blockwise fusion attention against its plain form: values and gradients."""

import pytest
import torch
from ref_fusion import composite_attention

from cider.modules.fusion import CompositeAttention

LENGTHS = [(5, 5, 5), (7, 3, 5), (1, 1, 1), (4, 9, 2)]


def attention(heads, dropout=0.0, dropout_all=False, dtype=torch.float32):
    torch.manual_seed(3)
    return CompositeAttention(16, heads, dropout, dropout_all=dropout_all).to(dtype)


def inputs(lengths, dtype=torch.float32):
    generator = torch.Generator().manual_seed(11)
    return torch.randn(3, sum(lengths), 16, generator=generator, dtype=dtype, requires_grad=True)


def padding(lengths):
    """True at content; every modality of every sample keeps at least one step."""
    valid = torch.ones(3, sum(lengths), dtype=torch.bool)
    start = 0
    for number, length in enumerate(lengths):
        for sample in range(3):
            valid[sample, start + max(1, length - sample - number) : start + length] = False
        start += length
    return valid


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize("padded", [False, True])
def test_composite_attention_equals_masked_form_in_value_and_gradient(lengths, heads, padded):
    module, x = attention(heads), inputs(lengths)
    valid = padding(lengths) if padded else None
    fused, scores = module(x, lengths, valid)
    weight = torch.linspace(-1, 1, fused.numel()).view_as(fused)
    if valid is not None:  # what padded queries read is nobody's business
        weight = weight * valid.unsqueeze(-1)
    (fused * weight).sum().backward()
    gradients = [x.grad, *(p.grad.clone() for p in module.parameters())]
    x.grad = None
    module.zero_grad()

    expected, expected_scores = composite_attention(module, x, lengths, valid)
    (expected * weight).sum().backward()
    expected_gradients = [x.grad, *(p.grad for p in module.parameters())]

    content = slice(None) if valid is None else valid
    torch.testing.assert_close(fused[content], expected[content], rtol=1e-6, atol=1e-6)
    if valid is not None:  # padded keys score -1e30
        expected_scores = expected_scores.masked_fill(~valid[:, None, None, :], -1e30)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-6)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=2e-6)


def test_composite_attention_gradcheck_in_float64():
    module = attention(2, dtype=torch.float64)
    x = inputs((3, 2, 4), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: module(x, (3, 2, 4), None)[0], (x,))


@pytest.mark.parametrize("dropout_all", [False, True])
def test_composite_attention_with_dropout_is_unbiased(dropout_all):
    lengths = (4, 4, 4)
    module, x = attention(2, 0.3, dropout_all), inputs(lengths)
    module.train()
    torch.manual_seed(0)
    with torch.no_grad():
        mean = torch.stack([module(x, lengths, None)[0] for _ in range(3000)]).mean(0)
        expected, _ = composite_attention(module, x, lengths)
    # Attention weights are dropped before a linear map: the expectation is the undropped output.
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.03)


def test_composite_attention_dropout_leaves_pair_subsets_alone_as_released():
    lengths = (4, 4, 4)
    module, x = attention(2, 0.5), inputs(lengths)
    module.train()
    with torch.no_grad():
        module.subset_out[0].weight.zero_()  # silence the trimodal subset: nothing random is left
        first, second = module(x, lengths, None)[0], module(x, lengths, None)[0]
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_composite_attention_modality_without_content_gives_finite_output_for_the_others():
    lengths = (4, 3, 5)
    module, x = attention(2), inputs(lengths)
    valid = torch.ones(3, 12, dtype=torch.bool)
    valid[:, 4:7] = False
    fused, _ = module(x, lengths, valid)
    changed = x.detach().clone()
    changed[:, 4:7] += 5.0
    again, _ = module(changed, lengths, valid)
    assert torch.isfinite(fused).all()
    # Queries of the other modalities read nothing of the absent one, but for the subset that is it.
    torch.testing.assert_close(fused[:, :4], again[:, :4], rtol=0, atol=1e-6)
    torch.testing.assert_close(fused[:, 7:], again[:, 7:], rtol=0, atol=1e-6)
