"""Writing an array and what reading does to it: simulated in ngspice, or by Kirchhoff and an ODE.

Both solve the same circuit: every wire segment, a driver on every line, every cell's
state. ``nodal`` takes the wires and the cells' currents as settled at each instant,
which they are: nothing but the states has a memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from spicenn.circuit import Crossbar, load_cell
from spicenn.circuit.write import (
    CELL_CLASSES,
    Drive,
    Pulse,
    Scheme,
    Target,
    across_node,
    cell_classes,
    read_drive,
    render_write,
    scheme_of,
    state_node,
    write_drive,
)
from spicenn.engines import opened
from spicenn.engines.engine import Array, Engine, check_shapes
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.engines.nodal import segments
from spicenn.errors import InputError
from spicenn.kirchhoff import linear, newton
from spicenn.kirchhoff.linear import require_converged
from spicenn.kirchhoff.memristor import Memristor, integrate

_NANOMETRE = 1e-9
# Of the states' change in the nodal engine; its currents are more exact.
_ODE_RTOL = 1e-7


@dataclass(frozen=True, eq=False)
class Written:
    """What a sequence of pulses did to an array.

    engine : which one says so.
    scheme : bias of the lines that were not selected.
    targets : (wordline, bitline, pulse) each.
    conductance : (pulse + 1, wordline, bitline) at 0 V [S], before the first pulse and
        after each.
    change : (pulse, wordline, bitline) relative change by each pulse; exact also where
        the difference of two conductances has no digits left.
    voltage : (pulse,) across the selected cell at the end of its plateau [V].
    runtime : of the simulation [s].
    """

    engine: str
    scheme: Scheme
    targets: tuple[Target, ...]
    conductance: Array
    change: Array
    voltage: Array
    runtime: float

    @property
    def before(self) -> Array:
        """(wordline, bitline) [S]."""
        return np.asarray(self.conductance[0])

    @property
    def after(self) -> Array:
        """(wordline, bitline) [S]."""
        return np.asarray(self.conductance[-1])

    def disturb(self, crossbar: Crossbar) -> Mapping[str, Array]:
        """Largest relative change by ``CELL_CLASSES``: (pulse,) each, NaN where no cell is."""
        found = {name: np.full(len(self.targets), np.nan) for name in CELL_CLASSES}
        for k, (i, j, _) in enumerate(self.targets):
            kinds = cell_classes(crossbar, i, j)
            for number, name in enumerate(CELL_CLASSES):
                if np.any(kinds == number):
                    found[name][k] = np.abs(self.change[k][kinds == number]).max()
        return found


@dataclass(frozen=True, eq=False)
class ReadDisturb:
    """What a train of reads did to an array.

    engine : which one says so.
    reads : how many.
    before, after : (wordline, bitline) at 0 V [S].
    change : (wordline, bitline) relative change by the whole train.
    """

    engine: str
    reads: int
    before: Array
    after: Array
    change: Array


def memristor_of(crossbar: Crossbar) -> Memristor:
    """Return the law of a crossbar's cells at its temperature.

    Raises InputError for a cell without a state.
    """
    cell = crossbar.cell
    if cell.is_ohmic or cell.name != "memristor" or cell.netlist != load_cell("memristor").netlist:
        raise InputError(
            f"the cell {cell.name!r} has no state to be written",
            where=crossbar.name,
            remedy="build the crossbar with load_cell('memristor')",
        )
    own = {field.name for field in fields(Memristor)} - {"temperature"}
    values = {key: cell.parameter(key) for key in own}
    return Memristor(**values, temperature=crossbar.temperature)


def write_pulses(
    crossbar: Crossbar,
    g: Array,
    targets: Sequence[Target],
    *,
    scheme: str | Scheme = "v/2",
    engine: str | Engine = "ngspice",
    r_bitline_driver: float | None = None,
    rest: float = 1e-9,
) -> Written:
    """Write cells one after the other, each by a pulse, all others biased by the scheme.

    Where both engines are within their tolerances, they agree to 1e-3 of every cell's
    own change, disturbed ones included.

    Parameters
    ----------
    crossbar : of memristors. ``r_driver`` is in series with every wordline.
    g : (wordline, bitline) at 0 V [S]. A cell outside of the law's range moves inwards
        only, one that is open not at all.
    targets : (wordline, bitline, pulse) each.
    scheme : a name out of ``SCHEMES``, or one of your own.
    engine : "ngspice", "nodal" or one that is open.
    r_bitline_driver : in series with every bitline while writing [Ω]; ``r_sense`` if None.
    rest : time at 0 V around the pulses [s].

    Raises InputError for a cell without a state or an argument that does not fit, what
    ``NgspiceEngine.run`` raises, ConvergenceError.
    """
    law = memristor_of(crossbar)
    g = _checked(crossbar, g)
    if r_bitline_driver is not None:
        if not 0 <= r_bitline_driver < np.inf:
            raise InputError(f"r_bitline_driver = {r_bitline_driver!r} is not at least 0")
        crossbar = replace(crossbar, r_sense=r_bitline_driver)
    drive = write_drive(crossbar, targets, scheme, rest=rest)
    probes = [(i, j) for i, j, _ in targets]
    start = perf_counter()
    name, gap, voltage = _run(engine, crossbar, law, g, drive, probes)
    runtime = perf_counter() - start
    gap = np.concatenate([np.zeros((1, *g.shape)), gap])
    return Written(
        engine=name,
        scheme=scheme_of(scheme),
        targets=tuple(targets),
        conductance=g * np.exp(-gap / law.gap0),
        change=np.expm1(-np.diff(gap, axis=0) / law.gap0),
        voltage=voltage,
        runtime=runtime,
    )


def read_disturb(
    crossbar: Crossbar,
    g: Array,
    pulse: Pulse,
    reads: int,
    *,
    inputs: Array | None = None,
    engine: str | Engine = "nodal",
) -> ReadDisturb:
    """Read an array many times and say how far its cells have moved.

    ngspice simulates every read. ``nodal`` takes one that lasts as many times as long,
    edges too: what moves a state is its voltage and itself, so that only the order of
    plateaus and edges differs, an error of the second order in the change per read. A
    million reads cost it as much as one.

    Parameters
    ----------
    g : (wordline, bitline) at 0 V [S].
    pulse : of one read, on the wordlines.
    reads : how many.
    inputs : (wordline,) share of the amplitude on every wordline; all of it if None.

    Raises as ``write_pulses`` does.
    """
    law = memristor_of(crossbar)
    g = _checked(crossbar, g)
    with opened(engine) as running:
        if running.name == "nodal":
            longer = {key: getattr(pulse, key) * max(reads, 1) for key in ("width", "rise", "fall")}
            drive = read_drive(crossbar, replace(pulse, **longer), min(reads, 1), inputs=inputs)
        else:
            drive = read_drive(crossbar, pulse, reads, inputs=inputs)
        name, gap, _ = _run(running, crossbar, law, g, drive, [])
    change = gap[-1] / law.gap0
    return ReadDisturb(name, reads, g, g * np.exp(-change), np.expm1(-change))


def _checked(crossbar: Crossbar, g: Array) -> Array:
    g = np.asarray(g, dtype=np.float64)
    check_shapes(crossbar, g[np.newaxis], np.zeros((1, 1, crossbar.wordlines)), {})
    return g


def _run(
    engine: str | Engine,
    crossbar: Crossbar,
    law: Memristor,
    g: Array,
    drive: Drive,
    probes: Sequence[tuple[int, int]],
) -> tuple[str, Array, Array]:
    """Name of the engine, change of the gaps since the start (pulse, wordline, bitline) [m],
    voltage across the probed cells (pulse,) [V] at the ends of the plateaus."""
    with opened(engine) as running:
        if isinstance(running, NgspiceEngine):
            return running.name, *_simulate(running, crossbar, g, drive, probes)
        return running.name, *_solve(crossbar, law, g, drive, probes, running.tolerances["rtol"])


def _simulate(
    engine: NgspiceEngine,
    crossbar: Crossbar,
    g: Array,
    drive: Drive,
    probes: Sequence[tuple[int, int]],
) -> tuple[Array, Array]:
    netlist = render_write(crossbar, g, drive, probes=probes)
    states = [state_node(i, j) for i, j in np.ndindex(g.shape)]
    vectors = ["time", *states, *dict.fromkeys(across_node(i, j) for i, j in probes)]
    found = engine.run(netlist, vectors)

    def at(points: Any, vector: str) -> Array:
        return np.asarray(np.interp(drive.time[points], found["time"], found[vector]))

    gap = np.array([at(drive.end, state) - found[state][0] for state in states]).T
    voltage = [at(drive.plateau, across_node(*cell))[k] for k, cell in enumerate(probes)]
    return gap.reshape(-1, *g.shape) * _NANOMETRE, np.array(voltage)


def _solve(
    crossbar: Crossbar,
    law: Memristor,
    g: Array,
    drive: Drive,
    probes: Sequence[tuple[int, int]],
    rtol: float,
) -> tuple[Array, Array]:
    r_wordline, r_bitline = segments(crossbar)
    begin = law.state_of_conductance(g)

    def voltages(t: float, change: Array) -> Array:
        """(wordline, bitline) [V] across the cells."""
        wordline, bitline = (_at(drive.time, volts, t) for volts in (drive.wordline, drive.bitline))
        if not (wordline.any() or bitline.any()):
            return np.zeros(g.shape)
        now = g * np.exp(-change.reshape(g.shape) / law.gap0)
        found = newton.solve(
            law.static, now[np.newaxis], r_wordline, r_bitline, v=wordline.reshape(1, 1, -1),
            rtol=rtol, linear_solve=partial(linear.solve, ends=bitline.reshape(1, 1, -1)),
        )  # fmt: skip
        require_converged(found.residual, rtol)
        return np.asarray((found.on_wordline - found.on_bitline)[0, 0])

    def rate(t: float, change: Array) -> Array:
        state = begin + change.reshape(g.shape)
        return np.asarray(law.rate(voltages(t, change), state)).ravel()

    change = integrate(rate, drive.time, g.size, rtol=_ODE_RTOL)
    voltage = [
        voltages(float(drive.time[point]), change[point])[cell]
        for point, cell in zip(drive.plateau, probes, strict=False)
    ]
    return change[drive.end].reshape(-1, *g.shape), np.array(voltage)


def _at(time: Array, volts: Array, t: float) -> Array:
    """(line,) between the points of (point, line)."""
    k = int(np.clip(np.searchsorted(time, t) - 1, 0, len(time) - 2))
    share = (t - time[k]) / (time[k + 1] - time[k])
    return np.asarray(volts[k] + share * (volts[k + 1] - volts[k]))
