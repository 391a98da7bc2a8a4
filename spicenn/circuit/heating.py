"""A crossbar whose cells warm themselves and each other, as a netlist; pure.

The array is the subcircuit ``xarray`` of cells of ``netlists/heated.lib``; resistors
``rhw_i_j`` and ``rhb_i_j`` lead heat from cell (i, j) to the next one on its wordline and on
its bitline. A cell's rise over ambient is the voltage of ``xarray.xc_i_j.heat``, 1 V per 1000 K.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit.crossbar import Crossbar
from spicenn.circuit.render import comment_text, input_tables, render_subcircuit, words
from spicenn.circuit.tolerances import Tolerances
from spicenn.errors import InputError
from spicenn.technology.heating import Heating
from spicenn.technology.library import load_cell

Array = NDArray[np.float64]

# What 1 V of a cell's node ``heat`` is [K]; see the cell's text.
KELVIN_PER_VOLT = 1000.0
_ZERO_CELSIUS = 273.15
# Least number of a transient's steps; its own error control takes more.
_STEPS = 200


def render_heating(
    crossbar: Crossbar,
    heating: Heating,
    g: Array,
    v: Array,
    *,
    duration: float | None = None,
    tolerances: Tolerances | None = None,
    header: Sequence[str] = (),
) -> str:
    """Return a netlist that plain ``ngspice -b`` runs.

    One sample is an operating point, several are a sweep of the index source ``vidx``, both
    with the heat settled. With a duration it is a transient: the inputs are there from the
    start, when all cells are at ambient temperature.

    Parameters
    ----------
    crossbar : of ohmic cells.
    g : (wordline, bitline) at ambient temperature [S].
    v : (sample, wordline) or (wordline,) [V].
    duration : of a transient [s], of one sample.
    tolerances : of the solver; the defaults of ``Tolerances``.
    header : comment lines, any text.

    Raises InputError for shapes that do not fit, for cells that are not ohmic, and for a
    transient of several samples.
    """
    g, v = np.asarray(g, np.float64), np.atleast_2d(np.asarray(v, np.float64))
    shape = (crossbar.wordlines, crossbar.bitlines)
    check_heating(crossbar, g, v)
    if duration is not None and (len(v) != 1 or not 0 < duration < math.inf):
        raise InputError(
            f"a transient of {len(v)} samples and {duration!r} s", where=crossbar.name,
            remedy="pass one sample and a positive time",
        )  # fmt: skip
    cell = load_cell("heated", alpha=heating.alpha, rth=heating.r_thermal, cth=heating.c_thermal)
    ports = [f"in_{i}" for i in range(shape[0])] + [f"s_{j}" for j in range(shape[1])]
    sensed = [f"i(vs_{j})" for j in range(shape[1])]
    # A temperature is a charge: of its error in a step, trtol = 1 takes all as tolerance.
    accuracy = "" if duration is None else " trtol=1"
    if duration is not None:
        kind, analysis = "tran", f".tran {duration / _STEPS!r} {duration!r} uic"
    elif len(v) == 1:
        kind, analysis = "op", ".op"
    else:
        kind, analysis = "dc", f".dc vidx 0 {len(v) - 1} 1"
    body = [
        f"* spicenn heat of crossbar {crossbar.name}: {shape[0]} wordlines x {shape[1]} bitlines",
        *(f"* {comment_text(line)}" for line in header),
        f".options klu {(tolerances or Tolerances()).options()}{accuracy}",
        f".temp {crossbar.temperature - _ZERO_CELSIUS!r}",
        *cell.netlist.splitlines(),
        *render_subcircuit(replace(crossbar, name="array", cell=cell), g).splitlines(),
        *words("xarray", [*ports, "array"]),
        *_coupling(shape, heating.r_coupling),
        *(input_tables(v) if kind == "dc" else _levels(v[0])),
        "* virtual grounds",
        *(f"vs_{j} s_{j} 0 0" for j in range(shape[1])),
        *words(".save", [*sensed, *heat_vectors(crossbar)]),
        analysis,
        *words(f".print {kind}", sensed),
        ".end",
    ]
    return "\n".join(body) + "\n"


def heat_vectors(crossbar: Crossbar) -> list[str]:
    """Vectors of all cells' rises over ambient, ``KELVIN_PER_VOLT``, row by row."""
    shape = (crossbar.wordlines, crossbar.bitlines)
    return [f"v({_heat(i, j)})" for i, j in np.ndindex(shape)]


def check_heating(crossbar: Crossbar, g: Array, v: Array) -> None:
    """Raise InputError unless arrays (wordline, bitline) and (sample, wordline) fit ohmic cells."""
    shape = (crossbar.wordlines, crossbar.bitlines)
    if not crossbar.cell.is_ohmic:
        raise InputError(
            f"the heat of the cell {crossbar.cell.name!r} is not known", where=crossbar.name,
            remedy="use ohmic cells: what is programmed is their conductance at ambient",
        )  # fmt: skip
    if g.shape != shape or not (np.all(np.isfinite(g)) and np.all(g > 0)):
        raise InputError(
            f"g of shape {g.shape} must be finite and positive, {shape}", where=crossbar.name
        )
    if v.ndim != 2 or v.shape[1] != shape[0] or not len(v) or not np.all(np.isfinite(v)):
        raise InputError(
            f"v of shape {v.shape} must be finite, (sample, {shape[0]})", where=crossbar.name
        )


def _heat(wordline: int, bitline: int) -> str:
    return f"xarray.xc_{wordline}_{bitline}.heat"


def _coupling(shape: tuple[int, int], resistance: float) -> list[str]:
    if resistance == math.inf:
        return []
    value, lines = f"{float(resistance)!r} noisy=0", ["* heat between neighbours, K/W"]
    for i, j in np.ndindex(shape):
        if j + 1 < shape[1]:
            lines.append(f"rhw_{i}_{j} {_heat(i, j)} {_heat(i, j + 1)} {value}")
        if i + 1 < shape[0]:
            lines.append(f"rhb_{i}_{j} {_heat(i, j)} {_heat(i + 1, j)} {value}")
    return lines


def _levels(v: Array) -> list[str]:
    return ["* inputs [V]", *(f"vi_{i} in_{i} 0 {x!r}" for i, x in enumerate(v.tolist()))]
