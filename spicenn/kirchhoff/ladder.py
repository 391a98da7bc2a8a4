"""Crossbars as their lines one by one: ladders of wire segments and cells, compiled.

Cell (i, j) drives its bitline with the wordline's voltage, which the wordline's own
ladder has attenuated as if every bitline were grounded; of that current the bitline's
own ladder brings a part to the end, as if every wordline were. Both are products along
the line of t = 1 / (1 + r y), with y the admittance of all that lies beyond the segment
r, so a matrix costs a few sweeps over its cells and its gradient a few more:

    ladder matrix = g · (attenuation on the wordline) · (attenuation on the bitline).

It is the first term of the series that the exact solution sums: what is missing is the
current that leaves a bitline into the wordlines and comes back through other cells.

A ladder is swept over the first axis of its arrays, so the inner loops run over lines:
``far`` is True where its far end is the first of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

# Side of the squares that a transposition moves at once.
_BLOCK = 16


def _compiled(function: Function) -> Function:
    # As in ``kernel``; written twice because numba's cache watches each file alone.
    try:
        return cast(Function, njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # no folder that a cache could be written to
        return cast(Function, njit(nogil=True, error_model="numpy")(function))


@_compiled
def _transpose(a: Any, out: Any) -> None:
    rows, columns = a.shape
    for i0 in range(0, rows, _BLOCK):
        i1 = min(i0 + _BLOCK, rows)
        for j0 in range(0, columns, _BLOCK):
            j1 = min(j0 + _BLOCK, columns)
            for i in range(i0, i1):
                for j in range(j0, j1):
                    out[j, i] = a[i, j]


@_compiled
def _attenuate(g: Any, r: Any, far: bool, y: Any, t: Any, a: Any) -> None:
    """Write admittances y, what a segment passes t, and the attenuation a of every node.

    g (node, line); r (node or 1, line or 1), the segment on the near side of a node.
    """
    steps, width = g.shape
    each, along = r.shape[1] > 1, r.shape[0] > 1
    for step in range(steps):
        k = step if far else steps - 1 - step
        beyond = k - 1 if far else k + 1
        if step == 0:
            for i in range(width):
                y[k, i] = g[k, i]
        else:
            for i in range(width):
                y[k, i] = g[k, i] + t[beyond, i] * y[beyond, i]
        row = r[k if along else 0]
        one = g.dtype.type(1.0)
        if each:
            for i in range(width):
                t[k, i] = 0.0 if row[i] == np.inf else one / (one + row[i] * y[k, i])
        elif row[0] == np.inf:
            for i in range(width):
                t[k, i] = 0.0
        else:
            resistance = row[0]
            for i in range(width):
                t[k, i] = one / (one + resistance * y[k, i])
    for step in range(steps):
        k = steps - 1 - step if far else step
        near = k + 1 if far else k - 1
        if step == 0:
            for i in range(width):
                a[k, i] = t[k, i]
        else:
            for i in range(width):
                a[k, i] = a[near, i] * t[k, i]


@_compiled
def _attenuate_adjoint(
    r: Any, far: bool, y: Any, t: Any, a: Any, a_bar: Any, g_bar: Any, add: bool
) -> None:
    """Write (or add to) g_bar from a_bar, which is used up."""
    steps, width = y.shape
    each, along = r.shape[1] > 1, r.shape[0] > 1
    # Through a = a(near) t: a_bar ends as the gradient by t.
    carried = np.zeros(width, y.dtype)
    for step in range(steps):
        k = step if far else steps - 1 - step
        near = k + 1 if far else k - 1
        last = step == steps - 1
        for i in range(width):
            whole = a_bar[k, i] + carried[i]
            carried[i] = whole * t[k, i]
            a_bar[k, i] = whole if last else whole * a[near, i]
    # Through y = g + t(beyond) y(beyond).
    for i in range(width):
        carried[i] = 0.0
    for step in range(steps):
        k = steps - 1 - step if far else step
        row = r[k if along else 0]
        for i in range(width):
            resistance = row[i if each else 0]
            through = t[k, i]
            slope = 0.0 if resistance == np.inf else resistance * through * through
            by_t = a_bar[k, i] + carried[i] * y[k, i]
            carried[i] = carried[i] * through - by_t * slope
            if add:
                g_bar[k, i] += carried[i]
            else:
                g_bar[k, i] = carried[i]


@_compiled
def matrix_range(start: int, stop: int, g: Any, rw: Any, rb: Any, out: Any) -> None:
    """Write the ladder matrices of arrays start … stop - 1.

    g, out : (array, m, n) [S]. rw : (array or 1, n or 1, m or 1) [Ω], transposed. rb :
    (array or 1, m or 1, n or 1). All of one type, float32 or float64.
    """
    m, n = g.shape[1:]
    gT, yT = np.empty((n, m), g.dtype), np.empty((n, m), g.dtype)
    tT, aT = np.empty((n, m), g.dtype), np.empty((n, m), g.dtype)
    y, t = np.empty((m, n), g.dtype), np.empty((m, n), g.dtype)
    a, w = np.empty((m, n), g.dtype), np.empty((m, n), g.dtype)
    for c in range(start, stop):
        _transpose(g[c], gT)
        _attenuate(gT, rw[min(c, rw.shape[0] - 1)], False, yT, tT, aT)
        _transpose(aT, w)
        _attenuate(g[c], rb[min(c, rb.shape[0] - 1)], True, y, t, a)
        for i in range(m):
            for j in range(n):
                out[c, i, j] = g[c, i, j] * w[i, j] * a[i, j]


@_compiled
def gradient_range(start: int, stop: int, g: Any, rw: Any, rb: Any, bar: Any, g_bar: Any) -> None:
    """Write g_bar, the gradient by g, from the one by the ladder matrices, bar.

    Arrays as ``matrix_range``; the attenuations are computed again, which costs less
    than memory that holds them in between.
    """
    m, n = g.shape[1:]
    gT, yT = np.empty((n, m), g.dtype), np.empty((n, m), g.dtype)
    tT, aT = np.empty((n, m), g.dtype), np.empty((n, m), g.dtype)
    barT, outT = np.empty((n, m), g.dtype), np.empty((n, m), g.dtype)
    y, t = np.empty((m, n), g.dtype), np.empty((m, n), g.dtype)
    a, w = np.empty((m, n), g.dtype), np.empty((m, n), g.dtype)
    rest = np.empty((m, n), g.dtype)
    for c in range(start, stop):
        along, down = rw[min(c, rw.shape[0] - 1)], rb[min(c, rb.shape[0] - 1)]
        _transpose(g[c], gT)
        _attenuate(gT, along, False, yT, tT, aT)
        _transpose(aT, w)
        _attenuate(g[c], down, True, y, t, a)
        for i in range(m):
            for j in range(n):
                rest[i, j] = bar[c, i, j] * g[c, i, j] * a[i, j]
        _transpose(rest, barT)
        _attenuate_adjoint(along, False, yT, tT, aT, barT, outT, False)
        _transpose(outT, rest)
        for i in range(m):
            for j in range(n):
                g_bar[c, i, j] = rest[i, j] + bar[c, i, j] * w[i, j] * a[i, j]
                rest[i, j] = bar[c, i, j] * g[c, i, j] * w[i, j]
        _attenuate_adjoint(down, True, y, t, a, rest, g_bar[c], True)
