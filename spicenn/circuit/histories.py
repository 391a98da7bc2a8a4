"""A history of voltages on cells with a state, read after every step, as a netlist; pure.

Each level of the history is held for a while and followed by a read at one small voltage,
as a tester programs and reads: what a level does to the state is seen apart from what the
cell's static law makes of it. All cells of a netlist see the same voltage, each between it
and a virtual ground of its own, ``i(vs_k)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.circuit.check import check_netlist
from spicenn.circuit.tolerances import Tolerances
from spicenn.errors import InputError
from spicenn.technology import Cell

Array = NDArray[np.float64]

# The logarithm of a memristor's current is then within 5e-4 of its law's integral, after a
# runaway too, where a lone early error grows most.
HISTORY_TOLERANCES = Tolerances(reltol=1e-6, vntol=1e-9, abstol=1e-15)
# Steps per plateau, at least: a state that hardly moves does not hold the simulator's own.
_STEPS_PER_PLATEAU = 20
_WORDS_PER_LINE = 8
_ZERO_CELSIUS = 273.15


@dataclass(frozen=True, kw_only=True)
class StepAndRead:
    """How a level is applied and read.

    Parameters
    ----------
    width : for which a level is held [s].
    edge : from one voltage to the next [s].
    read : voltage of the read [V], too small to move the state.
    read_width : for which it is held [s]; the current is taken at its end.

    Raises InputError for a time that is not positive or a read of 0 V.
    """

    width: float = 1e-6
    edge: float = 1e-8
    read: float = 0.1
    read_width: float = 5e-8

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            good = math.isfinite(value) and (value != 0 if field.name == "read" else value > 0)
            if not good:
                raise InputError(f"{field.name} = {value!r} is out of range", where="step and read")

    @property
    def period(self) -> float:
        """From one level to the next [s]."""
        return self.width + self.read_width + 2 * self.edge

    def read_times(self, steps: int) -> Array:
        """(step,) [s] at which the currents are taken."""
        return np.asarray(self.period * np.arange(1, steps + 1), dtype=np.float64)


def reversal_history(
    levels: ArrayLike, reversals: Sequence[int]
) -> tuple[Array, NDArray[np.int64]]:
    """Return first-order reversal curves as one history: down to a reversal and up again.

    Parameters
    ----------
    levels : (level,) [V], rising; the last one saturates the cell.
    reversals : index of the level at which each curve turns, in order.

    Returns
    -------
    history : (step,) [V]: the last level, then for every curve the levels below it down to
        its reversal and up again to the last.
    curve : (step,) number of the curve that a step belongs to; the first step has the first's.

    Raises InputError for levels that do not rise or a reversal that is none of them.
    """
    values = np.asarray(levels, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.all(np.diff(values) > 0):
        raise InputError("levels must be at least two and rise", where="reversal_history")
    top = len(values) - 1
    if not len(reversals) or not all(0 <= k < top for k in reversals):
        raise InputError(
            f"reversals {list(reversals)!r} are not all indices in 0 … {top - 1}",
            where="reversal_history",
        )
    index, curve = [top], [0]
    for number, turn in enumerate(reversals):
        steps = [*range(top - 1, turn - 1, -1), *range(turn + 1, top + 1)]
        index += steps
        curve += [number] * len(steps)
    return values[index], np.array(curve)


def render_history(
    cell: Cell,
    parameters: Mapping[str, ArrayLike],
    history: ArrayLike,
    steps: StepAndRead,
    *,
    temperature: float = 300.0,
    tolerances: Tolerances = HISTORY_TOLERANCES,
) -> str:
    """Return the transient of a history on cells that differ by their parameters.

    Parameters
    ----------
    cell : with a subcircuit, of any state.
    parameters : of the subcircuit by name, ``g`` among them or not, (cell,) each.
    history : (step,) [V].
    temperature : [K].

    Raises InputError for parameters or a history that do not fit, NetlistError for a cell
    with text that must not reach ngspice.
    """
    levels = np.asarray(history, dtype=np.float64)
    if levels.ndim != 1 or not levels.size or not np.isfinite(levels).all():
        raise InputError(f"a history of shape {levels.shape} is not finite steps", where=cell.name)
    values = check_parameters(cell, parameters)
    check_netlist(cell.netlist, where=f"cell {cell.name}")
    count = len(next(iter(values.values())))
    common = [f"{key}={value!r}" for key, value in cell.parameters if key not in values]
    time, volts = _waveform(levels, steps)
    longest = steps.width / _STEPS_PER_PLATEAU
    body = [
        f"* spicenn history of {levels.size} levels on {count} cells {cell.name}",
        # One error of the charge in trtol = 1 of the tolerance: a state is a charge.
        f".options klu {tolerances.options()} trtol=1 chgtol=1e-18",
        f".temp {temperature - _ZERO_CELSIUS!r}",
        *cell.netlist.splitlines(),
        *_lines("vx x 0 pwl(", [f"{t!r} {v!r}" for t, v in zip(time, volts, strict=True)], ")"),
    ]
    for k in range(count):
        own = [f"{key}={float(column[k])!r}" for key, column in values.items()]
        body += _lines(f"xc_{k} x s_{k} {cell.name}", [*common, *own])
        body.append(f"vs_{k} s_{k} 0 0")
    body += [
        *_lines(".save", [current_name(k) for k in range(count)]),
        f".tran {longest!r} {time[-1]!r} 0 {longest!r}",
        ".end",
    ]
    return "\n".join(body) + "\n"


def current_name(cell: int) -> str:
    """Vector of the current out of a cell [A]."""
    return f"i(vs_{cell})"


def check_parameters(cell: Cell, parameters: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """Parameters as arrays (cell,). Raises InputError where they are not the cell's or differ."""
    if cell.is_ohmic:
        raise InputError("a resistor has no history", where=cell.name)
    values = {key: np.asarray(value, dtype=np.float64) for key, value in parameters.items()}
    for key, column in values.items():
        if key not in cell.defaults:
            known = ", ".join(sorted(cell.defaults))
            raise InputError(
                f"{key!r} is not a parameter", where=cell.name, remedy=f"it has {known}"
            )
        if column.ndim != 1 or not np.isfinite(column).all():
            raise InputError(f"{key} of shape {column.shape} is not (cell,)", where=cell.name)
    lengths = {len(column) for column in values.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise InputError(
            f"parameters are of {sorted(lengths)} cells",
            where=cell.name,
            remedy="give one per cell",
        )
    return values


def _waveform(levels: Array, steps: StepAndRead) -> tuple[list[float], list[float]]:
    """Corners of the voltage: 0 V, then for every level its plateau and its read."""
    start = steps.period * np.arange(len(levels))[:, None]
    within = np.cumsum([steps.edge, steps.width, steps.edge])
    read_ends = steps.read_times(len(levels))[:, None]
    time = np.concatenate([start + within, read_ends], axis=1).ravel()
    read = np.full_like(levels, steps.read)
    volts = np.stack([levels, levels, read, read], axis=1).ravel()
    return [0.0, *time.tolist()], [0.0, *volts.tolist()]


def _lines(head: str, words: Sequence[str], end: str = "") -> list[str]:
    cuts = [*range(0, len(words), _WORDS_PER_LINE), len(words)]
    lines = [head, *(f"+ {' '.join(words[a:b])}" for a, b in pairwise(cuts))]
    return [*lines[:-1], lines[-1] + end]
