"""Arrays of linear cells as what they are: one matrix from wordlines to bitlines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spicenn.arrays import namespace
from spicenn.kirchhoff import linear

# (g, r_wordline, r_bitline, v) as ``linear.solve`` takes them to the currents
# (chip, sample, bitline) and the residuals (chip, sample).
Solve = Callable[[Any, Any, Any, Any], tuple[Any, Any]]


def solver(rtol: float, threads: int | None) -> Solve:
    """Return ``linear.solve`` for currents and residuals alone."""

    def solve(g: Any, r_wordline: Any, r_bitline: Any, v: Any) -> tuple[Any, Any]:
        fields = linear.solve(
            g, r_wordline, r_bitline, v=v, rtol=rtol, voltages=False, threads=threads
        )
        return fields.current, fields.residual

    return solve


def transfer_matrix(g: Any, r_wordline: Any, r_bitline: Any, solve: Solve) -> tuple[Any, Any]:
    """Currents out of every bitline per volt on every wordline.

    The network is reciprocal: what a volt on wordline i gives at bitline j, a volt at
    the end of bitline j gives at wordline i. So the side with fewer lines is driven.

    Parameters
    ----------
    g : (chip, wordline, bitline) [S]; r_wordline, r_bitline : as ``linear.solve``.

    Returns
    -------
    (chip, wordline, bitline) [S] and the largest residual of each chip (chip,).
    """
    xp = namespace(g)
    wordlines, bitlines = g.shape[-2:]
    driven = min(wordlines, bitlines)
    each = xp.eye(driven, dtype=g.dtype, device=g.device)
    if wordlines <= bitlines:
        matrix, residual = solve(g, r_wordline, r_bitline, each[None])
    else:
        mirrored, residual = solve(_mirror(g), _mirror(r_bitline), _mirror(r_wordline), each[None])
        matrix = _mirror(mirrored)
    return matrix, xp.amax(residual, -1)


def product(g: Any, r_wordline: Any, r_bitline: Any, v: Any, solve: Solve) -> tuple[Any, Any]:
    """Currents (chip, sample, bitline) and residuals (chip, sample or 1).

    Through the matrix where there are more samples than lines to drive, which depends on
    the shapes of one chip alone: a chip's answer is the same in any batch of chips.
    """
    if v.shape[1] <= min(g.shape[-2:]):
        return solve(g, r_wordline, r_bitline, v)
    matrix, residual = transfer_matrix(g, r_wordline, r_bitline, solve)
    return v @ matrix, residual[:, None]


def _mirror(a: Any) -> Any:
    """Exchange wordlines and bitlines: an array seen from its bitlines' ends.

    Bitlines end after the last wordline and wordlines begin before the first bitline,
    so both axes turn round.
    """
    xp = namespace(a)
    return xp.flip(a, (-2, -1)).swapaxes(-2, -1)
