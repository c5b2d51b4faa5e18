"""Several GRUs of one size run as one, forward and backward through time in few operations.

On the CPU a GRU of width 32 spends its time starting operations: three of them start about 100 per
step of time, their backward pass included. Run side by side, with a backward pass written by hand,
they start 14, and the gradients of their weights are one product each.

Shapes: M GRUs, B batch, T steps, D width; G = 3D, the gates reset, update and candidate in torch's
order; Z = 2D, reset and update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class _Recurrence(torch.autograd.Function):
    """States (T, M, B, D) from the inputs' part of the gates; see ``run_together``."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's context has no public type
        inputs_TMBG: Tensor,
        weight_MGD: Tensor,
        bias_MG: Tensor,
    ) -> Tensor:
        num_steps, num_grus, num_samples, gates = inputs_TMBG.shape
        width = gates // 3
        weight_MDG, bias_M1G = weight_MGD.transpose(1, 2), bias_MG.unsqueeze(1)
        state_MBD = inputs_TMBG.new_zeros(num_grus, num_samples, width)
        sizes = (num_steps, num_grus, num_samples)
        states_TMBD, candidate_TMBD, recurrent_TMBD = (
            inputs_TMBG.new_empty(*sizes, width) for _ in range(3)
        )
        gate_TMBZ = inputs_TMBG.new_empty(*sizes, 2 * width)
        for step, inputs_MBG in enumerate(inputs_TMBG.unbind()):
            recurrent_MBG = torch.baddbmm(bias_M1G, state_MBD, weight_MDG)
            gate_MBZ, candidate_MBD = gate_TMBZ[step], candidate_TMBD[step]
            torch.add(
                inputs_MBG[..., : 2 * width], recurrent_MBG[..., : 2 * width], out=gate_MBZ
            ).sigmoid_()
            own_MBD = recurrent_MBG[..., 2 * width :]
            torch.addcmul(
                inputs_MBG[..., 2 * width :], gate_MBZ[..., :width], own_MBD, out=candidate_MBD
            ).tanh_()
            recurrent_TMBD[step] = own_MBD
            state_MBD = torch.lerp(
                candidate_MBD, state_MBD, gate_MBZ[..., width:], out=states_TMBD[step]
            )
        ctx.save_for_backward(weight_MGD, states_TMBD, gate_TMBZ, candidate_TMBD, recurrent_TMBD)
        return states_TMBD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        (grad_TMBD,) = grads
        weight_MGD, states_TMBD, gate_TMBZ, candidate_TMBD, recurrent_TMBD = ctx.saved_tensors
        reset_TMBD, update_TMBD = gate_TMBZ.chunk(2, dim=-1)
        before_TMBD = torch.cat([torch.zeros_like(states_TMBD[:1]), states_TMBD[:-1]])
        # How much of a state's gradient reaches each gate's sum does not depend on the gradient:
        # it is computed for all steps at once, and the loop only multiplies.
        to_candidate_TMBD = (1 - update_TMBD) * (1 - candidate_TMBD.square())
        to_sums_TMBGD = torch.stack(
            [
                to_candidate_TMBD * recurrent_TMBD * reset_TMBD * (1 - reset_TMBD),
                (before_TMBD - candidate_TMBD) * update_TMBD * (1 - update_TMBD),
                to_candidate_TMBD * reset_TMBD,
            ],
            dim=3,
        )
        sums_grad_TMBGD = torch.empty_like(to_sums_TMBGD)
        candidate_grad_TMBD = torch.empty_like(states_TMBD)
        state_grad_MBD = torch.zeros_like(states_TMBD[0])
        for step in reversed(range(len(grad_TMBD))):
            state_grad_MBD = state_grad_MBD + grad_TMBD[step]
            torch.mul(state_grad_MBD, to_candidate_TMBD[step], out=candidate_grad_TMBD[step])
            sums_MBGD = torch.mul(
                state_grad_MBD.unsqueeze(2), to_sums_TMBGD[step], out=sums_grad_TMBGD[step]
            )
            state_grad_MBD = torch.baddbmm(
                state_grad_MBD * update_TMBD[step], sums_MBGD.flatten(2), weight_MGD
            )
        sums_grad_MNG = sums_grad_TMBGD.flatten(3).transpose(0, 1).flatten(1, 2)
        before_MND = before_TMBD.transpose(0, 1).flatten(1, 2)
        weight_grad_MGD = sums_grad_MNG.transpose(1, 2) @ before_MND
        bias_grad_MG = sums_grad_MNG.sum(dim=1)
        # The inputs reach the candidate past the reset gate, the recurrent part through it.
        sums_grad_TMBGD[:, :, :, 2] = candidate_grad_TMBD
        return sums_grad_TMBGD.flatten(3), weight_grad_MGD, bias_grad_MG


def run_together(grus: Sequence[nn.GRU], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the states (B, T, D) of every GRU over its own input, from a state of zeros.

    Args:
        grus: single-layer, batch first, with biases, all of one input and hidden width.
        inputs: one (B, T, D) for each, all of one shape.
    """
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    input_MGD, hidden_MGD, input_MG, hidden_MG = (
        torch.stack([getattr(gru, name) for gru in grus]) for name in names
    )
    x_TMBD = torch.stack([x_BTD.transpose(0, 1) for x_BTD in inputs], dim=1)
    gates_TMBG = torch.matmul(x_TMBD, input_MGD.transpose(1, 2)) + input_MG.unsqueeze(1)
    states_TMBD: Tensor = _Recurrence.apply(gates_TMBG, hidden_MGD, hidden_MG)  # type: ignore[no-untyped-call]
    return [states_TBD.transpose(0, 1) for states_TBD in states_TMBD.unbind(1)]


def run(grus: Sequence[nn.GRU], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the states (B, T, D) of every GRU over its own input; lengths may differ.

    A GPU has cuDNN's loop, a single kernel, and keeps it.
    """
    if inputs[0].device.type == "cpu" and len({x_BTD.shape for x_BTD in inputs}) == 1:
        return run_together(grus, inputs)
    return [gru(x_BTD)[0] for gru, x_BTD in zip(grus, inputs, strict=True)]
