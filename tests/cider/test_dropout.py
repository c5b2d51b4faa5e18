"""Dropout with cheap draws."""

import pytest
import torch

from cider.modules.dropout import Dropout


def test_dropout_thins_out_in_training_and_scales_up_what_stays():
    torch.manual_seed(0)
    x = torch.ones(200, 1000, requires_grad=True)
    y = Dropout(0.3)(x)
    assert float((y == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(y.detach().mean()) == pytest.approx(1.0, abs=0.01)
    y.sum().backward()
    assert torch.equal(x.grad, y)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropout_leaves_alone_what_is_evaluated_or_not_to_be_thinned(rate):
    x = torch.randn(3, 4)
    layer = Dropout(rate)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(layer.train()(x), x) == (rate == 0)
