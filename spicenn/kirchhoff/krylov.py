"""Linear fixed points by generalised conjugate residuals, many problems at a time.

A cell whose current depends on its bitline's voltage makes the circuit's matrix
unsymmetric. It is the symmetric one of ``linear`` and a correction by currents y through
the cells, so that one is the preconditioner: y = rhs + response(y), each response one
solve of the symmetric circuit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spicenn.arrays import namespace

# Ordinary arrays take 2 to 6.
_STEPS = 60


def fixed_point(rhs: Any, response: Callable[[Any], Any], *, bound: Any) -> tuple[Any, Any]:
    """Solve y = rhs + response(y), response linear.

    Source: Eisenstat, Elman and Schultz, SIAM J. Numer. Anal. 20, 345 (1983). It needs
    no spectral radius below one, as plain iteration would.

    Parameters
    ----------
    rhs : (problem, sample, wordline, bitline).
    response : of such arrays to such; what it makes of zeros is zeros.
    bound : a problem is solved where Σ |residual| is at most its bound (problem, sample).
        Its steps end there: others never change its answer.

    Returns
    -------
    y, and what is left over, Σ |residual| (problem, sample).
    """
    xp = namespace(rhs)
    y, r = xp.zeros_like(rhs), rhs
    before: list[tuple[Any, Any, Any]] = []
    for _ in range(_STEPS):
        active = total(abs(r)) > bound
        if not bool(active.any()):
            break
        p = xp.where(active[..., None, None], r, xp.zeros_like(r))
        q = p - response(p)
        for p_before, q_before, square in before:
            share = (total(q * q_before) / square)[..., None, None]
            p, q = p - share * p_before, q - share * q_before
        square = total(q * q)
        square = xp.where(square > 0, square, 1.0)
        step = xp.where(active, total(r * q) / square, 0.0)[..., None, None]
        y, r = y + step * p, r - step * q
        before.append((p, q, square))
    return y, total(abs(r))


def total(x: Any) -> Any:
    """Sum over the cells of every problem."""
    return x.sum((-2, -1))
