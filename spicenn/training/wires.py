"""What resistive wires make of a tile's conductances, inside a training loop.

Ohmic cells make a tile one matrix, currents out of bitlines per volt on wordlines,
whatever its wires. The exact one takes a solve per line, a thousand times what a step
of digital training costs. Its ladders alone (``spicenn.kirchhoff.ladder``) take two
sweeps; what they leave over changes slowly as weights are trained, so it may be taken
from the exact solution now and then and added:

    matrix(g) = ladder(g) + [exact(g₀) - ladder(g₀)].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spicenn.errors import InputError
from spicenn.kirchhoff import effective_matrix
from spicenn.kirchhoff.threads import share_out

METHODS = ("exact", "ladder")
# Residual of the solutions that corrections are taken from: far below what weights that
# move make of a correction, and a fifth sooner than the exact method's own.
_ROUGHLY = 1e-6


def effective(
    g: Tensor,
    r_wordline: Any,
    r_bitline: Any,
    *,
    method: str = "exact",
    correction: Tensor | None = None,
    rtol: float = 1e-9,
) -> Tensor:
    """Currents out of every bitline per volt on every wordline, differentiable in g.

    Parameters
    ----------
    g : (…, wordline, bitline) [S], at least 0; not checked for ``ladder``.
    r_wordline, r_bitline : [Ω], one value or one per segment (…, wordline or 1,
        bitline or 1), as ``crossbar_currents`` takes them and ``Crossbar.segments``
        returns them; their leading axes broadcast to those of g.
    method : ``exact``, Kirchhoff's laws, the gradient by the adjoint; or
        ``ladder``, every line by itself, with the exact gradient of that.
    correction : (…, wordline, bitline) [S], as ``correction`` returned it for
        conductances near g; added to the ladders' matrix. A constant: it has no
        gradient. Not for ``exact``, which leaves nothing to correct.
    rtol : residual of the exact method, as ``crossbar_currents``.

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
        exact: Tensor = effective_matrix(g, r_wordline=r_wordline, r_bitline=r_bitline, rtol=rtol)
        return exact.to(g.dtype)
    matrix: Tensor = _Ladder.apply(g, r_wordline, r_bitline)  # type: ignore[no-untyped-call]
    return matrix if correction is None else matrix + correction


@torch.no_grad()
def correction(g: Tensor, r_wordline: Any, r_bitline: Any) -> Tensor:
    """What the exact matrix has over the ladders': (…, wordline, bitline) [S], g's type.

    Arguments and errors as ``effective``.
    """
    wide = g.detach().to(torch.float64)
    exact = effective(wide, r_wordline, r_bitline, rtol=_ROUGHLY)
    return (exact - effective(wide, r_wordline, r_bitline, method="ladder")).to(g.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiles:
    """Where a layer's weights lie, each a pair of cells on neighbouring bitlines.

    Parameters
    ----------
    places : (tile, 5), of each tile the group, its first output and the one after its
        last, its first row and the one after its last.
    g_min, g_max : conductances of a weight of 0 and of the largest one [S].
    r_wordline, r_bitline : a segment of wire [Ω]. r_driver, r_sense : what is in series
        with every wordline's first segment and every bitline's last one [Ω].
    """

    places: NDArray[np.int64]
    g_min: float
    g_max: float
    r_wordline: float
    r_bitline: float
    r_driver: float = 0.0
    r_sense: float = 0.0

    @property
    def span(self) -> float:
        """Conductance of the largest weight over that of none [S]."""
        return self.g_max - self.g_min

    @property
    def wires(self) -> NDArray[np.float64]:
        """Resistances as ``ladder.weights_range`` takes them (4,)."""
        return np.array([self.r_wordline, self.r_driver, self.r_bitline, self.r_sense])


def effective_weights(
    weight: Tensor,
    tiles: Tiles,
    scale: float,
    *,
    method: str = "exact",
    correction: Tensor | None = None,
    rtol: float = 1e-9,
) -> Tensor:
    """Signed weights as their tiles' currents have them, differentiable in the weights.

    The difference of two bitlines' currents per volt, in units that make it the weight
    itself without wires.

    Parameters
    ----------
    weight : (group, output, row); every one of them lies in one tile.
    scale : the largest weight, which takes g_max; what is beyond it is cut off, and has
        gradient zero.
    method, rtol : as ``effective``. correction : of ``weights_correction``, added.

    Returns
    -------
    (group, output, row) of the weights' type.

    Raises InputError for a type or a method that is unknown, and ConvergenceError.
    """
    if method not in METHODS:
        raise InputError(f"method = {method!r} is none of {', '.join(METHODS)}")
    _check_type("weight", weight)
    if method == "ladder":
        through: Tensor = _Weights.apply(weight, tiles, scale, correction)  # type: ignore[no-untyped-call]
        return through
    if correction is not None:
        raise InputError(
            "a correction is given for the exact method", remedy='pass it with method="ladder"'
        )
    result = torch.zeros_like(weight)
    for places in _of_one_shape(tiles.places):
        slots = [(group, slice(o0, o1), slice(i0, i1)) for group, o0, o1, i0, i1 in places]
        w = torch.stack([weight[slot] for slot in slots]).double().transpose(1, 2) / scale
        pairs = torch.stack([w.clamp(0, 1), (-w).clamp(0, 1)], dim=-1).flatten(-2)
        along = torch.full((1, pairs.shape[2]), tiles.r_wordline, dtype=w.dtype)
        down = torch.full((pairs.shape[1], 1), tiles.r_bitline, dtype=w.dtype)
        along[0, 0] += tiles.r_driver
        down[-1, 0] += tiles.r_sense
        matrix = effective(tiles.g_min + tiles.span * pairs, along.to(w.device), down.to(w.device))
        signed = (matrix[..., 0::2] - matrix[..., 1::2]) * (scale / tiles.span)
        for slot, part in zip(slots, signed.transpose(1, 2).to(weight.dtype), strict=True):
            result[slot] = part
    return result


@torch.no_grad()
def weights_correction(weight: Tensor, tiles: Tiles, scale: float) -> Tensor:
    """What the exact weights have over the ladders': (group, output, row).

    Arguments and errors as ``effective_weights``.
    """
    wide = weight.detach().double()
    exact = effective_weights(wide, tiles, scale, rtol=_ROUGHLY)
    return (exact - effective_weights(wide, tiles, scale, method="ladder")).to(weight.dtype)


def _of_one_shape(places: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    sizes = places[:, [2, 4]] - places[:, [1, 3]]
    _, kind = np.unique(sizes, axis=0, return_inverse=True)
    return (places[kind.ravel() == k] for k in range(int(kind.max()) + 1))


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
        _run(gradient_range, *arrays, _array(bar).reshape(arrays[0].shape), out)
        return torch.from_numpy(out).reshape(g.shape).to(g.device), None, None


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, tiles: Tiles, scale: float, correction: Tensor | None
    ) -> Tensor:
        from spicenn.kirchhoff.ladder import weights_range

        ctx.save_for_backward(weight)
        ctx.tiles, ctx.scale = tiles, scale
        # Zeros where no tile is.
        out = np.zeros(weight.shape, _array(weight).dtype)
        _run_tiles(weights_range, weight, tiles, scale, out)
        result = torch.from_numpy(out).to(weight.device)
        return result if correction is None else result.add_(correction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor, None, None, None]:
        from spicenn.kirchhoff.ladder import weights_gradient_range

        (weight,) = ctx.saved_tensors
        out = np.zeros(weight.shape, _array(weight).dtype)
        _run_tiles(weights_gradient_range, weight, ctx.tiles, ctx.scale, _array(bar), out)
        return torch.from_numpy(out).to(weight.device), None, None, None


def _run(kernel: Any, g: Any, *others: Any) -> None:
    def run(start: int, stop: int) -> None:
        kernel(start, stop, g, *others)

    share_out(run, len(g), g[0].size, torch.get_num_threads())


def _run_tiles(kernel: Any, weight: Tensor, tiles: Tiles, scale: float, *others: Any) -> None:
    values, places = _array(weight), tiles.places

    def run(start: int, stop: int) -> None:
        kernel(
            start, stop, places, values, 1.0 / scale, tiles.g_min, tiles.span, tiles.wires, *others
        )

    share_out(run, len(places), 2 * values.size // max(len(places), 1), torch.get_num_threads())


def _arrays(g: Tensor, r_wordline: Any, r_bitline: Any) -> tuple[Any, Any, Any]:
    """g (array, m, n), the wordlines' segments transposed and the bitlines', as the kernels."""
    if g.ndim < 2 or 0 in g.shape:
        raise InputError(f"g has shape {tuple(g.shape)}, expected (…, wordline, bitline)")
    _check_type("g", g)
    cells = _array(g).reshape(-1, *g.shape[-2:])
    along = _segments("r_wordline", r_wordline, g.shape, cells.dtype)
    down = _segments("r_bitline", r_bitline, g.shape, cells.dtype)
    return cells, np.ascontiguousarray(along.swapaxes(1, 2)), down


def _check_type(name: str, x: Tensor) -> None:
    if x.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{name} is {x.dtype}, expected float32 or float64")


def _array(x: Tensor) -> Any:
    return x.detach().cpu().contiguous().numpy()


def _segments(name: str, r: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Wire segments as (array or 1, m, n)."""
    values = np.asarray(r.detach().cpu() if isinstance(r, Tensor) else r, dtype)
    values = values.reshape((1,) * (2 - values.ndim) + values.shape)
    lines, lead = values.shape[-2:], values.shape[:-2]
    fits = all(a in (1, b) for a, b in zip(lines, shape[-2:], strict=True))
    if not fits or not bool((values >= 0).all()):
        raise InputError(
            f"{name} has shape {values.shape}, expected one value at least 0 or one per "
            f"segment, (…, {shape[-2]}, {shape[-1]})"
        )
    alone = values.size == lines[0] * lines[1]
    try:
        wide = np.broadcast_to(values, shape[-2:] if alone else shape)
    except ValueError:
        raise InputError(
            f"{name} has leading axes {lead}, g {tuple(shape[:-2])}: they do not broadcast"
        ) from None
    return np.ascontiguousarray(wide).reshape(-1, *shape[-2:])
