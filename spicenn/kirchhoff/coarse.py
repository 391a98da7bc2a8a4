"""A first guess for a large array: the same array, eight lines taken as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Lines that become one. Parallel wires an eighth as resistive run eight times as far:
# a coarse segment has the resistance of a fine one.
_FACTOR = 8
# Below so many lines a side an iteration costs less than the guess saves.
LEAST = 256
_RTOL = 1e-4


def bitline_guess(g: Array, r_wordline: Array, r_bitline: Array, v: Array, solve: Any) -> Array:
    """Voltages of the bitline nodes, right to a few per cent, where wires are alike.

    Parameters
    ----------
    g : (wordline, bitline) [S]. r_wordline, r_bitline : (wordline or 1, bitline or 1) [Ω],
        of which the mean is used. v : (wordline,) [V].
    solve : ``linear.solve``.
    """
    rows, columns = (np.arange(0, length, _FACTOR) for length in g.shape)
    cells = np.add.reduceat(np.add.reduceat(g, rows, axis=0), columns, axis=1)
    volts = np.add.reduceat(v, rows) / np.diff(rows, append=len(v))
    wires = [np.full((1, *cells.shape), r.mean()) for r in (r_wordline, r_bitline)]
    # From its source to the middle of the first eight, and from the last eight's to the ground.
    ends = (_FACTOR + 1) / (2 * _FACTOR)
    wires[0][:, :, 0] *= ends
    wires[1][:, -1] *= ends
    solution = solve(cells[None], *wires, v=volts[None, None], rtol=_RTOL, threads=1)
    fine = _stretched(solution.on_bitline[0, 0], g.shape[0])
    return np.ascontiguousarray(_stretched(fine.T, g.shape[1]).T)


def _stretched(coarse: Array, length: int) -> Array:
    """Linear interpolation along the first axis."""
    at = (np.arange(length) + 0.5) / _FACTOR - 0.5
    low = np.clip(np.floor(at).astype(np.intp), 0, len(coarse) - 2)
    weight = (at - low)[:, np.newaxis]
    return (1 - weight) * coarse[low] + weight * coarse[low + 1]
