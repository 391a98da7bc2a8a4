"""Steps and limits in the forward pass, straight through backwards.

Full scales are read as numbers: torch's kernels take a number several times faster than a
tensor of one element, and a pass over a layer's inputs is most of what training with steps
costs beyond the products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# So far beyond a limit is on it: what is exactly there passes gradients on.
_ON = 1e-6
# In place of a full scale of 0, which has no steps.
_LEAST = 1e-30


def quantised(x: Tensor, full: Tensor, signed: bool, levels: int | None) -> Tensor:
    """Drive inputs within a range, in steps.

    Gradients by x stop where it saturates; those by the range are what a step leaves over,
    and the whole result where x saturates (Esser et al., ICLR 2020, LSQ; the latter as in
    PACT, Choi et al., 2018).

    Parameters
    ----------
    full : magnitude at full scale, a scalar tensor.
    levels : steps of a magnitude, None for none.
    """
    result: Tensor = _Quantise.apply(x, full, -1.0 if signed else 0.0, levels)  # type: ignore[no-untyped-call]
    return result


def converted(z: Tensor, full: float, levels: int) -> Tensor:
    """Convert to steps of full / levels, from one below -full to full.

    Gradients stop where z saturates.
    """
    result: Tensor = _Convert.apply(z, max(full, _LEAST) / levels, levels)  # type: ignore[no-untyped-call]
    return result


def rounded(x: Tensor, step: Tensor) -> Tensor:
    """Round to multiples of a step; the gradient passes."""
    result: Tensor = _Round.apply(x, step)  # type: ignore[no-untyped-call]
    return result


def _within(grad: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """The gradient where x is within limits, else 0, in one pass."""
    room = _ON * (high - low)
    result: Tensor = torch.ops.aten.hardtanh_backward(grad, x, low - room, high + room)
    return result


class _Quantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, full: Tensor, low: float, levels: int | None) -> Tensor:
        largest = max(float(full), _LEAST)
        if levels is None:
            driven = x.clamp(low * largest, largest)
        else:
            step = largest / levels
            driven = (x * (1.0 / step)).clamp_(low * levels, levels).round_().mul_(step)
        ctx.low, ctx.largest, ctx.shape = low * largest, largest, full.shape
        ctx.save_for_backward(x, driven if full.requires_grad else None)
        return driven

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, driven = ctx.saved_tensors
        to_x = _within(grad, x, ctx.low, ctx.largest)
        to_full = None
        if ctx.needs_input_grad[1]:
            left = torch.dot(grad.flatten(), driven.flatten())
            to_full = ((left - torch.dot(to_x.flatten(), x.flatten())) / ctx.largest).view(
                ctx.shape
            )
        return to_x if ctx.needs_input_grad[0] else None, to_full, None, None


class _Convert(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, step: float, levels: int) -> Tensor:
        ctx.save_for_backward(z)
        ctx.limits = -(levels + 1) * step, levels * step
        return (z * (1.0 / step)).clamp_(-(levels + 1), levels).round_().mul_(step)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        return _within(grad, z, *ctx.limits), None, None


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor) -> Tensor:
        return (x / step).round_().mul_(step)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
