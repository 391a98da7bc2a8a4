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
# Arrays that a kernel works in, and the numbers between two of them: arrays of 2^k bytes
# would all want the same lines of the cache.
_ARRAYS = 15
_APART = 8 * 37


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

    g, r (node, line); r is the segment on the near side of a node.
    """
    steps, width = g.shape
    zero, one = g.dtype.type(0.0), g.dtype.type(1.0)
    for step in range(steps):
        k = step if far else steps - 1 - step
        beyond = k - 1 if far else k + 1
        if step == 0:
            for i in range(width):
                y[k, i] = g[k, i]
        else:
            for i in range(width):
                y[k, i] = g[k, i] + t[beyond, i] * y[beyond, i]
        for i in range(width):
            t[k, i] = zero if r[k, i] == np.inf else one / (one + r[k, i] * y[k, i])
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
    zero = y.dtype.type(0.0)
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
        for i in range(width):
            through = t[k, i]
            slope = zero if r[k, i] == np.inf else r[k, i] * through * through
            by_t = a_bar[k, i] + carried[i] * y[k, i]
            carried[i] = carried[i] * through - by_t * slope
            if add:
                g_bar[k, i] += carried[i]
            else:
                g_bar[k, i] = carried[i]


@_compiled
def _carve(pool: Any, k: int, rows: int, columns: int) -> Any:
    """Return the pool's array number k."""
    start = k * (len(pool) // _ARRAYS)
    return pool[start : start + rows * columns].reshape(rows, columns)


@_compiled
def _pool(cells: int, like: Any) -> Any:
    return np.empty(_ARRAYS * (cells + _APART), like.dtype)


@_compiled
def _lines(g: Any, gT: Any, rw: Any, rb: Any, pool: Any) -> None:
    """Sweep all lines of one array: fills the pool's numbers 0 … 6.

    0, 1, 2 : y, t and a of the wordlines, transposed. 3 : a of the wordlines.
    4, 5, 6 : y, t and a of the bitlines.
    """
    m, n = g.shape
    aT = _carve(pool, 2, n, m)
    _attenuate(gT, rw, False, _carve(pool, 0, n, m), _carve(pool, 1, n, m), aT)
    _transpose(aT, _carve(pool, 3, m, n))
    y, t, a = _carve(pool, 4, m, n), _carve(pool, 5, m, n), _carve(pool, 6, m, n)
    _attenuate(g, rb, True, y, t, a)


@_compiled
def _gradient(g: Any, rw: Any, rb: Any, bar: Any, pool: Any, g_bar: Any) -> None:
    """Write the gradient by g of an array that ``_lines`` swept; uses numbers 7 … 9."""
    m, n = g.shape
    w, a = _carve(pool, 3, m, n), _carve(pool, 6, m, n)
    rest, barT, outT = _carve(pool, 7, m, n), _carve(pool, 8, n, m), _carve(pool, 9, n, m)
    for i in range(m):
        for j in range(n):
            rest[i, j] = bar[i, j] * g[i, j] * a[i, j]
    _transpose(rest, barT)
    yT, tT, aT = _carve(pool, 0, n, m), _carve(pool, 1, n, m), _carve(pool, 2, n, m)
    _attenuate_adjoint(rw, False, yT, tT, aT, barT, outT, False)
    _transpose(outT, g_bar)
    for i in range(m):
        for j in range(n):
            g_bar[i, j] += bar[i, j] * w[i, j] * a[i, j]
            rest[i, j] = bar[i, j] * g[i, j] * w[i, j]
    y, t = _carve(pool, 4, m, n), _carve(pool, 5, m, n)
    _attenuate_adjoint(rb, True, y, t, a, rest, g_bar, True)


@_compiled
def matrix_range(start: int, stop: int, g: Any, rw: Any, rb: Any, out: Any) -> None:
    """Write the ladder matrices of arrays start … stop - 1.

    g, out : (array, m, n) [S]. rw : (array or 1, n, m) [Ω], transposed. rb : (array or 1,
    m, n). All of one type, float32 or float64.
    """
    m, n = g.shape[1:]
    pool = _pool(m * n, g)
    gT, w, a = _carve(pool, 10, n, m), _carve(pool, 3, m, n), _carve(pool, 6, m, n)
    for c in range(start, stop):
        _transpose(g[c], gT)
        _lines(g[c], gT, rw[min(c, rw.shape[0] - 1)], rb[min(c, rb.shape[0] - 1)], pool)
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
    pool = _pool(m * n, g)
    gT = _carve(pool, 10, n, m)
    for c in range(start, stop):
        along, down = rw[min(c, rw.shape[0] - 1)], rb[min(c, rb.shape[0] - 1)]
        _transpose(g[c], gT)
        _lines(g[c], gT, along, down, pool)
        _gradient(g[c], along, down, bar[c], pool, g_bar[c])


@_compiled
def _largest(places: Any) -> int:
    """Cells of the largest tile."""
    most = 0
    for place in places:
        most = max(most, 2 * (place[2] - place[1]) * (place[4] - place[3]))
    return most


@_compiled
def _tile(
    place: Any, weight: Any, inverse: float, low: float, span: float, wires: Any,
    pool: Any,
) -> None:  # fmt: skip
    """Sweep the lines of one tile of pairs, and fill the pool's other numbers.

    10, 11 : its cells, and their transpose. 13, 14 : segments of wordlines, transposed,
    and of bitlines.
    """
    group, o0, o1, i0, i1 = place
    m, n = i1 - i0, 2 * (o1 - o0)
    g, gT = _carve(pool, 10, m, n), _carve(pool, 11, n, m)
    number = weight.dtype.type
    zero, one = number(0.0), number(1.0)
    inverse, low, span = number(inverse), number(low), number(span)
    along, driver = number(wires[0]), number(wires[1])
    down, sense = number(wires[2]), number(wires[3])
    for o in range(o1 - o0):
        line, plus, minus = weight[group, o0 + o, i0:i1], gT[2 * o], gT[2 * o + 1]
        for i in range(m):
            x = line[i] * inverse
            plus[i] = low + span * min(max(x, zero), one)
            minus[i] = low + span * min(max(-x, zero), one)
    _transpose(gT, g)
    rw, rb = _carve(pool, 13, n, m), _carve(pool, 14, m, n)
    for j in range(n):
        for i in range(m):
            rw[j, i] = along if j > 0 else along + driver
    for i in range(m):
        for j in range(n):
            rb[i, j] = down if i < m - 1 else down + sense
    _lines(g, gT, rw, rb, pool)


@_compiled
def weights_range(
    start: int, stop: int, places: Any, weight: Any, inverse: float, low: float, span: float,
    wires: Any, out: Any,
) -> None:  # fmt: skip
    """Write what tiles start … stop - 1 make of their signed weights.

    A weight w is a pair of cells on neighbouring bitlines, low + span · max(±w inverse, 0)
    and at most low + span; what comes out is the difference of the pair's ladder matrices,
    over span and inverse: w itself without wires.

    places : (tile, 5), of each the group, its first output and the one after its last,
        its first row and the one after its last.
    weight, out : (group, output, row). inverse : of the largest weight.
    wires : (4,) [Ω], a segment of a wordline, what is in series with its first one, and
        the same of a bitline and its last one.
    """
    pool = _pool(_largest(places), weight)
    unit = weight.dtype.type(1.0 / (span * inverse))
    for c in range(start, stop):
        _tile(places[c], weight, inverse, low, span, wires, pool)
        group, o0, o1, i0, i1 = places[c]
        m, n = i1 - i0, 2 * (o1 - o0)
        gT, aT, bT = _carve(pool, 11, n, m), _carve(pool, 2, n, m), _carve(pool, 7, n, m)
        _transpose(_carve(pool, 6, m, n), bT)
        for o in range(o1 - o0):
            p, q, line = 2 * o, 2 * o + 1, out[group, o0 + o, i0:i1]
            for i in range(m):
                line[i] = unit * (gT[p, i] * aT[p, i] * bT[p, i] - gT[q, i] * aT[q, i] * bT[q, i])


@_compiled
def weights_gradient_range(
    start: int, stop: int, places: Any, weight: Any, inverse: float, low: float, span: float,
    wires: Any, bar: Any, w_bar: Any,
) -> None:  # fmt: skip
    """Write w_bar, the gradient by the weights, from the one by ``weights_range``'s out.

    A weight beyond the largest has gradient zero.
    """
    pool = _pool(_largest(places), weight)
    number = weight.dtype.type
    zero, one, scale = number(0.0), number(1.0), number(inverse)
    for c in range(start, stop):
        _tile(places[c], weight, inverse, low, span, wires, pool)
        group, o0, o1, i0, i1 = places[c]
        m, n = i1 - i0, 2 * (o1 - o0)
        # The cells' transpose has been read: its memory is free. Span and inverse cancel.
        barsT, bars = _carve(pool, 11, n, m), _carve(pool, 12, m, n)
        for o in range(o1 - o0):
            line, plus, minus = bar[group, o0 + o, i0:i1], barsT[2 * o], barsT[2 * o + 1]
            for i in range(m):
                plus[i] = line[i]
                minus[i] = -line[i]
        _transpose(barsT, bars)
        by_cell = _carve(pool, 11, m, n)
        rw, rb = _carve(pool, 13, n, m), _carve(pool, 14, m, n)
        _gradient(_carve(pool, 10, m, n), rw, rb, bars, pool, by_cell)
        by_cellT = _carve(pool, 12, n, m)
        _transpose(by_cell, by_cellT)
        for o in range(o1 - o0):
            line, w = w_bar[group, o0 + o, i0:i1], weight[group, o0 + o, i0:i1]
            plus, minus = by_cellT[2 * o], by_cellT[2 * o + 1]
            for i in range(m):
                x = w[i] * scale
                up = plus[i] if x >= zero and x <= one else zero
                down = minus[i] if x <= zero and x >= -one else zero
                line[i] = up - down
