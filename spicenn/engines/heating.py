"""Crossbars whose cells warm themselves and each other: in ngspice, or by Kirchhoff twice.

Both solve the same two networks, the array's wires and cells and the cells' thermal nodes,
each with what the other gives it: the cells' power i v, and their conductance g (1 + alpha T).
``nodal`` takes turns. At given voltages the heat is linear too, p = g (1 + alpha T) u², so
that a turn solves it exactly, and with ideal wires one turn is all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from scipy.sparse import csc_array, diags_array, kron
from scipy.sparse.linalg import splu

from spicenn.circuit import Crossbar, Tolerances
from spicenn.circuit.heating import (
    KELVIN_PER_VOLT,
    check_heating,
    heat_vectors,
    render_heating,
)
from spicenn.engines import opened
from spicenn.engines.engine import Array, Engine, Parameters, Solution, WrappedEngine, check_shapes
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.engines.ngspice.results import Results
from spicenn.engines.nodal import NodalEngine, segments
from spicenn.errors import ConvergenceError, EngineError, InputError, SpicennError
from spicenn.kirchhoff import linear
from spicenn.kirchhoff.linear import require_converged
from spicenn.technology.heating import Heating

# Turns between the two networks, each of which leaves the wires' share of the last error.
_MOST_TURNS = 100
# Of the relative change of conductance, in a turn and in a transient's integration.
_RTOL = 1e-10
_ODE_RTOL = 1e-9
_STABLE = 4.0


@dataclass(frozen=True, eq=False)
class Heated:
    """Operating points with the heat settled.

    engine : which one says so.
    current : (sample, bitline) [A].
    rise : (sample, wordline, bitline) of the cells over ambient [K].
    runtime : of the simulation [s].
    """

    engine: str
    current: Array
    rise: Array
    runtime: float


@dataclass(frozen=True, eq=False)
class WarmUp:
    """What a constant input does to an array that was at ambient temperature.

    engine : which one says so.
    time : (point,) since the input came [s].
    current : (point, bitline) [A].
    rise : (point, wordline, bitline) over ambient [K].
    runtime : of the simulation [s].
    """

    engine: str
    time: Array
    current: Array
    rise: Array
    runtime: float


def heated_currents(
    crossbar: Crossbar, heating: Heating, g: Array, v: Array, engine: str | Engine = "nodal"
) -> Heated:
    """Solve an array of ohmic cells with the heat of every input settled.

    Parameters
    ----------
    g : (wordline, bitline) at ambient temperature [S].
    v : (sample, wordline) or (wordline,) [V].
    engine : "ngspice", "nodal" or one that is open.

    Raises InputError for arguments that do not fit, ConvergenceError where the heat runs
    away, and what ``NgspiceEngine.run`` raises.
    """
    g, v = np.asarray(g, np.float64), np.atleast_2d(np.asarray(v, np.float64))
    check_heating(crossbar, g, v)
    with opened(engine) as running:
        start = perf_counter()
        if isinstance(running, NgspiceEngine):
            current, rise = _simulate(running, crossbar, heating, g, v)
        elif isinstance(running, NodalEngine):
            current, rise = _solve(crossbar, heating, g, v, running.tolerances["rtol"])
        else:
            raise _unknown(running)
        return Heated(running.name, current, rise, perf_counter() - start)


def warm_up(
    crossbar: Crossbar,
    heating: Heating,
    g: Array,
    v: Array,
    time: Array,
    engine: str | Engine = "nodal",
) -> WarmUp:
    """Follow an array from ambient temperature after an input has come at time 0.

    Lines have no capacitance here: they settle in nanoseconds, heat in microseconds.

    Parameters
    ----------
    g : (wordline, bitline) at ambient temperature [S].
    v : (wordline,) [V].
    time : (point,) rising, positive [s].
    engine : "ngspice", "nodal" or one that is open.

    Raises as ``heated_currents`` does.
    """
    g, v = np.asarray(g, np.float64), np.asarray(v, np.float64)
    time = np.asarray(time, np.float64)
    if time.ndim != 1 or not len(time) or not (np.all(np.diff(time, prepend=0.0) > 0)):
        raise InputError("time must rise from above 0", where=crossbar.name)
    if v.ndim != 1:
        raise InputError(f"v has shape {v.shape}, expected (wordline,)", where=crossbar.name)
    check_heating(crossbar, g, v[np.newaxis])
    with opened(engine) as running:
        start = perf_counter()
        if isinstance(running, NgspiceEngine):
            current, rise = _simulate_transient(running, crossbar, heating, g, v, time)
        elif isinstance(running, NodalEngine):
            current, rise = _integrate(crossbar, heating, g, v, time, running.tolerances["rtol"])
        else:
            raise _unknown(running)
        return WarmUp(running.name, time, current, rise, perf_counter() - start)


def thermal_conductance(heating: Heating, wordlines: int, bitlines: int) -> Any:
    """Thermal network of an array as a sparse matrix: powers [W] are its product with rises [K].

    Returns
    -------
    (cell, cell) [W/K], cells row by row; symmetric, positive definite. Its inverse is the
    thermal kernel.
    """
    network = diags_array(np.full(wordlines * bitlines, 1.0 / heating.r_thermal))
    if heating.r_coupling < math.inf:
        along = kron(diags_array(np.ones(wordlines)), _chain(bitlines))
        across = kron(_chain(wordlines), diags_array(np.ones(bitlines)))
        network = network + (along + across) / heating.r_coupling
    return csc_array(network)


class HeatedEngine(WrappedEngine):
    """Tiles of chips with the heat of every input settled. The engine under it stays open.

    Parameters
    ----------
    engine : an ``NgspiceEngine`` or a ``NodalEngine``.
    heating : of every tile.
    """

    def __init__(self, engine: Engine, heating: Heating) -> None:
        if not isinstance(engine, NgspiceEngine | NodalEngine):
            raise _unknown(engine)
        super().__init__(engine, "heated")
        self.heating = heating

    def solve(
        self, crossbar: Crossbar, g: Array, v: Array, parameters: Parameters | None = None
    ) -> Solution:
        """See ``Engine.solve``. Raises InputError for cells that are not ohmic."""
        check_shapes(crossbar, g, v, parameters or {})
        result = Results(len(g), v.shape[1], crossbar.bitlines)
        for chip in range(len(g)):
            try:
                found = heated_currents(
                    crossbar, self.heating, g[chip], v[chip % len(v)], self._engine
                )
                result.put(chip, found.current, found.runtime)
            except InputError:
                raise
            except SpicennError as error:
                result.fail(chip, error, 0.0)
        return result.solution()


def heated(engine: Engine, heating: Heating) -> HeatedEngine:
    """Return an engine whose tiles warm themselves; see ``HeatedEngine``."""
    return HeatedEngine(engine, heating)


def _chain(length: int) -> Any:
    """Nodes of a line, each joined to the next one by 1."""
    ends = np.full(length, 2.0)
    ends[0] -= 1.0
    ends[-1] -= 1.0
    side = -np.ones(max(length - 1, 0))
    return diags_array([side, ends, side], offsets=[-1, 0, 1], shape=(length, length))


def _solve(
    crossbar: Crossbar, heating: Heating, g: Array, v: Array, rtol: float
) -> tuple[Array, Array]:
    network = thermal_conductance(heating, *g.shape)
    rise = np.zeros((len(v), *g.shape))
    for _ in range(_MOST_TURNS):
        current, u = _electrical(crossbar, g * (1 + heating.alpha * rise), v, rtol)
        before, rise = rise, _settled(network, heating.alpha, g, u, crossbar.name)
        if np.abs(heating.alpha * (rise - before)).max() <= _RTOL:
            return current, rise
    raise ConvergenceError(
        f"currents and temperatures did not agree in {_MOST_TURNS} turns", where=crossbar.name,
        remedy="lower the voltages: the heat is about to run away",
    )  # fmt: skip


def _electrical(crossbar: Crossbar, hot: Array, v: Array, rtol: float) -> tuple[Array, Array]:
    """Currents (sample, bitline) and voltages across the cells (sample, wordline, bitline)."""
    found = linear.solve(hot, *segments(crossbar), v=v[:, np.newaxis], rtol=rtol)
    require_converged(found.residual, rtol)
    return found.current[:, 0], (found.on_wordline - found.on_bitline)[:, 0]


def _settled(network: Any, alpha: float, g: Array, u: Array, where: str) -> Array:
    """Rises (sample, wordline, bitline) at given voltages across the cells.

    (A - diag(alpha g u²)) T = g u². For a positive alpha this matrix is one of positive
    definite ones, with a stable answer, exactly where T is positive: it has no positive
    entries off its diagonal (Berman, Plemmons, Nonnegative Matrices, 1994, chapter 6).
    """
    rise = np.empty(u.shape)
    for sample, power in enumerate(g * np.square(u)):
        flat = power.ravel()
        try:
            factors = splu(csc_array(network - diags_array(alpha * flat)))
        except RuntimeError:  # exactly singular
            raise _runaway(where, sample) from None
        rise[sample] = factors.solve(flat).reshape(g.shape)
        _require_warm(rise[sample], where, sample)
    return rise


def _require_warm(rise: Array, where: str, sample: int) -> None:
    if not (np.isfinite(rise).all() and rise.min() >= -_ODE_RTOL * max(rise.max(), 0.0)):
        raise _runaway(where, sample)


def _runaway(where: str, sample: int) -> ConvergenceError:
    return ConvergenceError(
        "the heat runs away: the cells' power grows faster with their temperature than "
        "what flows to ambient",
        where=f"{where}, sample {sample}",
        remedy="lower the voltages, or alpha or r_thermal of the heating",
    )


def _unknown(engine: Engine) -> EngineError:
    return EngineError(
        f"the engine {engine.name!r} knows nothing of heat", remedy="use 'ngspice' or 'nodal'"
    )


def _integrate(
    crossbar: Crossbar, heating: Heating, g: Array, v: Array, time: Array, rtol: float
) -> tuple[Array, Array]:
    from scipy.integrate import solve_ivp

    network = thermal_conductance(heating, *g.shape)

    def state(flat: Array) -> tuple[Array, Array]:
        hot = g * (1 + heating.alpha * flat.reshape(g.shape))
        current, u = _electrical(crossbar, hot[np.newaxis], v[np.newaxis], rtol)
        return current[0], hot * np.square(u[0])

    def rate(_: float, flat: Array) -> Array:
        return np.asarray((state(flat)[1].ravel() - network @ flat) / heating.c_thermal)

    # An explicit method is stable, and no trial of it is far off, up to some of the time of
    # the fastest mode, by Gershgorin's bound.
    power = float((g * np.square(v[:, np.newaxis])).max())
    fastest = 2 * abs(network).sum(axis=1).max() + 2 * abs(heating.alpha) * power
    found = solve_ivp(
        rate, (0.0, float(time[-1])), np.zeros(g.size), method="DOP853", t_eval=time,
        max_step=_STABLE * heating.c_thermal / fastest,
        rtol=_ODE_RTOL, atol=max(_ODE_RTOL * power * heating.r_thermal, np.finfo(float).tiny),
    )  # fmt: skip
    if not (found.success and np.isfinite(found.y).all()):
        raise ConvergenceError(
            f"the temperatures' integration failed: {found.message}", where=crossbar.name,
            remedy="end the transient sooner, or lower the voltages: the heat may run away",
        )  # fmt: skip
    current = np.array([state(flat)[0] for flat in found.y.T])
    return current, found.y.T.reshape(-1, *g.shape)


def _simulate(
    engine: NgspiceEngine, crossbar: Crossbar, heating: Heating, g: Array, v: Array
) -> tuple[Array, Array]:
    netlist = render_heating(crossbar, heating, g, v, tolerances=_tolerances(engine))
    current, rise, _ = _run(engine, crossbar, netlist)
    if len(current) != len(v):
        raise EngineError(f"ngspice returned {len(current)} samples of {len(v)}")
    for sample, each in enumerate(rise):
        _require_warm(each, crossbar.name, sample)
    return current, rise


def _simulate_transient(
    engine: NgspiceEngine, crossbar: Crossbar, heating: Heating, g: Array, v: Array, time: Array
) -> tuple[Array, Array]:
    netlist = render_heating(
        crossbar,
        heating,
        g,
        v,
        duration=float(time[-1]),
        tolerances=_tolerances(engine),
    )
    current, rise, at = _run(engine, crossbar, netlist, transient=True)

    def pick(values: Array) -> Array:
        columns = [np.interp(time, at, column) for column in values.reshape(len(at), -1).T]
        return np.array(columns).T

    return pick(current), pick(rise).reshape(-1, *g.shape)


def _tolerances(engine: NgspiceEngine) -> Tolerances:
    values: dict[str, Any] = dict(engine.tolerances)
    return Tolerances(**values)


def _run(
    engine: NgspiceEngine, crossbar: Crossbar, netlist: str, *, transient: bool = False
) -> tuple[Array, Array, Array]:
    """Currents (point, bitline), rises (point, wordline, bitline), times (point,)."""
    sensed, heat = [f"i(vs_{j})" for j in range(crossbar.bitlines)], heat_vectors(crossbar)
    found = engine.run(netlist, [*sensed, *heat, *(["time"] if transient else [])])
    rise = KELVIN_PER_VOLT * np.array([found[name] for name in heat]).T
    return (
        np.array([found[name] for name in sensed]).T,
        rise.reshape(-1, crossbar.wordlines, crossbar.bitlines),
        found["time"] if transient else np.empty(0),
    )
