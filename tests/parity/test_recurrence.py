"""GRUs side by side against torch's, one after the other: values and gradients."""

import pytest
import torch
from torch import nn

from cider.modules import recurrence


def grus(width, dtype):
    torch.manual_seed(3)
    return [nn.GRU(width, width, batch_first=True).to(dtype) for _ in range(3)]


def inputs(samples, steps, width, dtype):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(samples, steps, width, generator=generator, dtype=dtype, requires_grad=True)
        for _ in range(3)
    ]


def values_and_gradients(states, modules, given):
    weight = torch.linspace(-1, 1, states[0].numel(), dtype=states[0].dtype).view_as(states[0])
    loss = sum((state * (weight + number)).sum() for number, state in enumerate(states))
    parameters = [p for module in modules for p in module.parameters()]
    return [*states, *torch.autograd.grad(loss, [*given, *parameters])]


@pytest.mark.parametrize(("samples", "steps"), [(1, 1), (5, 9), (2, 30)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_grus_side_by_side_equal_grus_one_after_the_other(samples, steps, dtype, tolerance):
    modules, given = grus(8, dtype), inputs(samples, steps, 8, dtype)
    got = values_and_gradients(recurrence.run_together(modules, given), modules, given)
    apart = [module(x)[0] for module, x in zip(modules, given, strict=True)]
    wanted = values_and_gradients(apart, modules, given)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_grus_side_by_side_pass_gradcheck():
    modules, given = grus(3, torch.float64), inputs(2, 4, 3, torch.float64)
    assert torch.autograd.gradcheck(
        lambda *given: tuple(recurrence.run_together(modules, given)), given
    )


def test_inputs_of_different_lengths_run_one_after_the_other():
    modules = grus(4, torch.float32)
    given = [torch.randn(2, steps, 4) for steps in (3, 5, 7)]
    for module, x, state in zip(modules, given, recurrence.run(modules, given), strict=True):
        torch.testing.assert_close(state, module(x)[0])
