"""An array of memristors with a source on every line: as a netlist, and as a block by its law.

Both have the same sources and probes, so that a process that writes one writes the other:
sources ``vw_i`` of the wordlines and ``vb_j`` of the bitlines, currents ``i(vb_j)`` out of
the bitlines, and states ``xarray.xc_i_j.gap``, 1 V per nm. A single cell is an array of
1 x 1, a column one of n x 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.circuit import Crossbar
from spicenn.circuit.check import check_netlist
from spicenn.circuit.names import known_name, near
from spicenn.circuit.render import render_subcircuit, words
from spicenn.cosim.block import Threshold
from spicenn.engines.engine import check_shapes
from spicenn.engines.nodal import segments
from spicenn.engines.write import memristor_of
from spicenn.errors import InputError
from spicenn.kirchhoff import linear, newton
from spicenn.kirchhoff.linear import require_converged
from spicenn.kirchhoff.memristor import Memristor, integrate

Array = NDArray[np.float64]
Cell = tuple[int, int]

_ZERO_CELSIUS = 273.15
_NANOMETRE = 1e-9
# As in ``engines.write``: of the states' change, and of the currents in the wires.
_ODE_RTOL = 1e-7
_NEWTON_RTOL = 1e-9
# Two times are the same where doubles cannot tell a sum from its parts.
_SAME = 1e-15


@dataclass(frozen=True)
class ArrayPins:
    """Names of an array's sources and probes, for the processes that write and read it.

    wordlines, bitlines : how many.
    block : name of the block that the array is, where there are several.
    """

    wordlines: int
    bitlines: int
    block: str = ""

    def wordline(self, i: int) -> str:
        """The source of a wordline."""
        return self._within(f"vw_{i}")

    def bitline(self, j: int) -> str:
        """The source at the end of a bitline."""
        return self._within(f"vb_{j}")

    def current(self, j: int) -> str:
        """The current out of a bitline [A]."""
        return self._within(f"i(vb_{j})")

    def state(self, i: int, j: int) -> str:
        """The gap of a cell, 1 V per nm."""
        return self._within(f"xarray.xc_{i}_{j}.gap")

    @property
    def probes(self) -> tuple[str, ...]:
        """All currents, then all states, row by row."""
        currents = [self.current(j) for j in range(self.bitlines)]
        return (*currents, *(self.state(i, j) for i, j in self.cells))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """(wordline, bitline) of every cell, row by row."""
        return tuple(np.ndindex(self.wordlines, self.bitlines))

    def _within(self, name: str) -> str:
        return f"{self.block}:{name}" if self.block else name


def array_netlist(
    crossbar: Crossbar, g: ArrayLike, parameters: Mapping[str, ArrayLike] | None = None
) -> str:
    """Return an array of memristors, every line driven, as a netlist for a co-simulation.

    Parameters
    ----------
    crossbar : of the cell ``memristor``; its wires, drivers' and sensing resistances are in.
    g : (wordline, bitline) at 0 V, where the cells start [S].
    parameters : of the law that differ from cell to cell, each (wordline, bitline).

    Raises InputError for a cell without a state, arrays that do not fit, parameters that
    the law has not, or that are out of its range.
    """
    array = _checked(crossbar, g, parameters)
    rows, columns = range(crossbar.wordlines), range(crossbar.bitlines)
    ports = [f"in_{i}" for i in rows] + [f"s_{j}" for j in columns]
    check_netlist(crossbar.cell.netlist, where=f"cell {crossbar.cell.name}")
    body = [
        f"memristors of {crossbar.name}: {crossbar.wordlines} x {crossbar.bitlines}",
        # One error of the charge in trtol = 1 of the tolerance: a state is a charge.
        ".options trtol=1",
        f".temp {crossbar.temperature - _ZERO_CELSIUS!r}",
        *crossbar.cell.netlist.splitlines(),
        *render_subcircuit(replace(crossbar, name="array"), array.g, array.parameters).splitlines(),
        *words("xarray", [*ports, "array"]),
        *(f"vw_{i} in_{i} 0 dc 0 external" for i in rows),
        *(f"vb_{j} s_{j} 0 dc 0 external" for j in columns),
    ]
    return "\n".join(body) + "\n"


class MemristorArray:
    """An array of memristors as a block: the law of every cell, integrated; wires by Kirchhoff.

    The circuit of ``array_netlist`` but for capacitances: wires and the cells' currents are
    settled at each instant, nothing but the states has a memory. While every line is at
    0 V time costs nothing. Nothing crosses here: it has no thresholds to look out for.

    Parameters
    ----------
    crossbar, g, parameters : as for ``array_netlist``.
    name : what errors call it.
    rtol : of the states' change.

    Raises InputError as ``array_netlist`` does.
    """

    def __init__(
        self,
        crossbar: Crossbar,
        g: ArrayLike,
        parameters: Mapping[str, ArrayLike] | None = None,
        *,
        name: str = "memristors",
        rtol: float = _ODE_RTOL,
    ) -> None:
        if not 0 < rtol < 1:
            raise InputError(f"rtol = {rtol!r} is not within 0 … 1", where=name)
        array = _checked(crossbar, g, parameters)
        self.name = name
        self.time = 0.0
        self.pins = ArrayPins(crossbar.wordlines, crossbar.bitlines)
        self._shape = array.g.shape
        self._rtol = rtol
        self._law = array.law
        self._each: Mapping[str, Any] = {
            key: values.ravel() for key, values in array.parameters.items()
        }
        self._all = replace(array.law, **self._each)
        self._g = array.g.ravel()
        self._begin = np.asarray(self._all.state_of_conductance(self._g))
        # What is integrated is the change: a disturb of 1e-9 is as exact as a write.
        self._change = np.zeros(self._g.size)
        r_wordline, r_bitline = crossbar.segments()
        self._wired = bool(r_wordline.any() or r_bitline.any())
        self._segments = segments(crossbar)
        rows = [f"vw_{i}" for i in range(crossbar.wordlines)]
        self._sources = (*rows, *(f"vb_{j}" for j in range(crossbar.bitlines)))
        self._lines = [_Line() for _ in self._sources]
        self._probes = self.pins.probes
        self._until = 0.0
        # Where the last stretch began, for samples within it.
        self._last = (0.0, self._change)
        self._points = [self._point(0.0, self._change)]

    @property
    def probes(self) -> tuple[str, ...]:
        """Currents out of the bitlines [A], and the cells' gaps, 1 V per nm."""
        return self._probes

    @property
    def sources(self) -> tuple[str, ...]:
        """Of the wordlines, then of the bitlines."""
        return self._sources

    def check_probe(self, probe: str) -> str:
        """The probe's own name. Raises InputError where there is none of this name."""
        return known_name(probe, self._probes, "probe", where=self.name)

    def check_source(self, source: str) -> str:
        """The source's own name. Raises InputError where there is none of this name."""
        return known_name(source, self._sources, "external source", where=self.name)

    def watch(self, threshold: Threshold) -> None:
        """Raises InputError: this block looks out for nothing."""
        raise InputError(
            "the law of memristors alone has no crossings",
            where=f"{self.name}, probe {threshold.probe}",
            remedy="run the array in ngspice: array_netlist(…)",
        )

    def unwatch(self, key: int) -> None:
        """Nothing was looked out for."""

    def drive(self, source: str, level: float, start: float, rise: float) -> None:
        """Have a source go to a level [V], from ``start`` on [s], within ``rise`` [s]."""
        self._lines[self._sources.index(source)].go(level, max(start, self.time), rise)

    def sample(self, probe: str, time: float) -> float:
        """Value of a probe at a time that was reached, no further back than the last start."""
        change = self._change
        if time < self.time * (1 - _SAME):
            start, change = self._last
            change = self._moved(change, start, time)
        return float(self._point(time, change)[1 + self._probes.index(probe)])

    def begin(self, until: float) -> None:
        """Set out for a time [s]; the work is done in ``finish``."""
        self._until = until

    def finish(self) -> list[tuple[int, float]]:
        """Integrate. Nothing crosses. Raises ConvergenceError where the integration fails."""
        if self._until > self.time:
            self._last = (self.time, self._change)
            self._change = self._moved(self._change, self.time, self._until, record=True)
            self.time = self._until
            for line in self._lines:
                line.forget(self._last[0])
        return []

    def traces(self) -> tuple[Array, Mapping[str, Array]]:
        """Times (point,) [s] and values (point,) of every probe: at all corners of the drives."""
        table = np.array(self._points).T
        return table[0], dict(zip(self._probes, table[1:], strict=True))

    def close(self) -> None:
        """Nothing is held."""

    @property
    def conductance(self) -> Array:
        """(wordline, bitline) at 0 V, now [S]."""
        return self._conductance(self._change).reshape(self._shape)

    def _conductance(self, change: Array) -> Array:
        return np.asarray(self._g * np.exp(-change / self._all.gap0))

    def _moved(self, change: Array, start: float, end: float, *, record: bool = False) -> Array:
        """Change of the states [m] at ``end``, from that at ``start``."""
        corners = {t for line in self._lines for t in line.corners if start < t < end}
        for t0, t1 in pairwise([start, *sorted(corners), end]):
            change = self._stretch(change, t0, t1)
            if record:
                self._points.append(self._point(t1, change))
        return change

    def _stretch(self, change: Array, start: float, end: float) -> Array:
        """The same where every source goes straight from its level to another."""
        # Just after a corner and just before one: a slope of no duration is a jump there.
        first = np.array([line.level(start, after=True) for line in self._lines])
        last = np.array([line.level(end, after=False) for line in self._lines])
        if not (first.any() or last.any()):
            return change
        u0, u1 = self._unwired(first), self._unwired(last)
        moving = np.arange(len(change)) if self._wired else np.flatnonzero((u0 != 0) | (u1 != 0))
        if not len(moving):
            return change
        each: Mapping[str, Any] = {key: values[moving] for key, values in self._each.items()}
        law = replace(self._law, **each)
        begin, u0, u1 = self._begin[moving] + change[moving], u0[moving], u1[moving]

        def rate(t: float, further: Array) -> Array:
            part = t / (end - start)
            if self._wired:
                u = self._across(first + (last - first) * part, change + further)
            else:
                u = u0 + (u1 - u0) * part
            return np.asarray(law.rate(u, begin + further))

        further = integrate(rate, np.array([0.0, end - start]), len(moving), rtol=self._rtol)[-1]
        moved = change.copy()
        moved[moving] += further
        return moved

    def _unwired(self, levels: Array) -> Array:
        """(cell,) [V] across the cells where wires are ideal."""
        rows = self._shape[0]
        return np.asarray((levels[:rows, None] - levels[rows:]).ravel())

    def _across(self, levels: Array, change: Array) -> Array:
        """(cell,) [V] across the cells."""
        if not self._wired or not levels.any():
            return self._unwired(levels)
        rows = self._shape[0]
        r_wordline, r_bitline = self._segments
        v0 = {"v0": self._each["v0"].reshape(1, *self._shape)} if "v0" in self._each else None
        found = newton.solve(
            self._law.static, self._conductance(change).reshape(1, *self._shape),
            r_wordline, r_bitline, v=levels[:rows].reshape(1, 1, -1), parameters=v0,
            rtol=_NEWTON_RTOL,
            linear_solve=partial(linear.solve, ends=levels[rows:].reshape(1, 1, -1)),
        )  # fmt: skip
        require_converged(found.residual, _NEWTON_RTOL)
        return np.asarray((found.on_wordline - found.on_bitline)[0, 0]).ravel()

    def _point(self, time: float, change: Array) -> Array:
        """Time and the values of all probes."""
        u = self._across(np.array([line.level(time) for line in self._lines]), change)
        current = self._all.static.current(u, self._conductance(change))
        bitlines = current.reshape(self._shape).sum(axis=0)
        return np.concatenate([[time], bitlines, (self._begin + change) / _NANOMETRE])


class _Line:
    """What a source was told: slopes as (start, level before, end, level after), newest last."""

    def __init__(self) -> None:
        self._slopes = [(-1.0, 0.0, -1.0, 0.0)]

    @property
    def corners(self) -> list[float]:
        return [t for start, _, end, _ in self._slopes for t in (start, end)]

    def go(self, level: float, start: float, rise: float) -> None:
        self._slopes.append((start, self.level(start), start + rise, level))

    def forget(self, since: float) -> None:
        """Drop what has no effect from a time on."""
        begun = [k for k, slope in enumerate(self._slopes) if slope[0] < since]
        del self._slopes[: begun[-1] if begun else 0]

    def level(self, time: float, *, after: bool = True) -> float:
        """At a time; at that of a jump what follows it, or what comes before it."""
        for start, before, end, level in reversed(self._slopes):
            if time > start or (after and time == start):  # the newest that has begun
                if time >= end:
                    return level
                return before + (level - before) * (time - start) / (end - start)
        return self._slopes[0][1]


@dataclass(frozen=True, eq=False)
class _Array:
    """g [S] and what differs from cell to cell, (wordline, bitline) each, and the law else."""

    g: Array
    parameters: Mapping[str, Array]
    law: Memristor


def _checked(
    crossbar: Crossbar, g: ArrayLike, parameters: Mapping[str, ArrayLike] | None
) -> _Array:
    law = memristor_of(crossbar)
    g = np.asarray(g, dtype=np.float64)
    own = sorted({field.name for field in fields(Memristor)} - {"temperature"})
    each = {}
    for key, values in (parameters or {}).items():
        if key not in own:
            raise InputError(
                f"a memristor has no parameter {key!r}{near(key, own)}", where=crossbar.name
            )
        each[key] = np.asarray(values, dtype=np.float64)
    check_shapes(
        crossbar, g[np.newaxis], np.zeros((1, 1, crossbar.wordlines)),
        {key: values[np.newaxis] for key, values in each.items()},
    )  # fmt: skip
    for cell in np.ndindex(g.shape) if each else ():
        try:
            replace(law, **{key: float(values[cell]) for key, values in each.items()})
        except InputError as error:
            raise InputError(
                error.what, where=f"{crossbar.name}, cell {cell}", remedy=error.remedy
            ) from None
    return _Array(g, each, law)
