"""Conjugate gradients on the bitline nodes of a crossbar, compiled.

An array of m wordlines and n bitlines has a wordline node W and a bitline node B at
every cell. Along one line the nodes form a ladder of series segments and shunt cells;
a ladder is solved in two sweeps (`_factor`). With T_w, T_b the ladders' matrices and
G the cells, elimination of W leaves (T_b - G T_w⁻¹ G) B = G T_w⁻¹ s, symmetric and
positive definite; conjugate gradients preconditioned with T_b never need T_b itself:
the direction's image u = T_b p follows the recurrence of p.

The sweeps use segment resistances, never their inverses: with y the admittance of
all that lies beyond a segment r, t = 1 / (1 + r y) passes current and voltage on and
q = r t turns current into voltage. So r = 0 and r = ∞ are exact, and as every term is
positive the sweeps lose no digits.

Array names: (m, n) unless a comment says otherwise. Wordlines are swept in bands of
`width` of them, transposed into (n, width): both kinds of sweep run over contiguous
memory, and a band of a large array stays in the cache. What ends in T is so laid out,
and has a band's number before where it holds all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

# Checks of the true residual after which a problem that no longer improves is given up.
_PATIENCE = 3
# Cells' currents below so much of what their two voltages would drive one by one are
# rounding: no current flows. Here, as numba's cache watches this file alone.
NEGLIGIBLE = 1e-14
# Cells of a band of wordlines; the arrays that it touches fit a cache of a megabyte.
_BAND = 2**15
_NARROWEST = 8
# Arrays that a solve holds, and the numbers between two of them.
_ARRAYS = 11
_APART = 8 * 37
# Side of the squares that a transposition moves at once.
_BLOCK = 16


def _compiled(function: Function) -> Function:
    # Divisions by zero follow IEEE rules. Sums are not reassociated: a problem's answer
    # does not depend, to the last bit, on what else is in its batch.
    try:
        return cast(Function, njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # no folder that a cache could be written to
        return cast(Function, njit(nogil=True, error_model="numpy")(function))


# Loops where NumPy has an expression: numba takes seconds to compile each of those.
@_compiled
def _fill(a: Any, value: float) -> None:
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            a[i, j] = value


@_compiled
def _copy(a: Any, out: Any) -> None:
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[i, j] = a[i, j]


@_compiled
def _add(a: Any, out: Any) -> float:
    """Add a to out; return the sum of |a|."""
    size = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[i, j] += a[i, j]
            size += abs(a[i, j])
    return size


@_compiled
def _total(a: Any) -> float:
    total = 0.0
    for j in range(a.shape[0]):
        total += a[j]
    return total


@_compiled
def _carve(pool: Any, k: int, rows: int, columns: int) -> Any:
    """Return the pool's array number k."""
    start = k * (len(pool) // _ARRAYS)
    return pool[start : start + rows * columns].reshape(rows, columns)


@_compiled
def _transpose(a: Any, out: Any) -> None:
    """Write the transpose of what both have room for: a band may be less than its width."""
    rows, columns = min(a.shape[0], out.shape[1]), min(a.shape[1], out.shape[0])
    for i0 in range(0, rows, _BLOCK):
        i1 = min(i0 + _BLOCK, rows)
        for j0 in range(0, columns, _BLOCK):
            j1 = min(j0 + _BLOCK, columns)
            for i in range(i0, i1):
                for j in range(j0, j1):
                    out[j, i] = a[i, j]


@_compiled
def _factor(g: Any, r: Any, first: int, y: Any, t: Any, q: Any, forward: bool) -> None:
    """Sweep along the first axis of g, first to last where ``forward``.

    Segment k lies after node k in that order. ``first`` is the number of the first line
    in r; ``y`` (line,) ends as the admittance before the last segment.
    """
    steps, width = len(g), len(y)
    last_i, last_j = r.shape[0] - 1, r.shape[1] - 1
    for step in range(steps):
        k = step if forward else steps - 1 - step
        before = k - 1 if forward else k + 1
        for j in range(width):
            y[j] = g[k, j] + (t[before, j] * y[j] if step > 0 else 0.0)
            resistance = r[min(k, last_i), min(first + j, last_j)]
            if resistance == np.inf:
                t[k, j] = 0.0
                # A line that ends in nothing has no voltage of its own: call it 0.
                q[k, j] = 1.0 / y[j] if y[j] > 0.0 else 0.0
            else:
                t[k, j] = 1.0 / (1.0 + resistance * y[j])
                q[k, j] = resistance * t[k, j]


@_compiled
def _wordlines_inward(t: Any, xT: Any, rows: int) -> None:
    """Sum a band's currents towards the sources: the first row ends as Norton currents."""
    for j in range(len(xT) - 2, -1, -1):
        for i in range(rows):
            xT[j, i] += t[j + 1, i] * xT[j + 1, i]


@_compiled
def _wordlines_outward(t: Any, q: Any, xT: Any, v: Any) -> None:
    """Turn a band's summed currents into voltages; v (rows,) are the sources."""
    rows = len(v)
    for i in range(rows):
        xT[0, i] = t[0, i] * v[i] + q[0, i] * xT[0, i]
    for j in range(1, len(xT)):
        for i in range(rows):
            xT[j, i] = t[j, i] * xT[j - 1, i] + q[j, i] * xT[j, i]


@_compiled
def _unloaded(x: Any, twT: Any, v: Any, xT: Any) -> None:
    """Write the wordlines' voltages where no current comes into their nodes."""
    m, n = x.shape
    width = xT.shape[1]
    for band in range(len(twT)):
        i0, i1 = band * width, min((band + 1) * width, m)
        t = twT[band]
        for i in range(i1 - i0):
            xT[0, i] = t[0, i] * v[i0 + i]
        for j in range(1, n):
            for i in range(i1 - i0):
                xT[j, i] = t[j, i] * xT[j - 1, i]
        _transpose(xT, x[i0:i1])


@_compiled
def _band_voltages(x: Any, t: Any, q: Any, v: Any, norton: Any, xT: Any) -> None:
    """Turn a band's currents into the wordline nodes into their voltages.

    norton (rows,) is written: what the band drives into its sources at zero voltage.
    """
    _transpose(x, xT)
    _wordlines_inward(t, xT, len(x))
    for i in range(len(x)):
        norton[i] = xT[0, i]
    _wordlines_outward(t, q, xT, v)
    _transpose(xT, x)


@_compiled
def _wordline_voltages(x: Any, twT: Any, qwT: Any, v: Any, norton: Any, xT: Any) -> None:
    """Turn all currents into the wordline nodes into their voltages."""
    width = xT.shape[1]
    for band in range(len(twT)):
        i0, i1 = band * width, min((band + 1) * width, len(x))
        _band_voltages(x[i0:i1], twT[band], qwT[band], v[i0:i1], norton[i0:i1], xT)


@_compiled
def _bitlines_down(t: Any, x: Any) -> None:
    for i in range(1, x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] += t[i - 1, j] * x[i - 1, j]


@_compiled
def _bitlines_up(t: Any, q: Any, x: Any, e: Any) -> None:
    m, n = x.shape
    for j in range(n):
        x[m - 1, j] = t[m - 1, j] * e[j] + q[m - 1, j] * x[m - 1, j]
    for i in range(m - 2, -1, -1):
        for j in range(n):
            x[i, j] = t[i, j] * x[i + 1, j] + q[i, j] * x[i, j]


@_compiled
def _precondition(t: Any, q: Any, g: Any, r: Any, z: Any, rz: Any, gz: Any) -> Any:
    """Turn z, summed down the bitlines, into T_b⁻¹ r; return (r·z, Σ g |z|).

    rz, gz : (n,) work space; one sum per bitline keeps the loops parallel.
    """
    m, n = z.shape
    for j in range(n):
        rz[j] = 0.0
        gz[j] = 0.0
    for i in range(m - 1, -1, -1):
        below = min(i + 1, m - 1)
        for j in range(n):
            end = z[below, j] if i < m - 1 else 0.0
            value = t[i, j] * end + q[i, j] * z[i, j]
            z[i, j] = value
            rz[j] += r[i, j] * value
            gz[j] += g[i, j] * abs(value)
    return _total(rz), _total(gz)


@_compiled
def _conjugate_gradients(
    g: Any, twT: Any, qwT: Any, tb: Any, qb: Any, B: Any, r: Any, p: Any, u: Any, z: Any,
    x: Any, xT: Any, zero: Any, norton: Any, sums: Any, target: float, limit: int,
) -> int:  # fmt: skip
    """Move B until Σ g |T_b⁻¹ residual| is at most the target; return the iterations.

    r : residual at B, followed along. p, u, z, x, xT, norton : work space.
    """
    m, n = g.shape
    width = xT.shape[1]
    _copy(r, z)
    _bitlines_down(tb, z)
    rz, gz = _precondition(tb, qb, g, r, z, sums[0], sums[1])
    beta = 0.0
    _fill(p, 0.0)
    _fill(u, 0.0)
    iterations = 0
    while gz > target and rz > 0.0 and iterations < limit:
        energy = sums[0]
        for j in range(n):
            energy[j] = 0.0
        for band in range(len(twT)):
            i0, i1 = band * width, min((band + 1) * width, m)
            for i in range(i0, i1):
                for j in range(n):
                    p[i, j] = z[i, j] + beta * p[i, j]
                    u[i, j] = r[i, j] + beta * u[i, j]
                    x[i, j] = g[i, j] * p[i, j]
            _band_voltages(x[i0:i1], twT[band], qwT[band], zero[i0:i1], norton[i0:i1], xT)
            for i in range(i0, i1):
                for j in range(n):
                    x[i, j] = u[i, j] - g[i, j] * x[i, j]
                    energy[j] += p[i, j] * x[i, j]
        ps = _total(energy)
        if not ps > 0.0:
            break
        alpha = rz / ps
        for i in range(m):
            above = max(i - 1, 0)
            for j in range(n):
                B[i, j] += alpha * p[i, j]
                r[i, j] -= alpha * x[i, j]
                z[i, j] = r[i, j] + (tb[above, j] * z[above, j] if i > 0 else 0.0)
        before = rz
        rz, gz = _precondition(tb, qb, g, r, z, sums[0], sums[1])
        beta = rz / before
        iterations += 1
    return iterations


@_compiled
def _check(
    g: Any, twT: Any, qwT: Any, tb: Any, qb: Any, yb: Any, v: Any, e: Any, jw: Any, jb: Any,
    c: int, s: int, cold: bool, b: Any, x: Any, z: Any, d: Any, xT: Any, norton: Any,
    current: Any, sums: Any,
) -> Any:  # fmt: skip
    """The wordlines' voltages x for the bitlines' b, and the bitlines' own answer z to them.

    x and z satisfy Kirchhoff's law on the bitlines; what is left over on the wordlines
    is g d with d = z - b. Returns its sum, and that of the cells' currents. norton (m,),
    current (n,) and d are written too. cold : b is zero.
    """
    m, n = g.shape
    injected = 0.0
    if cold and not jw.shape[0]:
        for i in range(m):
            norton[i] = 0.0
        _unloaded(x, twT, v, xT)
    else:
        for i in range(m):
            for j in range(n):
                x[i, j] = g[i, j] * b[i, j]
        if jw.shape[0]:
            injected += _add(jw[c, s], x)
        _wordline_voltages(x, twT, qwT, v, norton, xT)
    for i in range(m):
        for j in range(n):
            z[i, j] = g[i, j] * x[i, j]
    if jb.shape[0]:
        injected += _add(jb[c, s], z)
    _bitlines_down(tb, z)
    for j in range(n):
        current[j] = tb[m - 1, j] * (z[m - 1, j] - yb[j] * e[j])
    _bitlines_up(tb, qb, z, e)
    left, flow, most = sums[0], sums[1], sums[2]
    for j in range(n):
        left[j] = 0.0
        flow[j] = 0.0
        most[j] = 0.0
    for i in range(m):
        for j in range(n):
            d[i, j] = z[i, j] - b[i, j]
            left[j] += g[i, j] * abs(d[i, j])
        for j in range(n):
            flow[j] += g[i, j] * abs(x[i, j] - z[i, j])
            most[j] += g[i, j] * (abs(x[i, j]) + abs(z[i, j]))
    current_through, by_one = _total(flow), _total(most)
    scale = current_through if current_through > NEGLIGIBLE * by_one else by_one
    return _total(left), scale + injected


@_compiled
def solve_range(
    start: int, stop: int, limit: int, guess: Any,
    g: Any, rw: Any, rb: Any, v: Any, e: Any, jw: Any, jb: Any, rtol: Any,
    current: Any, source: Any, W: Any, B: Any, residual: Any, iterations: Any,
) -> None:  # fmt: skip
    """Solve problems start … stop - 1, problem = chip · samples + sample.

    Parameters
    ----------
    limit : iterations of one problem.
    guess : (chip or 1, sample or 1, m, n) of the bitline nodes' voltages, or of no chips.
    g : (chip, m, n) [S]. rw, rb : (chip or 1, m or 1, n or 1) [Ω], the segment before a
        cell on its wordline, after it on its bitline.
    v : (chip or 1, sample, m) [V] of the sources. e : (chip or 1, sample, n) [V] at the
        ends of the bitlines. jw, jb : (chip, sample, m, n) currents into the nodes, or
        of no chips where there are none.
    rtol : (chip, sample).
    current : (chip, sample, n) out of the bitlines. source : (chip, sample, m) into the
        wordlines. W, B : (chip, sample, m, n) voltages, or of no chips where they are
        not wanted. residual, iterations : (chip, sample). All of these are written.
    """
    samples = current.shape[1]
    m, n = g.shape[1:]
    width = min(m, max(_NARROWEST, _BAND // n))
    bands = (m + width - 1) // width
    # One piece of memory, its arrays a few cache lines apart: arrays of 2^k bytes would
    # all want the same lines of the cache.
    pool = np.empty(_ARRAYS * (bands * width * n + _APART))
    twT = _carve(pool, 0, bands * n, width).reshape(bands, n, width)
    qwT = _carve(pool, 1, bands * n, width).reshape(bands, n, width)
    xT = _carve(pool, 2, n, width)
    tb, qb, b = _carve(pool, 3, m, n), _carve(pool, 4, m, n), _carve(pool, 5, m, n)
    r, p, u = _carve(pool, 6, m, n), _carve(pool, 7, m, n), _carve(pool, 8, m, n)
    z, x = _carve(pool, 9, m, n), _carve(pool, 10, m, n)
    zero, sums = np.zeros(m), np.empty((3, n))
    yw, yb, norton, unused = np.empty(m), np.empty(n), np.empty(m), np.empty(m)
    factored = -1
    for problem in range(start, stop):
        c, s = problem // samples, problem % samples
        G = g[c]
        if c != factored:
            along = rw[min(c, rw.shape[0] - 1)].T
            for band in range(bands):
                i0, i1 = band * width, min((band + 1) * width, m)
                _transpose(G[i0:i1], xT)
                _factor(xT, along, i0, yw[i0:i1], twT[band], qwT[band], False)
            _factor(G, rb[min(c, rb.shape[0] - 1)], 0, yb, tb, qb, True)
            factored = c
        volt = v[min(c, v.shape[0] - 1), s]
        end = e[min(c, e.shape[0] - 1), s]
        cold = not guess.shape[0]
        if not cold:
            _copy(guess[min(c, guess.shape[0] - 1), min(s, guess.shape[1] - 1)], b)
        else:
            _fill(b, 0.0)
        done, best, patience = 0, np.inf, _PATIENCE
        while True:
            unbalanced, scale = _check(
                G, twT, qwT, tb, qb, yb, volt, end, jw, jb, c, s, cold, b, x, z, p, xT,
                norton, current[c, s], sums,
            )  # fmt: skip
            # NaN stays NaN, which is no solution.
            relative = 0.0 if unbalanced == 0.0 else unbalanced / scale
            if not unbalanced < 0.5 * best:
                patience -= 1
            best = min(best, unbalanced)
            if relative <= rtol[c, s] or patience == 0 or done >= limit:
                break
            # From b = z the residual is G T_w⁻¹ G (z - b): no difference of large numbers.
            _copy(z, b)
            cold = False
            for i in range(m):
                for j in range(n):
                    r[i, j] = G[i, j] * p[i, j]
            _wordline_voltages(r, twT, qwT, zero, unused, xT)
            for i in range(m):
                for j in range(n):
                    r[i, j] *= G[i, j]
            done += _conjugate_gradients(
                G, twT, qwT, tb, qb, b, r, p, u, z, x, xT, zero, unused, sums,
                rtol[c, s] * scale, limit - done,
            )  # fmt: skip
        for i in range(m):
            source[c, s, i] = twT[i // width, 0, i % width] * (yw[i] * volt[i] - norton[i])
        if W.shape[0]:
            _copy(x, W[c, s])
            _copy(z, B[c, s])
        residual[c, s] = relative
        iterations[c, s] = done
