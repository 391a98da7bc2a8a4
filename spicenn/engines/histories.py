"""Cells with a state under a history of voltages in ngspice: first-order reversal curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.circuit.histories import (
    StepAndRead,
    check_parameters,
    current_name,
    render_history,
    reversal_history,
)
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.technology import Cell

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """First-order reversal curves of several cells, one after the other.

    history : (step,) levels [V].
    curve : (step,) number of the curve that a step belongs to.
    current : (cell, step) read after each level [A], without noise.
    """

    history: Array
    curve: NDArray[np.int64]
    current: Array


def run_history(
    engine: NgspiceEngine,
    cell: Cell,
    parameters: Mapping[str, ArrayLike],
    history: ArrayLike,
    *,
    steps: StepAndRead | None = None,
    temperature: float = 300.0,
    timeout: float | None = None,
) -> Array:
    """Read the current of every cell after every level of a history.

    Parameters
    ----------
    cell : whose subcircuit has a state, e.g. ``load_cell("memristor")``.
    parameters : of the subcircuit by name, (cell,) each: what differs from cell to cell.
    history : (step,) [V].
    steps : how a level is applied and read.
    temperature : [K].

    Returns
    -------
    (cell, step) [A], without noise.

    Raises InputError for arguments that do not fit and what ``NgspiceEngine.run`` raises.
    """
    steps = steps or StepAndRead()
    levels = np.asarray(history, dtype=np.float64)
    count = len(next(iter(check_parameters(cell, parameters).values())))
    text = render_history(cell, parameters, levels, steps, temperature=temperature)
    names = [current_name(k) for k in range(count)]
    found = engine.run(text, ["time", *names], timeout=timeout, osdi=cell.osdi)
    # Reads end at corners of the waveform, where a transient stops: nothing is interpolated.
    times = steps.read_times(len(levels))
    return np.stack([np.interp(times, found["time"], found[name]) for name in names])


def first_reversal_curves(
    engine: NgspiceEngine,
    cell: Cell,
    parameters: Mapping[str, ArrayLike],
    levels: ArrayLike,
    reversals: Sequence[int],
    *,
    steps: StepAndRead | None = None,
    temperature: float = 300.0,
    timeout: float | None = None,
) -> Curves:
    """Measure first-order reversal curves of cells, all in one transient.

    Parameters
    ----------
    levels : (level,) [V], rising; the last one saturates the cell.
    reversals : index of the level at which each curve turns.

    Others as for ``run_history``, which says what is raised.
    """
    history, curve = reversal_history(levels, reversals)
    current = run_history(
        engine, cell, parameters, history, steps=steps, temperature=temperature, timeout=timeout
    )
    return Curves(history, curve, current)
