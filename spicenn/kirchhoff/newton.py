"""Crossbars of nonlinear cells: Newton's method on the cells' companion conductances.

Wires are linear, so each step keeps Kirchhoff's law in them exactly for cell currents h
of its own; what is wrong is only that h differs from the law's i(u). For cells of two
terminals the circuit's content is convex: there is one solution, and a step that goes
past the minimum along its direction is shortened. A gate that is referred to the ground
adds ∂i/∂b to the circuit's matrix, which is then not symmetric and no content's: the
step is found by ``krylov`` around the symmetric part, and shortened until the cells'
imbalance falls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import Any

import numpy as np

from spicenn.arrays import namespace
from spicenn.kirchhoff import linear
from spicenn.kirchhoff.krylov import fixed_point, total
from spicenn.kirchhoff.laws import Cells, GatedLaw, Law, with_parameters
from spicenn.kirchhoff.linear import Fields

# Down an exponential a step is one of its scale voltages; other laws take 2 to 8.
_STEPS = 500
# Cells solved at a time; about twenty arrays of so many are held.
_CELLS_AT_ONCE = 2**21
_SHORTENINGS = 40
# A step is good where the content's slope along it has not grown beyond this share.
_CURVATURE = 0.9
# Of gated cells, where the imbalance has fallen by this part of what it should.
_DECREASE = 0.1
# Residual of the linear solves while the cells are far from their solution.
_LOOSE = 1e-3
# What such a tolerance is cut down to at most.
_FINEST = 1e-4


def solve(
    law: Law | GatedLaw,
    g: Any,
    r_wordline: Any,
    r_bitline: Any,
    *,
    v: Any,
    parameters: Mapping[str, Any] | None = None,
    rtol: float = 1e-9,
    linear_solve: Callable[..., Fields] = linear.solve,
    threads: int | None = None,
) -> Fields:
    """Solve every chip at every sample; never raises for one that does not converge.

    Parameters
    ----------
    law : of every cell.
    g, r_wordline, r_bitline, v : as ``linear.solve`` takes them.
    parameters : fields of the law that differ from cell to cell, each shaped as g.
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
        each = {name: x[chip][:, None] for name, x in (parameters or {}).items()}
        cells = Cells(with_parameters(law, each), g[chip][:, None])
        circuit = _Circuit(cells, of(r_wordline), of(r_bitline), volts, rtol, linear_solve, threads)
        # A step too far down an exponential overflows, and is shortened.
        with np.errstate(over="ignore", invalid="ignore"):
            parts.append(_newton(circuit))

    def joined(each: list[Any]) -> Any:
        whole = xp.concatenate(each)
        return whole.reshape(chips, samples, *whole.shape[2:])

    return Fields(
        *(joined([getattr(part, field.name) for part in parts]) for field in fields_of(Fields))
    )


@dataclass(frozen=True, eq=False)
class _Circuit:
    """One sample each: cells of g (problem, 1, wordline, bitline), v (problem, 1, wordline)."""

    cells: Cells
    r_wordline: Any
    r_bitline: Any
    v: Any
    rtol: float
    linear_solve: Callable[..., Fields]
    threads: int | None

    def step(self, u: Any, b: Any, i: Any, guess: Any, tolerance: Any) -> tuple[Fields, Any, Any]:
        """One of Newton's: fields, the cells' currents and what the wires left over [A].

        The tolerance is over the cells' currents i.
        """
        slope = self.cells.slope(u, b)
        if not self.cells.gated:
            return self._companion(slope, i - slope * u, i, guess, tolerance)
        xp = namespace(u)
        part = self.cells.split(u, b)
        first, h, _ = self._companion(part.slope, i - part.slope * u, i, guess, tolerance)
        still = xp.zeros_like(self.v)
        # What is solved asks for nothing more.
        rtol = xp.where(xp.isinf(tolerance), tolerance, 0.1 * tolerance)

        def response(more: Any) -> Any:
            """What a current through the cells does to itself."""
            fields = self.linear_solve(
                part.slope[:, 0], self.r_wordline, self.r_bitline, v=still, rtol=rtol,
                into_wordline=-more, into_bitline=more, threads=self.threads,
            )  # fmt: skip
            return part.correction(fields.on_wordline, fields.on_bitline)

        more, _ = fixed_point(
            part.correction(first.on_wordline - (u + b), first.on_bitline - b),
            response,
            bound=tolerance * total(abs(h)),
        )
        offset = i - part.slope * u + more
        return self._companion(part.slope, offset, i, first.on_bitline, tolerance)

    def _companion(
        self, slope: Any, offset: Any, i: Any, guess: Any, tolerance: Any
    ) -> tuple[Fields, Any, Any]:
        """Solve for cells of the currents slope · u + offset.

        Those, which ``linear.solve`` knows, may be far larger than i and cancel.
        """
        xp = namespace(slope)
        scale = total(abs(i - offset)) + 2 * total(abs(offset))
        share = total(abs(i)) / xp.where(scale > 0, scale, 1.0)
        tolerance = tolerance * xp.where(share > 0, xp.clip(share, _FINEST, 1.0), 1.0)
        fields = self.linear_solve(
            slope[:, 0], self.r_wordline, self.r_bitline, v=self.v, guess=guess, rtol=tolerance,
            into_wordline=-offset, into_bitline=offset, threads=self.threads,
        )  # fmt: skip
        h = slope * (fields.on_wordline - fields.on_bitline) + offset
        left = fields.residual * (total(abs(h - offset)) + 2 * total(abs(offset)))
        return fields, h, left


def _newton(circuit: _Circuit) -> Fields:
    # Numba takes half a second to load: not for those who only import.
    from spicenn.kirchhoff.kernel import NEGLIGIBLE

    cells, rtol = circuit.cells, circuit.rtol
    xp = namespace(cells.g)
    u = b = xp.zeros_like(cells.g)
    current = cells.current(u, b)
    loose = xp.full_like(circuit.v[:, :, 0], _LOOSE)
    at, h, left = circuit.step(u, b, current, None, loose)
    u, b = at.on_wordline - at.on_bitline, at.on_bitline
    current = cells.current(u, b)
    steps = xp.zeros_like(at.iterations)
    for _ in range(_STEPS):
        flow = total(abs(current))
        by_one = total(cells.g * (abs(u + b) + abs(b)))
        scale = xp.where(flow > NEGLIGIBLE * by_one, flow, by_one)
        residual = (total(abs(current - h)) + left) / xp.where(scale > 0, scale, 1.0)
        active = ~(residual <= rtol)
        if not bool(active.any()):
            break
        tolerance = xp.clip(residual * residual, 0.1 * rtol, _LOOSE)
        # A solved problem is only looked at: its neighbours never change it.
        tolerance = xp.where(active, tolerance, xp.full_like(tolerance, float("inf")))
        new, h_new, left_new = circuit.step(u, b, current, at.on_bitline, tolerance)
        step = new.on_wordline - new.on_bitline - u
        step_b = new.on_bitline - b
        imbalance = total(abs(current - h))
        downhill = total((current - h) * step)
        share = xp.ones_like(residual)
        for _ in range(_SHORTENINGS):
            part = share[..., None, None]
            trial, trial_b = u + part * step, b + part * step_b
            trial_current = cells.current(trial, trial_b)
            mixed = h + part * (h_new - h)
            # NaN, from a law that overflows, is too far as well.
            if cells.gated:
                wrong = total(abs(trial_current - mixed)) + left + share * (left_new - left)
                far = active & ~(wrong <= (1 - _DECREASE * share) * (imbalance + left))
                secant = xp.zeros_like(share) + 0.5
            else:
                uphill = total((trial_current - mixed) * step)
                far = active & ~(uphill <= _CURVATURE * abs(downhill)) & (downhill < 0)
                secant = downhill / xp.where(far, downhill - uphill, 1.0)
                secant = xp.where(secant > 0, secant, 0.1)  # NaN again
            if not bool(far.any()):
                break
            share = xp.where(far, share * xp.clip(secant, 0.1, 0.5), share)
        share = xp.where(active, share, xp.zeros_like(share))
        at = _mix(at, new, share, xp)
        moved = active[..., None, None]
        u, b = xp.where(moved, trial, u), xp.where(moved, trial_b, b)
        current = xp.where(moved, trial_current, current)
        h = xp.where(moved, mixed, h)
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
