"""Crossbars of nonlinear cells: Newton's method on the cells' companion conductances.

Wires are linear, so each step keeps Kirchhoff's law in them exactly for cell currents h
of its own; what is wrong is only that h differs from the law's i(u). The circuit's
content is convex for monotone cells: there is one solution, and a step that goes past
the minimum along its direction is shortened.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Any

import numpy as np

from spicenn.kirchhoff import linear
from spicenn.kirchhoff.laws import Law, namespace
from spicenn.kirchhoff.linear import Fields

# Down an exponential a step is one of its scale voltages; other laws take 2 to 8.
_STEPS = 500
# Cells solved at a time; about twenty arrays of so many are held.
_CELLS_AT_ONCE = 2**21
_SHORTENINGS = 40
# A step is good where the content's slope along it has not grown beyond this share.
_CURVATURE = 0.9
# Residual of the linear solves while the cells are far from their solution.
_LOOSE = 1e-3
# What such a tolerance is cut down to at most.
_FINEST = 1e-4


def solve(
    law: Law,
    g: Any,
    r_wordline: Any,
    r_bitline: Any,
    *,
    v: Any,
    rtol: float = 1e-9,
    linear_solve: Callable[..., Fields] = linear.solve,
    threads: int | None = None,
) -> Fields:
    """Solve every chip at every sample; never raises for one that does not converge.

    Parameters
    ----------
    law : of every cell.
    g, r_wordline, r_bitline, v : as ``linear.solve`` takes them.
    linear_solve : ``linear.solve``, or its torch twin for tensors.

    Returns
    -------
    Fields whose residual holds the cells' imbalance and the linear solve's; iterations
    are those of Newton.
    """
    xp = namespace(g)
    chips, samples = g.shape[0], v.shape[1]
    count = chips * samples
    chunk = max(1, _CELLS_AT_ONCE // math.prod(g.shape[1:]))
    parts = []
    for start in range(0, count, chunk):
        problem = xp.arange(start, min(start + chunk, count))
        chip, sample = problem // samples, problem % samples

        def of(x: Any, chip: Any = chip) -> Any:
            return x if x.shape[0] == 1 else x[chip]

        volts = v[chip if v.shape[0] > 1 else 0 * chip, sample][:, None]
        arrays = (g[chip], of(r_wordline), of(r_bitline), volts)
        # A step too far down an exponential overflows, and is shortened.
        with np.errstate(over="ignore", invalid="ignore"):
            parts.append(_problems(law, *arrays, rtol, linear_solve, threads))

    def joined(each: list[Any]) -> Any:
        whole = xp.concatenate(each)
        return whole.reshape(chips, samples, *whole.shape[2:])

    return Fields(
        *(joined([getattr(part, field.name) for part in parts]) for field in fields_of(Fields))
    )


def _problems(
    law: Law,
    g: Any,
    r_wordline: Any,
    r_bitline: Any,
    v: Any,
    rtol: float,
    linear_solve: Callable[..., Fields],
    threads: int | None,
) -> Fields:
    """One sample each: g (problem, wordline, bitline), v (problem, 1, wordline)."""
    xp = namespace(g)
    cell = g[:, None]

    def companion(u: Any, i: Any, guess: Any, tolerance: Any) -> tuple[Fields, Any, Any]:
        """One linear solve around u: fields, the cells' currents and what it left over [A].

        The tolerance is over the cells' currents i. Those of their companions, which
        ``linear.solve`` knows, may be far larger and cancel.
        """
        slope = law.slope(u, cell)
        offset = i - slope * u
        scale = total(abs(slope * u)) + 2 * total(abs(offset))
        share = total(abs(i)) / xp.where(scale > 0, scale, 1.0)
        tolerance = tolerance * xp.where(share > 0, xp.clip(share, _FINEST, 1.0), 1.0)
        fields = linear_solve(
            slope[:, 0], r_wordline, r_bitline, v=v, guess=guess, rtol=tolerance,
            into_wordline=-offset, into_bitline=offset, threads=threads,
        )  # fmt: skip
        h = slope * (fields.on_wordline - fields.on_bitline) + offset
        left = fields.residual * (total(abs(h - offset)) + 2 * total(abs(offset)))
        return fields, h, left

    def total(x: Any) -> Any:
        return x.sum((-2, -1))

    zero = xp.zeros_like(cell)
    current = law.current(zero, cell)
    loose = xp.full_like(v[:, :, 0], _LOOSE)
    at, h, left = companion(zero, current, None, loose)
    u = at.on_wordline - at.on_bitline
    current = law.current(u, cell)
    steps = xp.zeros_like(at.iterations)
    for _ in range(_STEPS):
        flow = total(abs(current))
        residual = (total(abs(current - h)) + left) / xp.where(flow > 0, flow, 1.0)
        active = ~(residual <= rtol)
        if not bool(active.any()):
            break
        tolerance = xp.clip(residual * residual, 0.1 * rtol, _LOOSE)
        # A solved problem is only looked at: its neighbours never change it.
        tolerance = xp.where(active, tolerance, xp.full_like(tolerance, float("inf")))
        new, h_new, left_new = companion(u, current, at.on_bitline, tolerance)
        step = new.on_wordline - new.on_bitline - u
        downhill = total((current - h) * step)
        share = xp.ones_like(residual)
        for _ in range(_SHORTENINGS):
            trial = u + share[..., None, None] * step
            trial_current = law.current(trial, cell)
            mixed = h + share[..., None, None] * (h_new - h)
            uphill = total((trial_current - mixed) * step)
            # NaN, from a law that overflows, is too far as well.
            far = active & ~(uphill <= _CURVATURE * abs(downhill)) & (downhill < 0)
            if not bool(far.any()):
                break
            secant = downhill / xp.where(far, downhill - uphill, 1.0)
            secant = xp.where(secant > 0, secant, 0.1)  # NaN again
            share = xp.where(far, share * xp.clip(secant, 0.1, 0.5), share)
        share = xp.where(active, share, xp.zeros_like(share))
        at = _mix(at, new, share, xp)
        u = xp.where(active[..., None, None], trial, u)
        current = xp.where(active[..., None, None], trial_current, current)
        h = xp.where(active[..., None, None], mixed, h)
        left = left + share * (left_new - left)
        steps = steps + active
    return replace(at, residual=residual, iterations=steps)


def _mix(old: Fields, new: Fields, share: Any, xp: Any) -> Fields:
    """A share of the way from one solution to the next; all of them are linear."""

    def between(a: Any, b: Any) -> Any:
        weight = share.reshape(*share.shape, *(1,) * (a.ndim - share.ndim))
        # The whole way is the new one itself, and none of it the old one, to the last bit.
        moved = xp.where(weight == 1, b, a + weight * (b - a))
        return xp.where(weight == 0, a, moved)

    return Fields(
        between(old.current, new.current),
        between(old.source, new.source),
        between(old.on_wordline, new.on_wordline),
        between(old.on_bitline, new.on_bitline),
        new.residual,
        new.iterations,
    )
