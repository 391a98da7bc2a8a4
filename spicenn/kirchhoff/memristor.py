"""A cell with a state: its current, how fast a voltage moves the state, and where to.

The law of the cell ``memristor`` in ``netlists``, whose text tells what it simplifies.
Its functions take NumPy arrays or torch tensors alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.arrays import namespace
from spicenn.errors import ConvergenceError, InputError
from spicenn.kirchhoff.laws import Sinh

Array = NDArray[np.float64]

# k / e [V/K], in the digits that the netlist has.
_BOLTZMANN_EV = 8.617333262e-5
_NANOMETRE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Memristor:
    """Filament with a gap: i = i0 exp(-gap / gap0) sinh(u / v0), the gap moved by u.

    d gap / dt = -vel0 exp(-ea / kT) sinh(γ (a0 / thickness) u / kT) w, with
    γ = gamma0 - beta (gap / 1 nm)³ ≥ 0. Both hyperbolic sines go on along their tangents:
    the current's beyond 3 v0, the velocity's where the field takes the barrier away. w
    ends the velocity smoothly at the walls; outside of them a state moves inwards only.

    Source: Guan, Yu, Wong, IEEE Electron Device Letters 33, 1405 (2012); Jiang et al.,
    SISPAD 2014, p. 41; values of the Stanford RRAM model 1.0.0, doi:10.4231/D37H1DN48.
    The walls' smoothing is a numerical one.

    Parameters
    ----------
    i0, gap0, v0 : scales of the current [A], [m], [V].
    vel0, ea, a0, thickness : velocity [m/s] and barrier [eV] of the ions' hops, distance
        between sites [m], thickness of the oxide [m].
    gamma0, beta : enhancement of the field.
    gap_min, gap_max, wall : range of the state and distance of its slowing down [m].
    temperature : [K].

    Each a number, or an array for cells that differ, which every state given then fits.

    Raises InputError for a value out of range, or a field that the gap takes away within
    the range.
    """

    i0: float = 1e-3
    gap0: float = 0.25e-9
    v0: float = 0.25
    vel0: float = 10.0
    ea: float = 0.6
    a0: float = 0.25e-9
    thickness: float = 12e-9
    gamma0: float = 16.0
    beta: float = 0.8
    gap_min: float = 0.2e-9
    gap_max: float = 1.7e-9
    wall: float = 0.01e-9
    temperature: float = 300.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0.0 if field.name in ("beta", "gap_min") else math.ulp(0.0)
            if not (
                isinstance(value, int | float | np.ndarray)
                and np.all((value >= least) & (value < math.inf))
            ):
                raise InputError(f"{field.name} = {value!r} is out of range", where="memristor")
        if not np.all(self.gap_min < self.gap_max):
            raise InputError(
                f"gap_min = {self.gap_min!r} is not below gap_max = {self.gap_max!r}",
                where="memristor",
            )
        if not np.all(self._enhancement(self.gap_max) > 0):
            raise InputError(
                f"gamma0 - beta (gap / 1 nm)³ is {self._enhancement(self.gap_max)!r} at gap_max",
                where="memristor",
                remedy="choose a smaller gap_max or beta",
            )

    @property
    def static(self) -> Sinh:
        """Law of the current at a frozen state, by the conductance at 0 V."""
        return Sinh(v0=self.v0)

    @property
    def g_min(self) -> float:
        """Conductance at 0 V of the widest gap [S]."""
        return float(self.conductance_of_state(self.gap_max))

    @property
    def g_max(self) -> float:
        """Conductance at 0 V of the narrowest gap [S]."""
        return float(self.conductance_of_state(self.gap_min))

    def conductance_of_state(self, state: Any) -> Any:
        """Conductance at 0 V [S] of a gap [m]."""
        return self.i0 / self.v0 * namespace(state).exp(-state / self.gap0)

    def state_of_conductance(self, g: Any) -> Any:
        """Gap [m] of a conductance at 0 V [S]."""
        return self.gap0 * namespace(g).log(self.i0 / self.v0 / g)

    def current(self, u: Any, state: Any) -> Any:
        """Current [A] at a voltage [V] and a gap [m] of one shape."""
        return self.static.current(u, self.conductance_of_state(state))

    def rate(self, u: Any, state: Any) -> Any:
        """d gap / dt [m/s] at a voltage [V] and a gap [m] of one shape."""
        xp = namespace(state)
        over = self.ea / (_BOLTZMANN_EV * self.temperature)
        # In units of the barrier: exp(-over) sinh(over field) never overflows.
        field = (
            self.a0 / (self.thickness * self.ea) * xp.clip(self._enhancement(state), 0.0, None) * u
        )
        inside = xp.clip(field, -1.0, 1.0)
        hops = xp.exp(over * (inside - 1)) - xp.exp(-over * (inside + 1))
        hops = hops + (field - inside) * (over * (1 + np.exp(-2 * over)))
        way = xp.where(field > 0, state - self.gap_min, self.gap_max - state)
        free = -xp.expm1(-xp.clip(way, 0.0, None) / self.wall)
        return -0.5 * self.vel0 * hops * free

    def _enhancement(self, state: Any) -> Any:
        return self.gamma0 - self.beta * (state / _NANOMETRE) ** 3


def respond(
    law: Memristor, time: Array, voltage: Array, state: float, *, rtol: float = 1e-9
) -> Array:
    """State of one cell under a piecewise linear voltage.

    Parameters
    ----------
    time, voltage : (point,) [s], rising, and [V].
    state : gap at the first time [m].
    rtol : of the state's change.

    Returns
    -------
    (point,) [m].

    Raises InputError for arrays that do not fit, ConvergenceError where the integration
    fails.
    """
    time, voltage = np.asarray(time, np.float64), np.asarray(voltage, np.float64)
    if time.ndim != 1 or time.shape != voltage.shape or not np.all(np.diff(time) > 0):
        raise InputError(
            f"time of shape {time.shape} must rise and voltage, {voltage.shape}, have its shape"
        )
    begin = np.array([float(state)])

    def rate(t: float, change: Array) -> Array:
        u = np.array([np.interp(t, time, voltage)])
        return np.asarray(law.rate(u, begin + change))

    return np.asarray(begin + integrate(rate, time, 1, rtol=rtol))[:, 0]


def integrate(
    rate: Callable[[float, Array], Array], time: Array, cells: int, *, rtol: float = 1e-9
) -> Array:
    """Change of many cells' states since the first time, by a stiff method (LSODA).

    The change is what is integrated, so that a disturb of 1e-9 is as exact as a write.
    Cells act on each other through wires only: the method's own matrix is diagonal.

    Parameters
    ----------
    rate : (t [s], change (cell,) [m]) -> (cell,) [m/s], smooth between two times.
    time : (point,) [s], rising.

    Returns
    -------
    (point, cell) [m].

    Raises ConvergenceError where the integration fails.
    """
    from scipy.integrate import solve_ivp

    def scaled(t: float, change: Array) -> Array:
        return rate(t, change * _NANOMETRE) / _NANOMETRE

    change = np.zeros((len(time), cells))
    for k, (start, end) in enumerate(pairwise(time)):
        found = solve_ivp(
            scaled, (start, end), change[k], method="LSODA", t_eval=[end],
            rtol=rtol, atol=1e-15, lband=0, uband=0,
        )  # fmt: skip
        if not (found.success and np.isfinite(found.y).all()):
            raise ConvergenceError(
                f"the state's integration failed: {found.message}",
                where=f"{start:g} s to {end:g} s",
                remedy="ask for a larger rtol",
            )
        change[k + 1] = found.y[:, -1]
    return change * _NANOMETRE
