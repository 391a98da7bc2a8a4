"""Where a network's voltages come to rest, in ngspice: what ``equilibrium`` is checked against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import Tolerances
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.learning.hardware import LearningChip
from spicenn.learning.netlist import OPERATING_TOLERANCES, operating_netlist, operating_vectors

Array = NDArray[np.float64]


def operating_points(
    engine: NgspiceEngine,
    chip: LearningChip,
    values: Array,
    inputs: Array,
    *,
    copy: int = 0,
    clamped: Array | None = None,
    nudge: tuple[float, Array] | None = None,
    tolerances: Tolerances = OPERATING_TOLERANCES,
) -> Array:
    """Simulate the operating points of one copy of a network, all samples in one sweep.

    Parameters
    ----------
    values : (value,). inputs : (sample, input) [V].
    Others as of ``equilibrium``, (sample, output).

    Returns (sample, node + 1) [V]. Raises what ``NgspiceEngine.run`` raises.
    """
    text = operating_netlist(
        chip, values, inputs, copy=copy, clamped=clamped, nudge=nudge, tolerances=tolerances
    )
    vectors = operating_vectors(chip, copy)
    found = engine.run(text, list(dict.fromkeys(vectors)))
    volts = np.array([found[name] for name in vectors]).T
    return np.hstack([volts, np.zeros((len(volts), 1))])
