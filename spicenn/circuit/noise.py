"""Noise as circuit elements: drawn series as sources for transients, and ``.noise`` netlists.

ngspice's own ``trnoise`` cannot be seeded, so a transient's noise is drawn in NumPy
(``spicenn.technology.noise``) and written into the netlist as numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit.crossbar import Crossbar
from spicenn.circuit.render import render_subcircuit, table
from spicenn.errors import InputError, NetlistError

Array = NDArray[np.float64]

_NODE = re.compile(r"[a-z0-9_.]+\Z")
_PREFIX = re.compile(r"[a-z][a-z0-9_]*\Z")
_ZERO_CELSIUS = 273.15


def noise_sources(
    nodes: Sequence[tuple[str, str]], currents: Array, dt: float, prefix: str
) -> list[str]:
    """Return current sources that add drawn series to a transient netlist.

    A source goes in straight lines from step to step and holds its last value. So white
    noise of step dt reaches the circuit with its density times sinc⁴(f dt): right where
    the circuit is slow against dt, 2.9 % low at f = 1 / (15 dt).

    They are tables of the time, which ngspice looks up by bisection; its own PWL sources
    search from the start, a time that grows as the square of the series. A table puts no
    time point on its steps; one source on a node of its own, ``PREFIX_clock``, does.

    Parameters
    ----------
    nodes : per source, where its current leaves the circuit and where it comes back. With a
        cell's wordline and bitline (``render.cell_nodes``) it adds to the current through the cell.
    currents : (source, time) [A], the first at time 0.
    dt : step [s].
    prefix : of the sources' names, ``bPREFIX_0`` and so on.

    Raises InputError for shapes and values that do not fit, NetlistError for a name that
    must not reach ngspice.
    """
    series = np.asarray(currents, dtype=np.float64)
    if series.ndim != 2 or series.shape[0] != len(nodes) or series.shape[1] == 0:
        raise InputError(
            f"currents have shape {series.shape}, expected ({len(nodes)}, time)", where=prefix
        )
    if not np.isfinite(series).all():
        raise InputError("currents hold values that are not finite", where=prefix)
    if not 0 < dt < math.inf:
        raise InputError(f"dt = {dt!r} is not a positive time", where=prefix)
    for name, pattern in ((prefix, _PREFIX), *((n, _NODE) for pair in nodes for n in pair)):
        if not pattern.match(name):
            raise NetlistError(
                f"{name[:60]!r} is no name", remedy="use lower-case letters, digits, underscores"
            )
    times = [repr(k * dt) for k in range(series.shape[1])]
    if len(times) == 1:  # a table has two points at least
        times, series = [*times, repr(dt)], np.repeat(series, 2, axis=1)
    # Up, stay, down, stay: an edge every dt.
    clock = " ".join(repr(float(x)) for x in (0, 1, 0, dt, dt, dt, 4 * dt))
    lines = [f"v{prefix}_clock {prefix}_clock 0 pulse({clock})"]
    for k, ((start, end), values) in enumerate(zip(nodes, series.tolist(), strict=True)):
        pairs = [f"{time},{value!r}" for time, value in zip(times, values, strict=True)]
        lines += table(f"b{prefix}_{k} {start} {end} i=pwl(time,", pairs)
    return lines


def render_noise(
    crossbar: Crossbar,
    g: Array,
    bitline: int,
    *,
    r_feedback: float,
    frequencies: tuple[float, float] = (1e3, 1e6),
    points: int = 1,
    gain: float = 1e9,
) -> str:
    """Return a ``.noise`` netlist of one bitline into a transimpedance stage, inputs held.

    The output is ``out``; its density is (S + 4 k T / r_feedback) r_feedback² with the S
    of ``kirchhoff.thermal_noise``. The other bitlines end in grounds. ``.noise`` refuses
    KLU, so the netlist leaves the solver to ngspice's default.

    Parameters
    ----------
    g : (wordline, bitline) [S].
    bitline : whose noise. r_feedback : [Ω].
    frequencies : first and last [Hz]; points : of them per decade.
    gain : of the amplifier.

    Raises InputError for a cell that is not ohmic (a behavioural source is noiseless), a
    bitline that is not there, or values out of range.
    """
    if not crossbar.cell.is_ohmic:
        raise InputError(
            "a cell of behavioural sources is noiseless in ngspice",
            where=crossbar.name,
            remedy="use noise_sources in a transient",
        )
    if not 0 <= bitline < crossbar.bitlines:
        raise InputError(f"bitline {bitline} is not one of {crossbar.bitlines}")
    low, high = frequencies
    if not (0 < low <= high < math.inf and points >= 1 and 0 < r_feedback < math.inf and gain > 0):
        raise InputError("frequencies, points, r_feedback and gain must be positive and ordered")
    ends = [f"s_{j}" for j in range(crossbar.bitlines)]
    inputs = [f"in_{i}" for i in range(crossbar.wordlines)]
    ports = [*inputs, *ends]
    body = [
        f"* spicenn noise of bitline {bitline} of crossbar {crossbar.name}",
        f".temp {crossbar.temperature - _ZERO_CELSIUS!r}",
        *render_subcircuit(crossbar, g).splitlines(),
        "xarray",
        *(f"+ {' '.join(ports[k : k + 8])}" for k in range(0, len(ports), 8)),
        f"+ {crossbar.name}",
        *(f"vi_{i} {node} 0 0{' ac 1' if i == 0 else ''}" for i, node in enumerate(inputs)),
        *(f"vs_{j} {node} 0 0" for j, node in enumerate(ends) if j != bitline),
        f"eamp out 0 0 s_{bitline} {float(gain)!r}",
        f"rfeedback s_{bitline} out {float(r_feedback)!r}",
        f".noise v(out) vi_0 dec {points} {float(low)!r} {float(high)!r}",
        ".end",
    ]
    return "\n".join(body) + "\n"
