"""Steps and limits in the forward pass, straight through backwards."""

from __future__ import annotations

from typing import Any

import torch


def quantised(
    x: torch.Tensor, full: torch.Tensor, signed: bool, levels: int | None
) -> torch.Tensor:
    """Drive inputs within a range, in steps.

    Gradients by x stop where it saturates; those by the range are what a step leaves over,
    and the whole result where x saturates (Esser et al., ICLR 2020, LSQ; the latter as in
    PACT, Choi et al., 2018).

    Parameters
    ----------
    full : magnitude at full scale, a scalar tensor.
    levels : steps of a magnitude, None for none.
    """
    result: torch.Tensor = _Quantise.apply(x, full, -1.0 if signed else 0.0, levels)  # type: ignore[no-untyped-call]
    return result


def rounded(x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Round to multiples of a step; the gradient passes."""
    result: torch.Tensor = _Round.apply(x, step)  # type: ignore[no-untyped-call]
    return result


def clamped(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Keep within bounds; the gradient stops beyond them."""
    return torch.clamp(x, low, high)


class _Quantise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, full: torch.Tensor, low: float, levels: int | None
    ) -> torch.Tensor:
        u = x / full
        driven = u.clamp(low, 1.0)
        if levels is not None:
            driven = driven.mul_(levels).round_().div_(levels)
        if x.requires_grad or full.requires_grad:
            ctx.low = low
            ctx.save_for_backward(u, driven if full.requires_grad else None)
        return driven * full

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        u, driven = ctx.saved_tensors
        inside = (u >= ctx.low) & (u <= 1.0)
        to_x = grad * inside if ctx.needs_input_grad[0] else None
        to_full = None
        if ctx.needs_input_grad[1]:
            to_full = (grad * (driven - u * inside)).sum()
        return to_x, to_full, None, None


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        return (x / step).round_().mul_(step)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad, None
