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

Array names: (m, n) unless a comment says otherwise; what ends in T is (n, m), so that
both kinds of sweep run over contiguous memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

from spicenn.kirchhoff.linear import ROUNDING

Function = TypeVar("Function", bound=Callable[..., Any])

# Checks of the true residual after which a problem that no longer improves is given up.
_PATIENCE = 3
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
def _factor(g: Any, r: Any, y: Any, t: Any, q: Any, forward: bool) -> None:
    """Sweep along the first axis of g, first to last where ``forward``.

    Segment k lies after node k in that order. ``y`` (second axis) ends as the
    admittance before the last segment.
    """
    steps, width = g.shape
    last_i, last_j = r.shape[0] - 1, r.shape[1] - 1
    for step in range(steps):
        k = step if forward else steps - 1 - step
        before = k - 1 if forward else k + 1
        for j in range(width):
            y[j] = g[k, j] + (t[before, j] * y[j] if step > 0 else 0.0)
            resistance = r[min(k, last_i), min(j, last_j)]
            if resistance == np.inf:
                t[k, j] = 0.0
                # A line that ends in nothing has no voltage of its own: call it 0.
                q[k, j] = 1.0 / y[j] if y[j] > 0.0 else 0.0
            else:
                t[k, j] = 1.0 / (1.0 + resistance * y[j])
                q[k, j] = resistance * t[k, j]


@_compiled
def _wordlines_inward(t: Any, xT: Any) -> None:
    """Sum currents towards the sources: the first row ends as their Norton currents."""
    n, m = xT.shape
    for j in range(n - 2, -1, -1):
        for i in range(m):
            xT[j, i] += t[j + 1, i] * xT[j + 1, i]


@_compiled
def _wordlines_outward(t: Any, q: Any, xT: Any, v: Any) -> None:
    """Turn summed currents into voltages; v (m,) are the sources."""
    n, m = xT.shape
    for i in range(m):
        xT[0, i] = t[0, i] * v[i] + q[0, i] * xT[0, i]
    for j in range(1, n):
        for i in range(m):
            xT[j, i] = t[j, i] * xT[j - 1, i] + q[j, i] * xT[j, i]


@_compiled
def _through_wordlines(x: Any, t: Any, q: Any, zero: Any, xT: Any) -> None:
    """Turn currents into the wordline nodes into their voltages, sources at zero."""
    _transpose(x, xT)
    _wordlines_inward(t, xT)
    _wordlines_outward(t, q, xT, zero)
    _transpose(xT, x)


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
    x: Any, xT: Any, zero: Any, sums: Any, target: float, limit: int,
) -> int:  # fmt: skip
    """Move B until Σ g |T_b⁻¹ residual| is at most the target; return the iterations.

    r : residual at B, followed along. p, u, z, x, xT : work space.
    """
    m, n = g.shape
    _copy(r, z)
    _bitlines_down(tb, z)
    rz, gz = _precondition(tb, qb, g, r, z, sums[0], sums[1])
    beta = 0.0
    _fill(p, 0.0)
    _fill(u, 0.0)
    iterations = 0
    while gz > target and rz > 0.0 and iterations < limit:
        for i in range(m):
            for j in range(n):
                p[i, j] = z[i, j] + beta * p[i, j]
                u[i, j] = r[i, j] + beta * u[i, j]
                x[i, j] = g[i, j] * p[i, j]
        _through_wordlines(x, twT, qwT, zero, xT)
        energy = sums[0]
        for j in range(n):
            energy[j] = 0.0
        for i in range(m):
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
    c: int, s: int, b: Any, x: Any, z: Any, d: Any, xT: Any, norton: Any, current: Any, sums: Any,
) -> Any:  # fmt: skip
    """The wordlines' voltages x for the bitlines' b, and the bitlines' own answer z to them.

    x and z satisfy Kirchhoff's law on the bitlines; what is left over on the wordlines
    is g d with d = z - b. Returns its sum, and that of the cells' currents. norton (m,),
    current (n,) and d are written too.
    """
    m, n = g.shape
    for i in range(m):
        for j in range(n):
            x[i, j] = g[i, j] * b[i, j]
    injected = 0.0
    if jw.shape[0]:
        injected += _add(jw[c, s], x)
    _transpose(x, xT)
    _wordlines_inward(twT, xT)
    for i in range(m):
        norton[i] = xT[0, i]
    _wordlines_outward(twT, qwT, xT, v)
    _transpose(xT, x)
    for i in range(m):
        for j in range(n):
            z[i, j] = g[i, j] * x[i, j]
    if jb.shape[0]:
        injected += _add(jb[c, s], z)
    _bitlines_down(tb, z)
    for j in range(n):
        current[j] = tb[m - 1, j] * (z[m - 1, j] - yb[j] * e[j])
    _bitlines_up(tb, qb, z, e)
    left, flow = sums[0], sums[1]
    for j in range(n):
        left[j] = 0.0
        flow[j] = 0.0
    for i in range(m):
        for j in range(n):
            d[i, j] = z[i, j] - b[i, j]
            left[j] += g[i, j] * abs(d[i, j])
            drop = abs(x[i, j] - z[i, j]) + ROUNDING * (abs(x[i, j]) + abs(z[i, j]))
            flow[j] += g[i, j] * drop
    scale = _total(flow) + injected
    return _total(left), scale


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
    twT, qwT, xT = np.empty((n, m)), np.empty((n, m)), np.empty((n, m))
    tb, qb, b = np.empty((m, n)), np.empty((m, n)), np.empty((m, n))
    r, p, u = np.empty((m, n)), np.empty((m, n)), np.empty((m, n))
    z, x = np.empty((m, n)), np.empty((m, n))
    zero, sums = np.zeros(m), np.empty((2, n))
    yw, yb, norton = np.empty(m), np.empty(n), np.empty(m)
    factored = -1
    for problem in range(start, stop):
        c, s = problem // samples, problem % samples
        G = g[c]
        if c != factored:
            _transpose(G, xT)
            _factor(xT, rw[min(c, rw.shape[0] - 1)].T, yw, twT, qwT, False)
            _factor(G, rb[min(c, rb.shape[0] - 1)], yb, tb, qb, True)
            factored = c
        volt = v[min(c, v.shape[0] - 1), s]
        end = e[min(c, e.shape[0] - 1), s]
        if guess.shape[0]:
            _copy(guess[min(c, guess.shape[0] - 1), min(s, guess.shape[1] - 1)], b)
        else:
            _fill(b, 0.0)
        done, best, patience = 0, np.inf, _PATIENCE
        while True:
            unbalanced, scale = _check(
                G, twT, qwT, tb, qb, yb, volt, end, jw, jb, c, s, b, x, z, p, xT, norton,
                current[c, s], sums,
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
            for i in range(m):
                for j in range(n):
                    r[i, j] = G[i, j] * p[i, j]
            _through_wordlines(r, twT, qwT, zero, xT)
            for i in range(m):
                for j in range(n):
                    r[i, j] *= G[i, j]
            done += _conjugate_gradients(
                G, twT, qwT, tb, qb, b, r, p, u, z, x, xT, zero, sums,
                rtol[c, s] * scale, limit - done,
            )  # fmt: skip
        for i in range(m):
            source[c, s, i] = twT[0, i] * (yw[i] * volt[i] - norton[i])
        if W.shape[0]:
            _copy(x, W[c, s])
            _copy(z, B[c, s])
        residual[c, s] = relative
        iterations[c, s] = done
