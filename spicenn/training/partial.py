"""Products of a layer's rows of tiles, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def partial_sums(rows: Tensor, weight: Tensor, cuts: Sequence[slice]) -> Tensor:
    """Products over some of the inputs at a time, differentiable.

    Without copies of the slices, and with one gradient for all of them: autograd's own of a
    slice is as large as the whole.

    Parameters
    ----------
    rows : (…, group, input). weight : (group, output, input).
    cuts : of the inputs; together all of them, each once.

    Returns
    -------
    (cut, …, group, output).
    """
    flat = rows.reshape(-1, *rows.shape[-2:])
    parts: Tensor = _Partial.apply(flat, weight, tuple(cuts))  # type: ignore[no-untyped-call]
    return parts.reshape(len(cuts), *rows.shape[:-1], weight.shape[1])


class _Partial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, cuts: tuple[slice, ...]) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.cuts = cuts
        groups, outputs, _ = weight.shape
        parts = rows.new_empty(len(cuts), len(rows), groups, outputs)
        for part, cut in zip(parts, cuts, strict=True):
            for group in range(groups):
                torch.mm(rows[:, group, cut], weight[group, :, cut].t(), out=part[:, group])
        return parts

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        to_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        to_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for part, cut in zip(bar, ctx.cuts, strict=True):
            for group in range(len(weight)):
                each = part[:, group]
                if to_rows is not None:
                    torch.mm(each, weight[group, :, cut], out=to_rows[:, group, cut])
                if to_weight is not None:
                    torch.mm(each.t(), rows[:, group, cut], out=to_weight[group, :, cut])
        return to_rows, to_weight, None
