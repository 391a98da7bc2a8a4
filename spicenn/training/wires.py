"""What resistive wires make of a tile's conductances, inside a training loop.

Ohmic cells make a tile one matrix, currents out of bitlines per volt on wordlines,
whatever its wires. The exact one takes a solve per line, a thousand times what a step
of digital training costs. Its ladders alone (``spicenn.kirchhoff.ladder``) take two
sweeps; what they leave over changes slowly as weights are trained, so it may be taken
from the exact solution now and then and added:

    matrix(g) = ladder(g) + [exact(g₀) - ladder(g₀)].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from spicenn.errors import InputError
from spicenn.kirchhoff import effective_matrix
from spicenn.kirchhoff.threads import share_out

METHODS = ("exact", "ladder")


def effective(
    g: Tensor,
    r_wordline: Any,
    r_bitline: Any,
    *,
    method: str = "exact",
    correction: Tensor | None = None,
) -> Tensor:
    """Currents out of every bitline per volt on every wordline, differentiable in g.

    Parameters
    ----------
    g : (…, wordline, bitline) [S], at least 0; not checked for ``ladder``.
    r_wordline, r_bitline : [Ω], one value or one per segment (…, wordline or 1,
        bitline or 1), as ``crossbar_currents`` takes them and ``Crossbar.segments``
        returns them; leading axes broadcast to those of g.
    method : ``exact``, Kirchhoff's laws to 1e-9, its gradient by the adjoint; or
        ``ladder``, every line by itself, with the exact gradient of that.
    correction : (…, wordline, bitline) [S], as ``correction`` returned it for
        conductances near g; added to the ladders' matrix. A constant: it has no
        gradient. Not for ``exact``, which leaves nothing to correct.

    Returns
    -------
    (…, wordline, bitline) [S] of g's type.

    Raises InputError naming the argument, and ConvergenceError as ``effective_matrix``.
    """
    if method not in METHODS:
        raise InputError(f"method = {method!r} is none of {', '.join(METHODS)}")
    if method == "exact":
        if correction is not None:
            raise InputError(
                "a correction is given for the exact method",
                remedy='pass it with method="ladder"',
            )
        exact: Tensor = effective_matrix(g, r_wordline=r_wordline, r_bitline=r_bitline)
        return exact.to(g.dtype)
    matrix: Tensor = _Ladder.apply(g, r_wordline, r_bitline)  # type: ignore[no-untyped-call]
    return matrix if correction is None else matrix + correction


@torch.no_grad()
def correction(g: Tensor, r_wordline: Any, r_bitline: Any) -> Tensor:
    """What the exact matrix has over the ladders': (…, wordline, bitline) [S], g's type.

    Arguments and errors as ``effective``.
    """
    wide = g.detach().to(torch.float64)
    exact = effective(wide, r_wordline, r_bitline)
    return (exact - effective(wide, r_wordline, r_bitline, method="ladder")).to(g.dtype)


class _Ladder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, r_wordline: Any, r_bitline: Any) -> Tensor:
        from spicenn.kirchhoff.ladder import matrix_range

        arrays = _arrays(g, r_wordline, r_bitline)
        ctx.save_for_backward(g)
        ctx.wires = r_wordline, r_bitline
        out = np.empty_like(arrays[0])
        _run(matrix_range, *arrays, out)
        return torch.from_numpy(out).reshape(g.shape).to(g.device)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor, None, None]:
        from spicenn.kirchhoff.ladder import gradient_range

        (g,) = ctx.saved_tensors
        arrays = _arrays(g, *ctx.wires)
        out = np.empty_like(arrays[0])
        _run(gradient_range, *arrays, _array(bar, arrays[0].shape), out)
        return torch.from_numpy(out).reshape(g.shape).to(g.device), None, None


def _run(kernel: Any, g: Any, *others: Any) -> None:
    def run(start: int, stop: int) -> None:
        kernel(start, stop, g, *others)

    share_out(run, len(g), g[0].size, torch.get_num_threads())


def _arrays(g: Tensor, r_wordline: Any, r_bitline: Any) -> tuple[Any, Any, Any]:
    """g (array, m, n), the wordlines' segments transposed and the bitlines', as the kernels."""
    if g.ndim < 2 or 0 in g.shape:
        raise InputError(f"g has shape {tuple(g.shape)}, expected (…, wordline, bitline)")
    if g.dtype not in (torch.float32, torch.float64):
        raise InputError(f"g is {g.dtype}, expected float32 or float64")
    cells = _array(g, (-1, *g.shape[-2:]))
    along = _segments("r_wordline", r_wordline, g.shape, cells.dtype)
    down = _segments("r_bitline", r_bitline, g.shape, cells.dtype)
    return cells, np.ascontiguousarray(along.swapaxes(1, 2)), down


def _array(x: Tensor, shape: tuple[int, ...]) -> Any:
    return x.detach().cpu().contiguous().numpy().reshape(shape)


def _segments(name: str, r: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Wire segments as (array or 1, m or 1, n or 1)."""
    values = np.asarray(r.detach().cpu() if isinstance(r, Tensor) else r, dtype)
    values = values.reshape((1,) * (2 - values.ndim) + values.shape)
    lines, lead = values.shape[-2:], values.shape[:-2]
    fits = all(a in (1, b) for a, b in zip(lines, shape[-2:], strict=True))
    if not fits or not bool((values >= 0).all()):
        raise InputError(
            f"{name} has shape {values.shape}, expected one value at least 0 or one per "
            f"segment, (…, {shape[-2]}, {shape[-1]})"
        )
    if values.size == lines[0] * lines[1]:
        return np.ascontiguousarray(values.reshape(1, *lines))
    try:
        wide = np.broadcast_to(values, (*np.broadcast_shapes(lead, shape[:-2]), *lines))
        return np.ascontiguousarray(wide).reshape(int(np.prod(shape[:-2])), *lines)
    except ValueError:
        raise InputError(
            f"{name} has leading axes {lead}, g {tuple(shape[:-2])}: they do not broadcast"
        ) from None
